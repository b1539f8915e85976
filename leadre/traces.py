"""Traces: spans of a refresh, made by hand and sampled, for OpenTelemetry. Without the extra `otel` they cost nothing.

LEADRE §4.4.1. A middleware that traces every request costs more than the request; here a batch is a span, and its parts
are its children. Attributes are counts and names of ours: no ids, no texts, and of an error its type alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

from leadre.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
Attribute = int | float | str | bool
_NOTHING = nullcontext()
_tracer: Any = None


def start(*, sample: float, service: str, exporter: Any = None) -> None:
    """Send one trace in `1 / sample` to where OpenTelemetry's own variables say (OTEL_EXPORTER_OTLP_ENDPOINT, ...).

    Args:
        sample: share of traces that are made, 0 to 1; 0 makes none.
        service: what the process is called there.
        exporter: an OpenTelemetry exporter instead of that over HTTP.

    Raises:
        ConfigError: the extra `otel` is not installed.
    """
    global _tracer  # one a process, as OpenTelemetry has it
    if sample <= 0:
        _tracer = None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        raise ConfigError(
            "LEADRE_TRACE_SAMPLE needs OpenTelemetry: `pip install 'leadre[otel]'`, or unset it"
        ) from None
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sample)), resource=Resource.create({"service.name": service})
    )
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    _tracer = provider.get_tracer("leadre")


def span(name: str, **attributes: Attribute) -> AbstractContextManager[None]:
    """Give a context that is a span of this name, a child of the one around it.

    Args:
        name: of the span.
        attributes: counts and names of ours, nothing of a person.
    """
    return _NOTHING if _tracer is None else _span(name, attributes)


def traced(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make every call of a function a span."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if _tracer is None:
                return function(*args, **kwargs)
            with _span(name, {}):
                return function(*args, **kwargs)

        return called

    return decorate


@contextmanager
def _span(name: str, attributes: dict[str, Attribute]) -> Iterator[None]:
    from opentelemetry.trace import StatusCode

    with _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield
        except BaseException as error:
            made.set_status(StatusCode.ERROR, type(error).__name__)
            raise
