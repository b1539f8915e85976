from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.retrieval.refresh_queue_stats import QueueCollector

NOW = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture
def queue(redis_url: str) -> RefreshQueue:
    return RefreshQueue.connect(redis_url)


def test_depth_and_longest_wait_are_told_by_group(queue: RefreshQueue) -> None:
    queue.mark([1, 2, 2], groups=[4, 4, 4], now=NOW)
    queue.mark([3], groups=[4], new=True, now=NOW - timedelta(seconds=2))
    queue.mark([4], groups=[24], now=NOW + timedelta(seconds=2))
    queue.mark([5, 6, 6, 7, 7, 7], groups=[9] * 6, now=NOW)
    queue.mark([6, 6], groups=[8, 8], now=NOW)
    queue.mark([8, 8, 8], groups=[9] * 3, now=NOW - timedelta(seconds=1))
    queue.mark([9, 9], groups=[9] * 2, now=NOW - timedelta(seconds=4))
    stats = queue.stats(now=NOW + timedelta(seconds=3))
    assert {group: depth for group, depth in enumerate(stats.depth) if depth} == {4: 3, 8: 1, 9: 4, 24: 1}
    assert [stats.oldest_s[group] for group in (0, 4, 8, 9, 24)] == [0.0, 5.0, 3.0, 7.0, 1.0]


def test_prometheus_gets_the_queue_s_figures_and_no_users(queue: RefreshQueue) -> None:
    queue.mark([1017, 18, 19], groups=[4, 4, 9])
    queue.mark([20], new=True)
    queue.set_budget(1, 50)
    claims = queue.claim(1, lane="cheap", lease_s=60)
    for _ in range(3):
        queue.fail(queue.claim(1))
    queue.complete(claims)
    registry = CollectorRegistry()
    registry.register(QueueCollector(queue))
    told = generate_latest(registry).decode()
    assert registry.get_sample_value("leadre_queue_depth", {"group": "4"}) == 2.0
    assert registry.get_sample_value("leadre_queue_depth", {"group": "24"}) == 0.0
    assert registry.get_sample_value("leadre_queue_oldest_seconds", {"group": "4"}) is not None
    assert registry.get_sample_value("leadre_claims_total", {"lane": "llm"}) == 3.0
    assert registry.get_sample_value("leadre_claims_total", {"lane": "cheap"}) == 1.0
    assert registry.get_sample_value("leadre_lease_expiries_total") == 0.0
    assert registry.get_sample_value("leadre_dead_users") == 1.0
    assert registry.get_sample_value("leadre_budget_tokens") is not None
    assert "1017" not in told


def test_without_redis_there_are_no_figures_and_no_error() -> None:
    registry = CollectorRegistry()
    registry.register(QueueCollector(RefreshQueue.connect("redis://127.0.0.1:1/0")))
    assert b"leadre_queue" not in generate_latest(registry)
