"""Keys in short lists are found where they are first, whatever slots they share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.derivation.key_places import KeyPlaces

KEYS = st.integers(0, 2**64 - 1) | st.integers(0, 5)


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 64]), st.data())
def test_a_key_is_found_at_its_first_place_and_only_in_its_own_list(
    groups: int, n: int, asked: int, slots: int, data: st.DataObject
) -> None:
    def drawn(width: int) -> np.ndarray:
        keys = data.draw(st.lists(KEYS, min_size=groups * width, max_size=groups * width))
        return np.array(keys, dtype=np.uint64).reshape(groups, width)

    listed = drawn(n)
    wanted = np.concatenate((drawn(asked), listed), axis=1)
    places = KeyPlaces(listed, slots=slots)

    def first(group: int, key: int) -> int:
        return 0 if key == 0 else ([*listed[group].tolist(), key].index(key) + 1) % (n + 1)

    expected = [[first(group, key) for key in of_group] for group, of_group in enumerate(wanted.tolist())]
    assert places.find(wanted).tolist() == expected
    assert places.own.tolist() == [of_group[asked:] for of_group in expected]


@pytest.mark.parametrize("slots", [1, 8])
def test_many_keys_in_one_list_with_few_slots_are_all_found(slots: int) -> None:
    rng = np.random.default_rng(slots)
    listed = rng.integers(1, 2**63, 70_000).astype(np.uint64)
    places = KeyPlaces(listed[None], slots=slots)
    assert np.array_equal(places.find(listed[None])[0], np.arange(70_000) + 1)
    assert not places.find(listed[None] + np.uint64(2**63)).any()
