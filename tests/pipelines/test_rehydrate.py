"""An online store that was wiped has every user's newest list again, whoever is killed or writes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import redis
from sqlalchemy import Engine, text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.errors import Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.rehydrate import Rehydrator
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.features import rehydration
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import append_behaviors

NOW = datetime.now(UTC).replace(microsecond=0)
WEEK_S = 7 * 86_400.0
USERS = range(1, 26)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Users with two lists each, the newer of which is online, and one whose list is too old to be served."""

    features: FeatureClient
    database: Engine
    online: redis.Redis
    queue: RefreshQueue
    index: AdIndex
    settings: Settings

    def write(self, user_ids: range | list[int], generated_at: datetime, ad: int) -> None:
        self.features.push_lists([a_list(self.index, user, generated_at, ad) for user in user_ids], index=self.index)

    def ads(self) -> dict[int, int]:
        found = zip(USERS, self.features.retrieval_lists(USERS), strict=True)
        return {user: row.ad_ids[0] for user, row in found if row is not None}

    def rehydrator(self) -> Rehydrator:
        return Rehydrator(
            database=self.database, features=self.features, queue=self.queue, list_ttl_s=self.settings.list_ttl_s
        )


@pytest.fixture
def filled(applied: Settings) -> Iterator[Filled]:
    index = AdIndex.assemble(
        version="i1",
        ad_ids=np.arange(100, 108),
        codes=np.arange(8)[:, None] * [[1, 0]],
        first_categories=["a"] * 8,
        second_categories=["b"] * 8,
        advertiser_ids=np.arange(8),
        embeddings=np.eye(8, 4, dtype=np.float32),
        code_counts=(8, 1),
        quality={},
    )
    made = Filled(
        features=FeatureClient(applied.feature_repo, applied.feast_environment()),
        database=connect(applied.database_url),
        online=redis.Redis.from_url(applied.redis_url),
        queue=RefreshQueue.connect(applied.redis_url),
        index=index,
        settings=applied,
    )
    made.write(USERS, NOW - timedelta(hours=2), 100)
    made.write(range(1, 13), NOW - timedelta(hours=1), 101)
    made.write([30], NOW - timedelta(days=30), 102)
    yield made
    made.features.close()
    made.database.dispose()
    made.online.close()


def a_list(index: AdIndex, user_id: int, generated_at: datetime, ad: int) -> RetrievalList:
    beam = Beam(sid=index.sid(ad), ad_id=ad, log_probability=-1.0)
    named = {"release": "r1", "index_version": "i1", "event_at": None}
    return RetrievalList(user_id=user_id, generated_at=generated_at, beams=(beam,), **named)


NEWEST = {user: 101 if user < 13 else 100 for user in USERS}


def test_a_store_is_whole_once_it_was_filled_and_until_it_is_wiped(filled: Filled) -> None:
    rehydrator = filled.rehydrator()
    assert not rehydrator.is_whole()  # a new installation, or an upgrade: once
    assert rehydrator.rehydrate(now=NOW) is not None
    assert rehydrator.is_whole()
    filled.online.flushall()
    assert not rehydrator.is_whole()


def test_after_a_wipe_every_user_has_the_newest_list_again_and_stale_users_wait(filled: Filled, monkeypatch) -> None:
    monkeypatch.setattr(rehydration, "RANGE_USERS", 4)
    clicked = Behavior(user_id=5, domain=Domain.AD, action=Action.CLICK, item_id=103, occurred_at=NOW)
    with transaction(filled.database) as connection:
        append_behaviors(connection, [clicked], arrived_at=NOW)
    filled.online.flushall()
    assert filled.ads() == {}

    told: list[int] = []
    done = filled.rehydrator().rehydrate(now=NOW, report=told.append)

    assert done is not None
    assert (done.lists, done.marked) == (25, 1)
    assert told == [4, 8, 12, 16, 20, 24, 25]
    assert filled.ads() == NEWEST
    assert filled.features.retrieval_lists([30]) == [None]
    assert [claim.user_id for claim in filled.queue.claim(9, lease_s=9)] == [5]


def test_whoever_writes_a_newer_list_meanwhile_is_not_set_back(filled: Filled, monkeypatch) -> None:
    monkeypatch.setattr(rehydration, "RANGE_USERS", 10)
    filled.online.flushall()
    copy = rehydration._copy

    def copy_late(*arguments: Any) -> str:
        statement = copy(*arguments)
        index = filled.index
        made = [a_list(index, user, NOW, 104) for user in (3, 20)]  # online before the old ones are
        filled.features.push_lists(made, index=index)
        return statement.replace("l.event_at = s.listed_at", f"l.event_at < '{NOW.isoformat()}'")

    monkeypatch.setattr(rehydration, "_copy", copy_late)
    filled.rehydrator().rehydrate(now=NOW)
    assert filled.ads() == NEWEST | {3: 104, 20: 104}


def test_a_killed_run_goes_on_where_it_was(filled: Filled, monkeypatch) -> None:
    monkeypatch.setattr(rehydration, "RANGE_USERS", 5)
    filled.online.flushall()

    def die_after_two(lists: int) -> None:
        if lists == 15:
            raise Unavailable("killed")

    with pytest.raises(Unavailable):
        filled.rehydrator().rehydrate(now=NOW, report=die_after_two)
    rehydrator = filled.rehydrator()
    assert not rehydrator.is_whole()
    done = rehydrator.rehydrate(now=NOW)
    assert done is not None
    assert done.lists == 15  # the third range was written and not noted
    assert filled.ads() == NEWEST


def test_a_store_that_is_wiped_once_more_in_the_middle_is_filled_from_the_beginning(
    filled: Filled, monkeypatch
) -> None:
    monkeypatch.setattr(rehydration, "RANGE_USERS", 5)
    filled.online.flushall()
    wipes = iter([15, 10])
    at = [next(wipes)]

    def wipe(lists: int) -> None:
        if lists == at[0]:
            filled.online.flushall()
            at[0] += next(wipes, 10**9)

    rehydrator = filled.rehydrator()
    rehydrator.rehydrate(now=NOW, report=wipe)
    assert filled.ads() == NEWEST
    assert rehydrator.is_whole()


def test_one_process_at_a_time_fills_a_store(filled: Filled) -> None:
    filled.online.flushall()
    others: list[object] = []
    rehydrator = filled.rehydrator()
    rehydrator.rehydrate(now=NOW, report=lambda _: others.append(filled.rehydrator().rehydrate(now=NOW)))
    assert others == [None]


def test_a_distrusted_store_counts_as_wiped_and_keeps_what_it_has(filled: Filled) -> None:
    rehydrator = filled.rehydrator()
    rehydrator.rehydrate(now=NOW)
    rehydrator.distrust()
    assert not rehydrator.is_whole()
    assert filled.ads() == NEWEST
    done = rehydrator.rehydrate(now=NOW)
    assert done is not None
    assert done.lists == 25
    assert rehydrator.is_whole()


def test_materialization_notices_a_wiped_store_and_brings_all_views_back(filled: Filled) -> None:
    with transaction(filled.database) as connection:
        connection.execute(
            text("INSERT INTO users (user_id, source_id, age, event_at) VALUES (7, '7', 41, :now)"), {"now": NOW}
        )
    later = NOW + timedelta(days=1)
    filled.features.materialize(now=later)
    assert filled.features.contexts([7], now=later)[0].profile.age == 41
    filled.online.flushall()
    filled.rehydrator().rehydrate(now=NOW)
    done = filled.features.materialize(now=later)
    assert done.written["user_profile"] == 1
    assert filled.features.contexts([7], now=later)[0].profile.age == 41
