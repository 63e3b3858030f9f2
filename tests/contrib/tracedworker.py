"""A worker in a process of its own, which runs one job and prints its spans, one a line."""

from __future__ import annotations

import os
import sys

import anyio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from aiopatterns.contrib.opentelemetry import instrument
from aiopatterns.jobs import JobQueue, Worker

jobs = JobQueue("orders", os.environ.get("ORDERS", "memory://"))


@jobs.job
async def pay(order: int) -> int:
    await book.enqueue(order)
    return os.getpid()


@jobs.job
async def book(order: int) -> int:
    return order


async def main() -> None:
    exporter = ConsoleSpanExporter(out=sys.stdout, formatter=lambda span: f"{span.to_json(None)}\n")
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    with instrument(traces):
        await Worker(jobs).run_until_empty()


if __name__ == "__main__":
    anyio.run(main)
