"""Entries of the stream of behaviors, and the command that adds one, on a real Redis."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urlsplit

import hypothesis.strategies as st
import pytest
from hypothesis import given
from redis import Redis

from leadre.domain.behavior import EARLIEST, Action, Behavior, Domain
from leadre.domain.identity import MAX_ID
from leadre.errors import InvalidInput
from leadre.serving import behavior_stream

NOW = datetime(2025, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
ids = st.integers(0, MAX_ID)
times = st.datetimes(EARLIEST.replace(tzinfo=None), datetime(2100, 1, 1), timezones=st.just(UTC))


@st.composite
def reports(draw: st.DrawFn) -> list[Behavior]:
    user_id = draw(ids)
    one = st.builds(
        Behavior,
        user_id=st.just(user_id),
        domain=st.sampled_from(Domain),
        action=st.sampled_from(Action),
        item_id=ids,
        occurred_at=times,
        ordinal=ids,
    )
    return draw(st.lists(one, min_size=1, max_size=5))


def entry(item_id: int = 7) -> bytes:
    clicked = Behavior(user_id=3, domain=Domain.AD, action=Action.CLICK, item_id=item_id, occurred_at=NOW)
    return behavior_stream.encode([clicked], request_id="r-1", arrived_at=NOW)


@given(reports(), st.text(alphabet="aZ09._-", min_size=1, max_size=64), times)
def test_an_entry_holds_what_was_reported_to_the_microsecond(
    rows: list[Behavior], request_id: str, arrived_at: datetime
) -> None:
    read = behavior_stream.decode(behavior_stream.encode(rows, request_id=request_id, arrived_at=arrived_at))
    assert list(read.behaviors) == rows
    assert (read.user_id, read.request_id, read.arrived_at) == (rows[0].user_id, request_id, arrived_at)


def test_the_contract_of_an_entry_stays() -> None:
    assert entry() == (
        b'{"u":3,"r":"r-1","t":"2025-03-01T12:00:00.123456Z","b":[["ad","click",7,"2025-03-01T12:00:00.123456Z",0]]}'
    )


@given(st.binary(max_size=200))
def test_bytes_that_are_no_entry_are_refused_in_words(junk: bytes) -> None:
    with pytest.raises(InvalidInput, match="not an entry of behaviors"):
        behavior_stream.decode(junk)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"u":3', b'"u":9223372036854775808'),
        (b'"u":3', b'"u":-1'),
        (b'"u":3', b'"u":"3"'),
        (b"click", b"stroll"),
        (b",0]]", b"]]"),
        (b",0]]", b",0,0]]"),
        (b'"b":[', b'"x":1,"b":['),
        (b'["ad","click",7,"2025-03-01T12:00:00.123456Z",0]', b""),
        (b'7,"2025-03-01T12:00:00.123456Z"', b'7,"2025-03-01T12:00:00.123456"'),
    ],
)
def test_an_entry_of_another_shape_is_refused(old: bytes, new: bytes) -> None:
    assert old in entry()
    with pytest.raises(InvalidInput, match="not an entry of behaviors"):
        behavior_stream.decode(entry().replace(old, new, 1))


def test_times_of_other_offsets_stay_the_same_instants() -> None:
    far = NOW.astimezone(timezone(timedelta(hours=-11)))
    read = behavior_stream.decode(behavior_stream.encode([_at(far)], request_id="r", arrived_at=far))
    assert read.behaviors[0].occurred_at == NOW == read.arrived_at


def test_a_full_stream_refuses_and_trims_nothing(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        assert [behavior_stream.add(redis, entry(i), max_entries=3) for i in range(5)] == [True] * 3 + [False] * 2
        kept = [fields[b"e"] for _, fields in redis.xrange(behavior_stream.STREAM)]
        assert kept == [entry(0), entry(1), entry(2)]
        redis.xtrim(behavior_stream.STREAM, maxlen=2, approximate=False)
        assert behavior_stream.add(redis, entry(9), max_entries=3)
        assert behavior_stream.length(redis) == 3


def test_the_command_on_the_wire_adds_in_one_round_trip_after_a_restart_too(redis_url: str) -> None:
    at = urlsplit(redis_url)
    with Redis.from_url(redis_url) as redis, socket.create_connection((at.hostname, at.port), timeout=60) as wire:
        redis.script_flush()
        wire.sendall(f"AUTH {at.password}\r\n".encode())
        assert wire.recv(100) == b"+OK\r\n"
        four = [entry(number) for number in range(4)]
        wire.sendall(behavior_stream.add_command(four[:2], max_entries=3))
        wire.sendall(behavior_stream.add_command(four[2:], max_entries=3))
        wire.sendall(behavior_stream.add_command(four, max_entries=3))
        answers = wire.makefile("rb")
        assert [answers.readline() for _ in range(3)] == [b":2\r\n", b":1\r\n", b":0\r\n"]
        assert [fields[b"e"] for _, fields in redis.xrange(behavior_stream.STREAM)] == four[:3]


def _at(time: datetime) -> Behavior:
    return Behavior(user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=1, occurred_at=time)
