"""How a Celery worker of one machine is started: what the demo and the simulation run, and the tutorial types."""

from __future__ import annotations

import sys


def worker_command(app: str) -> list[str]:
    """Return the command of a worker that makes lists and takes reported behaviors in.

    Args:
        app: module of the Celery application.
    """
    worker = ["worker", "-Q", "retrieval,ingest", "--pool=threads", "-c", "1"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    return [sys.executable, "-m", "celery", "-A", app, *worker, *quiet]
