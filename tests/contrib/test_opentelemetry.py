"""Spans and metrics of OpenTelemetry, as an exporter gets them."""

from __future__ import annotations

import json
import os
import runpy
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aiopatterns.backends import open_backend
from aiopatterns.cluster.client import ServiceClient
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.contrib import opentelemetry as module
from aiopatterns.contrib.asgi import TracingMiddleware
from aiopatterns.contrib.opentelemetry import MAX_DESTINATIONS, instrument
from aiopatterns.core.errors import JobFailedError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.tracing import Messages, Request, outgoing_headers, traceparent, tracer
from aiopatterns.gateway import Gateway, Route
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.messaging import Broker
from aiopatterns.messaging.message import Message
from aiopatterns.resilience import Constant, Retry
from aiopatterns.testing import Trial, cancel_everywhere
from tests.contrib import tracedworker
from tests.contrib.spans import Seen, attributes, id_of, seen, trace_of
from tests.gateway.front import served
from tests.jobs.fleet import on_one_loop


def users() -> FastAPI:
    """A service with one route."""
    app = FastAPI()
    app.add_middleware(TracingMiddleware)

    @app.get("/users/{number}")
    async def user(number: int) -> dict[str, Any]:
        return {"name": "Ann", "number": number}

    return app


@pytest.mark.real
@pytest.mark.promise("telemetry-one-trace")
async def test_one_trace_over_call_job_message_and_http(redis_url: str):
    """call -> job on Redis -> message to another broker -> gateway -> service."""
    jobs = JobQueue("orders", redis_url)
    here, there = (Broker(open_backend(redis_url), name=name) for name in ("here", "there"))
    names: list[str] = []
    answered = anyio.Event()

    @jobs.job
    async def pay(order: int) -> int:
        await here.publish("order.paid", {"id": order})
        return order

    async with AsyncExitStack() as stack:
        record = stack.enter_context(seen())
        web = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        shop = await stack.enter_async_context(served(users()))
        registry = await stack.enter_async_context(ServiceRegistry("memory://", propagation=0))
        await stack.enter_async_context(
            registry.register(ServiceInstance("users", "127.0.0.1", shop.port))
        )
        gateway = Gateway([Route("/api", to="users", strip_prefix=True)], registry=registry)
        front = await stack.enter_async_context(served(gateway))
        await stack.enter_async_context(
            registry.register(ServiceInstance("front", "127.0.0.1", front.port))
        )
        client = ServiceClient("front", registry)

        async def on_paid(message: Message) -> None:
            async def ask(endpoint: ServiceInstance) -> str:
                url = f"http://{endpoint.address}/api/users/7"
                return str((await web.get(url, headers=outgoing_headers())).json()["name"])

            names.append(await client.call(ask))
            answered.set()

        for owner in (jobs, Worker(jobs), here, there):
            await stack.enter_async_context(owner)
        await there.subscribe("order.*", on_paid, group="mails")
        with record.mine.start_as_current_span("call"):
            handle = await pay.enqueue(17)
        assert await handle.result(timeout=10) == 17
        with anyio.fail_after(10):
            await answered.wait()
    assert names == ["Ann"]
    last = record.one("GET /users/{number}")
    assert record.path(last) == [
        "call",
        "enqueue orders",
        "process orders",
        "publish order.paid",
        "process order.*",
        "call front",
        "GET /api",
        "GET",
        "GET /users/{number}",
    ]
    assert len({trace_of(each) for each in record.spans}) == 1
    kinds = {each.name: each.kind for each in record.spans}
    assert kinds == {
        "call": SpanKind.INTERNAL,
        "enqueue orders": SpanKind.PRODUCER,
        "process orders": SpanKind.CONSUMER,
        "publish order.paid": SpanKind.PRODUCER,
        "process order.*": SpanKind.CONSUMER,
        "call front": SpanKind.CLIENT,
        "GET /api": SpanKind.SERVER,
        "GET": SpanKind.CLIENT,
        "GET /users/{number}": SpanKind.SERVER,
    }
    assert attributes(record.one("process orders"))["messaging.destination.name"] == "orders"


@dataclass(frozen=True, slots=True)
class Happened(Event):
    name: ClassVar[str] = "tests.happened"
    text: str = "x" * 1000
    number: int = 7
    error: Exception | None = None
    other: tuple[int, ...] = (1, 2)


def test_events_of_the_library_are_events_of_the_span_in_which_they_happen():
    with seen() as record:
        emit(Happened())  # outside of any span
        with record.mine.start_as_current_span("call"):
            emit(Happened(error=OSError("away")))
    (event,) = record.one("call").events
    assert event.name == "tests.happened"
    assert dict(event.attributes or {}) == {
        "text": "x" * 500,
        "number": 7,
        "error": "OSError: away",
        "other": "(1, 2)",
    }
    (point,) = record.metric("aiopatterns.events")
    assert (point.value, dict(point.attributes)) == (2, {"aiopatterns.event": "tests.happened"})


async def test_a_retry_shows_in_the_span_around_it():
    tries: list[int] = []

    @Retry(OSError, attempts=3, backoff=Constant(0))
    async def call() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("away")
        return len(tries)

    with seen() as record, record.mine.start_as_current_span("call"):
        assert await call() == 3
    assert [each.name for each in record.one("call").events] == ["aiopatterns.retry.scheduled"] * 2


def test_one_at_a_time_and_closed_for_good():
    with seen():
        with pytest.raises(RuntimeError, match=r"aiopatterns\.contrib\.opentelemetry traces"):
            instrument()
        assert listening()
    assert tracer() is None
    assert not listening()
    with instrument():  # the providers of the process, which do nothing by default
        assert traceparent() is None
        with Seen().mine.start_as_current_span("call"):
            assert traceparent() is not None
    assert tracer() is None


async def test_metrics_of_jobs():
    jobs = JobQueue("mails")

    @jobs.job
    async def mail(to: str) -> None:
        if not to:
            raise OSError("nobody")

    with seen() as record:
        async with jobs, Worker(jobs):
            handles = await jobs.enqueue_many([mail.job("a"), mail.job("b"), mail.job("")])
            assert await jobs.enqueue_many([]) == []  # which sends nothing
            for each in handles[:2]:
                await each.result(timeout=5)
            with pytest.raises(JobFailedError):
                await handles[2].result(timeout=5)
    (sent,) = record.metric("messaging.client.sent.messages")
    assert sent.value == 3
    (consumed,) = record.metric("messaging.client.consumed.messages")
    assert consumed.value == 3
    assert dict(consumed.attributes) == {
        "messaging.system": "aiopatterns.jobs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mails",
    }
    done = record.metric("messaging.process.duration")
    assert {each.attributes.get("error.type"): each.count for each in done} == {
        None: 2,
        "OSError": 1,
    }
    (enqueued,) = record.metric("messaging.client.operation.duration")
    assert enqueued.count == 2
    assert enqueued.explicit_bounds[0] == 0.005


@pytest.mark.promise("telemetry-bounded")
def test_destinations_of_metrics_are_bounded():
    with seen() as record:
        found = tracer()
        assert found is not None
        for number in range(2 * MAX_DESTINATIONS):
            with found.start(Messages("send", "broker", f"order.{number}", "publish")):
                pass
    points = record.metric("messaging.client.sent.messages")
    names = {each.attributes["messaging.destination.name"]: each.value for each in points}
    assert len(names) == MAX_DESTINATIONS + 1
    assert names["_OTHER"] == MAX_DESTINATIONS
    assert len({each.name for each in record.spans}) == 2 * MAX_DESTINATIONS


def test_what_is_no_traceparent_begins_a_trace():
    with seen() as record:
        found = tracer()
        assert found is not None
        for origin in ("", "x", "00-0-0-00", "00-" + "0" * 32 + "-b7ad6b7169203331-01"):
            with found.start(Messages("process", "jobs", "a", "process", origins=(origin,))):
                pass
            with found.start(Request("server", "GET", "/", origin=origin)):
                pass
    assert all(each.parent is None and not each.links for each in record.spans)


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_received_trace_goes_on_here():
    with seen() as record:
        found = tracer()
        assert found is not None
        with found.start(Request("server", "GET", "/1", origin=PARENT)):
            assert str(traceparent()).startswith("00-0af7651916cd43dd8448eb211c80319c-")
        with record.mine.start_as_current_span("startup"):  # of the server, a trace of its own
            with found.start(Request("server", "GET", "/2", origin=PARENT)):
                pass
            with found.start(Request("server", "GET", "/3")):
                pass
    first, second, third = (each for each in record.spans if each.kind is SpanKind.SERVER)
    for each in (first, second):
        assert each.parent is not None
        assert each.parent.span_id == 0xB7AD6B7169203331
    assert record.path(third) == ["startup", "GET"]


def test_a_span_of_another_instrumentation_for_the_same_request_stays_around_ours():
    with seen() as record:
        found = tracer()
        assert found is not None
        received = TraceContextTextMapPropagator().extract({"traceparent": PARENT})
        with record.mine.start_as_current_span("of another", received):
            with found.start(Request("server", "GET", "/", origin=PARENT)):
                pass
    assert record.path(record.one("GET")) == ["of another", "GET"]


async def test_what_is_sampled_out_stays_so_in_the_worker():
    traces = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    exported = InMemorySpanExporter()
    traces.add_span_processor(SimpleSpanProcessor(exported))
    jobs = JobQueue("mails")

    @jobs.job
    async def mail() -> str | None:
        return traceparent()

    with instrument(traces):
        async with jobs, Worker(jobs):
            inside = await (await mail.enqueue()).result(timeout=5)
    assert inside is not None
    assert not int(inside.split("-")[3], 16) & 1  # of its flags, that which says "sampled"
    assert not exported.get_finished_spans()


@pytest.mark.promise("telemetry-spans-end")
def test_spans_end_once_wherever_the_work_is_cancelled():
    class Ends(SpanProcessor):
        open = 0

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            self.open += 1

        def on_end(self, span: Any) -> None:
            self.open -= 1

    def scenario() -> Trial:
        ends, providers = Ends(), Seen().tracers
        providers.add_span_processor(ends)
        jobs = JobQueue("mails")

        @jobs.job
        async def mail() -> None:
            await anyio.sleep(0.01)

        async def work() -> None:
            with instrument(providers):
                async with jobs, Worker(jobs), Broker("memory://") as broker:
                    await broker.subscribe("price", lambda _: 7)
                    handle = await mail.enqueue()
                    assert await broker.request("price") == 7
                    await handle.result(timeout=5)

        def check() -> None:
            assert ends.open == 0
            assert tracer() is None

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=5)


def test_a_missing_extra_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'aiopatterns\[otel\]'"):
        runpy.run_path(module.__file__)


@pytest.mark.real
@pytest.mark.promise("telemetry-one-trace")
@on_one_loop
async def test_a_trace_goes_on_in_another_process(redis_url: str):
    jobs, pay = tracedworker.jobs, tracedworker.pay
    here = JobQueue("orders", redis_url)
    sending = here.job(name=pay.name)(pay.fn)
    with seen() as record:
        async with here:
            with record.mine.start_as_current_span("call"):
                handle = await sending.enqueue(17)
            found = await anyio.run_process(
                [sys.executable, "-m", "tests.contrib.tracedworker"],
                env={**os.environ, "ORDERS": redis_url},
            )
            assert await handle.result(timeout=5) != os.getpid()
    assert jobs.name == here.name
    spans = [json.loads(line) for line in found.stdout.decode().splitlines()]
    parents = {each["context"]["span_id"]: each["parent_id"] for each in spans}
    names = {each["context"]["span_id"]: each["name"] for each in spans}
    assert sorted(names.values()) == ["enqueue orders", "process orders", "process orders"]
    (last,) = set(parents) - set(parents.values())
    assert names[parents[last]] == "enqueue orders"
    first = parents[parents[last]]
    assert parents[first] == f"0x{id_of(record.one('enqueue orders')):016x}"
    trace = f"0x{trace_of(record.one('call')):032x}"
    assert {each["context"]["trace_id"] for each in spans} == {trace}
