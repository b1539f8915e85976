from hypothesis import given
from hypothesis import strategies as st

from leadre.prompts.augment import reuse_positives, target_positions, variation
from leadre.recipe import PromptRecipe


@given(st.lists(st.booleans(), max_size=30))
def test_every_ad_is_a_target_once_and_never_sees_itself(is_ad):
    samples = reuse_positives(range(len(is_ad)), is_ad)
    assert sorted(target for _, target in samples) == [at for at, ad in enumerate(is_ad) if ad]
    assert all(list(history) == list(range(target)) for history, target in samples)


def test_without_reuse_the_last_ad_alone_is_a_target():
    assert target_positions([True, False, True, True, False], reuse=False) == [3]
    assert target_positions([False, False], reuse=False) == []


def test_a_variation_is_drawn_by_its_seed_from_what_the_recipe_allows():
    plain = PromptRecipe()
    assert {(drawn.wording, drawn.profile_seed) for drawn in (variation(plain, seed=s) for s in range(20))} == {
        (0, None)
    }
    varied = PromptRecipe(templates=3, reorder_profile=True)
    assert {variation(varied, seed=s).wording for s in range(60)} == {0, 1, 2}
    assert variation(varied, seed=-5) == variation(varied, seed=-5)
    assert len({variation(varied, seed=s).profile_seed for s in range(60)}) == 60
    assert variation(PromptRecipe(templates=99), seed=3).wording < 4
