"""The stream of reported behaviors in Redis: an entry, and the one command that adds it. LEADRE §4.4.1.

A request that reports behaviors ends with one XADD; `leadre.pipelines.ingest` writes them to PostgreSQL in batches and
takes them out of the stream (docs/adr/0011). Nothing is trimmed: a full stream refuses. An entry has one field, JSON:

    {"u": user id, "r": request id, "t": when it arrived, "b": [[domain, action, item id, occurred at, ordinal], ...]}
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, cast

import msgspec
from msgspec import Meta
from prometheus_client import Counter
from redis import Redis

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import MAX_ID
from leadre.errors import InvalidInput
from leadre.serving.redis.wire import command

STREAM = "{leadre:behaviors}:stream"
GROUP = "persisters"
DEAD = "{leadre:behaviors}:dead"
"""Stream of the entries that nobody can write: `e` as they were, `why`, and `id`, their place in `STREAM`."""
FIELD = "e"
MAX_ENTRIES = 1_000_000
"""Default of `LEADRE_STREAM_MAX`: entries that the stream holds at most (ours), 190 MB where each has one behavior."""

BEHAVIORS = Counter("leadre_behaviors_total", "Reported behaviors, by what became of them.", ["outcome"])
"""Outcomes: accepted (in the stream), stored (in PostgreSQL at once), refused (503); of a persister: persisted (new),
repeated (there already), unknown_item (of an item that the catalog lacks; counted besides), dead."""

_ADD = (
    b"local room=tonumber(ARGV[1])-redis.call('XLEN',KEYS[1]) local added=0 "
    b"for i=2,#ARGV do if added>=room then break end redis.call('XADD',KEYS[1],'*','e',ARGV[i]) added=added+1 end "
    b"return added"
)
_Id = Annotated[int, Meta(ge=0, le=MAX_ID)]


class _Behavior(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    domain: Domain
    action: Action
    item_id: _Id
    occurred_at: Annotated[datetime, Meta(tz=True)]
    ordinal: _Id


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    u: _Id
    r: Annotated[str, Meta(max_length=64)]
    t: Annotated[datetime, Meta(tz=True)]
    b: Annotated[tuple[_Behavior, ...], Meta(min_length=1)]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one request reported: behaviors of one user. `arrived_at` is the server's time."""

    user_id: int
    request_id: str
    arrived_at: datetime
    behaviors: tuple[Behavior, ...]


_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(_Entry)


def encode(behaviors: Sequence[Behavior], *, request_id: str, arrived_at: datetime) -> bytes:
    """Return the entry of a request's behaviors.

    Args:
        behaviors: of one user, at least one; checked (leadre.serving.reported).
        request_id: at most 64 characters.
        arrived_at: now, by the server's clock.
    """
    rows = [(each.domain, each.action, each.item_id, each.occurred_at, each.ordinal) for each in behaviors]
    return _ENCODER.encode({"u": behaviors[0].user_id, "r": request_id, "t": arrived_at, "b": rows})


def decode(entry: bytes) -> Report:
    """Return what an entry reports.

    Raises:
        InvalidInput: it is none of ours.
    """
    try:
        found = _DECODER.decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not an entry of behaviors: {error}"[:200]) from None
    return Report(
        user_id=found.u,
        request_id=found.r,
        arrived_at=found.t,
        behaviors=tuple(
            Behavior(
                user_id=found.u,
                domain=each.domain,
                action=each.action,
                item_id=each.item_id,
                occurred_at=each.occurred_at,
                ordinal=each.ordinal,
            )
            for each in found.b
        ),
    )


def add_command(entries: Sequence[bytes], *, max_entries: int = MAX_ENTRIES) -> bytes:
    """Return the command that adds entries in their order, as bytes for the wire: one round trip, atomic.

    Redis answers with how many it added: those that come first, until the stream holds `max_entries`. A script of its
    text, not of its hash, so that a restarted Redis knows it.
    """
    begin = command("EVAL", _ADD, 1, STREAM, max_entries)
    written = b"".join([b"$%d\r\n%b\r\n" % (len(entry), entry) for entry in entries])
    return b"*%d%b%b" % (5 + len(entries), begin[2:], written)


def add(redis: Redis, entry: bytes, *, max_entries: int = MAX_ENTRIES) -> bool:
    """Add an entry; return whether there was room for it.

    Raises:
        redis.RedisError: Redis does not answer: the entry may be there or not, and a repetition is harmless.
    """
    return cast(int, redis.eval(_ADD.decode(), 1, STREAM, max_entries, entry)) == 1


def length(redis: Redis) -> int:
    """Return how many entries wait, those included that a persister is writing."""
    return cast(int, redis.xlen(STREAM))
