"""What happens to the jobs of a queue, live, to whoever looks on.

::

    async with jobs.events() as events:
        async for event in events:
            print(event.kind, event.job_id)

Events are for eyes: live, at most once, from all partitions. Where some may be missing (a lost
connection, a reader that is too slow) one of the kind ``gap`` says so. While nobody looks on, the
queue tells nothing and that costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, final

from anyio import EndOfStream

from aiopatterns.core.errors import ClosedError
from aiopatterns.core.lifecycle import Owner, OwnerState
from aiopatterns.core.telemetry import Event
from aiopatterns.flow.channel import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.backends.queue import EventKind, Queue, QueueEvent
    from aiopatterns.jobs.envelope import Envelopes, ErrorRecord

__all__ = ["JobEvent", "JobEvents", "JobProgress"]

# Events that wait for the reader at most, for each partition as many again wait in the backend.
_CAPACITY: Final = 100


@final
@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        kind: ``queued``, ``started``, ``progress``, ``retrying``, ``done``, ``dead``,
            ``cancelled``, or ``gap`` where some may be missing.
        job_id: The job; empty for a gap.
        progress: The fraction that it told, for ``progress``.
        error: What it failed with, for ``retrying`` and ``dead``.
    """

    kind: EventKind
    job_id: str
    progress: float | None = None
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True)
class JobProgress(Event):
    """A job that runs here, without a backend, told how far it is.

    Args:
        queue: The queue.
        job: The job's name.
        job_id: Its id.
        fraction: Between 0 and 1.
    """

    name: ClassVar[str] = "aiopatterns.job.progress"
    level: ClassVar[str] = "debug"

    queue: str
    job: str
    job_id: str
    fraction: float


@final
@dataclass(frozen=True, slots=True)
class Watched:
    """Figures of one look: events given out, and gaps among them."""

    events: int
    gaps: int


@final
class JobEvents(Owner):
    """An async iterator of events, from ``async with`` to its end.

    Args:
        queue: The queue's name.
        stores: One for each partition.
        envelopes: Reads errors.

    Cancellation: a wait that is cancelled loses no event.
    """

    __slots__ = ("_channel", "_envelopes", "_events", "_gaps", "_stores")

    def __init__(self, queue: str, stores: Sequence[Queue], envelopes: Envelopes) -> None:
        super().__init__(queue)
        self._stores = stores
        self._envelopes = envelopes
        self._channel: Channel[QueueEvent] = Channel(_CAPACITY)
        self._events = self._gaps = 0

    def statistics(self) -> Watched:
        """Return how many events were given out."""
        return Watched(self._events, self._gaps)

    def __aiter__(self) -> AsyncIterator[JobEvent]:
        return self

    async def __anext__(self) -> JobEvent:
        """Wait for the next event.

        Raises:
            ClosedError: Outside of its ``async with``.
        """
        if self.state is not OwnerState.RUNNING:
            msg = "these events are not open; write 'async with jobs.events() as events:'"
            raise ClosedError(msg)
        try:
            event = await self._channel.receive()
        except EndOfStream:
            raise StopAsyncIteration from None
        self._events += 1
        self._gaps += event.kind == "gap"
        return self._read(event)

    async def _start(self, tasks: TaskGroup) -> None:
        for store in self._stores:
            await tasks.start(self._watch, store)

    async def _watch(self, store: Queue, *, task_status: TaskStatus[None]) -> None:
        """Give on what one store tells; started once it listens."""
        async with store.watch() as events:
            task_status.started()
            async for event in events:
                await self._channel.send(event)
        await self._channel.aclose()

    def _read(self, event: QueueEvent) -> JobEvent:
        if event.kind == "progress":
            return JobEvent(event.kind, event.id, progress=float(event.data))
        if event.kind in {"retrying", "dead"}:
            return JobEvent(event.kind, event.id, error=self._envelopes.read_error(event.data))
        return JobEvent(event.kind, event.id)
