"""The live inventory: which ads of an index may be generated for a user now, as one filter a user.

LEADRE §3.3, §3.4: the trie stays as it is, the filter says which of its leaves are there. A filter is an AND of
bitmaps: what runs now (not paused, budget left, within schedule), and for every attribute that some ad targets, the
ads that accept the user's value or do not care. Users whom no ad tells apart share one filter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from leadre.domain.targeting import AGE, values_of
from leadre.domain.users import Profile
from leadre.errors import ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.live_mask import LiveMask
from leadre.retrieval.schedule import Schedule
from leadre.retrieval.targeting_table import Choice, TargetingTable
from leadre.store.records.inventory.rows import InventoryRows, microseconds, read_inventory

if TYPE_CHECKING:
    from sqlalchemy import Connection

Words = NDArray[np.uint64]
Key = TypeVar("Key")
Kept = TypeVar("Kept", Words, LiveMask)

KEPT_BYTES = 256 << 20
"""Memory for bitmaps, and as much for filters; the ones asked for least recently go (ours)."""


class Inventory:
    """What the catalog says of an index's ads: 4 bytes an ad, 20 more for a scheduled one, and the bitmaps in use.

    Ads that the index does not hold are passed over; ads that the catalog does not hold are not live, nor is any ad
    before the first `refresh`.

    Args:
        index: the ads; row i is leaf i.
    """

    def __init__(self, index: AdIndex) -> None:
        self.index = index
        self._cursor: int | None = None
        self._unread = np.empty(0, np.int64)  # ads of the index of which nothing was read yet
        self._forget()

    def _forget(self) -> None:
        """Go back to where no ad is live."""
        self._table = TargetingTable()
        self._targeting: NDArray[np.int32] = np.zeros(len(self.index), np.int32)
        self._on: Words = np.zeros(len(self.index) // 64 + 1, np.uint64)
        self._schedule = Schedule()
        self._running: Words | None = None
        self._bitmaps: OrderedDict[tuple[str, Choice], Words] = OrderedDict()
        self._masks: OrderedDict[tuple[tuple[str, Choice], ...], LiveMask] = OrderedDict()

    def over(self, index: AdIndex, *, added: NDArray[np.bool_] | None = None) -> Inventory:
        """Return what is known of the ads over a later revision of the index; the next `refresh` reads the new ads.

        Args:
            index: the later revision.
            added: `added_rows(self.index, index)`, where it was computed before (seconds at ten million ads).
        """
        new = added_rows(self.index, index) if added is None else added
        old = np.flatnonzero(~new)  # ads keep their order: what row i was, row old[i] is
        moved = Inventory(index)
        moved._cursor = self._cursor
        used = np.zeros(max(1, len(self._table)), np.bool_)
        used[self._targeting] = True
        moved._table, codes = self._table.used(used)
        moved._unread = np.union1d(index.ad_ids[new], self._unread)
        moved._targeting[old] = codes[self._targeting]
        on = np.zeros(len(index), np.bool_)
        on[old] = np.unpackbits(self._on.view(np.uint8), count=len(old), bitorder="little").view(np.bool_)
        moved._on = _packed(on)
        moved._schedule = self._schedule.moved(old[self._schedule.rows])
        return moved

    def refresh(self, connection: Connection) -> int:
        """Read what changed in the catalog: everything the first time, and after an ad was deleted.

        Args:
            connection: in a transaction of its own. `read_inventory` says which changes it is sure to see: all
                that were committed before.

        Returns:
            How many rows of the catalog were read.

        Raises:
            Unavailable: PostgreSQL does not answer (from `transaction`).
        """
        changes = read_inventory(connection, since=self._cursor)
        self.apply(changes)
        self._cursor = changes.cursor
        count = len(changes.ad_ids)
        if self._unread.size:
            if not changes.whole:
                new = read_inventory(connection, ad_ids=self._unread)
                self.apply(new)
                count += len(new.ad_ids)
            self._unread = np.empty(0, np.int64)
        return count

    def apply(self, changes: InventoryRows) -> None:
        """Take over what the catalog says of some ads, or of all; doing so twice is doing it once."""
        if changes.whole:
            self._forget()
        rows = _rows(self.index, changes.ad_ids)
        here = rows >= 0
        rows = rows[here]
        if not rows.size and not changes.whole:
            return
        codes = self._table.add(changes.targetings)
        self._targeting[rows] = codes[changes.targeting[here]]
        for (attribute, choice), words in self._bitmaps.items():
            _put(words, rows, self._table.accepting(attribute, choice)[self._targeting[rows]])
        _put(self._on, rows, changes.on[here])
        self._schedule.replace(rows, changes.starts_us[here], changes.ends_us[here])
        self._running = None
        self._masks.clear()

    def mask(self, profile: Profile, now: datetime) -> LiveMask:
        """Return the ads that may be generated for a user now; one and the same mask for users no ad tells apart."""
        running = self._running_at(microseconds(now))
        choices = [(name, self._table.values(name, values_of(profile, name))) for name in self._table.attributes]
        if self._table.restricts_age:
            choices.append((AGE, self._table.age(profile.age)))
        return _kept(self._masks, tuple(choices), lambda: self._combined(running, choices))

    def _combined(self, running: Words, choices: list[tuple[str, Choice]]) -> LiveMask:
        words = running
        for attribute, choice in choices:
            accepting = _kept(self._bitmaps, (attribute, choice), lambda: self._bitmap(attribute, choice))  # noqa: B023
            words = words & accepting if words is running else np.bitwise_and(words, accepting, out=words)
        return LiveMask(words, len(self.index))

    def _bitmap(self, attribute: str, choice: Choice) -> Words:
        return _packed(self._table.accepting(attribute, choice)[self._targeting])

    def _running_at(self, now_us: int) -> Words:
        """Return the bitmap of the ads that are on and within their schedules; it is never written to again."""
        if self._running is None:
            self._running = self._on.copy()
            _put(self._running, self._schedule.rows, self._schedule.start(now_us) & self._on_at(self._schedule.rows))
            self._masks.clear()
        elif (passed := self._schedule.advance(now_us)) is not None:
            rows, within = passed
            self._running = self._running.copy()
            _put(self._running, rows, within & self._on_at(rows))
            self._masks.clear()
        return self._running

    def _on_at(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _bits(self._on, rows)


def added_rows(before: AdIndex, after: AdIndex) -> NDArray[np.bool_]:
    """Return which rows of a later revision are new, bool[N].

    Raises:
        ReleaseMismatch: `after` is no later revision of `before`.
    """
    added = np.empty(len(after), np.bool_)
    added[after.by_id] = _rows(before, after.ad_ids[after.by_id]) < 0
    if not np.array_equal(after.ad_ids[~added], before.ad_ids):
        raise ReleaseMismatch(
            f"revision {after.revision} of index {after.version} does not continue revision {before.revision} of "
            f"{before.version}: it was built anew; make its inventory anew as well"
        )
    return added


def _rows(index: AdIndex, ad_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `index.rows`; of many ids in ascending order it takes a tenth of the time."""
    if len(ad_ids) < max(1, len(index) // 64):
        return index.rows(ad_ids)
    ascending = np.append(index.ad_ids[index.by_id], np.iinfo(np.int64).max)
    place = np.searchsorted(ascending[:-1], ad_ids)
    found = np.append(index.by_id, -1)[place]
    return np.where(ascending[place] == ad_ids, found, -1)


def _kept(kept: OrderedDict[Key, Kept], key: Key, make: Callable[[], Kept]) -> Kept:
    """Return what is kept under the key, made first if need be."""
    if key not in kept:
        kept[key] = made = make()
        size = (made.words if isinstance(made, LiveMask) else made).nbytes
        while len(kept) > max(64, KEPT_BYTES // size):
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _packed(bits: NDArray[np.bool_]) -> Words:
    return LiveMask.of(bits).words


def _bits(words: Words, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (words[rows >> 6] >> (rows & 63).astype(np.uint64) & np.uint64(1)).astype(np.bool_)
    return found


def _put(words: Words, rows: NDArray[np.int64], bits: NDArray[np.bool_]) -> None:
    """Write bits of different rows in place."""
    word, bit = rows >> 6, np.uint64(1) << (rows & 63).astype(np.uint64)
    np.bitwise_or.at(words, word, bit)
    np.bitwise_xor.at(words, word[~bits], bit[~bits])
