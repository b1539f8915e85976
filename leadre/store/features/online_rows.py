"""Rows into Redis by one script, several to a round trip: a row is set where it is newer than the one there.

LEADRE §4.4.1. Newer by time; a list by release epoch, behavior sequence and time, in this order. The only code that
writes features online: Feast's batches (online_store.py) and lists (list_writer.py) both end here. In a Redis Cluster a
call names one key, so that rows of many slots share a pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from itertools import chain, groupby, islice
from typing import Any

import redis.asyncio
from prometheus_client import Counter
from redis import Redis, RedisCluster, Sentinel
from redis.cluster import ClusterNode
from redis.exceptions import NoScriptError, RedisError

from leadre.derivation.record_layout import fence_of
from leadre.store.features.layout import FEATURE, VIEW, field, read_bytes_value, read_timestamp_value

_SCRIPT = files("leadre.store.features").joinpath("set_rows.lua").read_bytes()
_SHA = sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()

CALL_ROWS = 32
"""Rows of a call of the script (ours): half the work of a call each, and a reader waits a third of a millisecond."""

REJECTED = Counter("leadre_fence_rejections", "Lists that were left because the user's list online is newer")

Row = tuple[bytes, Sequence[bytes]]
"""The key of an entity's hash, and fields and values in turn: first the time field and its value (layout.py)."""


def connect_online(connection_string: str, redis_type: str = "redis", *, sentinel_master: str = "mymaster") -> Any:
    """Return a client of the online store, without Feast. It connects when first used.

    Args:
        connection_string: of feature_store.yaml: `host:port,...,db=0,password=...`.
        redis_type: of feature_store.yaml: `redis`, `redis_cluster` or `redis_sentinel`.
        sentinel_master: of feature_store.yaml.
    """
    parts = connection_string.split(",")
    servers = [(host, int(port)) for host, _, port in (part.partition(":") for part in parts if "=" not in part)]
    options: dict[str, Any] = {}
    for name, _, value in (part.partition("=") for part in parts if "=" in part):
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    if redis_type == "redis_cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*server) for server in servers], **options)  # type: ignore[no-untyped-call]
    if redis_type == "redis_sentinel":
        return Sentinel(servers, **options).master_for(sentinel_master)  # type: ignore[no-untyped-call]
    ((host, port),) = servers
    return Redis(host=host, port=port, **options)


def set_rows(client: Any, rows: Sequence[Row], *, ttl_s: int = 0, replace_equal: bool = False) -> int:
    """Set the rows that are newer than those there; in their order, so that equal ones stay first.

    A row is newer by its time, to the nanosecond. A row of `retrieved_ads` is newer by the release epoch in its record,
    then by the behavior sequence, then by time; one whose record cannot be read is older than any other.

    Args:
        client: `redis.Redis`, `redis.RedisCluster` or a Sentinel's master.
        rows: any number, of any views.
        ttl_s: seconds from now at which the keys expire, also of rows that are left; 0 lets them be.
        replace_equal: whether an equally new row is set as well: its source was updated in place since.

    Returns:
        How many were set.

    Raises:
        redis.RedisError: Redis does not answer, or refuses. Some rows may have been set; writing again is harmless.
    """
    calls = _calls(client, rows, ttl_s=ttl_s, replace_equal=replace_equal)
    answers = _queued(client, "EVALSHA", _SHA, calls).execute(raise_on_error=False)
    if lost := _lost(answers):  # this server, or this node, has not met the script
        again = _queued(client, "EVAL", _SCRIPT, [calls[at] for at in lost]).execute(raise_on_error=False)
        answers = _merged(answers, lost, again)
    return _count(answers)


async def set_rows_async(client: Any, rows: Sequence[Row], *, ttl_s: int = 0, replace_equal: bool = False) -> int:
    """As `set_rows`, with a client of `redis.asyncio`."""
    calls = _calls(client, rows, ttl_s=ttl_s, replace_equal=replace_equal)
    answers = await _queued(client, "EVALSHA", _SHA, calls).execute(raise_on_error=False)
    if lost := _lost(answers):
        again = _queued(client, "EVAL", _SCRIPT, [calls[at] for at in lost])
        answers = _merged(answers, lost, await again.execute(raise_on_error=False))
    return _count(answers)


def place_of(fields: Sequence[bytes]) -> tuple[int, int, int]:
    """Return where a row is in the order by which the script tells newer from older: epoch, sequence, nanoseconds.

    Args:
        fields: fields and values in turn, the time first, as `set_rows` takes them.
    """
    fence = _fence_of(fields[0])
    record = dict(zip(fields[2::2], fields[3::2], strict=True)).get(fence)
    epoch, sequence = fence_of(read_bytes_value(record)) if fence else (0, 0)
    return epoch, sequence, read_timestamp_value(fields[1]) or 0  # 1970 is written as nothing


def _calls(client: Any, rows: Sequence[Row], *, ttl_s: int, replace_equal: bool) -> list[list[bytes | int]]:
    """Return the arguments of the script's calls."""
    most = 1 if isinstance(client, RedisCluster | redis.asyncio.RedisCluster) else CALL_ROWS
    calls: list[list[bytes | int]] = []
    for (size, time_field), alike in groupby(rows, key=lambda row: (len(row[1]), row[1][0])):
        options = ttl_s, int(replace_equal), _fence_of(time_field), size
        while some := list(islice(alike, most)):
            fields = chain.from_iterable(fields for _, fields in some)
            calls.append([len(some), *(key for key, _ in some), *options, *fields])
    return calls


@lru_cache(maxsize=256)
def _fence_of(time_field: bytes) -> bytes:
    """Return the field of the record that fences the rows of a view; empty where only their time does."""
    view = time_field.removeprefix(b"_ts:").decode()
    return field(view, FEATURE) if re.fullmatch(rf"{VIEW}(_v\d+)?", view) else b""  # Feast may number versions


def _queued(client: Any, command: str, script: bytes, calls: Sequence[Sequence[bytes | int]]) -> Any:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.execute_command(command, script, *call)
    return pipeline


def _lost(answers: Sequence[Any]) -> list[int]:
    return [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]


def _merged(answers: Sequence[Any], places: Sequence[int], others: Sequence[Any]) -> list[Any]:
    merged = list(answers)
    for at, answer in zip(places, others, strict=True):
        merged[at] = answer
    return merged


def _count(answers: Sequence[Any]) -> int:
    if failed := next((answer for answer in answers if isinstance(answer, Exception)), None):
        raise failed if isinstance(failed, RedisError) else RedisError(str(failed))
    REJECTED.inc(sum(older for _, older in answers))
    return sum(written for written, _ in answers)
