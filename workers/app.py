"""The Celery application.

LEADRE §4.4.1. Run beside PostgreSQL and Redis, with `LEADRE_*` set (or `leadre services up` before):

    W="celery -A workers.app worker --pool=threads -c 1 --without-gossip --without-mingle --without-heartbeat"
    $W -Q retrieval     $W -Q ingest     $W -Q indexing     $W -Q maintenance     $W -Q backfill
    celery -A workers.app beat

One process has one model, hence one thread. The three `--without` keep a worker alive through restarts of Redis. On a
small machine one worker may serve several queues (`-Q retrieval,indexing`), but then one's work holds up the other's; a
training run (`maintenance`) does so for hours.

A message of Celery on Redis can be lost. So none carries work: it only says "look into the refresh queue" (or into
PostgreSQL), and beat says it again and again. Messages are JSON and hold ids at most.

In a checkout this package is `workers`. Installed it is `leadre_workers`, for site-packages is everybody's, and the
`workers/app.py` that `leadre init` writes names its `app`. Tasks have the same names either way, so one queue may be
served by both.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from celery import Celery, Task, signals
from celery.worker import WorkController
from celery.worker.consumer import Consumer

from leadre import logs, traces
from leadre.errors import ConfigError, Unavailable
from leadre.settings import Settings
from leadre.threads import wait_asleep

from . import broker
from .schedule import BEAT_SCHEDULE

logger = logging.getLogger(__name__)

_TWIN = "leadre_workers" if __package__ == "workers" else "workers"
_loaded = getattr(sys.modules.get(f"{_TWIN}.app"), "__file__", None)
if _loaded and Path(_loaded).samefile(__file__):  # an editable install has both names: two apps, two models
    raise ConfigError(
        f"this process has imported {_TWIN}.app, which is the same file as {__name__}: import one of them"
    )

RETRIEVAL, INGEST, INDEXING, MAINTENANCE, BACKFILL = "retrieval", "ingest", "indexing", "maintenance", "backfill"
wait_asleep()  # before a task's module loads torch
_POOLS_FOR_MODELS = ("threads", "solo", "celery.concurrency.thread:", "celery.concurrency.solo:")


def configuration() -> dict[str, Any]:
    """Return Celery's configuration, read from the environment when first needed.

    Raises:
        ConfigError: no Redis is known.
    """
    return {
        "broker_url": Settings.from_environment().redis_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a hundred would be the end of a worker
        "broker_transport_options": {
            "visibility_timeout": 60,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 1,
            "health_check_interval": 10,
        },
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 10,
        "worker_pool": "threads",
        "worker_concurrency": 1,
        "worker_hijack_root_logger": False,
        "task_default_queue": RETRIEVAL,
        "task_routes": {
            "workers.retrieval.*": {"queue": RETRIEVAL},
            "workers.ingest.*": {"queue": INGEST},
            "workers.distribution.*": {"queue": RETRIEVAL},
            "workers.indexing.*": {"queue": INDEXING},
            "workers.dataset.*": {"queue": BACKFILL},
            "workers.*": {"queue": MAINTENANCE},
        },
        "task_create_missing_queues": True,
        "timezone": "UTC",
        "beat_schedule": BEAT_SCHEDULE,
        "beat_schedule_filename": str(Settings.from_environment().home / "celerybeat-schedule"),
    }


class PatientTask(Task):  # type: ignore[misc]
    """A task that tries again, some seconds later, when a server does not answer; beat brings it back in any case."""

    autoretry_for = (Unavailable,)
    max_retries = 3
    retry_backoff = True


class Application(Celery):  # type: ignore[misc]
    """Celery, which would forget a configuration that raises when first read, and go on with its own defaults."""

    def on_configure(self) -> None:
        """Raise before anything is forgotten: the next look finds what is missing now."""
        configuration()


broker.use()
app = Application(
    "leadre",
    task_cls=PatientTask,
    amqp=broker.Amqp,
    include=[
        f"{__package__}.{module}"
        for module in (
            *("retrieval", "distribution", "ingest", "indexing", "training", "materialization", "dataset", "features"),
            "doorbell",
            "upkeep",
            "presence",
        )
    ],
    set_as_current=True,
)
app.add_defaults(configuration)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def refuse_prefork(sender: WorkController, **_: object) -> None:
    """End a worker whose pool forks: torch hangs in the children of a process that has used it."""
    pool = sender.pool_cls if isinstance(sender.pool_cls, str) else f"{sender.pool_cls.__module__}:"
    if not pool.startswith(_POOLS_FOR_MODELS):
        error = ConfigError(f"pool {pool.rstrip(':')!r} cannot hold a model; start the worker with --pool=threads -c 1")
        raise SystemExit(f"ConfigError: {error}") from error  # Celery logs other exceptions of handlers, and goes on


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def configure_logging(loglevel: int | None = None, **_: object) -> None:
    """Write log lines as the rest of leadre does, one JSON object each; of Celery's own, warnings and worse."""
    logs.configure(level="INFO" if loglevel is None else logging.getLevelName(loglevel))
    celery = logging.getLogger("celery")
    celery.handlers[:] = logging.getLogger(__package__).handlers
    celery.setLevel(logging.WARNING)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def start_traces(**_: object) -> None:
    """Trace a share of the batches, if the settings say so. Ends a worker that cannot."""
    from .resources import resources

    try:
        traces.start(sample=resources().settings.trace_sample, service="leadre worker")
    except ConfigError as error:
        raise SystemExit(f"ConfigError: {error}") from error  # Celery logs other exceptions of handlers, and goes on


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def serve_metrics(sender: Consumer, **_: object) -> None:
    """Answer `GET /metrics` on the settings' port. A port that cannot be had is a warning: the worker works."""
    from .resources import resources

    settings = resources().settings
    if settings.worker_metrics_port is None:
        return
    from prometheus_client import REGISTRY, start_http_server

    from leadre.retrieval.refresh_queue_stats import QueueCollector

    try:
        server, _thread = start_http_server(settings.worker_metrics_port, addr=settings.worker_metrics_host)
    except OSError as error:
        logger.warning("metrics_not_served", extra={"port": settings.worker_metrics_port, "problem": error.strerror})
        return
    if RETRIEVAL in sender.app.amqp.queues.consume_from:
        REGISTRY.register(QueueCollector(resources().queue))
    logger.info("metrics_served", extra={"host": settings.worker_metrics_host, "port": server.server_port})
