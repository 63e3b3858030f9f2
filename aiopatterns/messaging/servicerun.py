"""ServiceRun: one replica of a service, as an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.lifecycle import Lifecycle
from aiopatterns.messaging.host import Host
from aiopatterns.messaging.servicerecords import ServiceHealth, ServiceState, ServiceStatistics

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from aiopatterns.messaging.host import Staging
    from aiopatterns.messaging.service import Service

__all__ = ["ServiceRun"]


@final
class ServiceRun(Lifecycle):
    """One replica of a service; made by :meth:`Service.run`, and open inside ``async with``.

    It can be entered again when it was left.

    Args:
        service: What runs.
        staging: What it runs with.
    """

    __slots__ = ("_host", "_staging", "service")

    def __init__(self, service: Service, staging: Staging) -> None:
        super().__init__(service.name)
        self.service: Service = service
        self._staging = staging
        self._host: Host | None = None

    @property
    def id(self) -> str:
        """Which replica this is; empty before it was opened first."""
        return "" if self._host is None else self._host.id

    @property
    def state(self) -> ServiceState:
        """Where this replica is in its life; STOPPED before it was opened."""
        return ServiceState.STOPPED if self._host is None else self._host.state

    def statistics(self) -> ServiceStatistics:
        """Return the figures since it was opened last; none before that."""
        if self._host is None:
            return ServiceStatistics(self.name, "", ServiceState.STOPPED)
        return self._host.statistics()

    def health(self) -> ServiceHealth:
        """Return whether this replica is well; no I/O."""
        checker = self._staging.checker
        return ServiceHealth(
            self.name,
            self.id,
            self.state,
            connected=self._staging.broker.statistics().connected,
            checks=None if checker is None else checker.report("readiness"),
        )

    # --------------------------------------------------------------------------- private core

    async def _start(self, tasks: TaskGroup) -> None:
        self._host = host = Host(self.service, self._staging)
        self.service.runs = (*self.service.runs, self)
        await tasks.start(host.run)

    async def _drain(self) -> None:
        assert self._host is not None, "made by the opening"
        self._host.stop()
        await self._host.gone.wait()

    def _settle(self) -> None:
        self.service.runs = tuple(each for each in self.service.runs if each is not self)
