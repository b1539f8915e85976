from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.indexing.texts.description import MAX_FIELD, clean, describe


def test_parts_without_a_value_are_left_out(make_ad: Any) -> None:
    ad = make_ad(1, name="Tea", ad_type="", first_category="Food", second_category="", attributes=())
    assert describe(ad) == "The name of the ad is Tea; The first-level category is Food."


@pytest.mark.parametrize("name", ["", "  ", "\x00\n\t", "\ud800"])
def test_an_ad_without_a_name_is_refused_by_its_id(make_ad: Any, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"column 'name': ad 'ad-41' has no name"):
        describe(make_ad(41, name=name))


def test_a_name_of_ten_kilobytes_is_cut(make_ad: Any) -> None:
    ad = make_ad(1, name="x" * 10_000, ad_type="", first_category="", second_category="", attributes=())
    assert describe(ad) == f"The name of the ad is {'x' * MAX_FIELD}."


def test_text_that_looks_like_an_sid_is_kept_as_text_and_full_width_brackets_are_not_folded() -> None:
    assert clean("<a_1> ＜a_1＞") == "<a_1> ＜a_1＞"


@settings(deadline=None)
@given(st.text(max_size=2000))
def test_a_clean_field_is_one_bounded_encodable_line_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) <= MAX_FIELD
    assert len(cleaned.splitlines()) <= 1
    cleaned.encode()
    assert clean(cleaned) == cleaned
