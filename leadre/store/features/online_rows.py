"""Rows into Redis by one script, several to a round trip: a row is set where it is newer than the one there.

LEADRE §4.4.1. The only code that writes features online: Feast's batches (online_store.py) and lists (list_writer.py)
both end here. A script call names one key, so rows of many slots of a Redis Cluster share a pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, RedisError

_SCRIPT = files("leadre.store.features").joinpath("set_row.lua").read_bytes()
_SHA = sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()

Row = tuple[bytes, Sequence[bytes]]
"""The key of an entity's hash, and fields and values in turn: first the time field and its value (layout.py)."""


def set_rows(client: Any, rows: Sequence[Row], *, ttl_s: int = 0) -> int:
    """Set the rows that are newer, to the nanosecond, than those there; in their order, so that equal ones stay first.

    Args:
        client: `redis.Redis`, `redis.RedisCluster` or a Sentinel's master.
        rows: any number, of any views.
        ttl_s: seconds from now at which the keys expire, also of rows that are left; 0 lets them be.

    Returns:
        How many were set.

    Raises:
        redis.RedisError: Redis does not answer, or refuses. Some rows may have been set; writing again is harmless.
    """
    answers = _queued(client, b"EVALSHA", _SHA, rows, ttl_s).execute(raise_on_error=False)
    if lost := _lost(answers):  # this server, or this node, has not met the script
        again = _queued(client, b"EVAL", _SCRIPT, [rows[at] for at in lost], ttl_s).execute(raise_on_error=False)
        answers = _merged(answers, lost, again)
    return _count(answers)


async def set_rows_async(client: Any, rows: Sequence[Row], *, ttl_s: int = 0) -> int:
    """As `set_rows`, with a client of `redis.asyncio`."""
    answers = await _queued(client, b"EVALSHA", _SHA, rows, ttl_s).execute(raise_on_error=False)
    if lost := _lost(answers):
        again = _queued(client, b"EVAL", _SCRIPT, [rows[at] for at in lost], ttl_s)
        answers = _merged(answers, lost, await again.execute(raise_on_error=False))
    return _count(answers)


def _queued(client: Any, command: bytes, script: bytes, rows: Sequence[Row], ttl_s: int) -> Any:
    pipeline, ttl = client.pipeline(transaction=False), b"%d" % ttl_s
    name = command.decode()
    for key, fields in rows:
        pipeline.execute_command(name, script, 1, key, ttl, *fields)
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
