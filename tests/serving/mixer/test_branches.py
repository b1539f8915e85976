from __future__ import annotations

import asyncio
from struct import pack

import numpy as np
import pytest

from leadre.errors import Unavailable
from leadre.evaluation.baselines import Histories
from leadre.retrieval.cheap_lane import Visits
from leadre.serving.mixer.branches import FixedBranch, VisitsBranch
from leadre.serving.mixer.kept import Kept
from leadre.store.features.materialization.values import KINDS


def test_a_value_is_unavailable_until_it_was_loaded_and_stays_while_loading_fails() -> None:
    outcomes = iter([None, 1, None, 2])

    def load() -> int:
        outcome = next(outcomes, 2)
        if outcome is None:
            raise ConnectionError
        return outcome

    async def scenario() -> list[int]:
        kept = Kept(load, what="the numbers", every_s=0.01)
        with pytest.raises(Unavailable, match="the numbers are not read yet"):
            kept()
        with pytest.raises(Unavailable):
            await FixedBranch(name="fixed", ads=lambda: [kept()]).retrieve(1, 1)
        keeping = asyncio.create_task(kept.keep())
        seen: list[int] = []
        while seen[-1:] != [2]:
            await asyncio.sleep(0.001)
            try:
                seen.append(kept())
            except Unavailable:
                assert not seen
        keeping.cancel()
        return seen

    assert sorted(set(asyncio.run(asyncio.wait_for(scenario(), 10)))) == [1, 2]


def as_feast_holds(ads: list[int]) -> bytes:
    """A sequence of ads as the online store has it, made by what writes it there."""
    elements = b"".join(pack(">iq", 8, ad) for ad in ads)
    return KINDS["Array(Int64)"][1](pack(">iiiii", 1, 0, 20, len(ads), 1) + elements)


def test_what_others_clicked_next_is_retrieved_by_the_newest_clicks() -> None:
    visits = Visits.count(Histories.of([np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([2, 4]), np.array([9, 8])]))

    async def retrieved(value: bytes | None) -> list[int]:
        async def reply() -> bytes | None:
            return value

        branch = VisitsBranch(name="covisitation", visits=lambda: visits, read=lambda _: asyncio.ensure_future(reply()))
        return list((await branch.retrieve(5, 2)).ads)

    assert asyncio.run(retrieved(as_feast_holds([9, 2]))) == [4, 3]
    assert asyncio.run(retrieved(as_feast_holds([2, 9]))) == [4, 8]
    for nothing in (None, b"", as_feast_holds([]), as_feast_holds([77])):
        assert asyncio.run(retrieved(nothing)) == []
