"""What a service tells about itself: its beginning, its end, and timers that failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = ["ServiceDraining", "ServiceStarted", "ServiceStopped", "ServiceTimerFailed"]


@dataclass(frozen=True, slots=True)
class ServiceStarted(Event):
    """A service is ready: all its handlers are in force.

    Attributes:
        service: Its name.
        id: Which replica.
    """

    name: ClassVar[str] = "aiopatterns.service.started"

    service: str
    id: str


@dataclass(frozen=True, slots=True)
class ServiceDraining(Event):
    """A service takes nothing new any more, and finishes what it has.

    Attributes:
        service: Its name.
        id: Which replica.
    """

    name: ClassVar[str] = "aiopatterns.service.draining"

    service: str
    id: str


@dataclass(frozen=True, slots=True)
class ServiceStopped(Event):
    """A service has ended.

    Attributes:
        service: Its name.
        id: Which replica.
        done: Calls whose handler returned.
        failed: Calls whose handler raised, or was too late.
        cancelled: Calls that the end of the service interrupted, or kept from beginning.
    """

    name: ClassVar[str] = "aiopatterns.service.stopped"

    service: str
    id: str
    done: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class ServiceTimerFailed(Event):
    """What the clock called has raised; it is called again at its time.

    Attributes:
        service: The service's name.
        handler: The handler's name.
        error: What was raised.
    """

    name: ClassVar[str] = "aiopatterns.service.timer_failed"
    level: ClassVar[str] = "warning"

    service: str
    handler: str
    error: str
