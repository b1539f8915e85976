"""Preference pairs: the chosen ad earns more, both are likely, and nothing held out is used."""

from __future__ import annotations

from leadre.domain.behavior import Domain
from leadre.prompts.fit_length import PromptEncoder
from leadre.synthetic import World
from leadre.training.data.examples import TrainingData
from leadre.training.data.preferences import (
    MINIMUM_GAIN,
    Preference,
    encode_pairs,
    from_candidates,
    from_impressions,
)


def numbers(data: TrainingData) -> dict[int, int]:
    return {rows[0].user_id: number for number, rows in enumerate(data.sequences)}


def test_pairs_of_the_log_are_two_clicked_ads_of_which_the_chosen_one_earned_more(
    world: World, data: TrainingData
) -> None:
    pairs = from_impressions(world.impressions, data, user_numbers=numbers(data))
    assert len(pairs) > 10
    earned: dict[tuple[int, int], list[float]] = {}
    for shown in world.impressions:
        if shown.clicked:
            earned.setdefault((shown.user_id, shown.ad_id), []).append(shown.ecpm)
    for pair in pairs:
        user_id = data.sequences[pair.user][0].user_id
        assert pair.position in data.targets[pair.user]
        assert max(earned[user_id, pair.chosen]) >= MINIMUM_GAIN * min(earned[user_id, pair.rejected])


def test_pairs_of_the_log_use_no_held_out_ad(world: World, data: TrainingData) -> None:
    for pair in from_impressions(world.impressions, data, user_numbers=numbers(data)):
        learned = {data.sequences[pair.user][at].item_id for at in data.targets[pair.user]}
        assert {pair.chosen, pair.rejected} <= learned
        assert data.sequences[pair.user][pair.position].domain is Domain.AD


def test_generated_pairs_never_reject_the_ad_that_was_clicked(data: TrainingData) -> None:
    user = next(user for user, positions in enumerate(data.targets) if positions)
    position = data.targets[user][-1]
    clicked = data.sequences[user][position].item_id
    others = [ad.ad_id for ad in data.ads if ad.ad_id != clicked][:3]
    ecpm = {clicked: 0.5, others[0]: 4.0, others[1]: 4.1, others[2]: 9.0}
    pairs = from_candidates([(user, position, [*others, clicked])], ecpm, data, pairs_each=50, seed=1)
    found = {(pair.chosen, pair.rejected) for pair in pairs}
    assert found == {(others[2], others[0]), (others[2], others[1])}  # 4.0 and 4.1 are as good as equal


def test_encoded_pairs_are_capped_and_hold_sids(data: TrainingData, encoder: PromptEncoder) -> None:
    user = next(user for user, positions in enumerate(data.targets) if positions)
    first, second, third = (ad.ad_id for ad in data.ads[:3])
    pairs = [
        Preference(user=user, position=data.targets[user][0], chosen=first, rejected=second),
        Preference(user=user, position=data.targets[user][0], chosen=second, rejected=third),
        Preference(user=user, position=data.targets[user][0], chosen=first, rejected=-1),
    ]
    made = encode_pairs(pairs, data, encoder, limit=2, seed=0)
    assert 1 <= len(made) <= 2
    for pair in made:
        assert len(pair.chosen) == len(pair.rejected) == encoder.vocabulary.levels
        assert pair.chosen != pair.rejected
    assert len(encode_pairs(pairs, data, encoder, limit=9, seed=0)) == 2  # the unknown ad is passed over
