"""Ticking: what the clock calls, for as long as its service is ready.

The first call is one interval after the start, and each later one an interval after the one
before began. A call is never made while the one before runs; the times that it has missed are left
out, so calls stay at multiples of the interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import move_on_after

from aiopatterns.core.clock import monotonic
from aiopatterns.core.notes import in_words
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.messaging.serviceevents import ServiceTimerFailed

if TYPE_CHECKING:
    from anyio import Event

    from aiopatterns.messaging.endpoint import Endpoint

__all__ = ["tick"]


async def tick(service: str, endpoint: Endpoint, stopping: Event) -> None:
    """Call ``endpoint`` at its times until ``stopping`` is set; an error ends nothing.

    Args:
        service: The service's name, for the event.
        endpoint: What is called.
        stopping: When no call is to begin any more.

    Cancellation: passes through the call.
    """
    interval = endpoint.tag.interval
    due = monotonic() + interval
    while True:
        with move_on_after(max(due - monotonic(), 0.0)):
            await stopping.wait()
        if stopping.is_set():  # a time that has come already ends the wait before it could tell
            return
        try:
            await endpoint.tick()
        except Exception as error:
            if listening():
                emit(ServiceTimerFailed(service, endpoint.name, in_words(error)))
        due += interval * max((monotonic() - due) // interval + 1, 1)
