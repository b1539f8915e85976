"""The end of a list of numbers, read from Feast's own bytes."""

from __future__ import annotations

import hypothesis.strategies as st
from feast.protos.feast.types.Value_pb2 import Int64List, Value
from hypothesis import given

from leadre.store.features.layout import last_integers

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12)


@given(NUMBERS, st.integers(1, 14))
def test_the_last_numbers_are_those_that_feast_wrote(numbers, count) -> None:
    value = Value(int64_list_val=Int64List(val=numbers)).SerializeToString()
    assert last_integers(value, count) == numbers[-count:]


@given(st.binary(max_size=40))
def test_other_bytes_hold_no_numbers_and_raise_nothing(value) -> None:
    assert isinstance(last_integers(value, 3), list)
    assert last_integers(b"\x0a" + value, 3) == []
    assert last_integers(None, 3) == []
