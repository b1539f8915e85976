"""Spans: nested, sampled, without data of a person; nothing where tracing is off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from leadre import traces
from leadre.errors import InvalidInput
from leadre.traces import span, start, traced


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Keep what is exported, as soon as a span ends."""
    monkeypatch.setattr("opentelemetry.sdk.trace.export.BatchSpanProcessor", SimpleSpanProcessor)
    yield InMemorySpanExporter()
    start(sample=0, service="")


@traced("contexts")
def read(user_ids: list[int], *, fails: bool = False) -> int:
    if fails:
        raise InvalidInput("Rita, 31, clicked hiking boots")
    return len(user_ids)


def test_a_batch_is_a_span_and_its_parts_are_its_children(exporter: InMemorySpanExporter) -> None:
    start(sample=1, service="worker", exporter=exporter)
    with span("refresh_batch", users=2, lane="llm"):
        assert read([5, 6]) == 2
    child, parent = exporter.get_finished_spans()
    assert (child.name, parent.name) == ("contexts", "refresh_batch")
    assert child.parent
    assert parent.context
    assert child.parent.span_id == parent.context.span_id
    assert dict(parent.attributes or {}) == {"users": 2, "lane": "llm"}
    assert parent.resource.attributes["service.name"] == "worker"


def test_an_error_is_its_type_and_says_nothing_of_anybody(exporter: InMemorySpanExporter) -> None:
    start(sample=1, service="worker", exporter=exporter)
    with pytest.raises(InvalidInput), span("refresh_batch", users=1):
        read([5], fails=True)
    for made in exporter.get_finished_spans():
        assert made.status.description == "InvalidInput"
        assert not made.events
        assert "Rita" not in made.to_json()


def test_whole_traces_are_sampled_not_spans(exporter: InMemorySpanExporter) -> None:
    start(sample=0.5, service="worker", exporter=exporter)
    for _ in range(400):
        with span("refresh_batch", users=1):
            read([5])
    made = exporter.get_finished_spans()
    assert 100 < len(made) / 2 < 300
    assert len({each.context.trace_id for each in made if each.context}) == len(made) / 2


def test_where_tracing_is_off_nothing_is_made(exporter: InMemorySpanExporter) -> None:
    start(sample=0, service="worker", exporter=exporter)
    with span("refresh_batch", users=1):
        assert read([5]) == 1
    assert exporter.get_finished_spans() == ()
    assert span("a") is span("b")
    assert traces._tracer is None


def test_the_parts_of_a_refresh_are_traced() -> None:
    folder = Path(traces.__file__).parent
    found = {
        name
        for path in ("store/features/client.py", "retrieval/loaded_release.py")
        for name in re.findall(r'@traced\("(\w+)"\)\n    def ', (folder / path).read_text())
    }
    assert found == {"refresh_user_features", "contexts", "engine", "write"}
    assert 'span("refresh_batch"' in (folder / "pipelines/drain.py").read_text()
