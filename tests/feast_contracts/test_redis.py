"""Feast's own Redis online store: when it writes, when a key expires, what it writes.

Ours (`leadre/store/features/online_store.py`) is there because of the first half of this page.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from feast import FeatureStore
from redis.client import Pipeline

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import HOUR, NOON, frame, online, source, view

ROWS = {"user_id": [1], "score": [0.5], "at": [NOON]}


def write(tiny: FeatureStore, score: float, at: Any, *, name: str = "facts") -> None:
    tiny.write_to_online_store(name, frame({"user_id": [1], "score": [score], "at": [at]}))


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def test_an_equal_event_time_is_skipped_without_a_word(redis_store: MakeStore, tmp_path: Path) -> None:
    tiny = redis_store(view(source(tmp_path, ROWS)))
    write(tiny, 1.0, NOON)
    write(tiny, 2.0, NOON)
    assert online(tiny, "facts:score", 1) == [1.0]
    write(tiny, 2.0, NOON + timedelta(microseconds=1))
    assert online(tiny, "facts:score", 1) == [2.0]


def test_one_event_time_in_the_future_blocks_all_later_writes(redis_store: MakeStore, tmp_path: Path) -> None:
    tiny = redis_store(view(source(tmp_path, ROWS)))
    write(tiny, 1.0, NOON + timedelta(days=3650))
    write(tiny, 2.0, NOON + HOUR)
    assert online(tiny, "facts:score", 1) == [1.0]


def test_a_newer_row_written_between_its_read_and_its_write_is_lost(
    redis_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = (redis_store(view(source(tmp_path, ROWS))) for _ in range(2))
    execute, rounds = Pipeline.execute, []

    def interrupted(pipeline: Pipeline, *arguments: Any, **options: Any) -> Any:
        found = execute(pipeline, *arguments, **options)
        rounds.append(len(rounds))
        if len(rounds) == 1:  # it has read the times, and will write by them
            write(fast, 2.0, NOON + HOUR)
        return found

    monkeypatch.setattr(Pipeline, "execute", interrupted)
    write(slow, 1.0, NOON)
    monkeypatch.undo()
    assert online(slow, "facts:score", 1) == [1.0]


def test_a_key_s_time_to_live_is_not_renewed_where_the_event_time_is_equal(
    redis_store: MakeStore, tmp_path: Path, client: redis.Redis
) -> None:
    # feast issues 3275, 4679.
    tiny = redis_store(view(source(tmp_path, ROWS)), key_ttl_seconds=1000)
    write(tiny, 1.0, NOON)
    (key,) = client.keys()
    assert 990 < client.ttl(key) <= 1000
    client.expire(key, 50)
    write(tiny, 1.0, NOON)
    assert client.ttl(key) <= 50
    write(tiny, 1.0, NOON + HOUR)
    assert client.ttl(key) > 50


def test_a_key_s_time_to_live_is_of_all_views_of_the_entity(
    redis_store: MakeStore, tmp_path: Path, client: redis.Redis
) -> None:
    of = source(tmp_path, ROWS)
    tiny = redis_store(view(of), view(of, name="more"), key_ttl_seconds=1000)
    write(tiny, 1.0, NOON)
    write(tiny, 2.0, NOON, name="more")
    (key,) = client.keys()  # one for both
    client.expire(key, 0)
    assert (online(tiny, "facts:score", 1), online(tiny, "more:score", 1)) == ([None], [None])


def test_of_an_absent_user_feast_says_present(redis_store: MakeStore, tmp_path: Path) -> None:
    answer = redis_store(view(source(tmp_path, ROWS))).get_online_features(["facts:score"], [{"user_id": 1}])
    (status,) = answer.proto.results[1].statuses
    assert (
        type(answer.proto).DESCRIPTOR.file.enum_types_by_name["FieldStatus"].values_by_number[status].name == "PRESENT"
    )
    told = answer.to_dict(include_event_timestamps=True)
    assert told == {"user_id": [1], "user_id__ts": [0], "score": [None], "score__ts": [0]}


def test_the_layout_is_a_hash_an_entity_with_hashed_names(
    redis_store: MakeStore, tmp_path: Path, client: redis.Redis
) -> None:
    # `leadre/store/features/layout.py` reads and writes these bytes without Feast.
    tiny = redis_store(view(source(tmp_path, ROWS)))
    write(tiny, 1.0, NOON + timedelta(microseconds=7))
    (key,) = client.keys()
    assert key == (
        b"\x01\x00\x00\x00"  # one join key
        b"\x02\x00\x00\x00\x07\x00\x00\x00user_id"  # a string of seven bytes
        b"\x04\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"  # an int64 of eight
        b"tiny"
    )
    assert client.hgetall(key) == {
        b"_ts:facts": b"\x08\xc0\xc3\xd9\xca\x06\x10\xd8\x36",  # seconds, nanoseconds
        b"V\x9da\xaf": b")\x00\x00\x00\x00\x00\x00\xf0?",  # MurmurHash3 of facts:score; double_val
    }
