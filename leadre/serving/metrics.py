"""Gauges that a worker measures and the servers show, and where it leaves them.

LEADRE §4.4.1. A worker measures what needs the database (leadre.pipelines.feature_quality) and publishes it to Redis;
a server's `/metrics` shows it. Labels name views, features, reasons and releases, never a user.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from prometheus_client.core import Metric
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from leadre.errors import Unavailable

GROUPS = ("state", "drift", "distribution", "freshness")
"""What is published together, each replaced as a whole."""
_KEY = "{leadre:feature_gauges}:%s"
_KEPT_S = 3 * 86_400
"""How long gauges that nobody publishes anew are shown (ours); their own time tells their age."""

Labels = tuple[tuple[str, str], ...]
Gauge = tuple[str, Labels, float]
"""Name, labels and value."""
_SAMPLE = msgspec.json.Decoder(tuple[str, Labels])


def publish(redis: Redis, group: str, gauges: Iterable[Gauge]) -> None:
    """Replace a group's gauges.

    Raises:
        Unavailable: Redis does not answer.
    """
    written = {msgspec.json.encode((name, labels)): repr(float(value)) for name, labels, value in gauges}
    key = _KEY % group
    try:
        with redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if written:
                pipeline.hset(key, mapping=written)
                pipeline.expire(key, _KEPT_S)
            pipeline.execute()
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise Unavailable(f"Redis does not answer: {error}; try again, or look whether it runs") from error


def published(redis: Redis) -> list[Metric]:
    """Return the gauges of all groups, as prometheus_client has them.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for group in GROUPS:
            pipeline.hgetall(_KEY % group)
        found = pipeline.execute()
    families: dict[str, Metric] = {}
    for written, value in sorted(item for of_group in found for item in of_group.items()):
        name, labels = _SAMPLE.decode(written)
        family = families.setdefault(name, Metric(name, name.replace("_", " ") + ".", "gauge"))
        family.add_sample(name, dict(labels), float(value))
    return list(families.values())
