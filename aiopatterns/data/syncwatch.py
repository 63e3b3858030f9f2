"""A watch: synchronising that goes on, as long as a block is open.

::

    a record is written through the left or the right object  --.
    the interval is over (other processes write, too)         ---+--> run --> wait again
    the block ends: once more, and out                        --'      |
                                                                       '-- no answer: backoff

Guarantees:

* An outage of a store ends nothing: it is told once, and once again when it is over. Pauses grow,
  and differ by chance, so that a thousand watches do not come back at one instant.
* Leaving normally ends with one last run, so what was written inside of the block is on the other
  side, unless a store is away. Leaving by an error or a cancellation stops at once; the next run
  goes on from the checkpoint.
* What its own runs write wakes it once, and that run finds nothing to do: two stores that are equal
  are at rest.

Not guaranteed: that a change of another process is noticed before the interval is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from anyio import move_on_after

from aiopatterns.core.clock import rng
from aiopatterns.core.errors import AioPatternsError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.validate import positive
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.syncevents import SyncInterrupted, SyncResumed
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup

    from aiopatterns.data.sync import SyncReport
    from aiopatterns.data.syncstore import SyncStore

__all__ = ["SyncWatch", "SyncWatchStatistics"]

_OUTAGE: Final = Exponential(initial=0.1, cap=30.0, jitter="equal")
_JITTER: Final = 0.2


@final
@dataclass(frozen=True, slots=True)
class SyncWatchStatistics:
    """Figures of a watch.

    Attributes:
        runs: Runs that have come to their end.
        pushed: Records that were changed at the right.
        pulled: Records that were changed at the left.
        conflicts: Concurrent versions that met.
        quarantined: Records that could not be taken, in the last run.
        interrupted: Whether a store did not answer when it was asked last.
    """

    runs: int
    pushed: int
    pulled: int
    conflicts: int
    quarantined: int
    interrupted: bool


@final
class SyncWatch(Owner):
    """The loop of a synchronizer; made by ``sync.watch()``.

    Args:
        name: Of the stores.
        stores: Whose changes wake it.
        run: Synchronises once.
        interval: Seconds between runs if nothing is written, stretched by up to a fifth by chance.

    Raises:
        TypeError: ``interval`` is no number.
        ValueError: ``interval`` is not above 0.
    """

    __slots__ = (
        "_conflicts",
        "_draining",
        "_due",
        "_failures",
        "_interrupted",
        "_interval",
        "_pulled",
        "_pushed",
        "_quarantined",
        "_run",
        "_runs",
        "_stopped",
        "_stores",
        "_waiting",
    )

    def __init__(
        self,
        name: str,
        *,
        stores: Sequence[SyncStore],
        run: Callable[[], Awaitable[SyncReport]],
        interval: float,
    ) -> None:
        super().__init__(name)
        self._stores = stores
        self._run = run
        self._interval = positive("interval", interval)
        self._waiting = Waiters()
        self._stopped = Waiters()
        self._due = False
        self._draining = False
        self._failures = 0
        self._interrupted = False
        self._runs = self._pushed = self._pulled = self._conflicts = self._quarantined = 0

    def statistics(self) -> SyncWatchStatistics:
        """Return the figures so far."""
        return SyncWatchStatistics(
            self._runs,
            self._pushed,
            self._pulled,
            self._conflicts,
            self._quarantined,
            self._interrupted,
        )

    async def _start(self, tasks: TaskGroup) -> None:
        self._draining = False
        for store in self._stores:
            tasks.start_soon(self._listen, store, store.writes)
        tasks.start_soon(self._watch)

    async def _drain(self) -> None:
        self._draining = True
        self._waiting.wake_all()
        await self._stopped.wait()

    async def _listen(self, store: SyncStore, seen: int) -> None:
        while True:
            seen = await store.written(seen)
            self._due = True
            self._waiting.wake_all()

    async def _watch(self) -> None:
        last = False
        while not last:
            last = self._draining
            self._due = False
            try:
                self._add(await self._run())
            except AioPatternsError as error:
                self._lost(error)
                pause = min(_OUTAGE.delay(self._failures, rng=rng()), self._interval)
            else:
                pause = self._interval * (1.0 + _JITTER * rng().random())
            await self._pause(pause)
        self._stopped.wake_all()

    async def _pause(self, seconds: float) -> None:
        """Wait; not shorter for a change while a store is away."""
        with move_on_after(seconds):
            while not self._draining and (self._interrupted or not self._due):
                await self._waiting.wait()

    def _add(self, report: SyncReport) -> None:
        self._runs += 1
        self._pushed += report.pushed
        self._pulled += report.pulled
        self._conflicts += len(report.conflicts)
        self._quarantined = len(report.quarantined)
        self._failures = 0
        if self._interrupted:
            self._interrupted = False
            if listening():
                emit(SyncResumed(self.name))

    def _lost(self, error: AioPatternsError) -> None:
        self._failures += 1
        if not self._interrupted:
            self._interrupted = True
            if listening():
                emit(SyncInterrupted(self.name, str(error)))
