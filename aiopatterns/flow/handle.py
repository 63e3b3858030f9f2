"""Handles: what a pool gives for an item, and where the item is.

An item that a pool has accepted is in exactly one state, and its handle tells which::

                 a worker takes it         the function returns
    QUEUED -----------------------> RUNNING ------------------> DONE
      |  ^                           |  |     it raises
      |  `------- retry waits -------'  |---------------------> FAILED
      |                                 |     cut by cancel()
      `----- cancel() or the pool is left by an error --------> CANCELLED

* ``await handle`` gives the result or raises the item's own error; a cancelled item raises
  :class:`~aiopatterns.core.errors.JobCancelledError`, a fresh one for every ``await``.
* Awaiting does not own the item: whoever is cancelled while he waits leaves it alone.
* Any number of tasks may await one handle, also after the end, also after the pool was left.

:class:`Handle` is what users see. :class:`Ticket` is the same object as the pool sees it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import Context as Variables
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, final

from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class

from aiopatterns.core.errors import JobCancelledError
from aiopatterns.core.waiters import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    from aiopatterns.flow.shift import Shift
    from aiopatterns.flow.worker import Worker

__all__ = ["Handle", "HandleStatus", "Terms", "Ticket", "Timer"]

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class HandleStatus(Enum):
    """Where an item is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Looking a member up on the class costs as much as a function call; the hot path does it often.
_NOTHING = Variables()  # in place of the context variables of an item that has ended
_QUEUED, _RUNNING, _DONE = HandleStatus.QUEUED, HandleStatus.RUNNING, HandleStatus.DONE


class Handle(ABC, Generic[R_co]):
    """One accepted item; made by ``submit``, never by hand."""

    __slots__ = ()

    @property
    @abstractmethod
    def status(self) -> HandleStatus:
        """Where the item is now."""

    @abstractmethod
    def cancel(self) -> bool:
        """Ask that the item be cancelled.

        A queued item leaves the queue and is settled before this returns; it has taken no token
        of a rate limit. A running one gets a cancellation at its next ``await`` and is settled
        when its function has ended: CANCELLED if the function lets the cancellation through, else
        as the function ends. It is not retried. A function in a thread cannot be interrupted.

        Returns:
            False if the item has ended already.
        """

    @abstractmethod
    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the end of the item.

        Returns:
            What the function returned.

        Raises:
            Exception: What the function raised at last.
            JobCancelledError: The item was cancelled, or the pool was left by an error.
            TimeoutExceededError: The deadline of the item, or the last attempt's timeout, is over.
            RuntimeError: The item has not ended and belongs to another event loop.

        Cancellation: leaves the item alone; ``pool.run`` is the form that cancels it.
        """


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> object:
        """Forget it."""


@final
class Terms:
    """What only some items have: a priority, a key, a deadline, a retry behind them.

    Args:
        priority: A higher number runs first.
        key: Items with an equal key run one at a time; None for none.
        deadline: Monotonic seconds, or None.
    """

    __slots__ = (
        "attempts",
        "blocked",
        "deadline",
        "first",
        "key",
        "pause",
        "priority",
        "ready_at",
        "timer",
    )

    def __init__(
        self, priority: int = 0, key: Hashable | None = None, deadline: float | None = None
    ) -> None:
        self.priority: int = priority
        self.key: Hashable | None = key
        self.deadline: float | None = deadline
        self.blocked: bool = False  # behind another item of its key
        self.attempts: int = 0  # that have ended
        self.first: float = 0.0  # when the first of them began
        self.ready_at: float = 0.0  # since when it waits for a worker; for the autoscaler
        self.timer: Timer | None = None  # for the deadline
        self.pause: Timer | None = None  # before the next attempt


@final
class Ticket(Gate, Handle[R]):
    """A handle from inside: plain fields that the pool works with.

    Args:
        shift: The run of the pool that accepted the item.
        index: Number of the item in that run, from 0.
        item: The item.
        variables: The submitter's context variables, a copy of the item's own.
        terms: What is special about the item, or None.
        watcher: Called once, when the item ends, with this ticket, the seconds since its first
            attempt began, and the number of attempts.

    Complexity: 112 bytes, and 72 for the context variables.
    """

    __slots__ = ("index", "shift", "state", "terms", "value", "variables", "watcher", "worker")

    def __init__(
        self,
        shift: Shift[Any, R],
        index: int,
        item: object,
        variables: Variables,
        terms: Terms | None,
        watcher: Callable[[Ticket[R], float, int], object] | None,
    ) -> None:
        self._home = shift.home
        self._parked = None
        self.shift: Shift[Any, R] = shift
        self.index: int = index
        self.state: HandleStatus = _QUEUED
        self.value: object = item  # the item; once it has ended, what became of it
        self.variables: Variables = variables
        self.terms = terms
        self.watcher = watcher
        self.worker: Worker | None = None  # whose hands it is in

    @property
    def status(self) -> HandleStatus:
        """Where the item is now."""
        return self.state

    @property
    def pending(self) -> bool:
        """Whether it has not ended."""
        return self.state is _QUEUED or self.state is _RUNNING

    @property
    def priority(self) -> int:
        """A higher number runs first."""
        return 0 if self.terms is None else self.terms.priority

    def cancel(self) -> bool:
        """Ask that the item be cancelled; False if it has ended already."""
        return self.pending and self.shift.cancel(self)

    def settle(self, state: HandleStatus, value: object, elapsed: float, attempts: int) -> None:
        """Note the end, let go of everything else, tell the watcher. Called exactly once."""
        self.state = state
        self.value = value
        self.variables = _NOTHING
        self.terms = self.worker = None
        if self._parked is not None:
            self.open()
        watcher = self.watcher
        if watcher is not None:
            self.watcher = None
            watcher(self, elapsed, attempts)

    def error(self) -> Exception:
        """Return why there is no result."""
        if self.state is HandleStatus.FAILED:
            return cast("Exception", self.value)
        msg = f"item {self.index} of pool {self.shift.plan.name!r} was cancelled"
        return JobCancelledError(msg, job_id=str(self.index))

    async def outlast(self) -> None:
        """Wait until the item has ended, however often this task is cancelled meanwhile.

        For a caller that is being cancelled and raises that cancellation in the end.
        """
        with CancelScope(shield=True):
            while self.pending:
                try:
                    await self
                except get_cancelled_exc_class():
                    continue
                except Exception:
                    return  # the item's own: its caller has a cancellation to raise

    def __await__(self) -> Generator[Any, None, R]:
        """Wait for the end of the item."""
        if self.state is _QUEUED or self.state is _RUNNING:
            # From another loop: asyncio itself raises RuntimeError about the future.
            future = self._home.future()  # as Gate does, one call less
            if self._parked is None:
                self._parked = future
            else:
                self._join(future, self._parked)
            yield from future
        if self.state is _DONE:
            return cast("R", self.value)
        if self.state is HandleStatus.CANCELLED and current_effective_deadline() == -inf:
            yield  # what has cancelled the item has cancelled this task as well, and says so first
        raise self.error()

    def __repr__(self) -> str:
        return f"<Handle {self.index} of {self.shift.plan.name!r} {self.state.value}>"
