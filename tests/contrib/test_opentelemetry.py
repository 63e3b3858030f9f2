"""Spans and metrics of OpenTelemetry, as an exporter gets them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.trace import SpanKind

from aiopatterns.backends import open_backend
from aiopatterns.cluster.client import ServiceClient
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.contrib.asgi import TracingMiddleware
from aiopatterns.core.tracing import outgoing_headers
from aiopatterns.gateway import Gateway, Route
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.messaging import Broker
from aiopatterns.messaging.message import Message
from tests.contrib.spans import attributes, seen, trace_of
from tests.gateway.front import served


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
