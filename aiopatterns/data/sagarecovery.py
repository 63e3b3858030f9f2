"""Recovery of sagas: a loop that brings to their end those whose processes have gone.

Recovery at the start of a process is not enough: what another process leaves behind an hour later
would wait for the next start. So it is a loop, in as many processes as one likes::

    every interval:  due(definition) --> claim(id) --> journal --> drive to the end
                     not held by          one of all    what was under way is
                     anybody              is given it   undone, or done again

Guarantees:

* Of all processes one gets a saga; one that was thought dead and comes back is refused by the
  store, and stops.
* An outage of the store ends nothing: it is told once, and once again when it is over.
* Only sagas of the very steps that this process has are taken. Those of others, older or newer,
  wait for a process that has them; an event tells of them.
* What ends is counted, what is stuck is told. A record that cannot be read becomes stuck.
* Leaving normally lets steps end that have begun, for the grace of the saga, starts no other, and
  gives everything back; leaving by an error gives back at once.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from anyio import create_task_group, get_cancelled_exc_class, move_on_after

from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.context import bind_correlation
from aiopatterns.core.errors import BackendError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.validate import count, positive
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.sagaevents import (
    SagaMigrationNeeded,
    SagaRecoveryInterrupted,
    SagaRecoveryResumed,
)
from aiopatterns.data.sagajournal import SagaState
from aiopatterns.data.sagarun import SagaLostError
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from aiopatterns.data.sagarun import SagaRun, SagaTerms

__all__ = ["SagaRecovery", "SagaRecoveryStatistics", "SagaReport", "Sweep"]

#: Seconds between looks for old records and for sagas of other steps.
TIDY: Final = 60.0
# Sagas of other steps that are looked for at once.
_STRANGERS: Final = 1_000
_OUTAGE: Final = Exponential(initial=0.1, cap=5.0, jitter="equal")
_JITTER: Final = 0.2


@final
@dataclass(frozen=True, slots=True)
class SagaReport:
    """What one sweep came to; each field holds ids.

    Attributes:
        completed: Brought to their end.
        compensated: Undone.
        stuck: Given up; a person has to look.
        pending: Taken, and not brought to an end: another process has them, or their store did
            not answer.
        needs_migration: Begun by other steps than this process has.
    """

    completed: tuple[str, ...] = ()
    compensated: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    needs_migration: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class SagaRecoveryStatistics:
    """Figures of a recovery.

    Attributes:
        running: Sagas in hand now.
        completed: Sagas that were brought to their end.
        compensated: Sagas that were undone.
        stuck: Sagas that were given up.
        pending: Sagas that were taken and not brought to an end.
        interrupted: Whether the store did not answer when it was asked last.
    """

    running: int
    completed: int
    compensated: int
    stuck: int
    pending: int
    interrupted: bool


@final
class Sweep:
    """What is due in one store, for the steps of this process; each verb once or often.

    Args:
        terms: What all runs of the saga have in common.
        definition: Version and shape of the steps.
        take: Claims a saga by its id, for a run of it; None if it is another's by now.
    """

    __slots__ = ("_definition", "_take", "_terms")

    def __init__(
        self,
        terms: SagaTerms,
        definition: str,
        take: Callable[[str], Awaitable[SagaRun[Any] | None]],
    ) -> None:
        self._terms = terms
        self._definition = definition
        self._take = take

    @property
    def name(self) -> str:
        """Of the saga."""
        return self._terms.name

    async def due(self, limit: int) -> list[SagaRun[Any]]:
        """Take up to ``limit`` sagas that are held by nobody."""
        found = await self._terms.store.due(self.name, self._definition, limit=limit)
        rng().shuffle(found)  # others look at the same time
        return [run for each in found if (run := await self._take(each)) is not None]

    async def bring_to_end(self, run: SagaRun[Any]) -> SagaState:
        """Drive one saga; return its end, or ``RUNNING`` if it has none here.

        Cancellation: it is given back.
        """
        correlation = run.journal.correlation_id
        try:
            with nullcontext() if correlation is None else bind_correlation(correlation):
                await run.drive()
        except (SagaLostError, BackendError):
            return SagaState.RUNNING  # it is another's now, or will be
        except get_cancelled_exc_class():
            await run.give_back()
            raise
        return run.end or SagaState.RUNNING

    async def strangers(self) -> dict[str, list[str]]:
        """Return the ids of sagas that other steps have begun, by definition."""
        found: dict[str, list[str]] = {}
        for each in await self._terms.store.unfinished(self.name, limit=_STRANGERS):
            if each.definition != self._definition:
                found.setdefault(each.definition, []).append(each.id)
        return found

    async def purge(self) -> None:
        """Let the store forget what ended long ago."""
        await self._terms.store.purge()

    async def once(self, limit: int) -> SagaReport:
        """Bring to their end up to ``limit`` sagas, all at once.

        Cancellation: those that have not ended are given back.
        """
        ends: dict[SagaState, list[str]] = {each: [] for each in SagaState}

        async def bring(run: SagaRun[Any]) -> None:
            ends[await self.bring_to_end(run)].append(run.filed.id)

        runs = await self.due(limit)
        async with create_task_group() as group:
            for run in runs:
                group.start_soon(bring, run)
        await self.purge()
        strangers = await self.strangers()
        return SagaReport(
            tuple(ends[SagaState.COMPLETED]),
            tuple(ends[SagaState.COMPENSATED]),
            tuple(ends[SagaState.STUCK]),
            tuple(ends[SagaState.RUNNING]),
            tuple(each for ids in strangers.values() for each in ids),
        )


@final
class SagaRecovery(Owner):
    """The loop, for one saga; made by ``saga.recovery()``.

    Args:
        sweep: What is due.
        interval: Seconds between looks, stretched by up to a fifth by chance.
        limit: Sagas in hand at once.
        grace: Seconds that steps have to end when it is left.
    """

    __slots__ = (
        "_changed",
        "_draining",
        "_ends",
        "_failures",
        "_grace",
        "_interrupted",
        "_interval",
        "_limit",
        "_runs",
        "_seen",
        "_sweep",
        "_tidied",
    )

    def __init__(self, sweep: Sweep, *, interval: float, limit: int, grace: float) -> None:
        super().__init__(sweep.name)
        self._sweep = sweep
        self._interval = positive("interval", interval)
        self._limit = count("limit", limit)
        self._grace = grace
        self._runs: set[SagaRun[Any]] = set()
        self._changed = Waiters()
        self._ends: Counter[SagaState] = Counter()
        self._draining = False
        self._seen: set[str] = set()  # definitions of strangers that were told
        self._tidied: float | None = None
        self._failures = 0
        self._interrupted = False

    def statistics(self) -> SagaRecoveryStatistics:
        """Return the figures so far."""
        ends = self._ends
        return SagaRecoveryStatistics(
            len(self._runs),
            ends[SagaState.COMPLETED],
            ends[SagaState.COMPENSATED],
            ends[SagaState.STUCK],
            ends[SagaState.RUNNING],
            self._interrupted,
        )

    async def _start(self, tasks: TaskGroup) -> None:
        self._draining = False
        tasks.start_soon(self._watch, tasks)

    async def _drain(self) -> None:
        self._draining = True
        for each in self._runs:
            each.parking = True
        with move_on_after(self._grace):
            while self._runs:
                await self._changed.wait()

    def _settle(self) -> None:
        self._runs.clear()

    async def _watch(self, tasks: TaskGroup) -> None:
        while True:
            try:
                await self._look(tasks)
            except BackendError as error:
                self._lost(error)
                pause = min(_OUTAGE.delay(self._failures, rng=rng()), self._interval)
            else:
                self._found()
                pause = self._interval * (1.0 + _JITTER * rng().random())
            await sleep(pause)

    async def _look(self, tasks: TaskGroup) -> None:
        free = self._limit - len(self._runs)
        if free > 0 and not self._draining:
            for run in await self._sweep.due(free):
                run.parking = self._draining
                self._runs.add(run)
                tasks.start_soon(self._bring_to_end, run)
        if self._tidied is None or monotonic() - self._tidied >= TIDY:
            self._tidied = monotonic()
            await self._sweep.purge()
            self._tell_of(await self._sweep.strangers())

    async def _bring_to_end(self, run: SagaRun[Any]) -> None:
        try:
            end = await self._sweep.bring_to_end(run)
        finally:
            self._runs.discard(run)
            self._changed.wake_all()
        self._ends[end] += 1

    # -- telling -------------------------------------------------------------------------------

    def _tell_of(self, strangers: dict[str, list[str]]) -> None:
        new = {key: ids for key, ids in strangers.items() if key not in self._seen}
        self._seen = set(strangers)
        if listening():
            for definition, ids in new.items():
                emit(SagaMigrationNeeded(self.name, definition, tuple(ids)))

    def _lost(self, error: BackendError) -> None:
        self._failures += 1
        if not self._interrupted:
            self._interrupted = True
            if listening():
                emit(SagaRecoveryInterrupted(self.name, str(error)))

    def _found(self) -> None:
        self._failures = 0
        if self._interrupted:
            self._interrupted = False
            if listening():
                emit(SagaRecoveryResumed(self.name))
