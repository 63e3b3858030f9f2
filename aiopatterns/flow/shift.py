"""One run of a pool: every item that it has accepted, and every move of an item.

A pool can be entered again and again; whatever belongs to one run of it is here, in one object
that is dropped with the run. All moves are synchronous methods::

    accept --> queued --start--> running --done--------> DONE
                 |  ^              |  |------failed----> FAILED
                 |  `--- pause ----'  `---interrupted--> CANCELLED or FAILED
                 `---- withdraw, abandon --------------> CANCELLED or FAILED

Each changes the counters and the state in one step and tells others afterwards, so the counters
add up whenever anybody can look.

Whatever ends a worker, its item goes on: back to the backlog if it had not started, else to its
end or its retry. When the *last* worker cannot open its resource, the item that comes next fails
with that error (or is retried), as if its function had raised it: so a database that is down is
seen by those who submit, and nobody waits for ever.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, final

from anyio import current_effective_deadline

from aiopatterns.core.clock import Alarms, Home, call_later, monotonic
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import ClosedError, TimeoutExceededError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.backlog import Backlog
from aiopatterns.flow.handle import HandleStatus, Terms, Ticket
from aiopatterns.flow.ledger import Ledger
from aiopatterns.flow.staff import Staff
from aiopatterns.flow.worker import Cut, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from aiopatterns.flow.ledger import PoolStatistics
    from aiopatterns.flow.staff import PoolPlan

__all__ = ["PoolItemFailed", "Shift"]

T = TypeVar("T")
R = TypeVar("R")

_DONE, _FAILED, _CANCELLED = HandleStatus.DONE, HandleStatus.FAILED, HandleStatus.CANCELLED
_QUEUED, _RUNNING = HandleStatus.QUEUED, HandleStatus.RUNNING


@dataclass(frozen=True, slots=True)
class PoolItemFailed(Event):
    """An item has failed for good; of retries ``aiopatterns.retry.scheduled`` tells.

    Args:
        pool: Name of the pool.
        index: Number of the item in this run of the pool.
        attempts: How often its function ran.
        error: What it raised at last.
    """

    name: ClassVar[str] = "aiopatterns.pool.item_failed"
    level: ClassVar[str] = "warning"
    pool: str
    index: int
    attempts: int
    error: Exception


@final
class Shift(Generic[T, R]):
    """One run of a pool; must be made on the running loop.

    Args:
        plan: How the pool works.
        group: The task group of the workers.
    """

    __slots__ = (
        "_pauses",
        "_quiet",
        "_reserved",
        "_resumed",
        "_room",
        "alarms",
        "backlog",
        "closed",
        "home",
        "ledger",
        "plan",
        "staff",
    )

    def __init__(self, plan: PoolPlan[R], group: TaskGroup) -> None:
        self.plan: PoolPlan[R] = plan
        self.home: Home = Home()
        self.ledger: Ledger = Ledger()
        self.backlog: Backlog[R] = Backlog()
        self.staff: Staff[R] = Staff(plan, group, self.backlog, partial(Worker, self))
        self.alarms: Alarms | None = None if plan.timeout is None else Alarms(plan.timeout)
        self.closed: bool = False
        self._room = Waiters()
        self._quiet = Waiters()
        self._resumed = Waiters()
        self._pauses: set[Ticket[R]] = set()
        self._reserved = 0

    # ---------------------------------------------------------------------------- admission

    def check_loop(self) -> None:
        """Refuse use from another event loop, or from none.

        Raises:
            RuntimeError: This is not the loop on which the pool was opened.
        """
        if not self.home.here:
            msg = f"WorkerPool {self.plan.name!r} is open on another event loop; use it there"
            raise RuntimeError(msg)

    def full(self) -> bool:
        """Whether no further item may wait now."""
        return self.ledger.queued + self._reserved >= self.plan.capacity

    async def reserve(self) -> None:
        """Wait for room, in turn; the place of a woken task is kept for it."""
        await self._room.wait(lost=self._unreserve)
        if self.closed:
            msg = f"WorkerPool {self.plan.name!r} was closed before it had room for the item"
            raise ClosedError(msg)
        self._reserved -= 1

    def accept(
        self,
        item: T,
        terms: Terms | None = None,
        watcher: Callable[[Ticket[R], float, int], object] | None = None,
    ) -> Ticket[R]:
        """Take an item in; whether there is room was asked before."""
        ledger, staff = self.ledger, self.staff
        ticket = Ticket(self, ledger.accepted, item, copy_context(), terms, watcher)
        ledger.accepted += 1
        ledger.queued += 1
        if staff.scaled:
            terms = ticket.terms = terms or Terms()
            terms.ready_at = monotonic()
        if terms is None:  # as push does, one call less
            self.backlog.common.line.append(ticket)
            staff.call()
            return ticket
        if terms.deadline is not None:
            self._limit_time(ticket, terms, terms.deadline)
        if self.backlog.push(ticket):
            staff.call()
        return ticket

    def _limit_time(self, ticket: Ticket[R], terms: Terms, deadline: float) -> None:
        """Let the deadline travel with the item, and ring when it is over."""
        ticket.variables.run(bind_deadline(deadline).__enter__)
        terms.timer = call_later(deadline - monotonic(), partial(self._overdue, ticket))

    def _free_room(self) -> None:
        """Let in those who wait, as far as there is room."""
        while self._room.parked and not self.full() and self._room.wake():
            self._reserved += 1

    def _unreserve(self) -> None:
        """Give a kept place to the next in line."""
        self._reserved -= 1
        self.pass_on()

    def pass_on(self) -> None:
        """A place that was kept is not needed: the next in line may have it."""
        self._free_room()
        self._notice_quiet()

    # -------------------------------------------------------------- moves, called by workers

    def take(self) -> Ticket[R] | None:
        """Take the item that comes next out of the backlog; None if there is nothing to do."""
        backlog, common = self.backlog, self.backlog.common
        while not self.staff.paused:
            if common.back or common.dead or backlog.order:
                ticket = backlog.pop()
            else:  # as pop does, one call less
                ticket = common.line.popleft() if common.line else None
            if ticket is None or (terms := ticket.terms) is None:
                return ticket
            if terms.deadline is None or terms.deadline > monotonic():
                return ticket
            self._withdraw(ticket, _FAILED, _too_late(), popped=True)
        return None

    async def unpaused(self) -> None:
        """Wait until items may start."""
        while self.staff.paused:
            await self._resumed.wait()

    def start(self, ticket: Ticket[R], worker: Worker) -> None:
        """An attempt begins."""
        self.ledger.queued -= 1
        self.ledger.running += 1
        ticket.state = _RUNNING
        ticket.worker = worker
        worker.started = worker.first = monotonic()
        worker.attempt = 1
        terms = ticket.terms
        if terms is not None and terms.attempts:
            worker.attempt += terms.attempts
            worker.first = terms.first
        elif self.plan.retry is not None:
            self.plan.retry.begin()
        if self._room.parked:
            self._free_room()

    def done(self, ticket: Ticket[R], worker: Worker, value: R, now: float) -> None:
        """The function has returned."""
        if self.plan.retry is not None and self._retried(ticket, worker, now, value=value):
            return
        ledger = self.ledger
        ledger.running -= 1
        ledger.done += 1
        if ticket.terms is None and not self._quiet.parked:  # as _end does, one call less
            ticket.settle(_DONE, value, now - worker.first, worker.attempt)
        else:
            self._end(ticket, _DONE, value, now - worker.first, worker.attempt)

    def failed(self, ticket: Ticket[R], worker: Worker, error: Exception, now: float) -> None:
        """The attempt has failed: there will be another, or the item has failed."""
        if self.plan.retry is None or not self._retried(ticket, worker, now, error=error):
            self._fail(ticket, worker, error, now)

    def interrupted(self, ticket: Ticket[R], worker: Worker, cut: Cut | None) -> None:
        """The function has let a cancellation through."""
        now = monotonic()
        if cut is Cut.TIMEOUT:
            timeout = self.plan.timeout
            text = f"an attempt in pool {self.plan.name!r} took longer than {timeout} s"
            self.failed(ticket, worker, TimeoutExceededError(text, timeout=timeout), now)
            return
        self._give_up(worker)
        if cut is Cut.DEADLINE:
            self._fail(ticket, worker, _too_late(), now)
            return
        self.ledger.running -= 1
        self.ledger.cancelled += 1
        self._end(ticket, _CANCELLED, None, now - worker.first, worker.attempt)

    def resource_failed(self, worker: Worker, error: Exception) -> None:
        """Report it; fail the item that must not wait for it."""
        ticket = worker.ticket
        if not worker.opened and len(self.staff.workers) == 1:
            ticket = self.take()
            if ticket is not None:
                self.start(ticket, worker)
        if ticket is not None:
            worker.ticket = None
            self.failed(ticket, worker, error, monotonic())
        self.staff.resource_failed(worker, error)

    def farewell(self, worker: Worker) -> None:
        """A worker has ended, however that came about; its item does not end with it."""
        self.staff.leave(worker)
        ticket, worker.ticket = worker.ticket, None
        if ticket is not None:
            self.interrupted(ticket, worker, worker.cut)
        if self.closed:
            return
        if current_effective_deadline() > -inf:
            self.staff.call_all()
        else:
            self._drop_waiting()

    # ------------------------------------------------------------- moves, called from outside

    def cancel(self, ticket: Ticket[R]) -> bool:
        """Settle an item that waits; interrupt one that runs."""
        self.check_loop()
        if ticket.state is _QUEUED:
            self._withdraw(ticket, _CANCELLED, None)
        else:
            assert ticket.worker is not None
            ticket.worker.interrupt(Cut.CANCEL)
        return True

    def abandon(self) -> None:
        """Take nothing in any more and drop all that waits; what runs is ended by its worker."""
        self.closed = True
        for ticket in [*self.backlog.clear(), *self._pauses]:
            past = self._past(ticket)
            self.ledger.queued -= 1
            self.ledger.dropped += 1
            self._end(ticket, _CANCELLED, None, *past)
        self._pauses.clear()

    def finish(self) -> None:
        """No task is left: settle the rest and let go of everybody who waits."""
        self.abandon()
        self.staff.stop()
        for line in (self._room, self._quiet, self._resumed):
            line.wake_all()

    async def drained(self) -> None:
        """Wait until nothing waits or runs, and nobody waits for room."""
        while self._busy():
            await self._quiet.wait()

    async def close(self) -> None:
        """Finish everything, then let the workers go; nothing is taken in any more."""
        self.resume()
        await self.drained()
        self.closed = True
        await self.staff.dismiss()

    def resume(self) -> None:
        """Start items again after a pause."""
        self.staff.paused = False
        self._resumed.wake_all()
        self.staff.call_all()

    def statistics(self) -> PoolStatistics:
        """Return the figures of this moment."""
        per_worker = (each.statistics() for each in self.staff.workers.values())
        return self.ledger.snapshot(self.staff.limit, per_worker)

    # ----------------------------------------------------------- private core: ends of items

    def _end(
        self, ticket: Ticket[R], state: HandleStatus, value: object, elapsed: float, attempts: int
    ) -> None:
        """Settle an item; the counters have been moved already."""
        if ticket.terms is not None:
            self._let_go(ticket.terms)
        ticket.settle(state, value, elapsed, attempts)
        if self._quiet.parked:
            self._notice_quiet()

    def _let_go(self, terms: Terms) -> None:
        """Drop what an item that has ended holds; its key goes to the next in line."""
        for timer in (terms.timer, terms.pause):
            if timer is not None:
                timer.cancel()
        if terms.key is None or terms.blocked or self.closed:
            return
        follower = self.backlog.release(terms.key)
        if follower is not None and follower.terms is not None:
            follower.terms.ready_at = monotonic()

    def _fail(self, ticket: Ticket[R], worker: Worker, error: Exception, now: float) -> None:
        """The item has failed for good."""
        self.ledger.running -= 1
        self.ledger.failed += 1
        self._end(ticket, _FAILED, error, now - worker.first, worker.attempt)
        self._report(ticket, worker.attempt, error)

    def _withdraw(
        self,
        ticket: Ticket[R],
        state: HandleStatus,
        value: Exception | None,
        *,
        popped: bool = False,
        dropped: bool = False,
    ) -> None:
        """Settle an item that waits, wherever it does."""
        past = self._past(ticket)
        self.ledger.queued -= 1
        ticket.state = state  # the backlog skips it from now on
        if state is _FAILED:
            self.ledger.failed += 1
        elif dropped:
            self.ledger.dropped += 1
        else:
            self.ledger.cancelled += 1
        if ticket in self._pauses:
            self._pauses.remove(ticket)
        elif not popped:
            self.backlog.discard(ticket.terms)
        keyed = ticket.terms is not None and ticket.terms.key is not None
        self._end(ticket, state, value, *past)
        self._free_room()
        if keyed:  # the next of its key may be ready now, and no worker knows
            self.staff.call_all()
        if self.staff.thirsty:
            self.staff.relieve()
        if value is not None:
            self._report(ticket, past[1], value)

    def _drop_waiting(self) -> None:
        """The tasks of the pool are cancelled: nothing can run, and a body behind a shield waits."""
        for ticket in [*self.backlog, *self._pauses]:
            self._withdraw(ticket, _CANCELLED, None, dropped=True)

    def _overdue(self, ticket: Ticket[R]) -> None:
        """The deadline of an item is over."""
        if ticket.state is _QUEUED:
            self._withdraw(ticket, _FAILED, _too_late())
        else:
            assert ticket.worker is not None
            ticket.worker.interrupt(Cut.DEADLINE)

    def _past(self, ticket: Ticket[R]) -> tuple[float, int]:
        """Return how long and how often an item that waits has been tried, and give it up."""
        terms = ticket.terms
        if terms is None or not terms.attempts:
            return 0.0, 0
        assert self.plan.retry is not None
        self.plan.retry.finish(terms.attempts + 1)
        return monotonic() - terms.first, terms.attempts

    def _report(self, ticket: Ticket[R], attempts: int, error: Exception) -> None:
        if listening():
            emit(PoolItemFailed(self.plan.name, ticket.index, attempts, error))

    def _busy(self) -> int:
        reserved = 0 if self.closed else self._reserved  # nobody is let in any more
        return self.ledger.queued + self.ledger.running + reserved

    def _notice_quiet(self) -> None:
        """Wake those who wait for the end of all work, if it has come."""
        if not self._busy():
            self._quiet.wake_all()

    # ---------------------------------------------------------------- private core: retries

    def _give_up(self, worker: Worker) -> None:
        """Tell the retry that the item ends with this attempt, otherwise than by an error."""
        if self.plan.retry is not None:
            self.plan.retry.finish(worker.attempt)

    def _retried(
        self,
        ticket: Ticket[R],
        worker: Worker,
        now: float,
        *,
        error: Exception | None = None,
        value: object = None,
    ) -> bool:
        """See to another attempt; False if what this one came to is what the item comes to.

        The retry looks at the deadline that is bound in the item's own context.
        """
        retry, variables = self.plan.retry, ticket.variables
        assert retry is not None
        if self.closed or worker.cut in {Cut.CANCEL, Cut.DEADLINE}:
            self._give_up(worker)
            return False
        elapsed = now - worker.first
        try:
            if error is None:
                delay = variables.run(retry.after_result, worker.attempt, value, elapsed)
            else:
                delay = variables.run(retry.after_error, worker.attempt, error, elapsed)
        except Exception as broken:  # of a predicate: an error of the user's like any other
            self._fail(ticket, worker, broken, now)
            return True
        if delay is not None:
            self._pause(ticket, worker, delay)
        return delay is not None

    def _pause(self, ticket: Ticket[R], worker: Worker, delay: float) -> None:
        """Queue an item again, once its pause is over; it holds no worker meanwhile."""
        terms = ticket.terms = ticket.terms or Terms()
        terms.attempts, terms.first = worker.attempt, worker.first
        self.ledger.running -= 1
        self.ledger.queued += 1
        ticket.state = _QUEUED
        ticket.worker = None
        self._pauses.add(ticket)
        terms.pause = call_later(delay, partial(self._due, ticket, terms))

    def _due(self, ticket: Ticket[R], terms: Terms) -> None:
        """The pause before a retry is over."""
        terms.pause = None
        terms.ready_at = monotonic()
        self._pauses.discard(ticket)
        self.backlog.put_back(ticket)
        self.staff.call()


def _too_late() -> TimeoutExceededError:
    return TimeoutExceededError("the deadline of the item has passed")
