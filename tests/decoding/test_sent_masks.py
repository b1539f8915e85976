"""Filters on the wire: what arrives is what was sent, known ones cost their names, near ones their difference."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.decoding.sent_masks import KeptMasks, SentMask, SentMasks, UnknownMasks, digest_of
from leadre.errors import InvalidInput
from leadre.indexing.trie import LiveMask


def named(*masks: LiveMask) -> list[tuple[bytes, LiveMask]]:
    return [(digest_of(mask), mask) for mask in masks]


def size(sent: tuple[SentMask, ...]) -> int:
    return sum(len(part) for mask in sent for part in (mask.digest, mask.base, mask.packed, mask.places))


def random_mask(leaves: int, *, seed: int, share: float = 0.5) -> LiveMask:
    return LiveMask.of(np.random.default_rng(seed).random(leaves) < share)


@given(
    leaves=st.integers(0, 2000),
    requests=st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=12),
    memory=st.sampled_from([1, 300, 1 << 20]),
    restarts=st.sets(st.integers(0, 11)),
)
def test_what_arrives_is_what_was_sent_whatever_either_side_forgot(
    leaves: int, requests: list[list[int]], memory: int, restarts: set[int]
) -> None:
    here, there = SentMasks(most_bytes=600), KeptMasks(most_bytes=memory)
    pool = [random_mask(leaves, seed=seed, share=seed / 4) for seed in range(5)]
    for _ in range(5):  # and each a bit away from the one before
        live = np.unpackbits(pool[-1].words.view(np.uint8), count=leaves, bitorder="little").view(np.bool_)
        live[: leaves // 2 : 97] ^= True
        pool.append(LiveMask.of(live))
    for number, seeds in enumerate(requests):
        if number in restarts:
            there = KeptMasks(most_bytes=memory)
        masks = [pool[seed] for seed in dict.fromkeys(seeds)]
        try:
            found = there.unpack(here.pack(named(*masks)), leaves=leaves)
        except UnknownMasks:
            here.forget()
            found = there.unpack(here.pack(named(*masks)), leaves=leaves)
        here.arrived(named(*masks))
        assert [mask.words.tolist() for mask in found] == [mask.words.tolist() for mask in masks]
        assert all(mask.leaves == leaves for mask in found)


def test_a_known_filter_costs_its_name_and_a_paused_ad_some_bytes() -> None:
    live = np.random.default_rng(0).random(1_000_000) < 0.6
    first = LiveMask.of(live)
    live[777_777] ^= True
    second, here = LiveMask.of(live), SentMasks()
    whole = size(here.pack(named(first)))
    here.arrived(named(first))

    assert whole > 100_000  # random bits: what they hold
    assert size(here.pack(named(first))) == 16
    assert size(here.pack(named(second))) < 100
    there = KeptMasks()
    there.unpack(SentMasks().pack(named(first)), leaves=1_000_000)
    [found] = there.unpack(here.pack(named(second)), leaves=1_000_000)
    assert np.array_equal(found.words, second.words)


def test_a_filter_whose_base_was_forgotten_is_asked_for_whole() -> None:
    first, second, here = random_mask(500, seed=1, share=0.9), random_mask(500, seed=1, share=0.89), SentMasks()
    here.arrived(named(first))

    with pytest.raises(UnknownMasks, match="1 filters"):
        KeptMasks().unpack(here.pack(named(second)), leaves=500)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"no zlib", "cannot be inflated"),
        (zlib.compress(bytes(8)), "2 words of a filter over 70 ads"),
        (zlib.compress(bytes(10**7)), "2 words of a filter over 70 ads"),
        (zlib.compress(b"\xff" * 16), "beyond the index's 70"),
        (zlib.compress(bytes(16)), "not the one that its digest names"),
    ],
)
def test_bytes_that_are_not_the_filter_are_refused(packed: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        KeptMasks().unpack([SentMask(b"x" * 16, b"", packed)], leaves=70)


@pytest.mark.parametrize("places", [b"abc", b"\x02\0\0\0", b"\x01\0\0\0\0\0\0\0", bytes(8)])
def test_places_that_are_not_of_the_filter_are_refused(places: bytes) -> None:
    there, base = KeptMasks(), random_mask(70, seed=1)
    there.unpack(SentMasks().pack(named(base)), leaves=70)
    with pytest.raises(InvalidInput, match="places"):
        there.unpack([SentMask(b"x" * 16, digest_of(base), zlib.compress(bytes(8)), places)], leaves=70)


def test_places_without_a_base_are_refused() -> None:
    with pytest.raises(InvalidInput, match="rest on no other filter"):
        KeptMasks().unpack([SentMask(b"x" * 16, b"", zlib.compress(bytes(8)), bytes(4))], leaves=70)
