"""A list made later as of an instant is the one that a worker would have written at that instant, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pytest
from sqlalchemy import text

from leadre.derivation import pack, unpack
from leadre.domain.behavior import Behavior, Domain, Impression, window_start
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.dataset.backfill import PastDecoder, choose_existing, plan
from leadre.pipelines.dataset.past import past_releases
from leadre.pipelines.dataset.rolling import rolling_releases
from leadre.pipelines.refresh import read_release
from leadre.retrieval.retriever import Retriever
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import transaction
from leadre.store.records.events import upsert_behaviors, upsert_impressions

from .conftest import NOW, QUICK_RECIPE, USERS, Past

INSTANTS = [NOW - timedelta(days=days, seconds=7) for days in (5, 3.4, 1.01, 0)]
Event = TypeVar("Event", Behavior, Impression)
EVERYBODY = list(range(USERS + 2))  # two of them strangers
TOGETHER = 6 if USERS < 100 else 64


@pytest.mark.parametrize("engine", ["stub", "auto"])
def test_a_list_made_later_is_the_one_a_worker_would_have_written(past: Past, engine: Literal["stub", "auto"]) -> None:
    settings = replace(past.settings, engine=engine)
    if engine == "auto":
        rolling_releases(
            settings, INSTANTS[:1], recipe=QUICK_RECIPE, index_version="i1", retrain_every=timedelta(days=1)
        )
    with transaction(past.database) as connection:
        for table in ("behaviors", "impressions", "user_state"):
            connection.execute(text(f"DELETE FROM {table}"))
        release = past_releases(connection)[0]
    if engine == "stub":
        _leave_own_ads_out(Path(release.row.uri))
    loaded = read_release(settings, release.row, index=AdIndex.load(past.settings.indexes / "i1"))
    features = FeatureClient(past.settings.feature_repo, past.settings.feast_environment())
    worker = Retriever(
        database=past.database,
        features=features,
        engine=loaded.engine,
        encoder=loaded.encoder,
        index=loaded.index,
        recipe=loaded.recipe,
        release=loaded.release,
        seen=loaded.seen,
        beam_width=past.settings.beam_width,
    )
    since, kept = NOW - timedelta(days=100), set[int]()
    for at in INSTANTS:
        with transaction(past.database) as connection:
            upsert_behaviors(connection, _between(past.world.behaviors, since, at), arrived_at=at)
            upsert_impressions(connection, _between(past.world.impressions, since, at), arrived_at=at)
        for start in range(0, len(EVERYBODY), TOGETHER):
            for given in worker.refresh(EVERYBODY[start : start + TOGETHER], now=at):
                own = _own_ads(past, given.user_id, at, days=loaded.recipe.prompt.window_days)
                kept |= own & {beam.ad_id for beam in given.beams}
        since = at
    features.close()
    assert (loaded.seen == "keep") == bool(kept)
    served = _records(past)
    with transaction(past.database) as connection:
        upsert_behaviors(connection, past.world.behaviors, arrived_at=NOW)
        upsert_impressions(connection, past.world.impressions, arrived_at=NOW)
        connection.execute(text("TRUNCATE retrieval_log"))

    plan(past.database, choose_existing(past.database, INSTANTS), user_ids=np.array(EVERYBODY))
    PastDecoder(settings, database=past.database, batch=TOGETHER).work_off()

    made = _records(past)
    assert len(served) == len(EVERYBODY) * len(INSTANTS)
    assert made.keys() == served.keys()
    assert [key for key, record in served.items() if made[key] != record] == []
    assert len(set(made.values())) > len(EVERYBODY)
    assert (unpack(made.values()).expected_ecpm > 0).all()


def _leave_own_ads_out(release: Path) -> None:
    """Let a release say that its lists leave own ads out."""
    manifest = json.loads((release / "manifest.json").read_text())
    manifest["facts"]["seen"] = "leave_out"
    (release / "manifest.json").write_text(json.dumps(manifest))


def _own_ads(past: Past, user_id: int, at: datetime, *, days: int) -> set[int]:
    """Return what a user clicked or converted on in the window before an instant."""
    return {
        row.item_id
        for row in past.world.behaviors
        if row.user_id == user_id
        and row.domain is Domain.AD
        and row.positive
        and window_start(at, days=days) <= row.occurred_at < at
    }


def _between(events: Sequence[Event], since: datetime, until: datetime) -> list[Event]:
    return [event for event in events if since <= event.occurred_at < until]


def _records(past: Past) -> dict[tuple[int, object], bytes]:
    """The lists in the log as unfenced records: lists of the past are not fenced, and no feature knows the fence."""
    with transaction(past.database) as connection:
        rows = connection.execute(text("SELECT user_id, event_at, record FROM retrieval_log")).all()
    lists = unpack([bytes(row.record) for row in rows])
    none = np.zeros(len(rows), dtype=np.int64)
    records = pack(replace(lists, release_epochs=none, behavior_sequences=none))
    return {(row.user_id, row.event_at): record for row, record in zip(rows, records, strict=True)}
