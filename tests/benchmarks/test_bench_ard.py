"""The simulated order is the one that Redis plays, and the orders stand as the benchmark's table says."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from leadre.retrieval.refresh_queue import Claim, RefreshQueue

START = datetime(2025, 6, 1, tzinfo=UTC)
Task = tuple[int, int]


@pytest.fixture(scope="module")
def ard() -> ModuleType:
    """The benchmark's module."""
    spec = importlib.util.spec_from_file_location(
        "bench_ard", Path(__file__).parents[2] / "benchmarks" / "bench_ard.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["bench_ard"] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(str(spec.origin)).parent))  # its own modules, by bare name
        spec.loader.exec_module(module)
    return module


class RealQueue:
    """The policy that Redis plays."""

    def __init__(self, url: str, day) -> None:
        self._queue = RefreshQueue.connect(url)
        self._queue.set_values(day.values.tolist(), 0.8)
        self._queue.set_floor(0.1)
        self._groups, self._newest = day.groups.tolist(), [0] * len(day.groups)
        self._claims: list[Claim] = []

    def mark(self, user: int, number: int, now_s: float) -> None:
        self._newest[user] = number
        self._queue.mark([user], groups=[self._groups[user]], now=START + timedelta(milliseconds=int(now_s * 1000)))

    def claim(self, limit: int, now_s: float) -> list[Task]:
        now = START + timedelta(seconds=now_s)
        self._queue.complete(self._claims, now=now)
        self._claims = self._queue.claim(limit, lease_s=60, now=now)
        return [(claim.user_id, self._newest[claim.user_id]) for claim in self._claims]


def test_the_simulated_order_is_the_queues(ard, redis_url: str) -> None:
    day = ard.make_day(seed=1, users=150, hours=4.0)
    simulated: list[list[Task]] = []
    played: list[list[Task]] = []
    fresh = ard.freshness(day, ard.POLICIES["ours"](day), log=simulated)
    assert ard.freshness(day, RealQueue(redis_url, day), log=played) == fresh
    assert played == simulated
    assert sum(map(len, played)) > 300


def test_a_day_is_served_best_by_value_and_unseen(ard) -> None:
    day = ard.make_day(seed=0, users=300, hours=8.0)
    fresh = {name: ard.freshness(day, make(day)) for name, make in ard.POLICIES.items()}
    assert fresh["fifo"] < fresh["fifo_with_expiry"] < fresh["strict_queues"] < fresh["ours"]
    assert fresh["weighted_fair"] < fresh["ours"] <= fresh["index"]


def test_the_same_seed_gives_the_same_day(ard) -> None:
    one, other = (ard.make_day(seed=3, users=100, hours=2.0) for _ in range(2))
    assert np.array_equal(one.at_s, other.at_s)
    assert (np.diff(one.at_s) >= 0).all()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=60), st.sampled_from(["index", "ours"]))
def test_nobody_who_waits_is_left_while_there_is_room(ard, steps, name) -> None:
    day = ard.make_day(seed=2, users=31, hours=2.0)
    policy, waiting = ard.POLICIES[name](day), set()
    for second, (user, limit) in enumerate(steps):
        policy.mark(user, second, float(second))
        waiting.add(user)
        claimed = [claimed for claimed, _ in policy.claim(limit, float(second))]
        assert len(set(claimed)) == len(claimed) == min(limit, len(waiting))
        assert set(claimed) <= waiting
        waiting -= set(claimed)
