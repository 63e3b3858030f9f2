"""A task in one run: its state, its figures, and what it waits for.

::

    PENDING --> RUNNING --> OK | FAILED | CANCELLED
       |  ^________|  (a retry)
       `--> SKIPPED | CANCELLED
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from aiopatterns.core.clock import monotonic
from aiopatterns.flow.task import Live, Results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.flow.ready import Rank
    from aiopatterns.flow.task import AnyTask, Binding

__all__ = ["UNSETTLED", "Node", "Span", "TaskState", "needed"]


class TaskState(Enum):
    """Where a task is in a run; a run that has ended knows only the last four."""

    PENDING = "pending"
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


UNSETTLED: Final = frozenset({TaskState.PENDING, TaskState.RUNNING})


@dataclass(frozen=True, slots=True)
class Span:
    """When a task ran, for a chart.

    Args:
        id: The task.
        state: How it ended.
        start: Seconds from the start of the run to that of the first attempt.
        end: Seconds from the start of the run to the end of the last attempt.
        slot: Which of the ``limit`` places it had, from 0.
        attempts: How often the function ran; 0 if the result came from the store.
    """

    id: str
    state: TaskState
    start: float
    end: float
    slot: int
    attempts: int


@dataclass(slots=True, eq=False)
class Node:
    """A task in a run.

    Args:
        task: The task.
        bindings: Where its arguments come from.
        rank: Its place among those that could start; smaller goes first.
        waits: How many tasks before it have not ended.
        uses: How many tasks that have not ended take its result.
        slot: Which of the places it has.
        attempts: How often the function was started.
        state: Where it is.
        began: When the first attempt started.
        ended: When the last attempt ended.
        error: What ended it, if it failed.
        cause: Whose failure skipped it.
        needs: The tasks whose results it takes.
    """

    task: AnyTask[Any]
    bindings: dict[str, Binding]
    rank: Rank
    waits: int
    uses: int = 0
    slot: int = 0
    attempts: int = 0
    state: TaskState = TaskState.PENDING
    began: float = 0.0
    ended: float = 0.0
    error: Exception | None = None
    cause: str | None = None
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.needs = needed(self.bindings)

    @property
    def resources(self) -> Mapping[str, int]:
        """What it needs to run."""
        return self.task.resources

    def begin(self) -> None:
        """An attempt starts."""
        self.attempts += 1
        if self.attempts == 1:
            self.began = monotonic()
            if self.task.retry is not None:
                self.task.retry.begin()

    def delay(self, error: Exception | None, value: object) -> float | None:
        """Return the wait before another attempt; None if there is none.

        Args:
            error: What the attempt raised.
            value: What it returned, if it raised nothing.

        Raises:
            Exception: A predicate of the retry has failed.
        """
        retry = self.task.retry
        if retry is None:
            return None
        elapsed = monotonic() - self.began
        if error is None:
            return retry.after_result(self.attempts, value, elapsed)
        return retry.after_error(self.attempts, error, elapsed)

    def give_up(self, attempt: int) -> None:
        """The task ends in ``attempt``, or while it waits for that one, as the run ends."""
        if self.task.retry is not None:
            self.task.retry.finish(attempt)

    def span(self, origin: float) -> Span:
        """Return when it ran, in seconds since ``origin``."""
        start, end = self.began - origin, self.ended - origin
        return Span(self.task.id, self.state, start, end, self.slot, self.attempts)

    def adds_tasks(self) -> bool:
        """Whether it gets the run itself, and so may add tasks."""
        return any(isinstance(each, Live) for each in self.bindings.values())


def needed(bindings: Mapping[str, Binding]) -> frozenset[str]:
    """Return the tasks whose results the bindings take."""
    return frozenset(
        name for each in bindings.values() if isinstance(each, Results) for name in each.ids
    )
