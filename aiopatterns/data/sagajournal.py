"""The journal of one saga, and the pure core: what has happened, and what is to be done next.

Everything that a run of a saga has to remember is in its journal; everything that it does is
decided by :func:`decide` from plan and journal alone. So a process that finds the journal of
another goes on where that one was, and simulation needs no database. States of a step::

                .--> DONE ------------------------.
    STARTED ----+--> FAILED   (nothing to undo)   +--> COMPENSATED   or SKIPPED: no compensation
                '--> UNKNOWN ---------------------'      '--> STUCK  its compensation has failed

and of a saga::

    RUNNING ------> COMPLETED
       |  '-------> STUCK  a step behind the pivot has failed     STUCK goes on, in the direction
       v                                                          it had, when a person says so
    COMPENSATING -> COMPENSATED, or STUCK

Guarantees, for every journal that these functions make:

* A step starts only when all that it comes after are done, and none starts after one has failed
  that may be undone.
* A step is undone only when all that came after it have been: in reverse order, and groups that
  ran side by side are undone side by side.
* What was started and has no known end is ``UNKNOWN``, and is undone: its compensation has to
  accept that it may never have happened.
* Once the pivot is done, nothing is undone.

A pivot that has no compensation and whose outcome is unknown can be neither undone nor passed
over, so it is done again until it succeeds or fails; it has to be repeatable.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import msgspec

from aiopatterns.core.codec import MSGPACK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from aiopatterns.data.sagaplan import Plan, Step

__all__ = [
    "ENDED",
    "Journal",
    "Moves",
    "Note",
    "SagaState",
    "StepOutcome",
    "StepState",
    "decide",
    "read_journal",
]


class StepState(StrEnum):
    """Where a step is."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    COMPENSATED = "compensated"
    SKIPPED = "skipped"
    STUCK = "stuck"


class SagaState(StrEnum):
    """Where a saga is."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    STUCK = "stuck"


#: A saga in one of these is never touched again.
ENDED: Final = frozenset((SagaState.COMPLETED, SagaState.COMPENSATED))
# What has to be undone, and what stands in the way of undoing what came before.
_TO_UNDO: Final = frozenset((StepState.DONE, StepState.UNKNOWN))
_IN_THE_WAY: Final = _TO_UNDO | {StepState.STARTED, StepState.STUCK}


@final
class Note(msgspec.Struct, array_like=True):
    """What a journal says about a step; new fields go to the end.

    Attributes:
        state: Where it is.
        attempts: How often its action ran in the process that ended it.
        error: What it raised last, in words.
    """

    state: StepState
    attempts: int = 0
    error: str = ""


@final
class StepOutcome(NamedTuple):
    """The end of one step.

    Attributes:
        step: Its name.
        state: Where it is; None if it was never started.
        attempts: How often its action ran in the process that ended it.
        error: What it raised last, in words.
    """

    step: str
    state: StepState | None
    attempts: int
    error: str


@final
class Moves(NamedTuple):
    """What is to be done next.

    Attributes:
        start: Steps whose action is to run.
        undo: Steps whose compensation is to run.
        end: The end, if there is nothing left to do.
    """

    start: list[str]
    undo: list[str]
    end: SagaState | None = None


@final
class Journal(msgspec.Struct, array_like=True):
    """What has happened in one saga; new fields go to the end.

    Attributes:
        context: What the steps are called with, encoded.
        notes: One for each step that was started.
        backward: Whether the saga is being undone.
        cause: Why, in words.
        deadline_at: When it must be over, in seconds since 1970; None if it may take any time.
        correlation_id: Id that joins everything done for one request, or None.
    """

    context: bytes
    notes: dict[str, Note]
    backward: bool = False
    cause: str = ""
    deadline_at: float | None = None
    correlation_id: str | None = None

    def start(self, name: str) -> None:
        """A step's action is about to run."""
        self.notes[name] = Note(StepState.STARTED)

    def done(self, name: str, attempts: int) -> None:
        """It has succeeded."""
        self.notes[name] = Note(StepState.DONE, attempts)

    def failed(self, name: str, state: StepState, attempts: int, error: str) -> None:
        """It has failed, or nobody knows, or it was given up: whatever ``state`` says."""
        self.notes[name] = Note(state, attempts, error)
        if state is not StepState.STUCK:
            self.turn_back(f"step {name!r} failed: {error}")

    def turn_back(self, cause: str) -> None:
        """Undo what was done, from now on."""
        if not self.backward:
            self.backward, self.cause = True, cause

    def undone(self, name: str, state: StepState, error: str = "") -> None:
        """What a compensation came to: ``COMPENSATED``, ``SKIPPED`` or ``STUCK``."""
        note = self.notes[name]
        self.notes[name] = Note(state, note.attempts, error or note.error)

    def is_committed(self, plan: Plan[Any]) -> bool:
        """Whether it is too late to undo: the pivot is done, or may be and cannot be undone."""
        note = None if plan.pivot is None else self.notes.get(plan.pivot.name)
        if plan.pivot is None or note is None:
            return False
        if note.state is StepState.DONE:
            return True
        return plan.pivot.compensate is None and note.state in {StepState.STARTED, StepState.STUCK}

    def take_up(self, plan: Plan[Any], cause: str) -> None:
        """Settle what was under way when the one who did it went away.

        Args:
            plan: The plan of the saga.
            cause: Why it is undone, if it is.
        """
        under_way = [name for name, each in self.notes.items() if each.state is StepState.STARTED]
        committed = self.is_committed(plan)
        if committed:
            return  # they stay as started, which keeps the saga from turning back; done again
        for name in under_way:
            self.notes[name] = Note(StepState.UNKNOWN, error=cause)
            self.turn_back(f"step {name!r} has no known outcome: {cause}")

    def release_stuck(self) -> None:
        """Let what was given up be tried again."""
        for name, note in self.notes.items():
            if note.state is not StepState.STUCK:
                continue
            if self.backward:
                note.state = StepState.UNKNOWN
            else:
                self.start(name)  # again; it may have happened, so this is no way back

    def outcomes(self, steps: Iterable[str]) -> tuple[StepOutcome, ...]:
        """Return the end of each of ``steps``, in their order."""
        found: list[StepOutcome] = []
        for name in steps:
            note = self.notes.get(name)
            if note is None:
                found.append(StepOutcome(name, None, 0, ""))
            else:
                found.append(StepOutcome(name, note.state, note.attempts, note.error))
        return tuple(found)


read_journal: Callable[[bytes], Journal] = MSGPACK.decoder(Journal)


def decide(plan: Plan[Any], journal: Journal, busy: Collection[str]) -> Moves:
    """Decide what is to be done next.

    Args:
        plan: The plan.
        journal: What has happened.
        busy: Steps whose action or compensation is running.

    Returns:
        What is to be started or undone now, or the end; nothing of both while others are waited
        for.

    Complexity: O(steps + edges).
    """
    return _backward(plan, journal, busy) if journal.backward else _forward(plan, journal, busy)


def _forward(plan: Plan[Any], journal: Journal, busy: Collection[str]) -> Moves:
    notes = journal.notes
    ready = [
        each.name
        for each in plan.steps.values()
        if each.name not in busy and _may_start(each, journal)
    ]
    if ready or busy:
        return Moves(ready, [])
    complete = all(name in notes and notes[name].state is StepState.DONE for name in plan.steps)
    return Moves([], [], SagaState.COMPLETED if complete else SagaState.STUCK)


def _may_start(step: Step[Any], journal: Journal) -> bool:
    """Whether it is to be done, or to be done again because its end is not known."""
    notes = journal.notes
    if step.name in notes and notes[step.name].state is not StepState.STARTED:
        return False
    return all(name in notes and notes[name].state is StepState.DONE for name in step.after)


def _backward(plan: Plan[Any], journal: Journal, busy: Collection[str]) -> Moves:
    notes = journal.notes
    if any(notes[name].state is StepState.STARTED for name in busy):
        return Moves([], [])  # nothing is undone while something may still be done
    undo = [
        name
        for name, note in notes.items()
        if note.state in _TO_UNDO and name not in busy and _may_be_undone(name, plan, journal)
    ]
    if undo or busy:
        return Moves([], undo)
    stuck = any(note.state is StepState.STUCK for note in notes.values())
    return Moves([], [], SagaState.STUCK if stuck else SagaState.COMPENSATED)


def _may_be_undone(name: str, plan: Plan[Any], journal: Journal) -> bool:
    notes = journal.notes
    return not any(
        each in notes and notes[each].state in _IN_THE_WAY for each in plan.following[name]
    )
