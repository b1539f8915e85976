"""Retrieval branches of the Mixer, and what they answer from: memory, kept fresh in the background.

LEADRE §4.4.1, §5.3.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from leadre.errors import Unavailable

if TYPE_CHECKING:
    from leadre.store.features.list_reader import RetrievedRow

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
        read: reads a user's list; None when there is none. It blocks, and runs in a thread.
    """

    def __init__(self, *, name: str, read: Callable[[int], RetrievedRow | None]) -> None:
        self.name = name
        self._read = read
        self._readers = ThreadPoolExecutor(16, thread_name_prefix=name)

    async def retrieve(self, user_id: int, k: int) -> Sequence[int]:
        """Return the list's first `k` ads; raises what `read` raises."""
        found = await asyncio.get_running_loop().run_in_executor(self._readers, self._read, user_id)
        return found.ad_ids[:k] if found else []


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
