"""What the refresh queue says of itself, and the same for Prometheus.

LEADRE §4.4.1: depth and longest wait of each ARPU group show whom the budget reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from leadre.errors import Unavailable

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """The queue at one instant.

    Attributes:
        depth: users who wait, by ARPU group, 0 to 24; those marked again while claimed are among them.
        oldest_s: seconds that the longest waiting user of each group waits; 0 where nobody does.
        claimed: users under a lease, run out or not.
        dead: users in the dead set.
        cut: the lowest group whose lists the LLM makes.
        budget_users: users whom the budget allows now, with the fraction; None when it is unlimited.
        claims: users claimed since Redis was empty, by lane.
        expiries: leases that ran out since then.
        died: users who went to the dead set since then.
    """

    depth: tuple[int, ...]
    oldest_s: tuple[float, ...]
    claimed: int
    dead: int
    cut: int
    budget_users: float | None
    claims: dict[str, int]
    expiries: int
    died: int

    @classmethod
    def read(cls, answer: list[Any]) -> QueueStats:
        """Read what refresh_queue_stats.lua returns."""
        now, claimed, dead, cut, left, counts, depth, oldest = answer
        llm, cheap, expiries, died = (int(count or 0) for count in counts)
        return cls(
            depth=tuple(depth),
            oldest_s=tuple(max(0, now - since) / 1000 if since else 0.0 for since in oldest),
            claimed=claimed,
            dead=dead,
            cut=cut,
            budget_users=float(left) if left else None,
            claims={"llm": llm, "cheap": cheap},
            expiries=expiries,
            died=died,
        )


class _Observed(Protocol):
    def stats(self) -> QueueStats: ...


class QueueCollector:
    """The queue's figures for a `prometheus_client` registry, asked of Redis when they are scraped.

    They are the whole queue's, the same from every process: take the maximum over processes, not the sum. When Redis
    does not answer, there are none.
    """

    def __init__(self, queue: _Observed) -> None:
        self._queue = queue

    def describe(self) -> Iterable[Metric]:
        """Say nothing, so that registering asks Redis nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Ask the queue."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        try:
            stats = self._queue.stats()
        except Unavailable:
            return
        depth = GaugeMetricFamily("leadre_queue_depth", "Users who wait for a list.", labels=["group"])
        oldest = GaugeMetricFamily("leadre_queue_oldest_seconds", "Longest wait for a list.", labels=["group"])
        for group, (users, seconds) in enumerate(zip(stats.depth, stats.oldest_s, strict=True)):
            depth.add_metric([str(group)], users)
            oldest.add_metric([str(group)], seconds)
        claims = CounterMetricFamily("leadre_claims", "Users claimed for a new list.", labels=["lane"])
        for lane, users in stats.claims.items():
            claims.add_metric([lane], users)
        yield from (depth, oldest, claims)
        yield CounterMetricFamily("leadre_lease_expiries", "Leases that ran out.", value=stats.expiries)
        yield GaugeMetricFamily("leadre_dead_users", "Users whose refresh failed three times.", value=stats.dead)
        if stats.budget_users is not None:
            yield GaugeMetricFamily("leadre_budget_tokens", "Users the budget allows now.", value=stats.budget_users)
