"""Merging: lists of several branches become one, and each branch's share of it is known.

LEADRE §5.3: consumption is "the proportion of exposed ads exclusively retrieved by a specific branch".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedAd:
    """An ad and every branch that retrieved it, in the order of the branches."""

    ad_id: int
    branches: tuple[str, ...]


def merge(
    retrieved: Mapping[str, Sequence[int]],
    *,
    quotas: Mapping[str, int],
    live: Callable[[int], bool],
    limit: int,
) -> tuple[MixedAd, ...]:
    """Merge lists in rounds: in each, every branch in turn gives its next ads, as many as its quota.

    Args:
        retrieved: branch → ad ids, best first; the order of the branches is the order of turns.
        quotas: branch → ads a round, at least 1.
        live: whether an ad may be shown.
        limit: length of the merged list.

    Returns:
        Different live ads. An ad that another branch gave already does not count against a quota.
    """
    brought: dict[int, list[str]] = {}
    for name, ads in retrieved.items():
        for ad in dict.fromkeys(ads):
            brought.setdefault(ad, []).append(name)
    queues = {name: iter(dict.fromkeys(ads)) for name, ads in retrieved.items()}
    merged: dict[int, MixedAd] = {}
    while queues and len(merged) < limit:
        for name in list(queues):
            for _ in range(quotas[name]):
                taken = next((ad for ad in queues[name] if ad not in merged and live(ad)), None)
                if taken is None:
                    del queues[name]
                    break
                merged[taken] = MixedAd(ad_id=taken, branches=tuple(brought[taken]))
    return tuple(merged.values())[:limit]


def consumption(mixed: Mapping[tuple[str, bool], int], ads: int) -> dict[str, float]:
    """Return each branch's consumption ratio: the share of all mixed ads that it alone brought.

    Args:
        mixed: (branch, whether it alone) → mixed ads.
        ads: all mixed ads.
    """
    return {branch: count / ads for (branch, alone), count in sorted(mixed.items()) if alone and ads}
