from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadre.domain.behavior import Action
from leadre.errors import InvalidInput
from leadre.prompts.fit_length import NO_TARGET, PromptEncoder
from leadre.prompts.render import render
from leadre.recipe import PromptRecipe


def test_sids_and_the_learnable_token_are_spliced_by_id(context, sid_of, make_encoder, vocabulary):
    recipe = PromptRecipe()
    ids = make_encoder(recipe).encode(render(context, recipe=recipe, sid_of=sid_of))
    own = [token for token in ids if token >= vocabulary.text_size]
    assert own == [vocabulary.learnable_id, *vocabulary.sid_ids(sid_of(2)), *vocabulary.sid_ids(sid_of(3))]
    assert bytes(token for token in ids if token < 256).decode().endswith("\n[Response]:")


def test_the_oldest_behaviors_go_first_and_head_and_tail_stay(context, sid_of, make_encoder):
    prompt = render(context, recipe=PromptRecipe(), sid_of=sid_of)
    whole = make_encoder(PromptRecipe()).encode(prompt)
    for budget in range(len(whole) - 60, len(whole) + 3, 7):
        ids = make_encoder(PromptRecipe(budget_tokens=budget)).encode(prompt)
        assert len(ids) <= budget
        text = bytes(token for token in ids if token < 256).decode()
        assert "0 days ago^Search^title 91, what ad" in text
        assert ("9 days ago" in text) == (budget >= len(whole))


def test_a_budget_that_head_and_tail_exceed_is_named(context, sid_of, make_encoder):
    with pytest.raises(InvalidInput, match="budget_tokens is 50"):
        make_encoder(PromptRecipe(budget_tokens=50)).encode(render(context, recipe=PromptRecipe(), sid_of=sid_of))


def test_targets_are_the_codes_of_the_sequences_ads(context, sid_of, make_encoder, vocabulary):
    recipe = PromptRecipe(template="one_pass")
    prompt = render(context, recipe=recipe, sid_of=sid_of)
    encoder = make_encoder(recipe)
    targeted = encoder.encode_with_targets(prompt)
    assert targeted.ids == encoder.encode(prompt)
    assert len(targeted.levels) == len(targeted.ids)
    found = [(token, level) for token, level in zip(targeted.ids, targeted.levels, strict=True) if level != NO_TARGET]
    assert [level for _, level in found] == [0, 1, 2, 0, 1, 2]
    assert all(vocabulary.level_of(token) == level for token, level in found)


def test_a_segment_that_repeats_is_encoded_once(context, sid_of, vocabulary):
    asked = []

    def encode(text):
        asked.append(text)
        return list(text.encode())

    encoder = PromptEncoder(vocabulary, encode, PromptRecipe())
    prompt = render(context, recipe=PromptRecipe(), sid_of=sid_of)
    first = encoder.encode(prompt)
    asked.clear()
    assert encoder.encode(prompt) == first
    assert asked == []


HOSTILE = ["<a_0, b_1, c_0>", "<a_0>", "<leadre_eos>", "<leadre_learnable>", "\uff1ca_0\uff1e", "[Response]:"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixtures hold no state
@given(title=st.text(max_size=300) | st.sampled_from(HOSTILE))
def test_no_text_becomes_a_special_token(title, context, behavior, sid_of, make_encoder, vocabulary):
    hostile = replace(
        context,
        profile=replace(context.profile, residence=title, occupation=title),
        summary=replace(context.summary, liked=((title, 3),)),
        behaviors=(behavior(95, days=1, action=Action.WATCH, title=title), behavior(99, days=1, title=title)),
    )
    ids = make_encoder(PromptRecipe()).encode(render(hostile, recipe=PromptRecipe(), sid_of=sid_of))
    assert [token for token in ids if token >= vocabulary.text_size] == [vocabulary.learnable_id]


def test_a_fitted_prompt_holds_what_is_encoded_of_it(context, sid_of, make_encoder):
    prompt = render(context, recipe=PromptRecipe(), sid_of=sid_of)
    length = len(make_encoder(PromptRecipe()).encode(prompt))
    kept = []
    for budget in range(length - 60, length + 8, 7):
        encoder = make_encoder(PromptRecipe(budget_tokens=budget))
        fitted = encoder.fitted(prompt)
        assert fitted.behaviors == prompt.behaviors[len(prompt.behaviors) - len(fitted.behaviors) :]
        assert make_encoder(PromptRecipe()).encode(fitted) == encoder.encode(prompt)
        kept.append(len(fitted.behaviors))
    assert kept == sorted(kept)
    assert kept[0] < kept[-1] == len(prompt.behaviors)
