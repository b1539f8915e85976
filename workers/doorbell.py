"""The doorbell: a marked user wakes a waiting worker within milliseconds, beat would take seconds.

LEADRE §4.4.1. The request path does not speak to Celery: `RefreshQueue.mark` pushes to a list in Redis, on which a
thread of each idle worker sleeps. A worker that is draining does not listen, so that the bell wakes another.
"""

from __future__ import annotations

import logging
import threading

from celery import signals
from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError

from leadre.errors import Unavailable

from .app import RETRIEVAL
from .resources import Resources, resources
from .retrieval import refresh_users

logger = logging.getLogger(__name__)

SLEEP_S = 0.5
"""Longest sleep on the bell (ours): bounds how long a stopping worker takes to notice, and a lease that ran out waits:
with the default lease of 4 s a dead worker's users are served within 5."""


def listen(held: Resources) -> None:
    """Start a drain whenever the bell rings, until the worker stops."""
    while not held.stopping.is_set():
        if held.draining.locked():
            held.stopping.wait(0.02)
            continue
        try:
            if held.queue.wait(SLEEP_S) or held.queue.due():  # time alone rings no bell: a lease ran out
                refresh_users.apply_async(expires=60)
                held.stopping.wait(0.02)  # for the drain to begin
        except (Unavailable, OperationalError) as error:
            logger.warning("doorbell_deaf", extra={"error": type(error).__name__})
            held.stopping.wait(SLEEP_S)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def start_listening(sender: Consumer, **_: object) -> None:
    """Listen in workers that serve the queue `retrieval`; look into the refresh queue once at the start."""
    if RETRIEVAL in sender.app.amqp.queues.consume_from:
        threading.Thread(target=listen, args=(resources(),), name="doorbell", daemon=True).start()
        refresh_users.apply_async(expires=60)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop_draining(**_: object) -> None:
    """Let the drain end after its batch."""
    resources().stopping.set()
