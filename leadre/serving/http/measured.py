"""What an application counts of its requests: by route and status, and how long they took.

LEADRE §4.4.1. Plain numbers in the request path, a tenth of a microsecond each; prometheus_client makes metrics of them
when it is asked. No label names a user.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets of a request's time (ours: the aims are 5 and 25 ms)."""


class Distribution:
    """Counts of values in buckets.

    Args:
        bounds: upper bounds, ascending.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def take_in(self, other: Distribution) -> None:
        """Count another's values too; it has the same bounds."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts as Prometheus has them: upper bound → values up to it."""
        told, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            told += count
            found.append((bound, float(told)))
        return found


class Measured:
    """Counts and times of one server's requests; a collector of prometheus_client.

    Args:
        server: its name, the label of all it counts.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._seconds: dict[tuple[str, int], Distribution] = {}

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        distribution = self._seconds.get((route, status))
        if distribution is None:
            distribution = self._seconds[route, status] = Distribution(SECONDS)
        distribution.add(seconds)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics."""
        labels = ["server", "route", "status"]
        requests = CounterMetricFamily("leadre_requests", "Requests that were answered.", labels=labels)
        of_routes: defaultdict[str, Distribution] = defaultdict(lambda: Distribution(SECONDS))
        for (route, status), distribution in list(self._seconds.items()):
            requests.add_metric([self._server, route, str(status)], sum(distribution.counts))
            of_routes[route].take_in(distribution)
        yield requests
        help_ = "From a whole request to its answer."
        seconds = HistogramMetricFamily("leadre_request_seconds", help_, labels=labels[:2])
        for route, distribution in of_routes.items():
            seconds.add_metric([self._server, route], distribution.buckets(), distribution.total)
        yield seconds
