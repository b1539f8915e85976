"""Counters and gauges as Prometheus reads them, and where a worker leaves the gauges for the servers.

LEADRE §4.4.1. A worker measures what needs the database (leadre.pipelines.feature_quality) and publishes it to Redis;
a server's `/metrics-lite` shows it. Labels name views, features, reasons and releases, never a user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from leadre.errors import Unavailable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GROUPS = ("state", "drift", "distribution", "freshness")
"""What is published together, each replaced as a whole."""
_KEY = "{leadre:feature_gauges}:%s"
_KEPT_S = 3 * 86_400
"""How long gauges that nobody publishes anew are shown (ours); their own time tells their age."""

Labels = tuple[tuple[str, str], ...]
Gauge = tuple[str, Labels, float]
"""Name, labels and value."""


def publish(redis: Redis, group: str, gauges: Iterable[Gauge]) -> None:
    """Replace a group's gauges.

    Raises:
        Unavailable: Redis does not answer.
    """
    written = {_sample(name, labels): repr(float(value)) for name, labels, value in gauges}
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


def published(redis: Redis) -> dict[str, str]:
    """Return the gauges of all groups: sample (a name with labels) -> value.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for group in GROUPS:
            pipeline.hgetall(_KEY % group)
        found = pipeline.execute()
    return {key.decode(): value.decode() for of_group in found for key, value in of_group.items()}


def exposition(server: str, counters: Mapping[str, int], gauges: Mapping[str, str]) -> str:
    """Return counters and gauges in Prometheus's text format.

    Args:
        server: what counted.
        counters: name -> count since the start.
        gauges: as `published`.
    """
    lines = ["# HELP leadre_served_total What a server counted since its start.", "# TYPE leadre_served_total counter"]
    for name, count in sorted(counters.items()):
        lines.append(f"{_sample('leadre_served_total', (('server', server), ('what', name)))} {count}")
    told = ""
    for sample, value in sorted(gauges.items(), key=lambda item: (item[0].partition("{")[0], item[0])):
        name = sample.partition("{")[0]
        if name != told:
            lines.append(f"# TYPE {name} gauge")
            told = name
        lines.append(f"{sample} {value}")
    return "\n".join(lines) + "\n"


def _sample(name: str, labels: Labels) -> str:
    if not labels:
        return name
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{name}{{{pairs}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
