"""S-IDs: the paper's notation, and nothing that only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.semantic_id import LETTERS, SemanticId, code_token
from leadre.errors import InvalidSemanticId

codes = st.lists(st.integers(0, 999_999_999), min_size=1, max_size=len(LETTERS)).map(tuple)


@given(codes)
def test_what_is_written_is_read_back(some: tuple[int, ...]) -> None:
    assert SemanticId.parse(str(SemanticId(some))) == SemanticId(some)


@given(codes)
def test_the_notation_is_the_code_tokens_joined(some: tuple[int, ...]) -> None:
    tokens = [code_token(level, code) for level, code in enumerate(some)]
    assert str(SemanticId(some)) == f"<{', '.join(token[1:-1] for token in tokens)}>"


@given(st.text(max_size=30))
def test_any_text_is_an_sid_or_an_error(text: str) -> None:
    try:
        sid = SemanticId.parse(text)
    except InvalidSemanticId:
        return
    assert str(sid) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "<>", "<a_1", "a_1>", "a_1", "<b_1>", "<a_1, c_1>", "<a_1,b_1>", "<a_1,  b_1>", "<a_1, b_1> "),
        *("<a_01>", "<a_-1>", "<a_+1>", "<a_1.0>", "<a_>", "<a_1, >", "<A_1>", "<a_1234567890>"),
        *("<a_\u0661>", "<\uff41_1>", "\uff1ca_1\uff1e", "<a_1, b_1\n>", "<a_1, b_1, b_1>"),
    ],
)
def test_what_only_looks_like_an_sid_is_refused(text: str) -> None:
    with pytest.raises(InvalidSemanticId, match="is not an S-ID"):
        SemanticId.parse(text)


def test_an_error_shows_the_beginning_of_a_long_text() -> None:
    with pytest.raises(InvalidSemanticId) as caught:
        SemanticId.parse("<" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("bad", [(), (1, -1), tuple(range(27))])
def test_codes_that_are_no_sid_are_refused(bad: tuple[int, ...]) -> None:
    with pytest.raises(InvalidSemanticId):
        SemanticId(bad)


@given(st.lists(codes, min_size=2, max_size=6))
def test_sids_sort_by_their_codes(some: list[tuple[int, ...]]) -> None:
    assert [sid.codes for sid in sorted(map(SemanticId, some))] == sorted(some)


@given(codes, codes)
def test_the_shared_prefix_is_shared_and_longest(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    length = SemanticId(one).shared_prefix(SemanticId(other))
    assert length == SemanticId(other).shared_prefix(SemanticId(one))
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]
