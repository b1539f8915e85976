"""What a worker process tells Prometheus and OpenTelemetry. LEADRE §4.4.1.

The port is of this process alone, so two workers of a machine have two; it shows no data of a person. Figures of the
whole queue are shown by every worker that serves it.
"""

from __future__ import annotations

import logging

from celery import signals
from celery.worker.consumer import Consumer
from prometheus_client import REGISTRY, start_http_server

from leadre import traces
from leadre.errors import ConfigError
from leadre.retrieval.refresh_queue_stats import QueueCollector

from .app import RETRIEVAL
from .resources import resources

logger = logging.getLogger(__name__)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def start_traces(**_: object) -> None:
    """Trace a share of the batches, if the settings say so. Ends a worker that cannot."""
    try:
        traces.start(sample=resources().settings.trace_sample, service="leadre worker")
    except ConfigError as error:
        raise SystemExit(f"ConfigError: {error}") from error  # Celery logs other exceptions of handlers, and goes on


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def serve_metrics(sender: Consumer, **_: object) -> None:
    """Answer `GET /metrics` on the settings' port. A port that cannot be had is a warning: the worker works."""
    settings = resources().settings
    if settings.worker_metrics_port is None:
        return
    try:
        server, _thread = start_http_server(settings.worker_metrics_port, addr=settings.worker_metrics_host)
    except OSError as error:
        logger.warning("metrics_not_served", extra={"port": settings.worker_metrics_port, "problem": error.strerror})
        return
    if RETRIEVAL in sender.app.amqp.queues.consume_from:
        REGISTRY.register(QueueCollector(resources().queue))
    logger.info("metrics_served", extra={"host": settings.worker_metrics_host, "port": server.server_port})
