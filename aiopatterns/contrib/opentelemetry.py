"""OpenTelemetry: spans and metrics of what the library does, by the semantic conventions.

::

    subscription = instrument()         once in each process, before the work begins

    enqueue mails            PRODUCER   job.enqueue(...)
    '- process mails         CONSUMER   in the worker; spans of the function are inside
       |- publish paid       PRODUCER   broker.publish(...)
       |  '- process paid    CONSUMER   in whichever process handles it
       '- call users         CLIENT     ServiceClient.call(...), each attempt
          '- GET /users      SERVER     the gateway, or contrib.asgi's TracingMiddleware
             '- GET          CLIENT     the gateway to the service, each attempt

The context travels as the W3C ``traceparent``: in the header of jobs and messages, as a header of
HTTP requests. A span that processes one message is the child of the span that has sent it and has
a link to it; one that processes a batch has links alone.

=======================================  ======================================
metric                                   of
=======================================  ======================================
``messaging.client.operation.duration``  sends and requests, in seconds
``messaging.client.sent.messages``       messages and jobs that were sent
``messaging.client.consumed.messages``   those whose processing began
``messaging.process.duration``           processing, in seconds
``http.server.request.duration``         requests served
``http.client.request.duration``         requests of the gateway to services
``aiopatterns.events``                   events, by name
=======================================  ======================================

Events of the library (a retry, a circuit that opens) become events of the span in which they
happen, so a trace shows why a step took as long as it did.

Guarantees: what tracing itself raises, a processor of spans for example, is logged and never breaks
the work; an error ends its span as one, with its type, and is recorded; a metric has at most
:data:`MAX_DESTINATIONS` values of a name that users choose, all others count as ``_OTHER``.

Not guaranteed: that ``tracestate`` and baggage travel with jobs and messages.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.notes import in_words
from aiopatterns.core.telemetry import Subscription, install_listener
from aiopatterns.core.tracing import NO_SPAN, Messages, Request, install_tracer

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context, get_current
    from opentelemetry.trace import Link
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise ImportError(
        "aiopatterns.contrib.opentelemetry needs OpenTelemetry: pip install 'aiopatterns[otel]'"
    ) from None

from aiopatterns.contrib.otelspan import OtelSpan, log_trouble
from aiopatterns.contrib.otelwords import OTHER, in_words_of_otel

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from aiopatterns.contrib.otelwords import Attributes, Value
    from aiopatterns.core.telemetry import Event
    from aiopatterns.core.tracing import Span, Step

__all__ = ["MAX_DESTINATIONS", "instrument"]

#: Names of queues, topics and streams that a metric tells apart.
MAX_DESTINATIONS: Final = 200

_NAME: Final = "aiopatterns"
_DESTINATION: Final = "messaging.destination.name"
# Bounds of histograms of seconds that the conventions recommend.
_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
# Characters of one field of an event that a span keeps.
_LONGEST: Final = 500


def instrument(
    tracer_provider: TracerProvider | None = None, *, meter_provider: MeterProvider | None = None
) -> Subscription:
    """Trace and measure what this process does with the library from now on.

    Args:
        tracer_provider: Makes the tracer; by default the process-wide one of OpenTelemetry.
        meter_provider: Makes the meter; likewise.

    Returns:
        The subscription; close it to stop.

    Raises:
        RuntimeError: The process is instrumented already.

    Example::

        instrument()  # after trace.set_tracer_provider(...)
    """
    bridge = _Bridge(
        trace.get_tracer(_NAME, tracer_provider=tracer_provider),
        _Meters(metrics.get_meter(_NAME, meter_provider=meter_provider)),
    )
    steps = install_tracer(bridge)
    events = install_listener(bridge.tell)

    def stop() -> None:
        steps.close()
        events.close()

    return Subscription(stop)


@final
class _Bridge:
    """Makes spans of steps, and events of spans of events.

    Args:
        tracer: Of OpenTelemetry.
        meters: Take the figures.
    """

    __slots__ = ("_carrier", "_meters", "_tracer")

    def __init__(self, tracer: Tracer, meters: _Meters) -> None:
        self._tracer = tracer
        self._meters = meters
        self._carrier = TraceContextTextMapPropagator()

    def __repr__(self) -> str:
        return "aiopatterns.contrib.opentelemetry"

    def start(self, step: Step) -> Span:
        """Begin a span; :data:`NO_SPAN` if that fails, which is logged."""
        try:
            return self._start(step)
        except Exception as trouble:
            log_trouble(trouble)
            return NO_SPAN

    def _start(self, step: Step) -> OtelSpan:
        words = in_words_of_otel(step)
        around, links = get_current(), list[Link]()
        if isinstance(step, Messages) and step.verb == "process":
            around, links = self._received(step.origins, alone=step.batch is None)
        elif isinstance(step, Request) and step.origin:
            around = self._continued(step.origin, around)
        span = self._tracer.start_span(
            words.name, around, kind=words.kind, attributes=words.attributes, links=links
        )
        self._meters.begun(step, words.labels)
        return OtelSpan(span, around, step=step, words=words, measured=self._meters.ended)

    def traceparent(self) -> str | None:
        """Return that of the current span, or None."""
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def tell(self, event: Event) -> None:
        """Count an event, and add it to the span in which it happened."""
        self._meters.happened(event.name)
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(event.name, _attributes(event))

    def _received(self, origins: tuple[str, ...], *, alone: bool) -> tuple[Context, list[Link]]:
        """Return where the processing of messages belongs: to the one sender, or to none."""
        nowhere = Context()
        contexts = [self._read(each, nowhere) for each in dict.fromkeys(origins)]
        spans = [trace.get_current_span(each).get_span_context() for each in contexts]
        links = [Link(each) for each in spans if each.is_valid]
        return (contexts[0] if alone and contexts else nowhere), links

    def _continued(self, origin: str, here: Context) -> Context:
        """Return where a request belongs: to its sender, or to a span of the same trace here.

        Such a span is that of another instrumentation for the same request. One of another trace is
        that in which the server was started, and has nothing to do with it.
        """
        there = self._read(origin, here)
        traces = [
            trace.get_current_span(each).get_span_context().trace_id for each in (here, there)
        ]
        return here if traces[0] == traces[1] else there

    def _read(self, origin: str, otherwise: Context) -> Context:
        return self._carrier.extract({"traceparent": origin}, otherwise)


@final
class _Meters:
    """The instruments of one meter."""

    __slots__ = ("_consumed", "_destinations", "_events", "_http", "_messages", "_sent")

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, text: str) -> metrics.Histogram:
            return meter.create_histogram(
                name, "s", text, explicit_bucket_boundaries_advisory=_SECONDS
            )

        self._destinations = set[object]()
        self._messages = {
            "process": seconds("messaging.process.duration", "Processing of messages and jobs"),
            "send": seconds("messaging.client.operation.duration", "Sends and requests"),
        }
        self._http = {
            "server": seconds("http.server.request.duration", "Requests that were served"),
            "client": seconds("http.client.request.duration", "Requests to services"),
        }
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Messages and jobs that were sent"
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Those whose processing began"
        )
        self._events = meter.create_counter("aiopatterns.events", "{event}", "Events, by name")

    def begun(self, step: Step, labels: Attributes) -> None:
        """Count what is processed; the destination is bounded from here on."""
        if not isinstance(step, Messages):
            return
        labels[_DESTINATION] = self._bounded(labels[_DESTINATION])
        if step.verb == "process":
            self._consumed.add(_number(step), labels)

    def ended(self, step: Step, seconds: float, labels: Attributes) -> None:
        """Record how long a step took; count what was sent."""
        if isinstance(step, Request):
            self._http[step.side].record(seconds, labels)
        elif isinstance(step, Messages) and step.verb == "process":
            self._messages["process"].record(seconds, labels)
        elif isinstance(step, Messages):
            self._messages["send"].record(seconds, labels)
            self._sent.add(_number(step), labels)

    def happened(self, name: str) -> None:
        """Count an event."""
        self._events.add(1, {"aiopatterns.event": name})

    def _bounded(self, destination: Value) -> Value:
        known = self._destinations
        if destination in known:
            return destination
        if len(known) >= MAX_DESTINATIONS:
            return OTHER
        known.add(destination)
        return destination


def _number(step: Messages) -> int:
    return 1 if step.batch is None else step.batch


def _attributes(event: Event) -> Attributes:
    """Return the fields of an event as attributes; None is left out."""
    found: Attributes = {}
    for each in fields(event):
        value = getattr(event, each.name)
        if isinstance(value, BaseException):
            found[each.name] = in_words(value)
        elif isinstance(value, (bool, int, float)):
            found[each.name] = value
        elif value is not None:
            found[each.name] = str(value)[:_LONGEST]
    return found
