"""Lists of the past: only what was known then, once for each user and instant, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from leadre.derivation import unpack
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.errors import ConfigError, LeadreError, ReleaseMismatch
from leadre.logs import JsonFormatter
from leadre.pipelines.dataset.backfill import PastDecoder, choose_existing, instants_between, plan
from leadre.pipelines.dataset.past import contexts_before, past_releases
from leadre.store.past import shards
from leadre.store.past.shards import Waiting
from leadre.store.records.database import transaction
from leadre.store.records.events import upsert_behaviors

from .conftest import NOW, RECIPE_OF_TESTS, TRAINED, Past

DAYS = [NOW - timedelta(days=n) for n in (3, 2, 1)]
USERS = np.arange(40)


def logged(past: Past) -> dict[tuple[int, datetime, str], bytes]:
    with transaction(past.database) as connection:
        rows = connection.execute(text("SELECT user_id, event_at, release, record FROM retrieval_log")).all()
    return {(row.user_id, row.event_at, row.release): bytes(row.record) for row in rows}


def planned(past: Past, instants: list[datetime], *, users: NDArray[np.int64] = USERS) -> Waiting:
    return plan(past.database, choose_existing(past.database, instants), user_ids=users)


def work_off(past: Past, *, batch: int = 7) -> int:
    return PastDecoder(past.settings, database=past.database, batch=batch).work_off()


def test_every_user_gets_a_list_at_every_instant_and_asking_again_makes_none(past: Past) -> None:
    assert planned(past, DAYS).lists == 120
    assert work_off(past) == 120
    lists = logged(past)
    assert set(lists) == {(user, at, "r1") for user in USERS.tolist() for at in DAYS}
    read = unpack(lists.values())
    assert read.present.all()
    assert (read.counts == 8).all()
    assert (np.nan_to_num(read.behavior_at_s, nan=-1.0) < read.generated_at_s).all()
    assert planned(past, DAYS).shards == 0
    assert planned(past, DAYS, users=np.arange(41)).shards == 3
    assert work_off(past) == 3
    assert {key: logged(past)[key] for key in lists} == lists


def test_a_release_that_saw_the_instant_is_refused_and_the_newest_that_did_not_is_taken(past: Past) -> None:
    past.add_release("r2", until=DAYS[1])  # has seen the second instant itself
    past.add_release("unknown", until=None)
    chosen = choose_existing(past.database, [TRAINED, *DAYS])
    assert [(at, release.row.release) for at, release in chosen] == list(zip(DAYS, ("r1", "r1", "r2"), strict=True))
    with pytest.raises(ReleaseMismatch, match=r"release 'r2' has seen what happened until 2026-03-13.*rolling"):
        choose_existing(past.database, DAYS, release="r2")
    with pytest.raises(ConfigError, match="release 'unknown' does not say what it has seen"):
        choose_existing(past.database, DAYS, release="unknown")


def test_a_shard_planned_by_hand_with_a_release_that_saw_too_much_is_refused(past: Past) -> None:
    with transaction(past.database) as connection:
        shards.plan(connection, [(TRAINED - timedelta(days=1), "r1")], user_ids=USERS)
    with pytest.raises(ReleaseMismatch, match="has seen"):
        work_off(past)
    assert PastDecoder(past.settings, database=past.database).work_off(failures="note") == 0
    with transaction(past.database) as connection:
        assert "has seen" in str(shards.waiting(connection).problem)


def test_what_an_error_of_a_library_quotes_is_neither_logged_nor_kept(
    past: Past, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a title of theirs")

    planned(past, DAYS[:1])
    monkeypatch.setattr(PastDecoder, "_derive", broken)
    PastDecoder(past.settings, database=past.database).work_off(failures="note")
    with transaction(past.database) as connection:
        problem = str(shards.waiting(connection).problem)
    assert problem.startswith("ValueError at test_backfill.py:")
    written = "".join(JsonFormatter().format(record) for record in caplog.records)
    assert problem in written
    assert "title of theirs" not in written


def test_an_index_fitted_on_behaviors_has_seen_them(past: Past) -> None:
    with transaction(past.database) as connection:
        connection.execute(text('UPDATE index_versions SET recipe = recipe || \'{"signal": "collaborative"}\''))
        (release,) = past_releases(connection)
    assert release.seen_until == NOW  # when the index was built


def test_what_happens_at_the_instant_is_not_known_yet(past: Past) -> None:
    at = DAYS[0]
    behaviors = [
        Behavior(user_id=900, domain=Domain.AD, action=Action.CLICK, item_id=n, occurred_at=when, ordinal=0)
        for n, when in enumerate((at - timedelta(microseconds=1), at, at + timedelta(microseconds=1)))
    ]
    with transaction(past.database) as connection:
        upsert_behaviors(connection, behaviors, arrived_at=NOW)
        known, stranger = contexts_before(connection, [900, 901], at=at, recipe=RECIPE_OF_TESTS.prompt)
    assert [it.behavior.item_id for it in known.behaviors] == [0]
    assert (known.now, stranger.behaviors, stranger.profile.user_id) == (at, (), 901)


def test_ads_of_later_and_ads_out_of_schedule_are_not_retrieved_but_those_paused_today_are(past: Past) -> None:
    planned(past, DAYS[:1])
    with transaction(past.database) as connection:
        connection.execute(text("UPDATE ads SET event_at = :at WHERE ad_id < 30"), {"at": DAYS[1]})
        connection.execute(text("UPDATE ads SET ends_at = :at WHERE ad_id BETWEEN 30 AND 59"), {"at": DAYS[0]})
        connection.execute(text("UPDATE ads SET live = false WHERE ad_id >= 60"))
    work_off(past)
    retrieved = set(unpack(logged(past).values()).ad_ids.tolist())
    assert retrieved
    assert min(retrieved) >= 60


def test_a_killed_backfill_goes_on_where_it_was_and_loses_and_doubles_nothing(past: Past) -> None:
    planned(past, DAYS)
    code = f"""
import time
from pathlib import Path
from leadre.pipelines.dataset.backfill import PastDecoder
from leadre.settings import Settings
from leadre.store.records.database import connect
settings = Settings(home=Path({str(past.settings.home)!r}), database_url={past.settings.database_url!r},
                    redis_url="redis://127.0.0.1:1/0", feature_repo=Path("."), engine="stub", beam_width=8)
decoder = PastDecoder(settings, database=connect(settings.database_url), batch=5)
def made(lists):
    print(lists, flush=True)
    time.sleep(0.05)
decoder.work_off(made=made)
"""
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(11):  # in the middle of the second instant's shard
        assert process.stdout.readline() == "5\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = logged(past)
    assert 50 <= len(left) < 120
    end = time.monotonic() + 30
    while work_off(past, batch=16) == 0 and time.monotonic() < end:  # PostgreSQL has yet to notice the death
        time.sleep(0.1)
    assert set(logged(past)) == {(user, at, "r1") for user in USERS.tolist() for at in DAYS}
    assert {key: logged(past)[key] for key in left} == left


def test_a_shard_that_cannot_be_done_is_said_and_holds_up_no_other(past: Past) -> None:
    planned(past, DAYS[:1])
    (past.settings.releases / "r1" / "manifest.json").unlink()
    with pytest.raises(LeadreError, match="r1"):
        work_off(past)


def test_instants_are_a_grid_that_ends_before_its_end() -> None:
    day = timedelta(days=1)
    assert instants_between(NOW, NOW + 2 * day, every=day) == [NOW, NOW + day]
    assert len(instants_between(NOW, NOW + 2 * day + timedelta(seconds=1), every=day)) == 3
    with pytest.raises(ConfigError, match="no instant"):
        instants_between(NOW, NOW, every=day)
