from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.store.importers.tabular.options import read_time_zone
from leadre.store.importers.tabular.rejected import BadValue, Kind
from leadre.store.importers.tabular.times import AMBIGUOUS, TimeReader
from leadre.store.importers.tabular.values import Marked

BERLIN = ZoneInfo("Europe/Berlin")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = datetime(2025, 6, 1, 12, 30, tzinfo=UTC)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)))
def test_a_time_is_the_same_in_every_unit_as_number_or_text_told_by_its_size(at: datetime) -> None:
    us = (at - EPOCH) // timedelta(microseconds=1)
    for value in (us, str(us)):
        reader = TimeReader()
        reader.look([value])
        assert (reader(value), reader.unit) == (at, "us")
    milliseconds, seconds = at - timedelta(microseconds=us % 1000), at.replace(microsecond=0)
    for unit, number, instant in (("ms", us // 1000, milliseconds), ("s", us // 1_000_000, seconds)):
        reader = TimeReader()
        reader.look([str(number)])
        assert (reader(number), reader.unit) == (instant, unit)
    assert abs(TimeReader(unit="s")(us / 1e6) - at) <= timedelta(microseconds=1)  # type: ignore[operator]


@given(st.lists(st.floats(946_684_800, 4e9), min_size=2, max_size=20))
def test_fractions_of_a_second_keep_their_order(seconds: list[float]) -> None:
    read = [TimeReader(unit="s")(value) for value in sorted(seconds)]
    assert read == sorted(read)  # type: ignore[type-var]


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)), st.sampled_from(["Europe/Berlin", "Asia/Shanghai"]))
def test_local_times_are_what_clocks_there_showed(naive: datetime, zone: str) -> None:
    there = ZoneInfo(zone)
    shown = naive.replace(tzinfo=there).astimezone(UTC).astimezone(there).replace(tzinfo=None, fold=0)
    if shown != naive:
        with pytest.raises(BadValue, match="never was"):
            TimeReader(zone=there)(naive.isoformat())
        return
    read = TimeReader(zone=there)(naive.isoformat())
    at = read.value if isinstance(read, Marked) else read
    assert at.astimezone(there).replace(tzinfo=None, fold=0) == naive


def test_the_hour_that_summer_time_skips_is_bad_and_of_the_one_it_repeats_the_first_counts() -> None:
    reader = TimeReader(zone=BERLIN)
    with pytest.raises(BadValue, match="2025-03-30T02:30:00 never was in Europe/Berlin: the clocks skip it") as error:
        reader("2025-03-30 02:30:00")
    assert error.value.kind is Kind.BAD_TIME
    assert reader("2025-10-26 02:30:00") == Marked(datetime(2025, 10, 26, 0, 30, tzinfo=UTC), AMBIGUOUS)
    assert reader("2025-10-26 02:30:00+01:00") == datetime(2025, 10, 26, 1, 30, tzinfo=UTC)
    assert reader(date(2025, 6, 1)) == datetime(2025, 5, 31, 22, tzinfo=UTC)
    assert reader.facts() == ["times without an offset are of Europe/Berlin"]


def test_most_of_the_first_numbers_tell_the_unit_and_it_is_said() -> None:
    reader = TimeReader()
    assert reader.facts() == []
    reader.look(["", None, "yesterday", "1748781000000", "1748781000001", "5"])
    reader.look(["5", "6"])
    assert reader("1748781000000") == AT
    assert reader.facts() == ["numbers are Unix milliseconds (recognised by their size; --time-unit sets it)"]


def test_a_given_unit_is_kept_and_a_number_that_looks_like_another_says_so() -> None:
    reader = TimeReader(unit="s")
    reader.look(["1748781000000"])
    with pytest.raises(BadValue, match=r"not in Unix seconds .*; are these milliseconds\? --time-unit ms"):
        reader("1748781000000")
    with pytest.raises(BadValue, match=r"not in Unix seconds .*; write 2025"):
        reader(1748781000 * 10**9)
    assert TimeReader(unit="ms")(1748781000_000.25) == AT + timedelta(microseconds=250)


def test_times_out_of_bounds_name_the_bounds() -> None:
    reader = TimeReader(first=AT, last=AT, bounds="at noon")
    assert reader(AT) == AT
    with pytest.raises(BadValue, match=r"2025-06-01T12:30:00.000001\+00:00 is not at noon"):
        reader(AT + timedelta(microseconds=1))
    with pytest.raises(BadValue, match=r"'1748780999' \(2025-06-01T12:29:59\+00:00\) is not at noon"):
        reader("1748780999")


@pytest.mark.parametrize(
    ("name", "near"), [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("../etc", "like Europe/Berlin")]
)
def test_an_unknown_time_zone_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(InvalidInput, match=f"there is no time zone '{name}'; .*{near}"):
        read_time_zone(name)
