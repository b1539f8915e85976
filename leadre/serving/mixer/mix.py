"""Mixing: all branches are asked at once, and what arrives in time becomes one list.

LEADRE §4.4.1, §5.3 (LEADRE is one more retrieval branch; which branches brought an ad is kept for the consumption
ratio). It fails open: a branch that raises or is late is left out, and the answer says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from leadre.errors import InvalidInput, Unavailable
from leadre.serving.ad_catalog import Shown
from leadre.serving.mixer.branches import Branch, Retrieved
from leadre.serving.mixer.merging import MixedAd, consumption, merge

logger = logging.getLogger(__name__)

_SPARE = 2
"""Branches are asked for this many times the limit, because some ads will be dead or come twice (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The merged list, best first.

    Args:
        ads: different ads that may be shown.
        source_ids: parallel to `ads`: how the owner names them.
        sources: parallel to `ads`: what found them, as the first of their branches says.
        failed: the branches that are missing from it.
        degraded: whether anything is: a branch, or the catalog that says which ads may be shown.
    """

    ads: tuple[MixedAd, ...] = ()
    source_ids: tuple[int | str, ...] = ()
    sources: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    degraded: bool = False


class Mixer:
    """Asks all branches at once and merges what arrives in time.

    Args:
        branches: in order of turns, with their quotas.
        shown: says which ads may be shown, and how the owner names them; asked for each request, so it must answer
            from memory. It raises `Unavailable` while it does not know.
        deadline_s: seconds that a branch may take.

    Raises:
        InvalidInput: no branch, two of one name, or a quota below 1.
    """

    def __init__(
        self,
        branches: Sequence[tuple[Branch, int]],
        *,
        shown: Callable[[Sequence[int]], Shown],
        deadline_s: float = 0.06,
    ) -> None:
        called = [branch.name for branch, _ in branches]
        if not called or len(set(called)) < len(called) or min(quota for _, quota in branches) < 1:
            raise InvalidInput(f"branches need different names and quotas of at least 1, these are {called}")
        self._branches = [branch for branch, _ in branches]
        self._quotas = {branch.name: quota for branch, quota in branches}
        self._shown, self._deadline_s = shown, deadline_s
        self._mixed: Counter[tuple[str, bool]] = Counter()
        self.counters: Counter[str] = Counter()

    async def mix(self, user_id: int, *, limit: int) -> Mix:
        """Return the user's merged list; empty in the worst case, never an exception."""
        self.counters["requests"] += 1
        try:
            self._shown([])
        except Unavailable as error:
            self.counters["failed_catalog"] += 1
            logger.warning("catalog_not_read", extra={"error": type(error).__name__})
            return Mix(degraded=True)
        answers = await asyncio.gather(
            *(
                asyncio.wait_for(branch.retrieve(user_id, _SPARE * limit), self._deadline_s)
                for branch in self._branches
            ),
            return_exceptions=True,
        )
        retrieved: dict[str, Retrieved] = {}
        failed = []
        for branch, answer in zip(self._branches, answers, strict=True):
            if isinstance(answer, BaseException):
                self.counters[f"failed_{branch.name}"] += 1
                failed.append(branch.name)
                logger.warning("branch_failed", extra={"branch": branch.name, "error": type(answer).__name__})
            else:
                retrieved[branch.name] = answer
        wanted = list({ad for answer in retrieved.values() for ad in answer.ads})
        shown = self._shown(wanted)
        named = {ad: name for ad, name in zip(wanted, shown.names, strict=True) if name is not None}
        if shown.unnamed:
            self.counters["unnamed"] += shown.unnamed  # never shown: a derived number is nobody's id
        ads = merge(
            {name: answer.ads for name, answer in retrieved.items()},
            quotas=self._quotas,
            live=named.__contains__,
            limit=limit,
        )
        self._count(ads)
        return Mix(
            ads=ads,
            source_ids=tuple(named[mixed.ad_id] for mixed in ads),
            sources=tuple(retrieved[mixed.branches[0]].source or mixed.branches[0] for mixed in ads),
            failed=tuple(failed),
            degraded=bool(failed),
        )

    @property
    def consumption(self) -> dict[str, float]:
        """Each branch's consumption ratio since the start: the share of mixed ads that it alone brought (§5.3)."""
        return consumption(self._mixed, self.counters["ads"])

    def collect(self) -> Iterator[Metric]:
        """Give Prometheus what each branch brought, alone or beside others, and its consumption ratio."""
        mixed = CounterMetricFamily(
            "leadre_mixed_ads", "Ads of merged lists, by branch that brought them.", labels=["branch", "only"]
        )
        for (branch, alone), count in sorted(self._mixed.items()):
            mixed.add_metric([branch, str(alone).lower()], count)
        ratio = GaugeMetricFamily(
            "leadre_consumption_ratio", "Share of merged ads that a branch alone brought.", labels=["branch"]
        )
        for branch, share in self.consumption.items():
            ratio.add_metric([branch], share)
        yield from (mixed, ratio)

    def _count(self, ads: Sequence[MixedAd]) -> None:
        self.counters["ads"] += len(ads)
        for mixed in ads:
            alone = len(mixed.branches) == 1
            self._mixed.update([(name, alone) for name in mixed.branches])
