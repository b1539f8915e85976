"""The peer of the refresh queue: one Celery task a user, tuned, and a worker that runs them.

LEADRE §4.4.1. Acknowledged late, as the queue's claims are; a prefetch of 64, JSON, no results, no chatter between
workers, and a pool without threads, which is the fastest for tasks that do nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis
from celery import Celery, Task

QUEUE, DONE, READY = "peer", "peer:done", "peer:ready"
PATIENCE_S = 300

app = Celery("peer", broker=os.environ.get("LEADRE_REDIS_URL"), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    task_default_queue=QUEUE,
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)


@app.task(name="peer.refresh")
def refresh(user_id: int, announced: str) -> None:
    """Do nothing for a user; then say so under `announced`, unless that is empty."""
    if announced:
        with redis.Redis.from_url(app.conf.broker_url) as client:
            client.rpush(announced, user_id)


@contextmanager
def worker(url: str, module: str = "celery_peer", environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a worker until the block ends; it is ready when the block begins.

    Args:
        url: of Redis.
        module: what the worker imports: this module, or one with more tasks of its `app`.
        environment: of the worker, besides this process's.
    """
    app.conf.broker_url = url
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR", "-Q", QUEUE]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", module, "worker", "--pool=solo", *flags],
        cwd=Path(__file__).parent,
        env={**os.environ, **(environment or {}), "LEADRE_REDIS_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with redis.Redis.from_url(url) as client:
            refresh.delay(0, READY)
            _wait(client, READY)
        yield
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def tasks_per_s(url: str, tasks: int, task: Task = refresh) -> float:
    """Return how many tasks a second the running worker does; all of them are published before it begins."""
    control = app.control
    with redis.Redis.from_url(url) as client:
        control.cancel_consumer(QUEUE, reply=True, timeout=PATIENCE_S, limit=1)
        for user_id in range(tasks):
            task.delay(user_id, DONE if user_id == tasks - 1 else "")
        began = time.perf_counter()
        control.add_consumer(QUEUE)
        _wait(client, DONE)
        return tasks / (time.perf_counter() - began)


def _wait(client: redis.Redis, key: str) -> None:
    if client.blpop([key], timeout=PATIENCE_S) is None:
        raise TimeoutError(f"the worker said nothing under {key} for {PATIENCE_S} s")
