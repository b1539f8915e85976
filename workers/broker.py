"""The broker with care: what is no message is dropped, and a broker that was away is found again within a second.

LEADRE §4.4.1. A string in Redis that is no message would end kombu's worker, and a message carries no work (app.py):
what cannot be read says nothing. After an outage of minutes Celery would wait half a minute between two attempts.
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP
from kombu.connection import Connection as KombuConnection
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


class Connection(KombuConnection):
    """A connection that is tried every second."""

    def ensure_connection(self, errback: Any = None, max_retries: int | None = None, **named: Any) -> Any:
        """Connect, however often it takes; see kombu."""
        often = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
        return super().ensure_connection(errback, max_retries, **{**often, **named})  # type: ignore[no-untyped-call]


class Amqp(AMQP):  # type: ignore[misc]
    """Celery's connections are these."""

    Connection = Connection


def use() -> None:
    """Let kombu use this transport for every `redis://` and `rediss://` URL of this process."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"


def _dropped(error: Exception) -> Empty:
    logger.error("no_message_dropped", extra={"error": type(error).__name__})
    return Empty()
