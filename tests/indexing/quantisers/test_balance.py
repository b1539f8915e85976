from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.indexing.quantisers import balance as module
from leadre.indexing.quantisers.balance import balance
from leadre.indexing.quantisers.quantiser import Codes, Floats, quantise

World = tuple[Codes, Floats, Floats, Codes]


def world(seed: int, *, levels: int = 3, size: int = 5, ads: int = 60) -> World:
    """Codes, hidden embeddings, codebooks and taken codes, crowded enough that some prefixes overflow."""
    random = np.random.default_rng(seed)
    codebooks = random.normal(size=(levels, size, 4)).astype(np.float32)
    centres = random.normal(size=(7, 4))
    hidden = (centres[random.integers(0, 7, ads)] + 0.2 * random.normal(size=(ads, 4))).astype(np.float32)
    before = (centres[random.integers(0, 7, 13)] + 0.2 * random.normal(size=(13, 4))).astype(np.float32)
    return quantise(hidden, codebooks)[0], hidden, codebooks, quantise(before, codebooks)[0]


def tuples(codes: Codes) -> list[tuple[int, ...]]:
    return [tuple(row) for row in codes.tolist()]


def plain(codes: Codes, hidden: Floats, codebooks: Floats, taken: Codes) -> Codes:
    """The same, an ad at a time."""
    last = codes.shape[1] - 1
    occupied, given = set(tuples(codes)) | set(tuples(taken)), set(tuples(taken))
    counts = Counter(tuples(codes) + list(given))
    residuals = hidden.copy()
    for level in range(last):
        residuals -= codebooks[level][codes[:, level]]
    distances = ((residuals[:, None] - codebooks[last]) ** 2).sum(axis=2)
    result, keepers = codes.copy(), given
    for ad in sorted(range(len(codes)), key=lambda ad: (float(distances[ad, codes[ad, last]]), hidden[ad].tolist())):
        row = tuple(codes[ad].tolist())
        if counts[row] == 1 or row not in keepers:
            keepers.add(row)
            continue
        for code in np.argsort(distances[ad], kind="stable"):
            if (*row[:last], int(code)) not in occupied:
                occupied.add((*row[:last], int(code)))
                result[ad, last] = code
                break
    return result


@given(st.integers(0, 2**32 - 1))
def test_it_is_what_an_ad_at_a_time_gives(seed: int) -> None:
    codes, hidden, codebooks, taken = world(seed)
    np.testing.assert_array_equal(
        balance(codes, hidden, codebooks, taken=taken), plain(codes, hidden, codebooks, taken)
    )


@given(st.integers(0, 2**32 - 1))
def test_no_new_collision_and_no_avoidable_one(seed: int) -> None:
    codes, hidden, codebooks, taken = world(seed)
    before, after = tuples(codes), tuples(balance(codes, hidden, codebooks, taken=taken))
    old, new = Counter(before + tuples(taken)), Counter(after + tuples(taken))
    for was, now in zip(before, after, strict=True):
        assert was[:-1] == now[:-1]
        if old[was] == 1:
            assert now == was
        if now != was:
            assert new[now] == 1
        if new[now] > 1:  # still sharing: the prefix is full
            assert len({row for row in new if row[:-1] == now[:-1]}) == len(codebooks[0])
    assert len(new) >= len(old)


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_has_no_influence(seed: int) -> None:
    codes, hidden, codebooks, taken = world(seed)
    order = np.random.default_rng(seed + 1).permutation(len(codes))
    shuffled = balance(codes[order], hidden[order], codebooks, taken=taken[::-1])
    np.testing.assert_array_equal(shuffled, balance(codes, hidden, codebooks, taken=taken)[order])


def test_the_nearest_keeps_the_code_and_the_next_takes_the_nearest_free_one() -> None:
    codebooks = np.array([[[0.0], [100.0]], [[0.0], [10.0]], [[0.0], [1.0]]], np.float32)[:, :, :1]
    codebooks = np.concatenate([codebooks, [[[0.0]] * 2, [[0.0]] * 2, [[3.0], [9.0]]]], axis=1).astype(np.float32)
    codes = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 2], [1, 0, 1]], np.int32)
    hidden = np.array([[1.4], [1.1], [2.9], [101.0]], np.float32)
    # .1 away keeps code 1; 1.4 is nearest to 0 (1.4) of the free ones, 3 being another ad's and 9 far; the others stay
    assert balance(codes, hidden, codebooks).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 0, 1]]


def test_equal_ads_spread_and_the_leftovers_share() -> None:
    codebooks = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    hidden = np.repeat(codebooks[:1, 2] + codebooks[1:, 3], 9, axis=0)
    codes, _ = quantise(hidden, codebooks)
    counts = Counter(tuples(balance(codes, hidden, codebooks)))
    assert sorted(counts.values()) == [1, 1, 1, 6]
    assert counts[tuple(codes[0].tolist())] == 6  # they keep sharing their own code


def test_few_prefixes_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, hidden, codebooks, taken = world(3, ads=200)
    expected = balance(codes, hidden, codebooks, taken=taken)
    monkeypatch.setattr(module, "_CELLS", 11)
    np.testing.assert_array_equal(balance(codes, hidden, codebooks, taken=taken), expected)


def test_one_level_no_ads_and_codes_beyond_63_bits() -> None:
    codes, hidden, codebooks, _ = world(4, levels=1, size=9, ads=8)
    assert len(set(tuples(balance(codes, hidden, codebooks)))) == 8
    assert balance(codes[:0], hidden[:0], codebooks, taken=codes).shape == (0, 1)
    wide, hidden, codebooks, taken = world(5, levels=8, size=700, ads=9)
    twice, both = np.concatenate([wide, wide]), np.concatenate([hidden, hidden])
    assert len(set(tuples(balance(twice, both, codebooks, taken=taken)))) == 18
