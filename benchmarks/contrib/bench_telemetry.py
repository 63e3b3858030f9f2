"""Telemetry: what tracing and counting cost, off, sampled out, and on.

Off is what everybody pays: the span of a step while no tracer is installed. On, two spans and the
context between them are compared with the same by hand, as the documentation of OpenTelemetry tells it;
the spans of both go to a processor that drops them. A request over a broker in memory is the dearest
case, for there is next to nothing else in it.

Goals: a step costs at most 0.3 us while nobody traces, and an event at most 3 us with a listener, that
of Prometheus among them; two spans at most 1.3 times what they cost by hand.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, Counter

from aiopatterns.contrib import opentelemetry, prometheus
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.tracing import tracer
from aiopatterns.messaging import Broker
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.tracing import onward, processing, sending
from benchmarks.harness import Bench

STEPS, SPANS, EVENTS, REQUESTS = 100_000, 5_000, 50_000, 5_000
TOPIC = "order.paid"

bench = Bench("contrib/telemetry")


def provider(sampler: Sampler) -> TracerProvider:
    """Spans are made, and dropped when they end."""
    return TracerProvider(sampler=sampler, shutdown_on_exit=False)


# -- a step --------------------------------------------------------------------------------------

off = bench.case("a step while nobody traces, goal 0.3 us", clock="cpu", unit="us/step")


@off.ours("with sending(...)")
async def nobody_traces() -> int:
    assert tracer() is None
    for _ in range(STEPS):
        with sending("broker", TOPIC, "publish"):
            pass
    return STEPS


@off.limit("with nullcontext()")
async def null_context() -> int:
    for _ in range(STEPS):
        with nullcontext():
            pass
    return STEPS


off.under(0.3)

# -- two spans -----------------------------------------------------------------------------------

two = bench.case("a message: span, context, span", clock="cpu", unit="us/message")


@two.ours("contrib.opentelemetry")
async def ours() -> int:
    with opentelemetry.instrument(provider(ALWAYS_ON)):
        for _ in range(SPANS):
            with sending("broker", TOPIC, "publish", "paid"):
                headers = onward(None)
            assert headers is not None
            message = Message(type="paid", topic=TOPIC, headers=headers)
            with processing("broker", message, group="mails"):
                pass
    return SPANS


@two.peer("opentelemetry by hand", follows="opentelemetry.io, Instrumentation, Propagation")
async def by_hand() -> int:
    mine = provider(ALWAYS_ON).get_tracer("by hand")
    attributes: dict[str, Any] = {
        "messaging.system": "mine",
        "messaging.destination.name": TOPIC,
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
    }
    name = f"publish {TOPIC}"
    for _ in range(SPANS):
        headers: dict[str, str] = {}
        with mine.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes):
            propagate.inject(headers)
        message = Message(type="paid", topic=TOPIC, headers=headers)
        received = propagate.extract(message.headers)
        found = {**attributes, "messaging.message.id": message.id}
        links = [trace.Link(trace.get_current_span(received).get_span_context())]
        with mine.start_as_current_span(
            f"process {message.topic}",
            received,
            kind=SpanKind.CONSUMER,
            attributes=found,
            links=links,
        ):
            pass
    return SPANS


two.at_most(1.3, of="opentelemetry by hand")

# -- a request -----------------------------------------------------------------------------------

request = bench.case("a request over a broker in memory", clock="cpu", unit="us/request")


async def ask() -> int:
    """Ask one after the other."""
    async with Broker("memory://") as broker:
        await broker.subscribe("price", lambda message: message.payload)
        for number in range(REQUESTS):
            assert await broker.request("price", number) == number
    return REQUESTS


@request.ours("recorded")
async def recorded() -> int:
    with opentelemetry.instrument(provider(ALWAYS_ON)):
        return await ask()


@request.ours("sampled out")
async def sampled_out() -> int:
    with opentelemetry.instrument(provider(ALWAYS_OFF)):
        return await ask()


@request.limit("nobody traces")
async def untraced() -> int:
    return await ask()


# -- an event ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """An event of the usual size."""

    name: ClassVar[str] = "aiopatterns.bench.opened"

    circuit: str
    failures: int


counted = bench.case("an event that Prometheus counts, goal 3 us", clock="cpu", unit="us/event")


@counted.ours("contrib.prometheus")
async def count_events() -> int:
    registry = CollectorRegistry()
    with prometheus.instrument(registry):
        for number in range(EVENTS):
            if listening():
                emit(Opened("billing", number))
        labels = {"event": Opened.name, "owner": "billing"}
        assert registry.get_sample_value("aiopatterns_events_total", labels) == EVENTS
    return EVENTS


@counted.limit("Counter.labels(...).inc()")
async def bare_counter() -> int:
    counter = Counter("bare", "bare", ["event", "owner"], registry=None)
    for _ in range(EVENTS):
        counter.labels(Opened.name, "billing").inc()
    return EVENTS


counted.under(3)

if __name__ == "__main__":
    bench.main()
