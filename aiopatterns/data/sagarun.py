"""One saga under way: what its journal says is done, and written down before and after.

::

    journal --decide--> moves --> save --> actions and compensations --.
       ^                                                               |
       '------------------- their outcomes ----------------------------'

A step is written down as started before its action is called, together with the outcome of the
one before: n steps in a row need n + 1 writes. While a step takes its time, a lease is renewed,
by the same kind of write.

Guarantees:

* Nothing is called unless a write, just now, was accepted from this holder. Once one is refused,
  everything that runs here is cancelled, and nothing is called any more.
* A step runs in this task if it is alone; steps that run side by side have a task each, and none
  is left when :meth:`SagaRun.drive` ends.
* What an action raises is a failure of its step, if it says so: one of :data:`UNKNOWN`, also in
  an earlier attempt, says that the step may have happened, and so it is undone.
* Compensations, and steps behind the pivot, have no deadline of a caller.

* The context is written down when a step ends, so compensations find what their action has noted.

A store that does not answer is asked again until the lease has run out. After that somebody else
may have the saga, and the store's error leaves.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, final

import msgspec
from anyio import create_task_group, move_on_after

from aiopatterns.core.clock import call_later, monotonic, rng, sleep, wall
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import forget_deadline, run_in
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    CodecError,
    OutcomeUnknownError,
)
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.notes import in_words
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.sagaevents import SagaEnded, SagaStuck, SagaTurnedBack
from aiopatterns.data.sagajournal import Moves, SagaState, StepState, decide
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.timeout import TimeoutScope

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from anyio.abc import TaskGroup

    from aiopatterns.data.sagajournal import Journal
    from aiopatterns.data.sagaplan import Action, Plan, Step
    from aiopatterns.data.sagastore import Filed, SagaStore
    from aiopatterns.resilience.timeout import Timeout

__all__ = ["UNKNOWN", "SagaLostError", "SagaRun", "SagaTerms"]

C = TypeVar("C")
T = TypeVar("T")

#: Errors that say nothing about whether it happened; also one of them in a group.
UNKNOWN: Final = (TimeoutError, ConnectionError, BackendUnavailableError, OutcomeUnknownError)
# Seconds between tries to reach a store that does not answer.
_PAUSES: Final = Exponential(initial=0.05, cap=1.0, jitter="equal")
# Seconds in which a saga is given back by one who is cancelled; after that its lease ends.
_GIVE_BACK: Final = 1.0
_CANCELLED: Final = "its caller was cancelled"
_GONE: Final = "the process that ran it has gone"
_LATE: Final = "its time was over"
# Answers in a row that may be older than the lease.
_LATE_ANSWERS: Final = 3
# Renewals that may fail before the lease ends.
_RENEWALS: Final = 3


class SagaLostError(Exception):
    """Another process has this saga; private to this room."""


@final
@dataclass(frozen=True, slots=True)
class SagaTerms:
    """What all runs of a saga have in common.

    Attributes:
        name: Of the saga.
        store: Where it is kept.
        lease: Seconds for which a holder need not be heard of.
        retry: How compensations, and steps behind the pivot, are repeated.
        timeout: Budget of the way to the pivot, or to the end; None is without bound.
        grace: Seconds that a run which is cancelled goes on undoing.
    """

    name: str
    store: SagaStore
    lease: float
    retry: Retry
    timeout: Timeout | None
    grace: float


@final
class SagaRun(Generic[C]):
    """One saga in the hands of this process.

    Args:
        terms: What all runs have in common.
        plan: The steps.
        filed: The record as it is in the store, or as it will be created.
        journal: What it holds, decoded.
        context: What is in that, decoded.

    Attributes:
        filed: The record, as it was given to the store last.
        journal: What has happened.
        context: What steps are called with.
        end: The end, once it is written down; None until then.
        error: What the first step that failed has raised, if it was here.
        parking: Set from outside: start nothing more, and give the saga back.
    """

    __slots__ = (
        "_busy",
        "_changed",
        "_ends",
        "_fenced",
        "_news",
        "_plan",
        "_saved",
        "_saving",
        "_sure_until",
        "_terms",
        "context",
        "end",
        "error",
        "filed",
        "journal",
        "parking",
    )

    def __init__(
        self, terms: SagaTerms, plan: Plan[C], filed: Filed, journal: Journal, context: C
    ) -> None:
        self._terms = terms
        self._plan = plan
        self.filed: Filed = filed
        self.journal: Journal = journal
        self.context: C = context
        self.end: SagaState | None = None
        self.error: Exception | None = None
        self.parking: bool = False
        self._busy: set[str] = set()
        self._changed = Waiters()
        self._news = False  # whether a step has ended since the last decision
        self._fenced = False
        self._saved = False  # whether the store has what was decided last
        self._saving = False  # if so, a renewal would hide what is saved
        self._sure_until = 0.0
        ends = journal.deadline_at
        self._ends = None if ends is None else monotonic() + ends - wall()

    # -- public verbs --------------------------------------------------------------------------

    async def create(self) -> bool:
        """File the saga, its first steps among what is written; False if the id is taken.

        Raises:
            BackendError: The store refuses, or does not answer; no step was called.
        """
        for name in decide(self._plan, self.journal, ()).start:
            self.journal.start(name)
        filed = self._snapshot(SagaState.RUNNING)
        try:
            self._saved = await self._terms.store.create(filed, lease=self._terms.lease)
        except BaseException:
            self.journal.notes.clear()  # nothing was called
            raise
        return self._saved

    async def drive(self) -> None:
        """Bring the saga to its end, or until it is parked.

        Raises:
            SagaLostError: Somebody else has it.
            BackendError: The store did not answer for the length of the lease.

        Cancellation: what ran here is cancelled; the journal says ``STARTED`` of it.
        """
        self._sure_until, self._saving = monotonic() + self._terms.lease, False
        try:
            async with create_task_group() as group:
                renewal = call_later(self._terms.lease / _RENEWALS, partial(self._watch, group))
                try:
                    await self._steer(group)
                finally:
                    renewal.cancel()
                    group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise_bare(errors)
        if self._fenced:
            raise SagaLostError

    async def wind_up(self) -> None:
        """Undo what was done, for a caller that was cancelled; for ``grace`` seconds.

        What is not undone then, or cannot be undone any more, is given back: recovery goes on.
        """
        if self.end is not None or self._fenced:
            return
        self._busy.clear()
        self._saved = False
        if not self.journal.is_committed(self._plan) and not self._is_complete():
            self._settle(_CANCELLED)
            self._turn_back(_CANCELLED)
        if self.journal.backward or self._is_complete():
            grace = self._terms.grace
            with move_on_after(grace, shield=True), suppress(BackendError, SagaLostError):
                await _unbounded(self.drive())
        if self.end is None:
            await self.give_back()

    def take_up(self) -> None:
        """Settle what was under way when the last holder went away."""
        self._settle(_GONE)

    async def give_back(self) -> None:
        """Let others take the saga at once; if that does not succeed, its lease ends."""
        self._saving = True  # it is held no longer
        filed = self._snapshot(self._state())
        with move_on_after(_GIVE_BACK, shield=True), suppress(BackendError):
            await self._terms.store.save(filed, lease=0)

    # -- steering ------------------------------------------------------------------------------

    async def _steer(self, group: TaskGroup) -> None:
        moves = self._first()
        while True:
            if not self._saved:
                self._saving = True
                await self._save(moves.end)
                self._saved, self._saving = True, False
            if moves.end is not None:
                return
            await self._move(moves, group)
            while self.parking and self._busy:
                await self._changed.wait()
            if self.parking:
                await self.give_back()
                return
            moves = self._next()

    def _first(self) -> Moves:
        """Return what was written down as started when the saga was created, or what is next."""
        if not self._saved:
            return self._next()
        notes = self.journal.notes.items()
        return Moves([name for name, each in notes if each.state is StepState.STARTED], [])

    def _next(self) -> Moves:
        """Decide, and write down in the journal what is about to happen."""
        self._news = self._saved = False
        if self._is_late():
            self._turn_back(_LATE)
        moves = decide(self._plan, self.journal, self._busy)
        for name in moves.start:
            self.journal.start(name)
        return moves

    def _is_late(self) -> bool:
        """Whether the time was over before a step that may still be done without."""
        if self._ends is None or monotonic() < self._ends or self._is_complete():
            return False
        return not self.journal.is_committed(self._plan)

    def _is_complete(self) -> bool:
        return decide(self._plan, self.journal, ()).end is SagaState.COMPLETED

    async def _move(self, moves: Moves, group: TaskGroup) -> None:
        """Run what was decided; return when something has changed."""
        works = [partial(self._act, self._plan.steps[name]) for name in moves.start]
        works += [partial(self._undo, self._plan.steps[name]) for name in moves.undo]
        alone = len(works) == 1 and not self._busy
        self._busy.update(moves.start, moves.undo)
        if alone:
            await works[0]()
            return
        for work in works:
            group.start_soon(work)
        if not self._news:
            await self._changed.wait()

    def _ended(self, name: str) -> None:
        self._busy.discard(name)
        self._news = True
        self._changed.wake_all()

    # -- turning back --------------------------------------------------------------------------

    def _settle(self, cause: str) -> None:
        turned = self.journal.backward
        self.journal.take_up(self._plan, cause)
        self._tell_if_turned(before=turned)

    def _turn_back(self, cause: str) -> None:
        turned = self.journal.backward
        self.journal.turn_back(cause)
        self._tell_if_turned(before=turned)

    def _tell_if_turned(self, *, before: bool) -> None:
        journal = self.journal
        if journal.backward and not before and listening():
            emit(SagaTurnedBack(self._terms.name, self.filed.id, journal.cause))

    # -- one step ------------------------------------------------------------------------------

    async def _act(self, step: Step[C]) -> None:
        """Call an action until it has succeeded or failed; note what it came to."""
        tally = _Tally()
        try:
            await self._called(step, tally)
            self._note_context()
        except CodecError as error:
            tally.unknown = True  # it may be done, but what it has left cannot be written down
            self._fail(step, tally, error)
        except Exception as error:
            with suppress(CodecError):
                self._note_context()
            self._fail(step, tally, error)
        else:
            self.journal.done(step.name, tally.attempts)
        self._ended(step.name)

    def _called(self, step: Step[C], tally: _Tally) -> Coroutine[Any, Any, object]:
        attempt = partial(self._attempt, step.action, step.timeout, tally)
        if step.name in self._plan.behind:
            return _unbounded((step.retry or self._terms.retry).call(attempt))
        if step.pivot and step.compensate is None:
            return _unbounded((step.retry or _UNTIL_KNOWN).call(attempt))
        work = attempt() if step.retry is None else step.retry.call(attempt)
        return work if self._ends is None else self._in_time(work, self._ends)

    async def _in_time(self, work: Coroutine[Any, Any, object], ends: float) -> None:
        timeout = self._terms.timeout
        assert timeout is not None
        try:
            with TimeoutScope(timeout, ends):
                await work
        finally:
            work.close()

    async def _attempt(self, action: Action[C], timeout: Timeout | None, tally: _Tally) -> None:
        tally.attempts += 1
        try:
            if timeout is None:
                await action(self.context)
            else:
                with timeout.scope():
                    await action(self.context)
        except Exception as error:
            tally.unknown = tally.unknown or _is_unknown(error)
            raise

    def _fail(self, step: Step[C], tally: _Tally, error: Exception) -> None:
        state = StepState.FAILED
        if step.name in self._plan.behind:
            state = StepState.STUCK
        elif tally.unknown or _is_unknown(error):
            state = StepState.UNKNOWN
            if step.pivot and step.compensate is None:
                state = StepState.STUCK
        self.error = self.error or error
        turned = self.journal.backward
        self.journal.failed(step.name, state, tally.attempts, in_words(error))
        self._tell_if_turned(before=turned)

    async def _undo(self, step: Step[C]) -> None:
        """Call a compensation until it has succeeded, or is given up; note what it came to."""
        if step.compensate is None:
            self.journal.undone(step.name, StepState.SKIPPED)
        else:
            attempt = partial(self._attempt, step.compensate, step.timeout, _Tally())
            try:
                await _unbounded(self._terms.retry.call(attempt))
                self._note_context()
            except Exception as error:
                self.error = self.error or error
                self.journal.undone(step.name, StepState.STUCK, in_words(error))
            else:
                self.journal.undone(step.name, StepState.COMPENSATED)
        self._ended(step.name)

    def _note_context(self) -> None:
        self.journal.context = MSGPACK.encode(self.context)

    # -- the record ----------------------------------------------------------------------------

    def _snapshot(self, state: SagaState) -> Filed:
        """Return the record of what the journal says now; the next revision."""
        self.filed = msgspec.structs.replace(
            self.filed,
            state=state,
            revision=self.filed.revision + 1,
            body=MSGPACK.encode(self.journal),
        )
        return self.filed

    def _state(self) -> SagaState:
        return SagaState.COMPENSATING if self.journal.backward else SagaState.RUNNING

    async def _save(self, end: SagaState | None) -> None:
        """Write down what the journal says, and hold the saga from now on, or no more.

        Raises:
            SagaLostError: Somebody else has it.
            BackendError: The store did not answer until the lease was over.
        """
        terms = self._terms
        filed = self._snapshot(self._state() if end is None else end)
        lease = terms.lease if end is None else 0.0
        if not await self._kept(filed, lease):
            raise SagaLostError
        if end is not None:
            self._come_to(end)

    async def _kept(self, filed: Filed, lease: float) -> bool:
        """Save, and ask again while the saga is ours for sure; whether the store took it.

        An answer that is older than the lease says nothing of now, so it is asked for again.
        """
        tries = 0
        while True:
            asked = monotonic()
            try:
                kept = await self._terms.store.save(filed, lease=lease)
            except BackendError:
                tries += 1
                pause = _PAUSES.delay(tries, rng=rng())
                if asked + pause >= self._sure_until:
                    raise
                await sleep(pause)
                continue
            self._sure_until = asked + self._terms.lease
            if not kept or not lease or monotonic() < self._sure_until:
                return kept
            tries += 1
            if tries > _LATE_ANSWERS:
                raise BackendUnavailableError(f"the store is slower than a lease, {lease:g} s")

    def _come_to(self, end: SagaState) -> None:
        self.end = end
        if not listening():
            return
        if end is not SagaState.STUCK:
            emit(SagaEnded(self._terms.name, self.filed.id, end))
            return
        notes = self.journal.notes
        stuck = {name: it.error for name, it in notes.items() if it.state is StepState.STUCK}
        last = next(reversed(stuck.values()), "")
        emit(SagaStuck(self._terms.name, self.filed.id, tuple(stuck), last))

    def _watch(self, group: TaskGroup) -> None:
        """The saga takes its time: begin to renew the lease."""
        group.start_soon(self._renew, group)

    async def _renew(self, group: TaskGroup) -> None:
        try:
            while True:
                if not self._saving:
                    await self._save(None)
                await sleep(self._terms.lease / _RENEWALS)
        except SagaLostError:
            self._fenced = True
            group.cancel_scope.cancel()


@final
class _Tally:
    """What is known about the attempts of one step."""

    __slots__ = ("attempts", "unknown")

    def __init__(self) -> None:
        self.attempts = 0
        self.unknown = False  # whether one of them may have done it


def _is_unknown(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return any(map(_is_unknown, cast("ExceptionGroup[Exception]", error).exceptions))
    return isinstance(error, UNKNOWN)


# A pivot that cannot be undone is asked again while nobody knows what has become of it.
_UNTIL_KNOWN: Final = Retry(on=_is_unknown, attempts=8, backoff=Exponential(initial=0.2, cap=30.0))


def _unbounded(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Run ``work`` without the deadline of whoever waits for it."""
    variables = copy_context()
    variables.run(forget_deadline)
    return _stepped(variables, work)


async def _stepped(variables: Context, work: Coroutine[Any, Any, T]) -> T:
    return await run_in(variables, work)
