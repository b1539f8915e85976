from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.behavior import Action
from leadre.domain.identity import stable_id
from leadre.store.importers.tabular.times import TimeReader
from leadre.store.importers.tabular.values import (
    CUT,
    Marked,
    choice,
    clean,
    cut_words,
    identity,
    name,
    number,
    whole,
    word_list,
    words,
    yes_no,
)

moment = TimeReader(unit="s")


@given(st.text())
def test_a_cleaned_text_is_one_line_without_control_characters(text: str) -> None:
    cleaned = clean(text)
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in cleaned)
    assert cleaned == cleaned.strip() == clean(cleaned)


def test_control_characters_become_one_space() -> None:
    assert words("  Lip\t\n\0stick\u2028red ") == "Lip stick red"


@given(st.integers(0, 2**63 - 1))
def test_a_whole_number_is_its_own_id(value: int) -> None:
    assert identity(value) == identity(str(value)) == (value, str(value))


@pytest.mark.parametrize("text", ["B004756YJA", "007", "1.0", "user 5", "1_000", "١٢"])
def test_any_other_text_gets_the_id_derived_from_it(text: str) -> None:
    assert identity(text) == (stable_id(text), text)


def test_times_of_every_kind_are_one_instant() -> None:
    at = datetime(2025, 6, 1, 12, 30, tzinfo=UTC)
    elsewhere = at.astimezone(timezone(timedelta(hours=8)))
    forms = [
        "2025-06-01T12:30:00Z",
        "2025-06-01 20:30:00+08:00",
        at.timestamp(),
        str(at.timestamp()),
        "1748781000",
        elsewhere,
    ]
    assert {moment(form) for form in forms} == {at}


@pytest.mark.parametrize(
    ("parse", "value", "problem"),
    [
        (identity, "9" * 5000, "one line"),
        (identity, 1.0, "no id"),
        (identity, True, "no id"),
        (identity, "a\nb", "one line"),
        (identity, " a", "one line"),
        (identity, "\ud800", "one line"),
        (words, "x" * 257, "257 characters long, at most 256"),
        (words, 5, "not a text"),
        (name(words), "\t \n", "visible"),
        (word_list(words), 5, "a list of texts"),
        (word_list(words), [5], "not a text"),
        (number(0, 10), "nan", "from 0 to 10"),
        (number(0, 10), "inf", "from 0 to 10"),
        (number(0, 10), -0.01, "from 0 to 10"),
        (number(0, 10), "1,5", "from 0 to 10"),
        (number(0, 10), True, "from 0 to 10"),
        (whole(0, 150), "22.5", "from 0 to 150"),
        (whole(0, 150), 22.5, "from 0 to 150"),
        (whole(0, 150), 151, "from 0 to 150"),
        (whole(0, 150), "9" * 5000, "from 0 to 150"),
        (moment, "yesterday", "not a time"),
        (moment, "2025-06-01T12:30:00", "no UTC offset"),
        (moment, "2025-06-01", "no UTC offset"),
        (moment, datetime(2025, 6, 1), "no UTC offset"),
        (moment, 1748781000000, "milliseconds"),
        (moment, "nan", "not in Unix seconds"),
        (moment, "1969-12-31T23:59:59Z", "1970 to 2099"),
        (moment, "0001-01-01T00:00:00+14:00", "1970 to 2099"),
        (moment, [], "not a time"),
        (yes_no, "maybe", "not one of true, yes"),
        (choice(Action), "clik", "did you mean 'click'"),
    ],
)
def test_a_bad_value_says_what_would_do(parse: Callable[[object], object], value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as error:
        parse(value)
    assert len(str(error.value)) < 250


def test_lists_are_written_with_bars_or_given_as_lists() -> None:
    assert (
        word_list(words)("brand_Lu| 50 ml||") == word_list(words)(["brand_Lu", "50\nml", ""]) == ("brand_Lu", "50 ml")
    )


def test_money_may_be_decimal() -> None:
    assert number(0, 10)(Decimal("2.50")) == 2.5


def test_truth_is_written_in_three_ways() -> None:
    assert [yes_no(value) for value in ["TRUE", "yes", 1, True, "false", "No", 0, False]] == [True] * 4 + [False] * 4


def test_a_whole_float_is_a_whole_number() -> None:
    assert whole(0, 150)(22.0) == whole(0, 150)("22") == 22


@given(st.text(alphabet=st.sampled_from("ab e\u0301\u0308👩\u200d💻🇩🇪👍🏽"), min_size=200, max_size=600))
def test_a_long_text_is_cut_to_its_beginning_of_whole_characters(text: str) -> None:
    whole, read = clean(text), cut_words(text)
    if len(whole) <= 256:
        assert read == whole
        return
    assert isinstance(read, Marked)
    kept, rest = read.value, whole[len(read.value) :]
    assert whole.startswith(kept)
    assert 256 - 32 <= len(kept) <= 256
    assert words(kept) == kept
    if len(kept) > 256 - 32 and rest[0] != " ":  # longer clusters than that are cut wherever it is
        assert unicodedata.combining(rest[0]) == 0
        assert "\u200d" not in (kept[-1], rest[0])


def test_a_long_text_is_cut_between_words_where_that_costs_little() -> None:
    assert cut_words("x" * 240 + " " + "y" * 100) == Marked("x" * 240, CUT)
    assert cut_words("x" * 200 + " " + "y" * 100) == Marked("x" * 200 + " " + "y" * 55, CUT)
    assert cut_words("x" * 255 + "e\u0301" + "y") == Marked("x" * 255, CUT)
    assert word_list(cut_words)("a|" + "x" * 300) == Marked(("a", "x" * 256), CUT)
