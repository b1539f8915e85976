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
        redis: the process's connection to the online store.
        project: of feature_store.yaml.
    """

    def __init__(self, redis: RedisConnection, *, project: str) -> None:
        self._redis = redis
        head, tail = around_id("user_id", project)
        name = field(VIEW, FEATURE)
        self._head = b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b" % (len(head) + _ID.size + len(tail), head)
        self._tail = b"%b\r\n$%d\r\n%b\r\n" % (tail, len(name), name)
        self._mark = command("EXISTS", MARKER)

    def ask(self, user_id: int, found: Found) -> None:
        """Read a user's list; `found` is called once, later or at once."""
        written = self._head + _ID.pack(user_id) + self._tail

        def first(reply: Any) -> None:
            if type(reply) is bytes:
                found(reply)
            elif reply is None:
                marks: list[Any] = []
                self._redis.ask(self._mark, marks.append)
                self._redis.ask(written, lambda again: second(marks[0] if marks else Unavailable(""), again))
            else:
                found(_error(reply))

        def second(mark: Any, reply: Any) -> None:
            if isinstance(reply, bytes):
                found(reply)
            elif reply is None and not isinstance(mark, Exception):
                found(Nothing(whole=bool(mark)))
            else:
                found(_error(reply if reply is not None else mark))

        self._redis.ask(written, first)


def _error(reply: Any) -> Exception:
    return reply if isinstance(reply, Exception) else Unavailable(f"Redis answered {type(reply).__name__}")


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
