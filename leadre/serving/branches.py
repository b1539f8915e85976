"""Retrieval branches of the Mixer, and what they answer from: memory, kept fresh in the background.

LEADRE §4.4.1, §5.3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from leadre.errors import Unavailable
from leadre.serving.online_lists import Found, Nothing
from leadre.store.features.list_reader import row_in

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedBranch:
    """The same ads for everybody, such as the most popular ones.

    `ads` is asked for each request, so it must answer from memory. What it raises, `retrieve` raises.
    """

    name: str
    ads: Callable[[], Sequence[int]]

    async def retrieve(self, user_id: int, k: int) -> Sequence[int]:  # noqa: ARG002 - the protocol's
        """Return the first `k` ads."""
        return self.ads()[:k]


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

    async def retrieve(self, user_id: int, k: int) -> Sequence[int]:
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
            return []
        row = row_in(found, user_id)
        return [] if row is None or self._clock() - row.generated_at.timestamp() > self._ttl_s else row.ad_ids[:k]


class Kept(Generic[T]):
    """A value in memory that is loaded anew now and then; the last one stays while loading fails.

    Args:
        load: loads it. It blocks, and runs in a thread.
        what: what the value is, for messages.
        every_s: seconds between two loads.
    """

    def __init__(self, load: Callable[[], T], *, what: str, every_s: float) -> None:
        self._load, self._what, self._every_s = load, what, every_s
        self._values: list[T] = []  # none yet, or the one

    def __call__(self) -> T:
        """Return the value.

        Raises:
            Unavailable: it has never been loaded yet.
        """
        if not self._values:
            raise Unavailable(f"{self._what} are not read yet; look whether PostgreSQL and Redis run")
        return self._values[0]

    async def keep(self) -> None:
        """Load the value, for ever."""
        while True:
            try:
                self._values = [await asyncio.to_thread(self._load)]
            except Exception as error:  # noqa: BLE001 - fail open with the last one
                logger.warning("keeping_the_last_value", extra={"of": self._what, "error": type(error).__name__})
            await asyncio.sleep(self._every_s)
