"""The broker's transport: a string in Redis that is no message is dropped, where kombu's own would end the worker.

LEADRE §4.4.1. A worker is at anybody's mercy who can write to its list, and a message carries no work (app.py): what
cannot be read says nothing.
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

logger = logging.getLogger(__name__)

_NO_MESSAGE = (ValueError, TypeError, LookupError, AttributeError)


class Channel(kombu_redis.Channel):
    """Reads messages from Redis."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except _NO_MESSAGE as error:
            raise _dropped(error) from None

    def _get(self, queue: Any) -> Any:  # type: ignore[override]
        try:
            return super()._get(queue)  # type: ignore[no-untyped-call]
        except _NO_MESSAGE as error:
            raise _dropped(error) from None


class Transport(kombu_redis.Transport):
    """Redis, read with care."""

    Channel = Channel


def use() -> None:
    """Let kombu use this transport for every `redis://` and `rediss://` URL of this process."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"


def _dropped(error: Exception) -> Empty:
    logger.error("no_message_dropped", extra={"error": type(error).__name__})
    return Empty()
