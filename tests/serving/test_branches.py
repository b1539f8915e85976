from __future__ import annotations

import asyncio

import pytest

from leadre.errors import Unavailable
from leadre.serving.branches import FixedBranch, Kept


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
