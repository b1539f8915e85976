"""Releases trained up to instants of the past: kept, never promoted, trained once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from leadre.pipelines.dataset.backfill import PastDecoder, plan
from leadre.pipelines.dataset.past import TICK
from leadre.pipelines.dataset.rolling import rolling_releases, trainings
from leadre.store.records.database import transaction
from leadre.store.release.records import ROLLING, list_releases

from .conftest import NOW, QUICK_RECIPE, Past


@pytest.mark.slow
def test_each_instant_is_decoded_by_a_release_trained_before_it(past: Past) -> None:
    day = timedelta(days=1)
    before_anything, *instants = [NOW - 60 * day, *(NOW - n * day for n in (4, 3, 2, 1))]
    settings, every = past.settings, 2 * day
    assert trainings(instants, every) == 2

    def rolled() -> list[tuple[object, str]]:
        found = rolling_releases(settings, instants, recipe=QUICK_RECIPE, index_version="i1", retrain_every=every)
        return [(at, release.row.release) for at, release in found]

    chosen = rolling_releases(settings, instants, recipe=QUICK_RECIPE, index_version="i1", retrain_every=every)
    assert [at for at, _ in chosen] == instants
    assert [release.seen_until for _, release in chosen] == [instants[0] - TICK] * 2 + [instants[2] - TICK] * 2
    with transaction(past.database) as connection:
        rows = {row.release: row for row in list_releases(connection)}
    made = {release.row.release for _, release in chosen}
    assert {rows[name].status for name in made} == {"candidate"}
    assert all(rows[name].metrics[ROLLING] for name in made)
    written = {name: (settings.releases / name / "manifest.json").stat().st_mtime_ns for name in made}
    assert rolled() == [(at, release.row.release) for at, release in chosen]
    assert written == {name: (settings.releases / name / "manifest.json").stat().st_mtime_ns for name in made}
    assert not rolling_releases(
        settings, [before_anything], recipe=QUICK_RECIPE, index_version="i1", retrain_every=every
    )

    plan(past.database, chosen, user_ids=np.arange(9))
    decoder = PastDecoder(replace(settings, engine="auto"), database=past.database)
    assert decoder.work_off() == 36
