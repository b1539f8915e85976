"""Match scores in arrays: to the bit what the printed algorithm gives, for rows in any batch and order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from leadre.derivation import NEUTRAL
from leadre.derivation.item_match import match
from leadre.derivation.list_record import pack, unpack
from leadre.derivation.targets import Shape, Targets, ad_keys
from leadre.derivation.user_side import directions
from tests.derivation import reference
from tests.derivation.worlds import NAMES, all_plain, derived, facts, target_facts

TTL_S = 1e9


def targets_of(ads: list[dict[str, Any] | None]) -> tuple[Targets, list[int]]:
    """Return the ads in arrays, and the place of each; -1 for an unknown one."""
    known = [ad for ad in ads if ad is not None]
    numbers = {name: number for number, name in enumerate({*NAMES, "elsewhere"})}
    shapes = sorted({Shape(ad["version"], len(ad["codes"]), len(ad["embedding"])) for ad in known})
    codes = np.zeros((len(known), max((shape.levels for shape in shapes), default=0)), np.int64)
    pointing = np.zeros((len(known), max((shape.width for shape in shapes), default=0)), np.int8)
    for row, ad in enumerate(known):
        codes[row, : len(ad["codes"])] = ad["codes"]
        pointing[row, : len(ad["embedding"])] = directions(np.array([ad["embedding"]], np.float32).reshape(1, -1))[0]
    first, second = (
        [numbers[ad[side]] if ad[side] else -1 for ad in known] for side in ("first_category", "second_category")
    )
    targets = Targets(
        shapes=tuple(shapes),
        shape_of_ad=None
        if len(shapes) == 1
        else np.array(
            [shapes.index((ad["version"], len(ad["codes"]), len(ad["embedding"]))) for ad in known], np.int32
        ),
        keys=np.ascontiguousarray(
            ad_keys(
                codes,
                levels=[len(ad["codes"]) for ad in known],
                first_categories=np.array(first, np.int64),
                second_categories=np.array(second, np.int64),
                advertiser_ids=np.array([ad["advertiser_id"] for ad in known], np.int64),
            ).T
        ),
        category_numbers=numbers,
        codes=codes,
        directions=pointing,
    )
    places = iter(range(len(known)))
    return targets, [-1 if ad is None else next(places) for ad in ads]


@settings(max_examples=150)
@given(facts(), target_facts(), st.data())
def test_every_row_is_to_the_bit_what_the_printed_algorithm_gives(
    of_lists: dict[str, Any], ads: list[dict[str, Any] | None], data: st.DataObject
) -> None:
    lists = unpack([*pack(derived(of_lists)), None])
    known_ids = [*lists.ad_ids.tolist(), 5, -1]
    targets, places = targets_of([*ads, None])
    rows = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, len(lists) - 1),
                st.sampled_from(known_ids),
                st.integers(0, len(places) - 1),
                st.sampled_from([0.0, 1e9, 2e9, 4e9, float("nan")]),
            ),
            max_size=12,
        )
    )
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.empty(0, np.int64)] * 4

    def matched(chosen: NDArray[np.int64]) -> dict[str, list[Any]]:
        of_list, ad, place, at = (column[chosen] for column in columns)
        found = match(
            lists,
            targets,
            list_of_row=of_list,
            ad_of_row=ad,
            target_of_row=np.array(places)[place],
            request_time_s=at.astype(np.float64),
            ttl_s=TTL_S,
        )
        return {name: values.tolist() for name, values in found.items()}

    everything = matched(np.arange(len(rows)))
    backwards = matched(np.arange(len(rows))[::-1])
    assert list(everything) == list(NEUTRAL)
    plain = all_plain(lists)
    for number, (of_list, ad_id, place, at) in enumerate(rows):
        ad = [*ads, None][place]
        target = ad and {**ad, "direction": targets.directions[places[place], : len(ad["embedding"])].tolist()}
        expected = reference.item_match(plain[of_list], target, ad_id=ad_id, request_time_s=at, ttl_s=TTL_S)
        got = {name: values[number] for name, values in everything.items()}
        alone = {name: values[0] for name, values in matched(np.array([number])).items()}
        assert [(name, _bits(value)) for name, value in got.items()] == [
            (name, _bits(value)) for name, value in expected.items()
        ]
        assert alone == got == {name: values[-1 - number] for name, values in backwards.items()}


def _bits(value: float) -> str | int:
    return value.hex() if isinstance(value, float) else value


@pytest.mark.parametrize("n", [255, 257, 300])
def test_long_lists_and_many_targets_are_cut_without_a_seam(n: int) -> None:
    rng = np.random.default_rng(n)
    ads = [
        {
            "codes": rng.integers(0, 3, 6).tolist(),
            "embedding": rng.standard_normal(5).tolist(),
            "first_category": NAMES[rng.integers(0, 6)],
            "second_category": NAMES[rng.integers(0, 6)],
            "advertiser_id": int(rng.integers(0, 9)),
            "version": "v1",
        }
        for _ in range(400)
    ]
    targets, _ = targets_of(list(ads))
    listed = rng.permutation(400)[:n]
    lists = derived(
        {
            "counts": [n, 3],
            "ad_ids": [*listed, 1, 1, 2],
            "log_probabilities": -rng.random(n + 3),
            "codes": np.concatenate((targets.codes[listed], targets.codes[:3])),
            "first_categories": [NAMES.index(ads[ad]["first_category"]) for ad in (*listed, 0, 1, 2)],
            "second_categories": [NAMES.index(ads[ad]["second_category"]) for ad in (*listed, 0, 1, 2)],
            "category_names": NAMES,
            "advertiser_ids": [ads[ad]["advertiser_id"] for ad in (*listed, 0, 1, 2)],
            "embeddings": np.array([ads[ad]["embedding"] for ad in (*listed, 0, 1, 2)], np.float32),
            "ecpms": np.ones(n + 3),
            "generated_at_s": 0.0,
            "behavior_at_s": 0.0,
            "release": "r",
            "index_version": "v1",
        }
    )
    rows = rng.integers(0, 400, 900)
    of_row = (np.arange(900) % 7 == 0).astype(np.int64)
    found = match(lists, targets, list_of_row=of_row, ad_of_row=rows, target_of_row=rows, request_time_s=5.0)
    plain = all_plain(lists)
    for number in range(0, 900, 9):
        ad = rows[number]
        target = {**ads[ad], "direction": targets.directions[ad].tolist()}
        expected = reference.item_match(plain[of_row[number]], target, ad_id=int(ad), request_time_s=5.0, ttl_s=TTL_S)
        assert {name: values[number].item() for name, values in found.items()} == expected
