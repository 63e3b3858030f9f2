"""What the gateway tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = ["GatewayAnswered", "GatewayFailed", "GatewayReloaded"]


@dataclass(frozen=True, slots=True)
class GatewayAnswered(Event):
    """A request has ended.

    Args:
        gateway: Name of the gateway.
        route: The prefix of its route; empty if it had none.
        method: Its method.
        path: Its path, as sent.
        client: Address of the client.
        status: Status of the answer; 499 if the client had gone before there was one.
        seconds: How long it took, until the last byte was handed to the server.
        complete: Whether all of the answer was handed to the server.
        correlation_id: Its ``X-Request-ID``.
    """

    name: ClassVar[str] = "aiopatterns.gateway.answered"
    level: ClassVar[str] = "debug"

    gateway: str
    route: str
    method: str
    path: str
    client: str
    status: int
    seconds: float
    complete: bool
    correlation_id: str


@dataclass(frozen=True, slots=True)
class GatewayFailed(Event):
    """A stage, or the function behind a route, raised what it may not; the client got 500.

    Args:
        gateway: Name of the gateway.
        route: The prefix of the route.
        error: What was raised.
        correlation_id: The ``X-Request-ID`` of the request.
    """

    name: ClassVar[str] = "aiopatterns.gateway.failed"
    level: ClassVar[str] = "error"

    gateway: str
    route: str
    error: Exception
    correlation_id: str


@dataclass(frozen=True, slots=True)
class GatewayReloaded(Event):
    """Other routes are in force.

    Args:
        gateway: Name of the gateway.
        routes: How many there are now.
    """

    name: ClassVar[str] = "aiopatterns.gateway.reloaded"

    gateway: str
    routes: int
