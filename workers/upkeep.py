"""Upkeep: every second one worker looks whether the online store is whole and whether a stale user was forgotten.

LEADRE §4.4.1. A thread beside the doorbell, in workers that serve the queue `retrieval`. Redis says whose turn it is;
what is found is repaired from PostgreSQL (docs/adr/0016). Beat asks for the same, should no such worker run.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from datetime import UTC, datetime

from celery import signals
from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from leadre.errors import LeadreError
from leadre.logs import place_of
from leadre.retrieval.refresh_queue import TAG

from .app import RETRIEVAL, app
from .resources import Resources, resources

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""How often some worker looks (ours)."""
TURN = f"{TAG}:alone:reconcile"


def look(held: Resources) -> None:
    """Rehydrate a wiped online store, unless another process does; mark forgotten users.

    Raises:
        LeadreError: a server does not answer, or rows did not arrive; the next look goes on.
    """
    if not held.rehydrator.is_whole():
        done = held.rehydrator.rehydrate(now=datetime.now(UTC))
        if done is not None:
            with suppress(OperationalError):  # beat says so as well
                app.send_task("workers.materialization.materialize", expires=300)  # the other views
    if repaired := held.reconciler.round(now=datetime.now(UTC)):
        logger.info("stale_users_marked", extra={"users": repaired})


def keep(held: Resources) -> None:
    """Look when it is this process's turn, until the worker stops."""
    while not held.stopping.is_set():
        try:
            if held.redis.set(TURN, 1, nx=True, px=int(EVERY_S * 1000)):
                look(held)
        except (LeadreError, RedisError) as error:
            logger.warning("upkeep_failed", extra={"error": type(error).__name__})
        except Exception as error:  # noqa: BLE001 - this thread is what repairs: it outlives whatever it meets
            logger.error("upkeep_failed", extra={"error": place_of(error)})
        held.stopping.wait(EVERY_S / 2)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def start_keeping(sender: Consumer, **_: object) -> None:
    """Keep up in workers that serve the queue `retrieval`."""
    if RETRIEVAL in sender.app.amqp.queues.consume_from:
        threading.Thread(target=keep, args=(resources(),), name="upkeep", daemon=True).start()
