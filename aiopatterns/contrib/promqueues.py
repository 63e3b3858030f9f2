"""Gauges of queues of jobs, which a backend has to be asked for.

::

    every 5 s:  queue.statistics() --1 round trip--> last figures
    scrape:     last figures ------------------------> aiopatterns_queue_jobs{queue, state}

A scrape never waits for a server. While the backend does not answer there are no figures, rather
than old ones, and an alert on their absence tells so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.validate import instance, positive
from aiopatterns.jobs.queue import JobQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import TaskGroup
    from prometheus_client import CollectorRegistry

    from aiopatterns.jobs.statistics import JobStatistics

__all__ = ["QueueGauges", "QueueGaugesStatistics"]

_STATES: Final = ("queued", "scheduled", "waiting", "running", "dead")


@final
@dataclass(frozen=True, slots=True)
class QueueGaugesStatistics:
    """What was asked so far.

    Attributes:
        looks: Times that a queue was asked.
        failures: Those that had no answer.
    """

    looks: int
    failures: int


@final
class QueueGauges(Owner):
    """Gauges of queues, from ``async with`` to its end.

    Args:
        queues: The queues; they must be open as long as this is.
        every: Seconds between two looks.
        registry: Where the gauges are; by default the process-wide one of prometheus_client.

    Raises:
        ValueError: Two queues have one name, or ``every`` is not above 0.
        TypeError: One is no JobQueue.

    Cancellation: of its block ends the looks; nothing is left behind.

    Example::

        async with jobs, QueueGauges(jobs):
            ...
    """

    __slots__ = ("_every", "_failures", "_figures", "_looks", "_queues", "_registry", "_shown")

    def __init__(
        self, *queues: JobQueue, every: float = 5.0, registry: CollectorRegistry | None = None
    ) -> None:
        super().__init__("queue-gauges")
        for each in queues:
            instance("queues", each, JobQueue, "JobQueues")
        self._queues = {each.name: each for each in queues}
        if len(self._queues) < len(queues):
            msg = f"queues must have names of their own, not {[each.name for each in queues]}"
            raise ValueError(msg)
        self._every = positive("every", every)
        self._registry = REGISTRY if registry is None else registry
        self._figures: dict[str, JobStatistics] = {}
        self._looks = self._failures = 0
        self._shown = False

    def statistics(self) -> QueueGaugesStatistics:
        """Return how often was asked, and in vain."""
        return QueueGaugesStatistics(self._looks, self._failures)

    def describe(self) -> list[GaugeMetricFamily]:
        """Return the gauges without figures."""
        return list(_families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the last figures of each queue that has answered."""
        jobs, workers, paused = _families()
        for name, each in self._figures.items():
            for state in _STATES:
                jobs.add_metric([name, state], getattr(each, state))
            workers.add_metric([name], each.workers)
            paused.add_metric([name], each.paused)
        yield from (jobs, workers, paused)

    async def _start(self, tasks: TaskGroup) -> None:
        for name, queue in self._queues.items():
            await self._look(name, queue)
            tasks.start_soon(self._watch, name, queue)
        self._registry.register(self)
        self._shown = True

    def _settle(self) -> None:
        if self._shown:
            self._registry.unregister(self)
        self._shown = False
        self._figures.clear()

    async def _watch(self, name: str, queue: JobQueue) -> None:
        while True:
            await sleep(self._every)
            await self._look(name, queue)

    async def _look(self, name: str, queue: JobQueue) -> None:
        self._looks += 1
        try:
            self._figures[name] = await queue.statistics()
        except BackendError:
            self._failures += 1
            self._figures.pop(name, None)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("aiopatterns_queue_jobs", "Jobs, by state", labels=["queue", "state"]),
        GaugeMetricFamily("aiopatterns_queue_workers", "Workers alive", labels=["queue"]),
        GaugeMetricFamily("aiopatterns_queue_paused", "1 if paused", labels=["queue"]),
    )
