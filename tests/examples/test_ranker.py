"""The ranker example on a tiny made-up world: it runs from end to end, leaks nothing, and has no skew."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

pytest.importorskip("lightgbm", reason="leadre[examples] is not installed")

from examples.ranker import baseline, walk, worlds
from examples.ranker.candidates import purchases_against_negatives
from examples.ranker.lists import DAY, Making, with_lists
from examples.ranker.measures import auc, compare, gauc, log_loss
from examples.ranker.run import measure
from leadre.errors import ReleaseMismatch
from leadre.recipe import (
    DpoRecipe,
    EvaluationRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SftRecipe,
)
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

NOW = datetime(2026, 3, 15, tzinfo=UTC)
TINY = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=8),
    prompt=PromptRecipe(template="one_pass", budget_tokens=300),
    model=ModelRecipe(hidden_size=32, layers=1, heads=2, feed_forward=48, text_vocabulary=500),
    sft=SftRecipe(curriculum=(("main",),), epochs=(1.0,), learning_rate=1e-3, batch_size=16, device_batch_size=16),
    dpo=DpoRecipe(enabled=False),
    evaluation=EvaluationRecipe(cutoffs=(8,)),
)


def test_the_example_runs_without_skew_on_lists_that_had_not_seen_their_rows(applied: Settings) -> None:
    settings = replace(applied, engine="auto", beam_width=8)
    world = make_world(seed=5, ads=96, users=60, sessions=8, slate=4, days=20, now=NOW)
    making = Making(release=None, recipe=TINY, retrain=30 * DAY, every=DAY, say=lambda _: None)
    ready = worlds.made_up(settings, world, since=NOW - 8 * DAY, making=making)

    figures = measure(ready, seed=1, networks=True, skew_rows=200, say=lambda _: None)

    skew = figures["skew_of"]
    assert (figures["skew"], figures["scores_that_differ"]) == (0, 0)
    assert skew["rows"] == 200
    assert 0 <= skew["neutral"] < 200
    assert figures["rows_with_a_list"] == 1
    assert figures["lift_low"] <= figures["lift"] <= figures["lift_high"]
    assert figures["lift"] == pytest.approx(figures["auc_with"] - figures["auc_without"])
    database = connect(settings.database_url)
    with transaction(database) as connection:
        first = connection.scalar(text("SELECT min(event_at) FROM retrieval_log"))
        seen = connection.scalar(text("SELECT max(trained_until) FROM releases"))
    database.dispose()
    assert seen < first <= ready.rows["event_timestamp"].min()
    earlier = ready.rows.assign(event_timestamp=ready.rows["event_timestamp"] - timedelta(days=5))
    with pytest.raises(ReleaseMismatch, match="has seen"):
        with_lists(settings, earlier, replace(making, release=ready.releases[0]))


def test_a_row_of_the_baseline_sees_nothing_of_its_own_instant_or_later() -> None:
    events = [(1, 0, 7, 10), (1, 1, 7, 10), (2, 1, 7, 11), (3, 1, 8, 10), (4, 1, 8, 11), (5, 1, 9, 10)]
    at, kind, user, item = (np.array(of, np.int64) for of in zip(*events, strict=True))
    past = baseline.Past(
        events=(at * 10**6, kind, user, item),
        ads={ad: (0, ad % 2, 1, 2.0) for ad in (10, 11, 12)},
        users=dict.fromkeys((7, 8, 9), (-1.0, 0.0, 0, 0, 0, 0)),
        contents={},
    )
    rows = pd.DataFrame(
        {"user_id": 9, "ad_id": 11, "event_timestamp": pd.to_datetime([2, 3, 5, 6], unit="s", utc=True)}
    )
    found = baseline.features(past, rows.iloc[::-1]).loc[rows.index]
    assert found["a_positives"].tolist() == [0, 1, 2, 2]
    assert found["u_positives"].tolist() == [0, 0, 0, 1]
    assert found["cv_last"].tolist() == [0, 0, 0, pytest.approx(2 / math.sqrt(2 * 3))]


def test_candidates_are_as_popular_as_what_was_bought_and_never_own() -> None:
    rng = np.random.default_rng(0)
    days = pd.to_datetime(np.sort(rng.integers(0, 40, 3000)), unit="D", utc=True)
    bought = pd.DataFrame(
        {"user_id": rng.integers(0, 150, 3000), "ad_id": rng.integers(0, 80, 3000) // 2, "occurred_at": days}
    )
    bought = bought.drop_duplicates(["user_id", "ad_id"])
    since = datetime(1970, 1, 20, tzinfo=UTC)
    rows = purchases_against_negatives(bought, list(range(60)), since=since, sets=100, negatives=5, seed=1)
    assert rows.groupby(["user_id", "event_timestamp"])["label"].sum().eq(1).all()
    assert (rows["event_timestamp"] >= since).all()
    for (user_id, day), of_set in rows.groupby(["user_id", "event_timestamp"]):
        before = bought[bought["occurred_at"] < day]
        counts = before["ad_id"].value_counts()
        assert len({int(counts.get(ad_id, 0)).bit_length() for ad_id in of_set["ad_id"]}) == 1
        own = set(bought.loc[(bought["user_id"] == user_id) & (bought["occurred_at"] <= day), "ad_id"])
        assert not own & set(of_set.loc[of_set["label"] == 0, "ad_id"])


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), min_size=2, max_size=20))
def test_auc_counts_pairs(rows: list[tuple[int, bool, int]]) -> None:
    scores, labels, weights = (np.array(of, float) for of in zip(*rows, strict=True))
    pairs = [
        (weights[p] * weights[n], 1.0 if scores[p] > scores[n] else 0.5 if scores[p] == scores[n] else 0.0)
        for p in np.flatnonzero(labels)
        for n in np.flatnonzero(labels == 0)
    ]
    total = sum(weight for weight, _ in pairs)
    expected = sum(weight * won for weight, won in pairs) / total if total else 0.5
    assert auc(scores, labels, weights) == pytest.approx(expected)


def test_figures_of_a_comparison() -> None:
    users = np.repeat(np.arange(50), 4)
    labels = np.tile([1.0, 0, 0, 1], 50)
    good, flat = np.where(labels > 0, 0.9, 0.1), np.full(200, 0.5)
    assert (gauc(good, labels, users), gauc(flat, labels, users)) == (1.0, 0.5)
    assert log_loss(flat, labels) == pytest.approx(math.log(2))
    found = compare(good, flat, labels, users, seed=0)
    assert (found["auc"].value, found["auc"].low, found["auc"].high) == (0.5, 0.5, 0.5)
    assert found["log_loss"].value == pytest.approx(-math.log(0.9 / 0.5))


def test_every_leadre_column_is_a_feature_of_the_service() -> None:
    assert len(set(walk.NAMES)) == len(walk.NAMES)
    assert not set(walk.NAMES) & set(baseline.NAMES)
