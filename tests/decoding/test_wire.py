"""The wire between proxies and instances: numbers arrive with all their bits, and nonsense is refused."""

from __future__ import annotations

import math
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.decoding.wire import (
    Answered,
    Asked,
    pack_beams,
    pack_prompts,
    unpack_beams,
    unpack_filters,
    unpack_prompts,
)
from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput

beams = st.builds(
    lambda codes, ad, score: Beam(sid=SemanticId(codes), ad_id=ad, log_probability=score),
    st.tuples(*[st.integers(0, 1023)] * 5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(max_value=0, allow_nan=False),
)


def asked(lengths: bytes = b"", tokens: bytes = b"", filters: bytes = b"") -> Asked:
    return Asked("r", "v", 0, 9, 3, lengths, tokens, (), filters)


@given(st.lists(st.lists(beams, max_size=5), max_size=6))
def test_beams_arrive_with_the_engines_own_bits(answers: list[list[Beam]]) -> None:
    octets = msgspec.msgpack.encode(pack_beams(answers))
    found = unpack_beams(msgspec.msgpack.decode(octets, type=Answered))

    assert found == answers
    assert [math.copysign(1, beam.log_probability) for each in found for beam in each] == [
        math.copysign(1, beam.log_probability) for each in answers for beam in each
    ]


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=6))
def test_prompts_arrive_as_they_were(prompts: list[list[int]]) -> None:
    lengths, tokens = pack_prompts(prompts)
    assert unpack_prompts(asked(lengths, tokens)) == prompts


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_nonsense_is_refused_and_nothing_else(lengths: bytes, tokens: bytes, filters: bytes) -> None:
    for read in (
        lambda: unpack_prompts(asked(lengths, tokens)),
        lambda: unpack_filters(asked(filters=filters), []),
        lambda: unpack_beams(Answered(lengths, tokens, filters, lengths)),
    ):
        with suppress(InvalidInput):
            read()


def test_a_filter_that_was_not_sent_is_refused() -> None:
    with pytest.raises(InvalidInput, match="filters 0 to 0 of 0"):
        unpack_filters(asked(filters=bytes(4)), [])
