"""The peer: plain Celery on Redis, one task a piece of work, `acks_late`, as its manual has it."""

from __future__ import annotations

import os
import time

from celery import Celery, signals
from kombu.transport import TRANSPORT_ALIASES
from redis import Redis

DONE = "done"
VISIBILITY_S = 10


def make_app(redis_url: str) -> Celery:
    """Return an application with one task, whose broker is database 1 and whose results go to database 2."""
    server = redis_url.rpartition("/")[0]
    app = Celery("plain", broker=f"{server}/1", set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 1,
        },
        worker_hijack_root_logger=False,
    )
    results = Redis.from_url(f"{server}/2", socket_timeout=5, socket_connect_timeout=1)

    @app.task(name="work", autoretry_for=(Exception,), max_retries=None, default_retry_delay=1)  # type: ignore[untyped-decorator]
    def work(number: int) -> None:
        time.sleep(0.02)
        results.sadd(DONE, number)

    return app


def run(redis_url: str) -> None:
    """Be a worker."""
    os.environ.pop("CELERY_BROKER_URL", None)
    for name in ("worker_init", "worker_ready", "worker_shutting_down", "worker_shutdown", "setup_logging"):
        signal = getattr(signals, name)  # it is forked from a process that has imported our workers: none of their ways
        signal.receivers = []
        signal.sender_receivers_cache.clear()
    TRANSPORT_ALIASES["redis"] = "kombu.transport.redis:Transport"
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    make_app(redis_url).worker_main(["worker", "--pool=threads", "-c", "1", "-l", "ERROR", *flags])
