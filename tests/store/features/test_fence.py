"""The fence: whoever writes, in any order, the list online is the newest by promotion, behaviors and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, select

from leadre.derivation import pack
from leadre.domain.retrieval import RetrievalList
from leadre.indexing.ad_index import AdIndex
from leadre.store.features import retrieval_log
from leadre.store.features.client import FeatureClient
from leadre.store.features.layout import (
    FEATURE,
    VIEW,
    bytes_value,
    field,
    read_bytes_value,
    timestamp_field,
    timestamp_value,
    user_keys,
)
from leadre.store.features.list_reader import read_lists
from leadre.store.features.list_writer import ListWriter, derive_lists, set_lists
from leadre.store.features.online_rows import REJECTED, place_of, set_rows
from leadre.store.records.database import transaction
from leadre.store.records.events import stale_page
from leadre.store.records.tables import retrieval_log as log
from leadre.store.records.tables import user_state
from tests.store.features.mutants import SCRIPT
from tests.store.features.script_cases import broken_records, cases, disagreement, old_record, record

MakeList = Callable[..., RetrievalList]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
LIST, TIME = field(VIEW, FEATURE), timestamp_field(VIEW)
USERS = (7, 8)
WAYS = ("worker", "crash", "fast", "batch", "push")


@pytest.fixture
def online(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def write(database: Engine, online: redis.Redis, index: AdIndex) -> Callable[..., Any]:
    writer = ListWriter(database=database, online=online, project="leadre", ttl_s=100)
    return lambda *lists: writer.write(lists, index=index)


def _key(user_id: int) -> bytes:
    return user_keys(np.array([user_id]), "leadre")[0]


def _online(client: redis.Redis, user_id: int = 7) -> tuple[int, ...] | None:
    (found,) = read_lists(client, [user_id], project="leadre")
    return None if found is None else found.ad_ids


def _row(value: bytes, *, at: int = 5) -> tuple[bytes, list[bytes]]:
    return _key(7), [TIME, timestamp_value(at), LIST, value]


def test_the_script_does_what_its_twin_says(online: redis.Redis) -> None:
    for case in cases(1):
        assert disagreement(online, SCRIPT.encode(), case) is None, case


@pytest.mark.parametrize(
    ("of", "to"),
    [
        ("epoch ~= epoch_there and epoch - epoch_there or sequence - sequence_there", "sequence - sequence_there"),
        ("epoch ~= epoch_there and epoch - epoch_there or sequence - sequence_there", "epoch - epoch_there"),
        ("((e * 256 + f) * 256 + g) * 256 + h", "((h * 256 + g) * 256 + f) * 256 + e"),
        ("if sum ~= low + 256 * high then return -1, -1 end", ""),
        ("if ahead == 0 and there[1] ~= time then", "if there[1] ~= time then"),
        ("ahead > 0 or (ahead == 0 and replace)", "ahead >= 0"),
        ("if format == 1 and length >= 52 then return 0, 0 end", ""),
        ("nanos - nanos_there", "0"),
        ("call('EXPIRE', key, ttl)", ""),
        ("if ahead > 0", "if true"),
    ],
)
def test_a_mutant_of_the_script_is_noticed(online: redis.Redis, of: str, to: str) -> None:
    mutant = SCRIPT.replace(of, to)
    assert mutant != SCRIPT
    assert any(disagreement(online, mutant.encode(), case) for case in cases(1))


def test_a_newer_list_is_one_of_a_later_promotion_then_of_more_behaviors_then_made_later(online: redis.Redis) -> None:
    for step, (epoch, sequence, at) in enumerate([(1, 9, 50), (1, 9, 51), (1, 10, 7), (2, 0, 3), (3, 0, 1)]):
        newer = _row(bytes_value(record(epoch, sequence, release=str(step))), at=at)
        assert set_rows(online, [newer]) == 1
        before = REJECTED._value.get()
        for older in ((epoch - 1, 99, 99), (epoch, sequence - 1, 99), (epoch, sequence, at - 1)):
            if older[1] >= 0:
                assert set_rows(online, [_row(bytes_value(record(*older[:2])), at=older[2])]) == 0
        assert set_rows(online, [newer]) == 0  # again: none is older
        assert REJECTED._value.get() - before == 3 - (sequence == 0)
        assert online.hgetall(_key(7)) == dict(zip(newer[1][::2], newer[1][1::2], strict=True))


@pytest.mark.parametrize("broken", list(broken_records()))
def test_what_is_no_list_gives_way_to_any_and_takes_nobodys_place(online: redis.Redis, broken: bytes) -> None:
    least = bytes_value(record(0, 0))
    set_rows(online, [_row(broken, at=10**18)])
    assert set_rows(online, [_row(least, at=5)]) == 1
    assert set_rows(online, [_row(broken, at=10**18)]) == 0
    assert place_of(_row(broken)[1]) == (-1, -1, 5)


def test_a_list_of_the_first_format_is_older_than_any_promotions(online: redis.Redis) -> None:
    set_rows(online, [_row(bytes_value(old_record()), at=9)])
    assert set_rows(online, [_row(bytes_value(old_record()), at=8)]) == 0
    assert set_rows(online, [_row(bytes_value(record(1, 0)), at=5)]) == 1
    assert set_rows(online, [_row(bytes_value(old_record()), at=9)]) == 0


@settings(max_examples=200)
@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 2), st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
def test_places_and_bytes_of_fences_are_in_the_order_of_their_numbers(one: Any, other: Any) -> None:
    records = [record(*fence) for fence in (one, other)]
    places = [place_of(_row(bytes_value(it))[1]) for it in records]
    assert (places[0] < places[1]) == (one < other) == (records[0][2:10] < records[1][2:10])


def test_other_views_of_a_user_are_not_fenced(online: redis.Redis) -> None:
    other = timestamp_field("user_profile")
    set_rows(online, [_row(bytes_value(record(5, 5)))])
    for at in (1, 2):
        assert set_rows(online, [(_key(7), [other, timestamp_value(at), b"age", b"%d" % at])]) == 1


def test_what_comes_too_late_is_neither_logged_nor_the_users_newest(
    write: Callable[..., Any], online: redis.Redis, database: Engine, make_list: MakeList
) -> None:
    write(replace(make_list(7, 100), release_epoch=2, behavior_sequence=5))
    write(replace(make_list(7, 101, at=NOW + SECOND), release_epoch=1, behavior_sequence=9))
    write(replace(make_list(7, 102, at=NOW + SECOND), release_epoch=2, behavior_sequence=4))
    assert _online(online) == (100,)
    with transaction(database) as connection:
        connection.execute(user_state.update().values(behavior_sequence=6, newest_behavior_at=NOW))
        assert [user.user_id for user in stale_page(connection, now=NOW, limit=9)] == [7]
        state = connection.execute(select(user_state)).one()
        assert (state.listed_at, state.listed_epoch, state.listed_sequence) == (NOW, 2, 5)
        assert connection.scalars(select(log.c.retrieved_ad_ids)).all() == [[100]]


def test_a_newer_list_of_a_slower_clock_counts_from_just_after_the_one_before(
    write: Callable[..., Any], online: redis.Redis, database: Engine, features: FeatureClient, make_list: MakeList
) -> None:
    write(replace(make_list(7, 100), release_epoch=1, behavior_sequence=5))
    write(replace(make_list(7, 101, at=NOW - SECOND), release_epoch=1, behavior_sequence=6))
    assert _online(online) == (101,)
    with transaction(database) as connection:
        (newest,) = retrieval_log.newest(connection, [7]).values()
        assert (newest["event_at"], newest["retrieved_ad_ids"]) == (NOW + MICROSECOND, [101])
        assert retrieval_log.newest(connection, [7], at=NOW)[7]["retrieved_ad_ids"] == [100]
    online.flushdb()
    features.store.materialize(NOW - SECOND, NOW + SECOND, feature_views=[VIEW])  # by time, and so the same
    assert _online(online) == (101,)


def test_a_list_from_a_future_takes_no_later_one_along(
    write: Callable[..., Any], online: redis.Redis, database: Engine, make_list: MakeList
) -> None:
    year = timedelta(days=365)
    write(replace(make_list(7, 100, at=NOW + year), release_epoch=1, behavior_sequence=5))
    write(replace(make_list(7, 101), release_epoch=1, behavior_sequence=6))
    assert _online(online) == (101,)
    with transaction(database) as connection:
        assert connection.scalar(select(user_state.c.listed_at)) == NOW


def test_lists_of_the_past_fence_nothing(
    write: Callable[..., Any],
    online: redis.Redis,
    database: Engine,
    features: FeatureClient,
    index: AdIndex,
    make_list: MakeList,
) -> None:
    write(replace(make_list(7, 100), release_epoch=1))
    past = [make_list(user, 101, at=NOW + timedelta(days=5)) for user in USERS]  # later than the list there, and yet
    derived = derive_lists(past, index=index, ecpm_of=lambda rows: np.zeros(len(rows)))
    with transaction(database) as connection:
        assert retrieval_log.append(connection, np.array(USERS), derived, pack(derived)).written == 2
    for _ in range(2):
        features.materialize(now=NOW + timedelta(days=9), views=[VIEW], full=True)
        assert [_online(online, user) for user in USERS] == [(100,), (101,)]
        online.flushdb()
    write(replace(make_list(8, 102), release_epoch=1))
    assert _online(online, 8) == (102,)


class Fenced(RuleBasedStateMachine):
    """Workers that begin and end in any order, promotions, materializations, crashes: what is online never goes back.

    What is to be online is the largest place of all that was written, and its record.
    """

    client: redis.Redis
    database: Engine
    features: FeatureClient
    stock: FeatureStore
    index: AdIndex
    make_list: MakeList
    writer: ListWriter

    @initialize()
    def begin_anew(self) -> None:
        self.client.flushdb()
        with transaction(self.database) as connection:
            for table in (log, user_state):
                connection.execute(table.delete())
        self.epoch, self.sequences, self.made = 1, dict.fromkeys(USERS, 0), list[RetrievalList]()
        self.wanted: dict[int, tuple[tuple[int, int, int], bytes]] = {}
        self.listed: dict[int, tuple[int, int, int, bytes]] = {}
        self.seen: dict[int, tuple[int, int, int]] = {}

    @rule(
        user=st.sampled_from(USERS),
        second=st.integers(0, 40),
        promoted=st.booleans(),
        behaved=st.booleans(),
        way=st.sampled_from([*WAYS, "later"]),
    )
    def work(self, *, user: int, second: int, promoted: bool, behaved: bool, way: str) -> None:
        """Perhaps a promotion or a rollback, and a behavior; then a worker makes a list, and may write it later."""
        self.epoch, number = self.epoch + promoted, len(self.made)
        self.sequences[user] += behaved
        of_user = self.make_list(user, 100 + number % 30, at=NOW + timedelta(seconds=second, microseconds=9 * number))
        of_user = replace(of_user, release_epoch=self.epoch, behavior_sequence=self.sequences[user])
        self.made.append(of_user)
        if way != "later":
            self._write(of_user, way)

    @rule(data=st.data(), way=st.sampled_from(WAYS))
    def write_late_or_again(self, data: st.DataObject, way: str) -> None:
        if self.made:
            self._write(data.draw(st.sampled_from(self.made)), way)

    def _write(self, of_user: RetrievalList, way: str) -> None:
        derived = derive_lists([of_user], index=self.index, ecpm_of=lambda rows: np.zeros(len(rows)))
        (packed,), user, at = pack(derived), of_user.user_id, of_user.generated_at
        if way == "crash":  # between the commit and Redis
            with transaction(self.database) as connection:
                retrieval_log.append(connection, np.array([user]), derived, [packed])
        elif way == "worker":
            self.writer.write([of_user], index=self.index)
        elif way == "fast":
            set_lists(self.client, np.array([user]), derived, [packed], project="leadre", ttl_s=0)
        else:
            frame = pd.DataFrame({"user_id": [user], "retrieved_list": [packed], "event_at": [at], "created_at": [at]})
            frame = frame.astype({"event_at": "datetime64[ns, UTC]", "created_at": "datetime64[ns, UTC]"})
            if way == "batch":
                self.features.store.write_to_online_store(VIEW, frame)
            else:
                self.features.store.push("retrieved_ads_push", frame.assign(changed_in=0))
        at_us = int(at.timestamp()) * 1_000_000 + at.microsecond
        if way in ("crash", "worker"):
            at_us = self._log(user, of_user, at_us, packed)
        if way != "crash":
            self._want(user, (of_user.release_epoch, of_user.behavior_sequence, at_us * 1000), packed)

    @rule(how=st.sampled_from(["ours", "feast"]))
    def materialize(self, how: str) -> None:
        until = NOW + timedelta(minutes=5)
        if how == "ours":
            self.features.materialize(now=until, views=[VIEW], full=True)
        elif self.listed:
            self.features.store.materialize(NOW - SECOND, until, feature_views=[VIEW])
        for user, (epoch, sequence, at_us, packed) in self.listed.items():
            self._want(user, (epoch, sequence, at_us * 1000), packed)

    @rule(user=st.sampled_from(USERS), place=st.integers(2, 11))
    def alter(self, user: int, place: int) -> None:
        """Somebody else's bytes: the list is gone, and whatever is written next takes its place."""
        if user in self.wanted and self.wanted[user][0][0] >= 0:
            (_, _, time), packed = self.wanted[user]
            altered = bytearray(packed)
            altered[place] ^= 255
            self.client.hset(_key(user), LIST, bytes_value(bytes(altered)))
            self.wanted[user], self.seen[user] = ((-1, -1, time), bytes(altered)), (-1, -1, 0)

    @invariant()
    def the_largest_written_is_online_and_nothing_went_back(self) -> None:
        for user in USERS:
            time, value = self.client.hmget(_key(user), TIME, LIST)
            if user not in self.wanted:
                assert value is None
                continue
            place = place_of([TIME, time, LIST, value])
            assert (place, read_bytes_value(value)) == self.wanted[user]
            assert place >= self.seen.get(user, place)
            self.seen[user] = place

    def teardown(self) -> None:
        if not getattr(self, "wanted", None):
            return
        rows = [{"user_id": user} for user in USERS]
        read = self.stock.get_online_features([f"{VIEW}:{FEATURE}"], rows).to_dict()[FEATURE]
        assert read == [self.wanted[user][1] if user in self.wanted else None for user in USERS]

    def _want(self, user: int, place: tuple[int, int, int], packed: bytes) -> None:
        if user not in self.wanted or place > self.wanted[user][0]:
            self.wanted[user] = place, packed

    def _log(self, user: int, of_user: RetrievalList, at_us: int, packed: bytes) -> int:
        """Advance the user's newest list; return from when this one counts."""
        before = self.listed.get(user)
        place = (of_user.release_epoch, of_user.behavior_sequence, at_us)
        if before is None or place > before[:3]:
            at_us = at_us if before is None else max(at_us, before[2] + 1)
            self.listed[user] = (*place[:2], at_us, packed)
        return at_us


def test_whoever_writes_in_any_order_the_newest_list_is_online(
    online: redis.Redis,
    database: Engine,
    features: FeatureClient,
    stock: FeatureStore,
    index: AdIndex,
    make_list: MakeList,
) -> None:
    class Here(Fenced):
        pass

    Here.client, Here.database, Here.features, Here.stock, Here.index = online, database, features, stock, index
    Here.make_list = staticmethod(make_list)  # type: ignore[assignment]
    Here.writer = ListWriter(database=database, online=online, project="leadre", ttl_s=100)
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Here, settings=settings(max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=slow)
    )
