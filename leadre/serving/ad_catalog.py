"""Which ads may leave a server and what their owner calls them, in memory: no question to the database for an answer.

LEADRE §4.4.1. All ads are read once, then what changed, every second: what comes in is laid over the sorted arrays,
and merged into them when there is much of it. 21 bytes an ad, and the texts of those that are named by text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leadre.errors import Unavailable
from leadre.store.records.database import connect, transaction
from leadre.store.records.inventory.showable import NO_END_S, NO_ROWS, ShowableRows, merged, read_showable

logger = logging.getLogger(__name__)

_LAID_OVER = 65_536
"""Changed ads that are kept beside the arrays before they are merged into them (ours)."""

_SEEN = 65_536
"""Ads that are kept as they were taken out of the arrays: 20 MB at most (ours)."""


class _Ad(NamedTuple):
    name: int | str
    on: bool
    begins_s: int
    ends_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What may be shown of a list.

    Args:
        names: parallel to the list's ads: what the owner calls an ad; None where it may not be shown.
        unnamed: how many of those are not known at all.
        until_s: Unix second at which a schedule changes that.
    """

    names: Sequence[int | str | None]
    unnamed: int
    until_s: int


class AdCatalog:
    """The ads of one database.

    Args:
        read: reads the ads that changed since a cursor, or all of them (`read_showable`). It blocks, and may fail.
        every_s: seconds between two reads.

    Attributes:
        version: grows with every change.
    """

    def __init__(self, read: Callable[[int | None], tuple[ShowableRows, int, bool]], *, every_s: float = 1.0) -> None:
        self._read, self._every_s = read, every_s
        self._rows: ShowableRows | None = None
        self._over: dict[int, _Ad] = {}
        self._seen: dict[int, _Ad] = {}  # of the arrays, taken out before
        self._cursor: int | None = None
        self.version = 0

    @classmethod
    def over(cls, database_url: str) -> AdCatalog:
        """Return the catalog of a database.

        Raises:
            ConfigError: the URL is not one of PostgreSQL.
        """
        # Connections of its own: to read ten million names takes longer than a request may.
        database = connect(database_url, application_name="leadre catalog")

        def read(since: int | None) -> tuple[ShowableRows, int, bool]:
            with transaction(database) as connection:
                return read_showable(connection, since=since)

        return cls(read)

    @property
    def known(self) -> bool:
        """Whether the ads have been read."""
        return self._rows is not None

    def shown(self, ad_ids: Sequence[int], *, now_s: float) -> Shown:
        """Say which ads may be shown, and under which names.

        Args:
            ad_ids: of a list.
            now_s: Unix seconds.

        Raises:
            Unavailable: nothing has been read yet.
        """
        names: list[int | str | None] = []
        unnamed, until = 0, NO_END_S
        for ad in self._found(ad_ids):
            if ad is None:
                unnamed += 1
            else:
                if now_s < ad.begins_s < until:
                    until = ad.begins_s
                if now_s < ad.ends_s < until:
                    until = ad.ends_s
                if ad.on and ad.begins_s <= now_s < ad.ends_s:
                    names.append(ad.name)
                    continue
            names.append(None)
        return Shown(names=names, unnamed=unnamed, until_s=until)

    def of(self, ad_ids: Sequence[int]) -> list[int | str | None]:
        """Return each ad's source id, may it be shown or not; None for an ad that is not known.

        Raises:
            Unavailable: nothing has been read yet.
        """
        return [None if ad is None else ad.name for ad in self._found(ad_ids)]

    def load(self) -> None:
        """Read what changed. It blocks.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        rows, cursor, whole = self._read(None if self._rows is None else self._cursor)
        if whole or self._rows is None:
            self._over, self._rows, self._seen = {}, rows, {}
            self.version += 1
        elif len(rows):
            over = {ad_id: _ad(rows, place, ad_id) for place, ad_id in enumerate(rows.ad_ids.tolist())}
            if all(self._over.get(ad_id) == ad for ad_id, ad in over.items()):
                pass  # read before: its transaction was open a moment ago, or still is
            elif len(self._over) + len(rows) > _LAID_OVER:
                ids = np.array(sorted(self._over.keys() - over.keys()), np.int64)
                self._rows = merged(merged(self._rows, _rows_of(ids, self._over)), rows)
                self._over, self._seen = {}, {}
                self.version += 1
            else:
                self._over.update(over)
                self.version += 1
        self._cursor = cursor

    async def keep(self) -> None:
        """Read what changed, for ever; what was read last stays while reading fails."""
        while True:
            try:
                await asyncio.to_thread(self.load)
            except Exception as error:  # noqa: BLE001 - fail open with what is known
                logger.warning("catalog_not_read", extra={"error": type(error).__name__})
            await asyncio.sleep(self._every_s)

    def _found(self, ad_ids: Sequence[int]) -> list[_Ad | None]:
        over, rows, seen = self._over, self._rows, self._seen
        if rows is None:
            raise Unavailable("the ads are not read yet; look whether PostgreSQL runs")
        found = [over.get(ad_id) or seen.get(ad_id) for ad_id in ad_ids]
        if None not in found:
            return found
        if len(seen) > _SEEN:
            seen.clear()
        places = np.searchsorted(rows.ad_ids, np.asarray(ad_ids, np.int64)).tolist()
        known = len(rows)
        for at, (ad_id, place) in enumerate(zip(ad_ids, places, strict=True)):
            if found[at] is None and place < known and rows.ad_ids[place] == ad_id:
                found[at] = seen[ad_id] = _ad(rows, place, ad_id)
        return found


def _ad(rows: ShowableRows, place: int, ad_id: int) -> _Ad:
    return _Ad(
        name=rows.texts[place].as_py() or ad_id,
        on=bool(rows.on[place]),
        begins_s=int(rows.begins_s[place]),
        ends_s=int(rows.ends_s[place]),
    )


def _rows_of(ad_ids: np.ndarray[tuple[int], np.dtype[np.int64]], ads: dict[int, _Ad]) -> ShowableRows:
    if not len(ad_ids):
        return NO_ROWS
    import pyarrow as pa

    chosen = [ads[ad_id] for ad_id in ad_ids.tolist()]
    return ShowableRows(
        ad_ids=ad_ids,
        texts=pa.array([ad.name if isinstance(ad.name, str) else "" for ad in chosen], pa.string()),
        on=np.array([ad.on for ad in chosen]),
        begins_s=np.array([ad.begins_s for ad in chosen], np.uint32),
        ends_s=np.array([ad.ends_s for ad in chosen], np.uint32),
    )
