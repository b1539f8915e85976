"""Retrieval branches: the protocol, and the three that are built in.

LEADRE §4.4.1, §5.3 ("LEADRE operates as a retrieval sub-branch, collaborating with other LTR branches").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from leadre.domain.retrieval import Source
from leadre.errors import Unavailable
from leadre.retrieval.cheap_lane import HISTORY, Visits
from leadre.serving.online_lists import Found, Nothing
from leadre.store.features.layout import last_integers
from leadre.store.features.list_reader import row_in


class Retrieved(NamedTuple):
    """Ad ids, best first, and what found them: `llm`, `covisitation`, `popular`; empty: the branch's name says it."""

    ads: Sequence[int]
    source: Source | str = ""


class Branch(Protocol):
    """A way of retrieving ads."""

    @property
    def name(self) -> str:
        """What metrics and answers call it."""
        ...

    async def retrieve(self, user_id: int, k: int) -> Retrieved:
        """Return at most `k` ads. It may raise anything and may be cancelled: it is left out of the list then."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedBranch:
    """The same ads for everybody, such as the most popular ones.

    `ads` is asked for each request, so it must answer from memory. What it raises, `retrieve` raises.
    """

    name: str
    ads: Callable[[], Sequence[int]]

    async def retrieve(self, user_id: int, k: int) -> Retrieved:  # noqa: ARG002 - the protocol's
        """Return the first `k` ads."""
        return Retrieved(self.ads()[:k])


class StoredBranch:
    """LEADRE's branch: the list that a nearline worker has stored.

    Args:
        name: what answers call it.
        ask: reads a user's list from the online store, without blocking (`OnlineLists.ask`).
        ttl_s: an older list counts as absent.
        clock: Unix seconds.
    """

    def __init__(
        self, *, name: str, ask: Callable[[int, Found], None], ttl_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self._ask, self._ttl_s, self._clock = ask, ttl_s, clock

    async def retrieve(self, user_id: int, k: int) -> Retrieved:
        """Return the list's first `k` ads.

        Raises:
            Unavailable: the online store does not answer, or has lost its lists.
        """
        future: asyncio.Future[bytes | Nothing | Exception] = asyncio.get_running_loop().create_future()
        self._ask(user_id, lambda found: None if future.done() else future.set_result(found))
        found = await future
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Nothing):
            if not found.whole:
                raise Unavailable("the online store was wiped; its lists are being written again")
            return Retrieved(())
        row = row_in(found, user_id)
        if row is None or self._clock() - row.generated_at.timestamp() > self._ttl_s:
            return Retrieved(())
        return Retrieved(row.ad_ids[:k], row.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitsBranch:
    """Co-visitation: what other users clicked after the ads that the user last clicked.

    Args:
        name: what answers call it.
        visits: what was counted; asked for each request, so it must answer from memory.
        read: reads the user's sequence of ads from the online store, as Feast holds it; None where there is none.
    """

    name: str
    visits: Callable[[], Visits]
    read: Callable[[int], asyncio.Future[bytes | None]]

    async def retrieve(self, user_id: int, k: int) -> Retrieved:
        """Return the best `k` ads; none for a user without clicks. Raises what `visits` and `read` raise."""
        visits = self.visits()
        newest = last_integers(await self.read(user_id), HISTORY)
        return Retrieved(visits.after(newest[::-1], k))
