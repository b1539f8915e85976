"""The index: how its codebooks are used, how pure its levels are, and a walk down the trie. LEADRE §3.2, §5.2.5."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.console.answers import page
from leadre.console.pages.ad import leaves_below
from leadre.console.sight import Sight
from leadre.domain.semantic_id import LETTERS, SemanticId, code_token
from leadre.errors import InvalidInput
from leadre.explain import ad_labels
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.quality import warning_of
from leadre.serving.http.messages import Answer, Request
from leadre.store.records.database import session

SHOWN = 60
"""Rows of a table of codes or ads (ours)."""
_BARS = 96
_PREFIX = re.compile(r"\d{1,9}(-\d{1,9}){0,25}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Codebook:
    """How a level's codes are used.

    Args:
        letter: of the level.
        codes: there are.
        used: by some ad.
        largest: ads of the commonest code.
        bars: ads of the codes, the commonest first, as shares of the largest; of many codes, some in steps.
    """

    letter: str
    codes: int
    used: int
    largest: int
    bars: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What comes after a prefix: its token and prefix, its ads, the commonest category and its share of them."""

    token: str
    prefix: str
    ads: int
    category: str
    purity: float


def show(sight: Sight, request: Request) -> Answer:
    """Show the index, below the prefix that is asked for.

    Raises:
        ConfigError: there is no index.
        InvalidInput: no prefix, or one that no S-ID begins with.
        Unavailable: PostgreSQL does not answer.
    """
    live = sight.index()
    index = live.index
    codes = prefix_in(request.asked("prefix") or "")
    low, high = (0, len(index)) if not codes else leaves_below(index, codes)
    if codes and low == high:
        raise InvalidInput(f"no S-ID of index {index.version} begins with {SemanticId(tuple(codes))}")
    depth = len(codes)
    ads = depth >= index.codes.shape[1] - 1 or high - low <= SHOWN
    rows = np.arange(low, min(high, low + SHOWN))
    children = [] if ads else below(index, depth, low, high, codes)
    with session(sight.database) as connection:
        labels = ad_labels(connection, index.ad_ids[rows].tolist()) if ads else {}
    return page(
        "index.html",
        here="index",
        live=live,
        index=index,
        quality=index.quality,
        warning=warning_of(index.quality) if index.quality else None,
        codebooks=codebooks(index) if not codes else (),
        purity=index.quality.get("category_purity", []),
        trail=[(code_token(at, code), "-".join(map(str, codes[: at + 1]))) for at, code in enumerate(codes)],
        total=high - low,
        depth=depth,
        children=sorted(children, key=lambda child: -child.ads)[:SHOWN],
        of_children=len(children),
        ads=_ads(index, rows, labels) if ads else [],
    )


def prefix_in(text: str) -> list[int]:
    """Return the codes that a query names, "3-14-1".

    Raises:
        InvalidInput: it is written otherwise.
    """
    if not text:
        return []
    if not _PREFIX.fullmatch(text):
        raise InvalidInput("a prefix is codes with dashes between, like ?prefix=3-14; or search for <a_3, b_14>")
    return [int(code) for code in text.split("-")]


@lru_cache(maxsize=2)
def codebooks(index: AdIndex) -> tuple[Codebook, ...]:
    """Return how every level's codes are used; counted once an index, in one pass."""
    found = []
    for level, codes in enumerate(index.code_counts):
        counts = np.sort(np.bincount(index.codes[:, level], minlength=codes))[::-1]
        step = max(1, -(-codes // _BARS))
        bars = counts[::step] / max(1, counts[0])
        found.append(
            Codebook(
                letter=LETTERS[level],
                codes=codes,
                used=int((counts > 0).sum()),
                largest=int(counts[0]),
                bars=tuple(bars.tolist()),
            )
        )
    return tuple(found)


def below(index: AdIndex, depth: int, low: int, high: int, prefix: list[int]) -> list[Child]:
    """Return the codes that may follow a prefix, ascending.

    Args:
        index: the index.
        depth: codes of the prefix.
        low: its first row.
        high: the row after its last.
        prefix: its codes.
    """
    codes = index.codes[low:high, depth]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    sizes = np.diff(starts, append=len(codes))
    category, most = _commonest(index.second_categories[low:high], np.repeat(np.arange(len(starts)), sizes))
    return [
        Child(
            token=code_token(depth, code),
            prefix="-".join(map(str, [*prefix, code])),
            ads=size,
            category=index.category_names[which],
            purity=count / size,
        )
        for code, size, which, count in zip(
            codes[starts].tolist(), sizes.tolist(), category.tolist(), most.tolist(), strict=True
        )
    ]


def _commonest(categories: NDArray[np.int32], group: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return each group's commonest category and how often it is there; groups are ascending, from 0."""
    kinds = int(categories.max(initial=0)) + 1
    pairs, counts = np.unique(group * kinds + categories, return_counts=True)
    of_group = pairs // kinds
    order = np.lexsort((-counts, of_group))
    firsts = order[np.flatnonzero(np.diff(of_group[order], prepend=-1))]
    return pairs[firsts] % kinds, counts[firsts]


def _ads(index: AdIndex, rows: NDArray[np.int64], labels: Any) -> list[dict[str, Any]]:
    return [{"label": labels[int(index.ad_ids[row])], "sid": str(index.sid_at(row))} for row in rows.tolist()]
