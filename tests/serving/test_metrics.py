"""Prometheus reads counters and the gauges that a worker left in Redis, and counters alone when Redis is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import httpx
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from leadre.errors import Unavailable
from leadre.serving.http.operations import serving
from leadre.serving.metrics import publish, published

AGE = ("leadre_feature_age_seconds", (("view", "retrieved_ads"),), 12.5)


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url, socket_timeout=0.5)


def samples(metrics: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value for metric in metrics for sample in metric.samples
    }


def scraped(redis: Redis, *, accept: str = "text/plain") -> httpx.Response:
    app = serving("user-server", [], counters=Counter(reads=3), gauges=partial(published, redis))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            await client.get("/healthz")
            return await client.get("/metrics", headers={"accept": accept})

    return asyncio.run(send())


def test_prometheus_reads_counts_times_and_gauges(redis: Redis) -> None:
    publish(redis, "state", [AGE])
    answer = scraped(redis)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(list(text_string_to_metric_families(answer.text)))
    assert found["leadre_served_total", (("server", "user-server"), ("what", "reads"))] == 3
    assert found["leadre_feature_age_seconds", (("view", "retrieved_ads"),)] == 12.5
    of_route = (("route", "/healthz"), ("server", "user-server"))
    assert found["leadre_requests_total", (*of_route, ("status", "200"))] == 1
    assert found["leadre_request_seconds_count", of_route] == 1
    assert scraped(redis, accept="application/openmetrics-text; version=1.0.0").text.endswith("# EOF\n")


def test_a_group_of_gauges_is_replaced_as_a_whole_and_leaves_the_others(redis: Redis) -> None:
    publish(redis, "state", [AGE, ("leadre_feature_lists_ratio", (("release", "old"),), 1.0)])
    publish(redis, "drift", [("leadre_feature_psi", (("feature", "entropy"),), 0.3)])
    publish(redis, "state", [AGE])
    assert samples(published(redis)) == {
        ("leadre_feature_age_seconds", (("view", "retrieved_ads"),)): 12.5,
        ("leadre_feature_psi", (("feature", "entropy"),)): 0.3,
    }
    publish(redis, "drift", [])
    assert [metric.name for metric in published(redis)] == ["leadre_feature_age_seconds"]


def test_a_label_of_any_text_stays_one_line(redis: Redis) -> None:
    publish(redis, "state", [("leadre_feature_lists_ratio", (("release", 'a"b\\c\nd'),), 0.5)])
    assert r'leadre_feature_lists_ratio{release="a\"b\\c\nd"} 0.5' in scraped(redis).text


def test_without_redis_the_counters_are_shown_and_publishing_says_unavailable() -> None:
    nobody = Redis.from_url("redis://127.0.0.1:1/0", socket_timeout=0.2, socket_connect_timeout=0.2)
    answer = scraped(nobody)
    assert answer.status_code == 200
    assert 'what="reads"} 3' in answer.text
    with pytest.raises(Unavailable):
        publish(nobody, "state", [AGE])


def test_metrics_apart_are_not_on_the_public_port() -> None:
    app = serving("mixer", [], counters={}, operations_apart=True)
    assert app.operations is not None
    public, operations = ({route.path for route in each.routes} for each in (app, app.operations))
    assert "/metrics" not in public
    assert {"/metrics", "/healthz", "/readyz"} <= operations
