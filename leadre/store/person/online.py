"""A person's data in Redis: removed, and looked for in every key that there is.

Three places are known: the hash of the person's features in Feast's layout, the rows of the refresh queue, and entries
of streams. Looking reads every key, whatever it is called.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from leadre.store.features.layout import around_id, user_keys
from leadre.store.person.whom import Person

_AT_ONCE = 1000
_LONG = 10**6
"""From here on a number is looked for inside of longer values too; a smaller one could be a count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """Where to look.

    Args:
        features: a client of the online store.
        others: of the Redis with the refresh queue and the streams; the same server where there is one only.
        project: of feature_store.yaml.
        tags: how the keys of queue and streams begin, e.g. `{leadre:refresh}`.
    """

    features: Any
    others: Any
    project: str
    tags: tuple[str, ...]


def remove_online(online: Online, person: Person) -> dict[str, int]:
    """Remove a person's features, rows of the queue and entries of streams; return how many of each.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    (key,) = user_keys(np.array([person.user_id]), online.project)
    removed = Counter({"features": int(online.features.delete(key))})
    holds, member = _holds(person), str(person.user_id)
    for tag in online.tags:
        for name in online.others.scan_iter(match=f"{tag}*", count=_AT_ONCE):
            kind = _text(online.others.type(name))
            place = _text(name)
            if kind == "stream":
                entries = [entry for entry, fields in _entries(online.others, name) if any(map(holds, _flat(fields)))]
                for group in online.others.xinfo_groups(name) if entries else ():
                    online.others.xack(name, group["name"], *entries)
                removed[place] += int(online.others.xdel(name, *entries)) if entries else 0
            elif take := {"zset": online.others.zrem, "set": online.others.srem, "hash": online.others.hdel}.get(kind):
                removed[place] += int(take(name, member))
    return dict(removed)


def find_online(
    online: Online, person: Person, *, report: Callable[[int, int], object] = lambda *_: None
) -> dict[str, int]:
    """Return how many keys, and members, fields, values and entries of keys, hold the person: by kind of place.

    Hashes of other entities in Feast's layout are told by their keys and not read: their features hold ids of ads.

    Args:
        online: where to look.
        person: who.
        report: called now and then with how many keys were looked at, and of about how many.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    (own,) = user_keys(np.array([person.user_id]), online.project)
    holds, entity = _holds(person), _entity_key(online.project)
    found = Counter({"features": int(online.features.exists(own))})
    clients = (online.features, online.others)  # may be one server
    sizes, done = [int(client.dbsize()) for client in clients], 0
    for client, size in zip(clients, sizes, strict=True):
        named = 0
        for seen, name in enumerate(client.scan_iter(count=_AT_ONCE)):
            if seen % _AT_ONCE == 0:
                report(done + min(seen, size), sum(sizes))
            raw = name if isinstance(name, bytes) else str(name).encode()
            if entity(raw):
                continue
            place = raw.decode(errors="replace")
            named += holds(raw)
            found[place] = max(found[place], sum(map(holds, _parts(client, name))))
        found["keys"] = max(found["keys"], named)
        done += size
    report(done, sum(sizes))
    return {place: count for place, count in found.items() if count or place in ("features", "keys")}


def _holds(person: Person) -> Callable[[Any], bool]:
    """Return what tells whether some bytes of Redis are about the person."""
    digits = str(person.user_id).encode()
    binary = struct.pack("<q", person.user_id)
    in_report = re.compile(rb'"u":\s*' + digits + rb"\s*[,}]")
    anywhere = re.compile(rb"(?<![0-9])" + digits + rb"(?![0-9])") if person.user_id >= _LONG else None
    source = None if person.source_id is None else person.source_id.encode()

    def holds(value: Any) -> bool:
        raw = value if isinstance(value, bytes) else str(value).encode()
        return bool(
            raw == digits
            or in_report.search(raw)
            or (anywhere and (anywhere.search(raw) or binary in raw))
            or (source and (raw == source or b'"' + source + b'"' in raw))
        )

    return holds


def _parts(client: Any, name: Any) -> Iterator[Any]:
    """Yield what a key holds, but for scores and short values, which are counts; nothing of one that has gone."""
    kind = _text(client.type(name))
    if kind == "hash":
        for key, value in client.hscan_iter(name, count=_AT_ONCE):
            yield key
            yield b"" if len(value) < len(str(_LONG)) else value
    elif kind == "zset":
        yield from (member for member, _ in client.zscan_iter(name, count=_AT_ONCE))
    elif kind == "set":
        yield from client.sscan_iter(name, count=_AT_ONCE)
    elif kind == "list":
        for start in range(0, client.llen(name), _AT_ONCE):
            yield from client.lrange(name, start, start + _AT_ONCE - 1)
    elif kind == "stream":
        for _, fields in _entries(client, name):
            yield from _flat(fields)
    elif kind == "string" and len(value := client.get(name) or b"") >= len(str(_LONG)):
        yield value


def _entries(client: Any, name: Any) -> Iterator[tuple[Any, dict[Any, Any]]]:
    after = b"-"
    while entries := client.xrange(name, min=after, count=_AT_ONCE):
        yield from entries
        after = b"(" + (last if isinstance(last := entries[-1][0], bytes) else last.encode())


def _flat(fields: dict[Any, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


def _entity_key(project: str) -> Callable[[bytes], bool]:
    """Return what tells whether a key is of an entity of ours in Feast's layout."""
    around = [around_id(join_key, project) for join_key in ("user_id", "ad_id")]
    return lambda key: any(
        len(key) == len(head) + 8 + len(tail) and key.startswith(head) and key.endswith(tail) for head, tail in around
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
