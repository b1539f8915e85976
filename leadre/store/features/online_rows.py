"""Rows into Redis by one script, several to a round trip: a row is set where it is newer than the one there.

LEADRE §4.4.1. The only code that writes features online: Feast's batches (online_store.py) and lists (list_writer.py)
both end here. A script call names one key, so rows of many slots of a Redis Cluster share a pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis import Redis, RedisCluster, Sentinel
from redis.cluster import ClusterNode
from redis.exceptions import NoScriptError, RedisError, ResponseError

_SCRIPT = files("leadre.store.features").joinpath("set_row.lua").read_bytes()
_SHA = sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()

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
    """Set the rows that are newer, to the nanosecond, than those there; in their order, so that equal ones stay first.

    Args:
        client: `redis.Redis`, `redis.RedisCluster` or a Sentinel's master.
        rows: any number, of any views.
        ttl_s: seconds from now at which the keys expire, also of rows that are left; 0 lets them be.
        replace_equal: whether a row of an equal time is set as well: its source was updated in place since.

    Returns:
        How many were set.

    Raises:
        redis.RedisError: Redis does not answer, or refuses. Some rows may have been set; writing again is harmless.
    """
    how = (b"%d" % ttl_s, b"%d" % replace_equal)
    answers = _sent(client, b"EVALSHA", _SHA, rows, how)
    if lost := _lost(answers):  # this server, or this node, has not met the script
        answers = _merged(answers, lost, _sent(client, b"EVAL", _SCRIPT, [rows[at] for at in lost], how))
    return _count(answers)


async def set_rows_async(client: Any, rows: Sequence[Row], *, ttl_s: int = 0, replace_equal: bool = False) -> int:
    """As `set_rows`, with a client of `redis.asyncio`."""
    how = (b"%d" % ttl_s, b"%d" % replace_equal)
    answers = await _queued(client, b"EVALSHA", _SHA, rows, how).execute(raise_on_error=False)
    if lost := _lost(answers):
        again = _queued(client, b"EVAL", _SCRIPT, [rows[at] for at in lost], how)
        answers = _merged(answers, lost, await again.execute(raise_on_error=False))
    return _count(answers)


def _sent(client: Any, command: bytes, script: bytes, rows: Sequence[Row], how: tuple[bytes, bytes]) -> list[Any]:
    """Send a call a row in one piece and return the answers, errors among them."""
    if not isinstance(client, Redis):
        answers: list[Any] = _queued(client, command, script, rows, how).execute(raise_on_error=False)
        return answers
    packed = b"".join(_packed(command, script, rows, how))  # half of what a pipeline of redis-py takes
    pool = client.connection_pool
    connection = pool.get_connection()

    def exchange() -> list[Any]:
        connection.send_packed_command([packed])  # type: ignore[no-untyped-call]
        return [_answer(connection) for _ in rows]

    try:
        return connection.retry.call_with_retry(exchange, connection.disconnect)
    finally:
        pool.release(connection)


def _packed(command: bytes, script: bytes, rows: Sequence[Row], how: tuple[bytes, bytes]) -> Iterator[bytes]:
    """Yield calls in Redis's protocol: the count of parts, then each with its length before it."""
    call, options = (
        b"".join(b"\r\n$%d\r\n%b" % (len(part), part) for part in parts) for parts in ((command, script, b"1"), how)
    )
    for key, fields in rows:
        yield b"*%d%b\r\n$%d\r\n%b%b\r\n" % (6 + len(fields), call, len(key), key, options)
        for part in fields:
            yield b"$%d\r\n%b\r\n" % (len(part), part)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _queued(client: Any, command: bytes, script: bytes, rows: Sequence[Row], how: tuple[bytes, bytes]) -> Any:
    pipeline, name = client.pipeline(transaction=False), command.decode()
    for key, fields in rows:
        pipeline.execute_command(name, script, 1, key, *how, *fields)
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
    return sum(answers)
