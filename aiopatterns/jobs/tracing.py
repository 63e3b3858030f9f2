"""Spans of jobs: one around each enqueue, one around each attempt in a worker.

The span of an enqueue travels in the header of its jobs; that of an attempt goes on from there, and
is current in the context of the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiopatterns.core.tracing import NO_SPAN, Messages, tracer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import Context as Variables

    from aiopatterns.core.tracing import Span
    from aiopatterns.jobs.envelope import Envelope
    from aiopatterns.jobs.hold import Hold
    from aiopatterns.jobs.job import Job

__all__ = ["processing", "sending"]


def sending(queue: str, job: str = "", *, count: int | None = None) -> Span:
    """Begin the span of an enqueue.

    Args:
        queue: The queue.
        job: The job's name; empty if there are several.
        count: How many jobs, if it is one of many.
    """
    found = tracer()
    if found is None:
        return NO_SPAN
    return found.start(Messages("send", "jobs", queue, "enqueue", job, batch=count))


def processing(
    queue: str,
    job: Job[..., Any],
    calls: Sequence[tuple[Hold, Envelope]],
    variables: Variables,
) -> Span:
    """Begin the span of an attempt, current in ``variables``, which are of the attempt alone.

    Args:
        queue: The queue.
        job: What is called.
        calls: The jobs that it is for: one, or those of a batch.
        variables: Where it is current.
    """
    found = tracer()
    if found is None:
        return NO_SPAN
    (hold, envelope), batch = calls[0], job.kind == "batch"
    step = Messages(
        "process",
        "jobs",
        queue,
        "process",
        job.name,
        id=None if batch else hold.id,
        correlation=envelope.header.correlation_id,
        batch=len(calls) if batch else None,
        attempt=hold.attempt,
        origins=tuple(e.header.traceparent for _, e in calls if e.header.traceparent),
    )
    span = found.start(step)
    variables.run(span.activate)
    return span
