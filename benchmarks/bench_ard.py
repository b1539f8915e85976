"""With a quarter of the GPUs that every request would take: how fresh are the lists, weighted by revenue?

`python benchmarks/bench_ard.py [--quick] [--json]`. LEADRE §4.4.1. A simulated day of users who come in sessions. The
list shown at a request is worth .8^n of a fresh one if n behaviors are not in it yet; `freshness` is the mean over all
requests, weighted by the users' ARPU. Peers: Celery's ways (a task a request, 25 strict queues), weighted fair
queueing, earliest deadline first. All seeds see the same arrivals under every policy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ard_policies import Coalesced, EarliestDeadline, Fifo, Index, Policy, Task
from numpy.typing import NDArray
from servers import print_figures

from leadre.retrieval.distribution import group_values
from leadre.retrieval.priority import GROUPS, arpu_groups

CAPACITY, DISCOUNT, FLOOR = 0.25, 0.8, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Requests of users, in order.

    Args:
        at_s: float64[n], seconds.
        users: int64[n].
        arpu: float64[U].
        groups: int64[U], ARPU groups.
        values: float64[25], what a user of each group is worth.
        hours: its length.
    """

    at_s: NDArray[np.float64]
    users: NDArray[np.int64]
    arpu: NDArray[np.float64]
    groups: NDArray[np.int64]
    values: NDArray[np.float64]
    hours: float


def make_day(*, seed: int, users: int, hours: float) -> Day:
    """Make a day: sessions of about eight requests some 15 s apart, twice as many at its peak as on average."""
    rng = np.random.default_rng(seed)
    arpu = rng.lognormal(0.0, 1.2, users)
    groups = arpu_groups(arpu).astype(np.int64)
    counts = np.bincount(groups, minlength=GROUPS)
    means = np.bincount(groups, arpu, GROUPS) / np.maximum(counts, 1)
    sessions = rng.poisson(rng.lognormal(0.0, 0.8, users) * (arpu / arpu.mean()) ** 0.2 * hours / 4)
    owner = np.repeat(np.arange(users), sessions)
    start = (rng.random(len(owner)) + rng.random(len(owner))) / 2 * hours * 3600  # triangular: the peak is at noon
    length = rng.geometric(1 / 8, len(owner))
    session = np.repeat(np.arange(len(owner)), length)
    gaps = rng.exponential(15.0, len(session))
    gaps[np.append(0, np.cumsum(length)[:-1])] = 0.0
    since = np.cumsum(gaps)
    at_s = start[session] + since - since[np.append(0, np.cumsum(length)[:-1])][session]
    order = np.argsort(at_s, kind="stable")
    return Day(
        at_s=at_s[order],
        users=owner[session][order],
        arpu=arpu,
        groups=groups,
        values=group_values(means, counts, smoothing=1.0),
        hours=hours,
    )


def freshness(day: Day, policy: Policy, *, log: list[list[Task]] | None = None) -> float:
    """Return the revenue-weighted freshness of a day under a policy.

    Every second the LLM takes as many users as it can serve; their lists are there a second later.

    Args:
        day: who comes when.
        policy: who is next.
        log: takes the tasks of every second.
    """
    per_s = CAPACITY * len(day.users) / (day.hours * 3600)
    written, known = [0] * len(day.arpu), [0] * len(day.arpu)
    worth, arpu = [DISCOUNT**n for n in range(200)], day.arpu.tolist()
    won = total = budget = 0.0
    under_way: list[Task] = []
    requests = list(zip(day.at_s.tolist(), day.users.tolist(), strict=True))
    place = 0
    for second in range(int(day.at_s[-1]) + 2):
        while place < len(requests) and requests[place][0] < second:
            at_s, user = requests[place]
            won += arpu[user] * worth[min(written[user] - known[user], 199)]
            total += arpu[user]
            written[user] += 1
            policy.mark(user, written[user], at_s)
            place += 1
        for user, number in under_way:
            known[user] = max(known[user], number)
        budget = min(budget + per_s, per_s + 1)  # no more than a second's worth is saved up
        under_way = policy.claim(int(budget), float(second)) if budget >= 1 else []
        budget -= len(under_way)
        if log is not None:
            log.append(under_way)
    return won / total


POLICIES: dict[str, Callable[[Day], Policy]] = {
    "fifo": lambda day: Fifo(day.groups),
    "fifo_reading": lambda day: Fifo(day.groups, reading=True),
    "fifo_with_expiry": lambda day: Fifo(day.groups, expires_s=60.0),
    "strict_queues": lambda day: Fifo(day.groups, strict=True),
    "strict_queues_reading": lambda day: Fifo(day.groups, strict=True, reading=True),
    "strict_coalesced": lambda day: Coalesced(day.groups),
    "weighted_fair": lambda day: Coalesced(day.groups, weights=day.values),
    "earliest_deadline": lambda day: EarliestDeadline(day.groups, values=day.values),
    "index": lambda day: Index(day.groups, values=day.values, discount=DISCOUNT, floor=0.0),
    "ours": lambda day: Index(day.groups, values=day.values, discount=DISCOUNT, floor=FLOOR),
}


def main() -> None:
    """Print the mean freshness of each policy over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds, users, hours = (2, 500, 12.0) if arguments.quick else (10, 2_000, 24.0)
    found: dict[str, list[float]] = {name: [] for name in POLICIES}
    for seed in range(seeds):
        day = make_day(seed=seed, users=users, hours=hours)
        for name, make in POLICIES.items():
            found[name].append(freshness(day, make(day)))
    figures = {name: float(np.mean(values)) for name, values in found.items()}
    for peer in ("strict_queues", "fifo", "weighted_fair"):
        ratios = np.array(found["ours"]) / np.array(found[peer])
        figures[f"ours_by_{peer}"], figures[f"ours_by_{peer}_least"] = float(ratios.mean()), float(ratios.min())
    print_figures(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
