"""What a server answers from: a value in memory, kept fresh in the background. LEADRE §4.4.1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from leadre.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
