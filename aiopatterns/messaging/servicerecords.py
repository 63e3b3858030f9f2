"""What is known of a running service at one instant: its state, its figures, its health.

::

    STARTING --> READY --> DRAINING --> STOPPED
        `------------------------------^   (an error, or cancelled)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.cluster.healthreport import CheckHealth, HealthReport
    from aiopatterns.messaging.endpoint import HandlerStatistics

__all__ = ["ServiceHealth", "ServiceState", "ServiceStatistics"]


class ServiceState(Enum):
    """Where one replica of a service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


@final
@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """What one replica of a service has done since it was started.

    Attributes:
        service: Its name.
        id: Which replica.
        state: Where it is in its life.
        uptime: Seconds since it was started; 0 when it does not run.
        handlers: The figures of each handler, by name.
    """

    service: str
    id: str
    state: ServiceState
    uptime: float = 0.0
    handlers: Mapping[str, HandlerStatistics] = field(
        default_factory=dict[str, "HandlerStatistics"], hash=False
    )

    @property
    def done(self) -> int:
        """Calls whose handler returned."""
        return sum(each.done for each in self.handlers.values())

    @property
    def failed(self) -> int:
        """Calls whose handler raised, or ran into its deadline."""
        return sum(each.failed for each in self.handlers.values())

    @property
    def cancelled(self) -> int:
        """Calls that the end of the service interrupted, or kept from beginning."""
        return sum(each.cancelled for each in self.handlers.values())


@final
@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """Whether one replica of a service is well.

    Attributes:
        service: Its name.
        id: Which replica.
        state: Where it is in its life.
        connected: Whether the backend answered when it was last asked.
        checks: The readiness report of its checker, or None.
    """

    service: str
    id: str
    state: ServiceState
    connected: bool
    checks: HealthReport | None = None

    @property
    def ok(self) -> bool:
        """Whether it may get messages: it is ready, connected, and its checks say yes."""
        ready = self.state is ServiceState.READY and self.connected
        return ready and (self.checks is None or self.checks.ok)

    def _checks(self) -> Mapping[str, CheckHealth]:
        return {} if self.checks is None else self.checks.checks

    def as_dict(self) -> dict[str, object]:
        """Return what a page of health shows, ready for JSON."""
        checks = {name: each.as_dict() for name, each in self._checks().items()}
        return {
            "service": self.service,
            "id": self.id,
            "status": self.state.value,
            "connected": self.connected,
            "ok": self.ok,
            "checks": checks,
        }
