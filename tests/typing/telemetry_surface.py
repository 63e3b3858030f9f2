"""Traces, metrics and events, under both checkers."""

from __future__ import annotations

from types import TracebackType
from typing import Self, assert_type

from aiohttp import web
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from aiopatterns import CircuitBreaker, JobQueue
from aiopatterns.contrib import opentelemetry, prometheus
from aiopatterns.contrib.aiohttp import correlation_middleware, tracing_middleware
from aiopatterns.contrib.asgi import TracingMiddleware
from aiopatterns.contrib.prometheus import QueueGauges
from aiopatterns.core import Subscription, install_tracer, outgoing_headers, traceparent
from aiopatterns.core.tracing import Fact, Messages, Step

jobs = JobQueue("mails", "memory://")
breaker = CircuitBreaker("db")

app = FastAPI()
app.add_middleware(TracingMiddleware)
application = web.Application(middlewares=[tracing_middleware, correlation_middleware])


class Printed:
    """A span of somebody's own."""

    def note(self, fact: Fact, value: str | int) -> None:
        print(fact, value)

    def activate(self) -> None: ...

    def end(self, error: BaseException | None = None) -> None:
        print(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(exc)


class Printing:
    """A tracer of somebody's own."""

    def start(self, step: Step) -> Printed:
        if isinstance(step, Messages):
            assert_type(step.destination, str)
        return Printed()

    def traceparent(self) -> str | None:
        return None


def of_one_own() -> None:
    with install_tracer(Printing()) as subscription:
        assert_type(subscription, Subscription)
        assert_type(outgoing_headers(), dict[str, str])
        assert_type(traceparent(), str | None)


def of_opentelemetry() -> Subscription:
    opentelemetry.instrument().close()
    return opentelemetry.instrument(TracerProvider(), meter_provider=MeterProvider())


async def of_prometheus() -> None:
    registry = CollectorRegistry()
    with prometheus.instrument(registry, owners=[breaker]):
        async with jobs, QueueGauges(jobs, every=2.0, registry=registry) as gauges:
            assert_type(gauges.statistics().looks, int)
    prometheus.instrument(owners={"db": breaker}).close()
