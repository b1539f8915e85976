"""Counters of one's own, in the tests' Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from leadre.retrieval.balancer.shared import TAG
from leadre.services import Services


@pytest.fixture
def redis(services: Services) -> Iterator[Redis]:
    client = Redis.from_url(services.redis_url)
    wipe(client)
    yield client
    wipe(client)
    client.close()


def wipe(client: Redis) -> None:
    """Forget all counters."""
    if keys := client.keys(f"{TAG}*"):
        client.delete(*keys)
