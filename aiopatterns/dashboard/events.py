"""What a dashboard tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = ["DashboardActed", "DashboardFailed"]


@dataclass(frozen=True, slots=True)
class DashboardActed(Event):
    """Somebody has changed a queue from the page.

    Args:
        action: ``requeue``, ``cancel``, ``pause``, ``resume`` or ``purge``.
        queue: The queue.
        jobs: How many jobs that has changed; 0 for what concerns the queue.
    """

    name: ClassVar[str] = "aiopatterns.dashboard.acted"
    level: ClassVar[str] = "warning"

    action: str
    queue: str
    jobs: int


@dataclass(frozen=True, slots=True)
class DashboardFailed(Event):
    """A request raised what it may not; the browser got 500.

    Args:
        path: What was asked for.
        error: What was raised, in words, without what looks like a secret.
    """

    name: ClassVar[str] = "aiopatterns.dashboard.failed"
    level: ClassVar[str] = "error"

    path: str
    error: str
