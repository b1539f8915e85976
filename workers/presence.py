"""Workers and beat say in Redis that they are there, each by a thread: `leadre doctor` tells who is missing.

LEADRE §4.4.1. Celery's own heartbeats are off, because they end workers when Redis is restarted.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from celery import signals
from celery.worker.consumer import Consumer
from redis import Redis

from leadre.retrieval.presence import keep_saying
from leadre.settings import Settings

_stopping = threading.Event()


def _start(kind: str, queues: Collection[str]) -> None:
    redis = Redis.from_url(Settings.from_environment().redis_url, socket_timeout=5, socket_connect_timeout=1)
    threading.Thread(
        target=keep_saying,
        args=(redis, kind, queues),
        kwargs={"stopping": _stopping},
        name=f"presence {kind}",
        daemon=True,
    ).start()


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def start_of_worker(sender: Consumer, **_: object) -> None:
    """Say which queues this worker serves."""
    _start("worker", tuple(sender.app.amqp.queues.consume_from))


@signals.beat_init.connect  # type: ignore[untyped-decorator]
@signals.beat_embedded_init.connect  # type: ignore[untyped-decorator]
def start_of_beat(**_: object) -> None:
    """Say that beat is there."""
    _start("beat", ())


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def stop(**_: object) -> None:
    """Say that this worker ends; what has not been said until the end of the process is forgotten soon."""
    _stopping.set()
