"""OpenTelemetry with everything kept in memory, to be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aiopatterns.contrib.opentelemetry import instrument


class Seen:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.mine = self.tracers.get_tracer("tests")

    @property
    def spans(self) -> list[ReadableSpan]:
        """All spans that have ended, in the order of their ends."""
        return list(self.exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        (found,) = [each for each in self.spans if each.name == name]
        return found

    def path(self, span: ReadableSpan) -> list[str]:
        """Names from the root of its trace to a span."""
        by_id = {id_of(each): each for each in self.spans}
        names = [span.name]
        while span.parent is not None and (found := by_id.get(span.parent.span_id)):
            assert trace_of(found) == trace_of(span)
            span = found
            names.insert(0, span.name)
        return names

    def metric(self, name: str) -> list[Any]:
        """The points of a metric."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == name
            for point in each.data.data_points
        ]


@contextmanager
def seen() -> Iterator[Seen]:
    """Instrument this process, and keep what it exports."""
    found = Seen()
    with instrument(found.tracers, meter_provider=found.meters):
        yield found


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
