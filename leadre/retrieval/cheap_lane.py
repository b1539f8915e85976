"""Lists without the LLM, for users whom it does not serve: co-visitation, filled up with popular ads.

LEADRE §4.4.1, Adaptive Resource Distribution ("GPU resources ... cannot be allocated to every request"); that others
get a list at all is ours. What others clicked after the ads that a user last clicked; tens of thousands of users/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from leadre.domain.retrieval import Beam, RetrievalList, Source
from leadre.domain.semantic_id import SemanticId
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity, Seen
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.retrieval.inventory import Inventory
from leadre.store.records.distribution.histories import NewestAds

FOLLOWERS = 32
"""Ads that are kept of those which followed an ad, the most frequent ones (ours)."""
HISTORY = 8
"""Newest ads of a user that a list is made from (ours)."""
_FARTHEST = 10
_AT_ONCE = 2_048
_VISITS = 1.0  # so much speaks for popular ads beside what followed: as leadre.collaborative has it

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Visits:
    """What histories say of the next ad, by ad id.

    Args:
        following: which ads followed which, `FOLLOWERS` an ad.
        shares: of all clicks, by ad of `following.items`, float64[items].
        ranked: places in `following.items`, the most popular first, int64[items].
        seen: whether what a user has clicked may come again.
    """

    following: CoVisitation
    shares: Floats
    ranked: Ints
    seen: Seen

    @classmethod
    def count(cls, histories: Histories) -> Visits:
        """Count histories of all users; some seconds for millions of clicks."""
        counted = CoVisitation.fit(histories, farthest=_FARTHEST)
        items, clicks = np.unique(histories.items, return_counts=True)
        ranked = np.lexsort((items, -clicks))
        return cls(
            following=CoVisitation(items, _most(counted.pairs, FOLLOWERS), Popularity(items[ranked])),
            shares=clicks / max(clicks.sum(), 1),
            ranked=ranked,
            seen=histories.seen if len(items) else "keep",
        )

    def after(self, ad_ids: Sequence[int], k: int) -> list[int]:
        """Return the `k` ads that followed a user's ads most often, of one user and at once: some 50 microseconds.

        Args:
            ad_ids: what the user clicked, the newest first.
            k: as many as there are, at most.
        """
        items, pairs = self.following.items, self.following.pairs
        scores: dict[int, float] = {}
        for age, (ad_id, place) in enumerate(zip(ad_ids, np.searchsorted(items, ad_ids).tolist(), strict=True), 1):
            if place < len(items) and items[place] == ad_id:
                low, high = pairs.indptr[place], pairs.indptr[place + 1]
                for follower, count in zip(
                    pairs.indices[low:high].tolist(), pairs.data[low:high].tolist(), strict=True
                ):
                    scores[follower] = scores.get(follower, 0.0) + count / age
        had = set(ad_ids) if self.seen == "leave_out" else set()
        best = sorted(scores, key=lambda place: (-scores[place], place))[: k + len(had)]
        return [ad for ad in items[best].tolist() if ad not in had][:k] if best else []


class CheapLists:
    """Makes lists over one revision of an index.

    Args:
        index: the ads that may be in a list.
        visits: what was counted, of whatever ads.
        release: the live one; written beside every list.
        release_epoch: its number.
        beam_width: ads a user.
    """

    def __init__(self, index: AdIndex, visits: Visits, *, release: str, release_epoch: int, beam_width: int) -> None:
        self._index, self._visits = index, visits
        self._release, self._epoch, self._width = release, release_epoch, beam_width
        self._rows = index.rows(visits.following.items)
        self._sids: dict[int, SemanticId] = {}

    def lists(self, asked: Sequence[NewestAds], *, inventory: Inventory, now: datetime) -> list[RetrievalList]:
        """Return each user's list, an empty one when no ad that anybody clicked may be shown to it.

        Args:
            asked: different users.
            inventory: which ads of `index` may be shown to whom.
            now: when the lists are made.

        Returns:
            In the order given; `log_probability` is that of the ad among the list's.
        """
        if not (len(self._index) and len(self._rows)):
            return [self._list_of(user, (), source="popular", now=now) for user in asked]
        masks = [inventory.mask(user.profile, now) for user in asked]
        order = sorted(range(len(asked)), key=lambda place: id(masks[place]))  # users of one mask side by side
        made: dict[int, RetrievalList] = {}
        for start in range(0, len(order), _AT_ONCE):
            block = order[start : start + _AT_ONCE]
            places, scores, followed = self._best([asked[u] for u in block], [masks[u] for u in block])
            counts, total = (scores > 0).sum(axis=1), scores.sum(axis=1)
            logs = np.log(np.where(scores > 0, scores / np.where(total > 0, total, 1.0)[:, None], 1.0))
            rows = self._rows[places]
            sids = self._sids_of(rows[scores > 0])
            columns = (rows, self._index.ad_ids[rows], logs, counts, followed)
            for u, its_rows, ads, its_logs, count, follows in zip(block, *(it.tolist() for it in columns), strict=True):
                beams = tuple(
                    Beam(sid=sids[row], ad_id=ad, log_probability=log)
                    for row, ad, log in zip(its_rows[:count], ads, its_logs, strict=False)
                )
                made[u] = self._list_of(asked[u], beams, source="covisitation" if follows else "popular", now=now)
        return [made[u] for u in range(len(asked))]

    def _list_of(self, user: NewestAds, beams: tuple[Beam, ...], *, source: Source, now: datetime) -> RetrievalList:
        return RetrievalList(
            user_id=user.profile.user_id,
            release=self._release,
            index_version=self._index.version,
            generated_at=now,
            event_at=user.newest_at,
            beams=beams,
            release_epoch=self._epoch,
            behavior_sequence=user.behavior_sequence,
            source=source,
        )

    def _best(self, asked: Sequence[NewestAds], masks: Sequence[LiveMask]) -> tuple[Ints, Floats, NDArray[np.bool_]]:
        """Return the best ads of each user: places and scores [n, width], 0 where there is none; whether any followed.

        Users of one mask stand side by side.
        """
        visits, width = self._visits, self._width
        histories = Histories.of([np.array(user.ad_ids[HISTORY - 1 :: -1], np.int64) for user in asked])
        followed = visits.following.scores(histories, seen=visits.seen)
        spare = 2 * width + (HISTORY if visits.seen == "leave_out" else 0)
        popular = np.zeros((len(asked), spare), np.int64)
        fill = np.zeros((len(asked), spare))
        begin = 0
        for end in [u for u in range(1, len(masks)) if masks[u] is not masks[u - 1]] + [len(masks)]:
            low, high = followed.indptr[begin], followed.indptr[end]
            followed.data[low:high] *= self._live(masks[begin], followed.indices[low:high])
            best = self._popular(masks[begin], spare)
            popular[begin:end, : len(best)] = best
            fill[begin:end, : len(best)] = _VISITS * visits.shares[best]
            begin = end
        places, scores = _top(followed, width)
        follows = scores > 0
        fill[(popular[:, :, None] == np.where(follows, places, -1)[:, None, :]).any(axis=2)] = 0.0
        if visits.seen == "leave_out":
            fill[_had(popular, histories, visits.following.items)] = 0.0
        scores = np.where(follows, scores + _VISITS * visits.shares[places], 0.0)
        places, scores = np.hstack([places, popular]), np.hstack([scores, fill])
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        of_visits = (chosen < follows.shape[1]) & (np.take_along_axis(scores, chosen, 1) > 0)
        return np.take_along_axis(places, chosen, 1), np.take_along_axis(scores, chosen, 1), of_visits.any(axis=1)

    def _popular(self, mask: LiveMask, count: int) -> Ints:
        """Return the most popular live ads' places."""
        ranked = self._visits.ranked
        for looked_at in (4 * count, len(ranked)):
            live = ranked[:looked_at][self._live(mask, ranked[:looked_at])]
            if len(live) >= count:
                break
        return live[:count]

    def _live(self, mask: LiveMask, places: NDArray[np.integer]) -> NDArray[np.bool_]:
        rows = self._rows[places]
        live: NDArray[np.bool_] = rows >= 0
        live[live] = (mask.words[rows[live] >> 6] >> (rows[live] & 63).astype(np.uint64) & np.uint64(1)).astype(bool)
        return live

    def _sids_of(self, rows: Ints) -> dict[int, SemanticId]:
        for row in set(np.unique(rows).tolist()) - self._sids.keys():
            self._sids[row] = self._index.sid_at(row)
        return self._sids


def _top(scores: sparse.csr_array, k: int) -> tuple[Ints, Floats]:
    """Return columns and values of the k largest of each row, [n, k]; values are 0 where a row has fewer."""
    counts = np.diff(scores.indptr)
    width = max(int(counts.max(initial=0)), k)
    value, column = np.zeros((len(counts), width)), np.zeros((len(counts), width), np.int64)
    there = np.arange(width) < counts[:, None]
    value[there], column[there] = scores.data, scores.indices
    best = np.argpartition(-value, k - 1, axis=1)[:, :k]
    return np.take_along_axis(column, best, 1), np.take_along_axis(value, best, 1)


def _most(pairs: sparse.csr_array, k: int) -> sparse.csr_array:
    """Return the k largest entries of each row."""
    counts = np.diff(pairs.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((pairs.indices, -pairs.data, row))
    rank = np.arange(len(order)) - np.repeat(pairs.indptr[:-1], counts)
    kept = order[rank < k]
    return sparse.coo_array((pairs.data[kept], (row[kept], pairs.indices[kept])), shape=pairs.shape).tocsr()


def _had(places: Ints, histories: Histories, items: Ints) -> NDArray[np.bool_]:
    """Return which of the places, [n, m], are of items in their row's history."""
    count = np.diff(histories.offsets)
    had = np.full((len(histories), max(int(count.max(initial=0)), 1)), -1, np.int64)
    had[np.arange(had.shape[1]) < count[:, None]] = histories.items
    found: NDArray[np.bool_] = (items[places][:, :, None] == had[:, None, :]).any(axis=2)
    return found
