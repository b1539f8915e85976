"""Reading stored retrieval lists for requests: one command each, through the process's connection to Redis.

LEADRE §4.4.1: the online store is all that the request path reads. Straight from Feast's layout, without Feast.
An empty read looks once more, and at the mark that a whole online store has (docs/adr/0016): without it, that nothing
was found says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any

from leadre.errors import ConfigError, Unavailable
from leadre.serving.http.application import Background
from leadre.serving.redis.cluster import ClusterConnection, cluster_of
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import command
from leadre.store.features.layout import FEATURE, VIEW, around_id, field

MARKER = b"{leadre:refresh}:marker"
"""The key that an online store has which holds all lists that were made."""
_ID = Struct("<q")
_PROJECT = re.compile(r"^project:\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is no list; `whole`: and the online store would have it."""

    whole: bool


Found = Callable[["bytes | Nothing | Exception"], None]
"""Gets what a user's field holds, that there is nothing, or why Redis was not asked."""


class OnlineLists:
    """Reads users' lists.

    Args:
        redis: the process's connection to the online store, or to the nodes of its cluster.
        project: of feature_store.yaml.
    """

    def __init__(self, redis: RedisConnection | ClusterConnection, *, project: str) -> None:
        self._redis = redis
        head, tail = around_id("user_id", project)
        name = field(VIEW, FEATURE)
        self._head = b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b" % (len(head) + _ID.size + len(tail), head)
        self._tail = b"%b\r\n$%d\r\n%b\r\n" % (tail, len(name), name)
        self._mark = command("EXISTS", MARKER)

    def ask(self, user_id: int, found: Found) -> None:
        """Read a user's list; `found` is called once, later or at once. It must not raise."""
        written = self._head + _ID.pack(user_id) + self._tail
        self._redis.ask(
            written, lambda reply: found(reply) if type(reply) is bytes else self._not_found(reply, written, found)
        )

    def _not_found(self, reply: Any, written: bytes, found: Found) -> None:
        if reply is not None:
            found(_error(reply))
            return

        def second(mark: Any, reply: Any) -> None:
            if isinstance(reply, bytes):
                found(reply)
            elif reply is None and not isinstance(mark, Exception):
                found(Nothing(whole=bool(mark)))
            else:
                found(_error(reply if reply is not None else mark))

        # The mark before the list: between the two nothing is wiped and written again.
        self._redis.ask(self._mark, lambda mark: self._redis.ask(written, lambda again: second(mark, again)))


def _error(reply: Any) -> Exception:
    return reply if isinstance(reply, Exception) else Unavailable(f"Redis answered {type(reply).__name__}")


def online_connection(
    redis: RedisConnection, *, cluster: str
) -> tuple[RedisConnection | ClusterConnection, list[Background]]:
    """Return the connection to the online store, and what keeps it.

    Args:
        redis: the process's connection; it is the online store's too, unless that is a cluster.
        cluster: `LEADRE_REDIS_CLUSTER`; empty for none.

    Raises:
        ConfigError: `cluster` names no node.
    """
    if not cluster:
        return redis, [redis.keep]
    nodes = cluster_of(cluster)
    return nodes, [redis.keep, nodes.keep]


def project_of(feature_repo: Path) -> str:
    """Return the project that a feature repository is of.

    Raises:
        ConfigError: its feature_store.yaml cannot be read, or names none.
    """
    path = feature_repo / "feature_store.yaml"
    try:
        found = _PROJECT.search(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; set LEADRE_FEATURE_REPO") from None
    if found is None:
        raise ConfigError(f"{path} names no project")
    return found[1].strip("\"'")
