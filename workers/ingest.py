"""The persister of workers that serve the queue `ingest`: reported behaviors from the stream to PostgreSQL.

LEADRE §4.4.1; docs/adr/0011. It is a thread of its own beside the pool, so that a batch of the model holds up no
behavior. Beat's task only looks whether the thread lives.
"""

from __future__ import annotations

import logging
import threading

from celery import signals
from celery.worker.consumer import Consumer

from .app import INGEST, app
from .resources import Resources, resources

logger = logging.getLogger(__name__)

END_S = 8.0
"""How long a stopping worker waits for the batch at hand: less than the soft shutdown's 10 s."""

_threads: list[threading.Thread] = []  # none yet, or the one
_starting = threading.Lock()


def start(held: Resources) -> bool:
    """Start this process's persister if it does not run; return whether it was started now."""
    from leadre.pipelines.persister import persister_of

    with _starting:
        if held.stopping.is_set() or (_threads and _threads[0].is_alive()):
            return False
        thread = threading.Thread(
            target=persister_of(held.settings).run, args=(held.stopping,), name="persister", daemon=True
        )
        thread.start()
        _threads[:] = [thread]
        return True


@app.task(name="workers.ingest.look_after", acks_late=False)  # type: ignore[untyped-decorator]
def look_after() -> None:
    """Start the persister of a worker that has lost it."""
    if start(resources()):
        logger.warning("persister_started_anew")


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def start_persisting(sender: Consumer, **_: object) -> None:
    """Persist in workers that serve the queue `ingest`."""
    if INGEST in sender.app.amqp.queues.consume_from:
        start(resources())


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def finish_batch(**_: object) -> None:
    """Let the batch at hand end. `doorbell` has said that the worker stops; this says it once more."""
    resources().stopping.set()
    for thread in _threads:
        thread.join(END_S)
