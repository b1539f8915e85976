"""Prometheus reads counters and the gauges that a worker left in Redis, and counters alone when Redis is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import httpx
import pytest
from redis import Redis

from leadre.errors import Unavailable
from leadre.serving.application import serving
from leadre.serving.metrics import CONTENT_TYPE, exposition, publish, published

PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
AGE = ("leadre_feature_age_seconds", (("view", "retrieved_ads"),), 12.5)


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url, socket_timeout=0.5)


def scraped(redis: Redis, *, accept: str) -> httpx.Response:
    app = serving("user-server", [], counters=Counter(reads=3), background=[], gauges=partial(published, redis))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.get("/metrics-lite", headers={"accept": accept})

    return asyncio.run(send())


def test_prometheus_gets_text_and_everybody_else_json(redis: Redis) -> None:
    publish(redis, "state", [AGE])
    answer = scraped(redis, accept=PROMETHEUS)
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert answer.text.splitlines() == [
        "# HELP leadre_served_total What a server counted since its start.",
        "# TYPE leadre_served_total counter",
        'leadre_served_total{server="user-server",what="reads"} 3',
        "# TYPE leadre_feature_age_seconds gauge",
        'leadre_feature_age_seconds{view="retrieved_ads"} 12.5',
    ]
    assert scraped(redis, accept="*/*").json() == {"reads": 3}


def test_a_group_of_gauges_is_replaced_as_a_whole_and_leaves_the_others(redis: Redis) -> None:
    publish(redis, "state", [AGE, ("leadre_feature_lists_ratio", (("release", "old"),), 1.0)])
    publish(redis, "drift", [("leadre_feature_psi", (("feature", "entropy"),), 0.3)])
    publish(redis, "state", [AGE])
    assert published(redis) == {
        'leadre_feature_age_seconds{view="retrieved_ads"}': "12.5",
        'leadre_feature_psi{feature="entropy"}': "0.3",
    }
    publish(redis, "drift", [])
    assert list(published(redis)) == ['leadre_feature_age_seconds{view="retrieved_ads"}']


def test_a_label_of_any_text_stays_one_line(redis: Redis) -> None:
    publish(redis, "state", [("leadre_feature_lists_ratio", (("release", 'a"b\\c\nd'),), 0.5)])
    assert r'leadre_feature_lists_ratio{release="a\"b\\c\nd"} 0.5' in exposition("mixer", {}, published(redis))


def test_without_redis_the_counters_are_shown_and_publishing_says_unavailable() -> None:
    nobody = Redis.from_url("redis://127.0.0.1:1/0", socket_timeout=0.2, socket_connect_timeout=0.2)
    answer = scraped(nobody, accept=PROMETHEUS)
    assert answer.status_code == 200
    assert 'what="reads"} 3' in answer.text
    with pytest.raises(Unavailable):
        publish(nobody, "state", [AGE])
