"""Feast's Redis layout without Feast: the same bytes as Feast's own functions write."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from leadre.domain.identity import MAX_ID
from leadre.store.features import layout

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)
WORDS = st.text(max_size=20)
INSTANTS_NS = st.integers(-(2**62), 2**62)


@given(ids=IDS, project=st.sampled_from(["leadre", "ätna", ""]))
@example(ids=[0, 1, MAX_ID], project="leadre")
def test_keys_are_feasts(ids: list[int], project: str) -> None:
    for join_key, keys in (("user_id", layout.user_keys), ("ad_id", layout.ad_keys)):
        feasts = [
            _redis_key(project, EntityKey(join_keys=[join_key], entity_values=[Value(int64_val=number)]))
            for number in ids
        ]
        assert keys(np.array(ids, dtype=np.int64), project) == feasts


@given(view=WORDS, feature=WORDS)
def test_field_names_are_feasts(view: str, feature: str) -> None:
    assert layout.field(view, feature) == _mmh3(f"{view}:{feature}")
    assert layout.timestamp_field(view) == bytes(f"_ts:{view}", "utf8")


@given(time_ns=INSTANTS_NS)
@example(time_ns=0)
@example(time_ns=1)
@example(time_ns=-1)
@example(time_ns=10**9)
def test_times_are_feasts_and_come_back(time_ns: int) -> None:
    seconds, nanos = divmod(time_ns, 10**9)
    value = layout.timestamp_value(time_ns)
    assert value == Timestamp(seconds=seconds, nanos=nanos).SerializeToString()
    assert layout.read_timestamp_value(value) == (time_ns if value else None)


@given(at=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_a_datetime_is_written_as_feast_writes_it(at: datetime) -> None:
    proto = Timestamp()
    proto.FromDatetime(at)
    time_ns = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    assert layout.timestamp_value(time_ns) == proto.SerializeToString()


@given(content=st.binary(max_size=300))
@example(content=b"x" * 127)
@example(content=b"x" * 128)
@example(content=b"x" * 70_000)
def test_bytes_are_feasts_and_come_back(content: bytes) -> None:
    value = layout.bytes_value(content)
    assert value == Value(bytes_val=content).SerializeToString()
    assert layout.read_bytes_value(value) == content


@pytest.mark.parametrize(
    "value", [None, b"", Value(string_val="x").SerializeToString(), Value(null_val=0).SerializeToString()]
)
def test_what_holds_no_bytes_reads_as_none(value: bytes | None) -> None:
    assert layout.read_bytes_value(value) is None


@given(content=st.binary(max_size=40), cut=st.integers(1, 40), junk=st.binary(max_size=40))
def test_junk_reads_as_none_or_as_something_and_never_raises(content: bytes, cut: int, junk: bytes) -> None:
    assert layout.read_bytes_value(layout.bytes_value(content)[:-cut]) is None
    assert layout.read_bytes_value(layout.bytes_value(content) + b"\0") is None
    layout.read_bytes_value(junk)
    layout.read_timestamp_value(junk)


def test_the_layout_loads_without_feast() -> None:
    program = "import leadre.store.features.layout, sys; print('feast' in sys.modules, 'google' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
