"""An explanation is the search's own: its levels end in the list, its probabilities multiply to the list's."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from datetime import timedelta

import numpy as np
import pytest

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import id_of
from leadre.domain.targeting import Targeting
from leadre.domain.users import ContextBehavior
from leadre.explain import explain_list, why
from leadre.explain.shown import reasons
from leadre.store.records import catalog
from leadre.store.records.database import transaction
from tests.explain.conftest import Asked


def test_the_levels_are_those_of_the_list(asked: Asked) -> None:
    lists = asked.retriever.loaded.lists(
        asked.contexts, inventory=asked.retriever.inventory, beam_width=7, now=asked.now
    )
    with transaction(asked.database) as connection:
        for context, found in zip(asked.contexts, lists, strict=True):
            told = explain_list(asked.retriever, context, connection=connection, now=asked.now, beam_width=7)
            last = told.levels[-1].kept
            assert [node.prefix for node in last] == [beam.sid.codes for beam in found.beams]
            assert [node.log_probability for node in last] == pytest.approx(
                [beam.log_probability for beam in found.beams], abs=1e-5
            )
            assert [one.ad.ad for one in told.retrieved] == [node.examples[0].ad for node in last]
            assert not told.reordered
            assert not told.fused


def test_each_level_grows_from_the_beams_before_it_and_nothing_above_the_cut_is_dropped(asked: Asked) -> None:
    with transaction(asked.database) as connection:
        told = explain_list(asked.retriever, asked.contexts[0], connection=connection, now=asked.now, beam_width=4)
    trie, before = asked.live.index.trie, {(): 0.0}
    for level in told.levels:
        assert level.candidates >= len(level.kept) + len(level.pruned)
        for node in (*level.kept, *level.pruned):
            above = before[node.prefix[:-1]]
            assert node.log_probability == pytest.approx(above + math.log(node.code_probability))
            found = trie.find(np.array([node.prefix], np.int32))
            low, high = trie.leaf_range(level.depth, found)
            assert node.ads == int(high[0] - low[0])
            assert sum(count for _, count in node.categories) <= node.ads
            assert node.examples
        orders = [node.order for node in (*level.kept, *level.pruned)]
        assert orders == sorted(orders, reverse=True)
        before = {node.prefix: node.log_probability for node in level.kept}


def test_an_ads_path_says_its_probability_its_rank_and_where_it_left(asked: Asked) -> None:
    context, ads = asked.contexts[1], asked.live.world.ads
    (whole,) = asked.retriever.loaded.lists(
        [context], inventory=asked.retriever.inventory, beam_width=len(ads), now=asked.now
    )
    probability = {beam.ad_id: beam.log_probability for beam in whole.beams}
    left = 0
    with transaction(asked.database) as connection:
        listed = explain_list(asked.retriever, context, connection=connection, now=asked.now, beam_width=5)
        ranks = {one.ad.ad: one.rank for one in listed.retrieved}
        for ad in ads[::4]:
            told = why(asked.retriever, context, ad.ad_id, connection=connection, now=asked.now, beam_width=5)
            assert told.may_be_shown
            assert told.reasons == ()
            assert told.log_probability == pytest.approx(probability[ad.ad_id], abs=1e-4)
            product = math.prod(code.probability for code in told.path)
            assert product == pytest.approx(math.exp(probability[ad.ad_id]), rel=1e-3)
            assert told.rank == ranks.get(told.ad.ad)
            assert (told.rank is None) == (told.left is not None)
            assert all(code.probability <= code.likeliest_probability for code in told.path)
            if told.left:
                left += 1
                assert told.left.order <= told.left.cut
                assert told.left.beams < told.left.place <= told.left.candidates
            shared = [other.shared for other in told.neighbours]
            assert shared == sorted(shared, reverse=True)
    assert left


def test_an_ad_that_may_not_be_shown_says_why_and_what_it_would_have_been(asked: Asked) -> None:
    context = replace(asked.contexts[0], profile=replace(asked.contexts[0].profile, age=70, sex="female"))
    (whole,) = asked.retriever.loaded.lists(
        [context], inventory=asked.retriever.inventory, beam_width=96, now=asked.now
    )
    best = whole.beams[:4]
    ads = {ad.ad_id: ad for ad in asked.live.world.ads}
    changes = {
        "paused": {"live": False},
        "budget_exhausted": {"budget_exhausted": True},
        "ended": {"ends_at": asked.now - timedelta(hours=1)},
        "targeting": {"targeting": Targeting.of({"age": [18, 30], "sex": ["male"]})},
    }
    with transaction(asked.database) as connection:
        catalog.upsert_ads(
            connection,
            [replace(ads[beam.ad_id], **change) for beam, change in zip(best, changes.values(), strict=True)],
        )
    later = asked.now + timedelta(minutes=1)
    with transaction(asked.database) as connection:
        for beam, kind in zip(best, changes, strict=True):
            told = why(asked.retriever, context, beam.ad_id, connection=connection, now=later, beam_width=96)
            assert not told.may_be_shown
            assert {reason.kind for reason in told.reasons} == {kind}
            assert told.log_probability == pytest.approx(beam.log_probability, abs=1e-4)
            assert told.rank == 1  # none of the others is in its way
        assert len(told.reasons) == 2
        assert "ages 18 to 30; the user's age is 70" in told.reasons[0].text
        listed = explain_list(asked.retriever, context, connection=connection, now=later, beam_width=96)
    assert not {id_of(one.ad.ad) for one in listed.retrieved} & {beam.ad_id for beam in best}


def test_reasons_and_filter_agree_for_every_ad_and_user(asked: Asked) -> None:
    targetings = [{}, {"age": [20, 40]}, {"sex": ["female"]}, {"residence": ["Beijing"], "age": [0, 60]}]
    ads = [
        replace(ad, live=place % 5 > 0, targeting=Targeting.of(targetings[place % 4]))
        for place, ad in enumerate(asked.live.world.ads)
    ]
    with transaction(asked.database) as connection:
        catalog.upsert_ads(connection, ads)
    later = asked.now + timedelta(minutes=1)
    asked.retriever.read_inventory(later)
    masks = asked.retriever.loaded.filters(asked.contexts, inventory=asked.retriever.inventory, now=later)
    for context, mask in zip(asked.contexts, masks, strict=True):
        for ad in ads:
            row = asked.live.index.rows(np.array([ad.ad_id]))
            assert mask is not None
            assert (not list(reasons(ad, context.profile, now=later))) == bool(mask.count(row, row + 1)[0])


def test_own_ads_are_named_where_the_release_leaves_them_out(asked: Asked) -> None:
    asked.retriever.loaded = replace(asked.retriever.loaded, seen="leave_out")
    ad = asked.live.world.ads[3]
    click = Behavior(
        user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=ad.ad_id, occurred_at=asked.now - timedelta(hours=1)
    )
    context = replace(asked.contexts[0], behaviors=(ContextBehavior(behavior=click, title=ad.name),))
    with transaction(asked.database) as connection:
        told = why(asked.retriever, context, ad.ad_id, connection=connection, now=asked.now)
    assert [reason.kind for reason in told.reasons] == ["own"]
    assert not told.may_be_shown


def test_an_ad_nobody_knows_is_answered_too(asked: Asked) -> None:
    with transaction(asked.database) as connection:
        told = why(asked.retriever, asked.contexts[0], 987_654_321, connection=connection, now=asked.now)
    assert [reason.kind for reason in told.reasons] == ["not_in_catalog", "not_in_index"]
    assert told.sid is None


def test_explanations_are_json(asked: Asked) -> None:
    ad = asked.live.world.ads[0]
    with transaction(asked.database) as connection:
        listed = explain_list(asked.retriever, asked.contexts[0], connection=connection, now=asked.now)
        told = why(asked.retriever, asked.contexts[0], ad.ad_id, connection=connection, now=asked.now)
    assert json.loads(json.dumps(asdict(listed), allow_nan=False))["levels"][0]["kept"][0]["prefix"]
    assert json.loads(json.dumps(asdict(told), allow_nan=False))["path"]
