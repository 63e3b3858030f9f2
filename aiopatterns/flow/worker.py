"""One worker of a pool: a long-lived task that takes items and runs the function on them.

A task, a cancel scope and a context switch for each item would cost more than most items. So a
worker is one task with one scope, and steps each item's coroutine inside the context variables of
its submitter::

    start --> open resource --> .-- take an item, wait for a token of the rate limit --.  --> close
                                |                  run the function                    |
                                `-----------------------------------------------------'
                                   one CancelScope for all of it, replaced after it fired

To interrupt an item (``cancel()``, its timeout, its deadline) the scope is cancelled. What the
function then does last is what counts: it may let the cancellation through, clean up and raise
something else, or return a value after all.

A cancellation that the function raises by itself is told from one that was asked for by what
happened to this task; it ends the item as cancelled and nothing else.

Whatever ends a worker, an item in its hands is settled or goes back to the backlog, and the pool
starts another worker if there is work.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, final

from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.context import Steps
from aiopatterns.core.waiters import cancel_count, cancel_requested
from aiopatterns.flow.calls import own_error
from aiopatterns.flow.ledger import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.core.clock import Parked
    from aiopatterns.flow.handle import Ticket
    from aiopatterns.flow.shift import Shift
    from aiopatterns.resilience.timeout import TimeoutScope

__all__ = ["Cut", "Worker"]

R = TypeVar("R")

# Items that a worker runs before it gives the loop a turn, should none of them suspend.
_TURN = 64


class Cut(Enum):
    """Why a running item was interrupted."""

    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    CANCEL = "cancel"


@final
class Worker:
    """One task of a pool.

    Args:
        shift: The run of the pool it belongs to.
        number: Its number in that run.
    """

    __slots__ = (
        "_attempts",
        "_busy",
        "_expire",
        "_failed",
        "_future",
        "_record",
        "_scope",
        "_shift",
        "_steps",
        "_token",
        "attempt",
        "cut",
        "first",
        "halted",
        "idle_since",
        "number",
        "opened",
        "retired",
        "seat",
        "started",
        "ticket",
    )

    def __init__(self, shift: Shift[Any, Any], number: int) -> None:
        self._shift = shift
        self._scope = CancelScope()
        self._steps: Steps[Any] = Steps()
        self._record = shift.ledger.seconds.record
        self._expire = self.expire  # one bound method: alarms know it by identity
        self._attempts = self._failed = 0
        self._busy = 0.0
        self._token = False  # of the rate limit, and no item has started with it yet
        self.number: int = number
        self._future = shift.home.future
        self.seat: Parked = self._future()  # on which it waits for something to do
        self.opened: bool = False
        self.halted: bool = False  # the scope has fired, or there are too many workers
        self.retired: bool = False
        self.idle_since: float = 0.0  # noted for the autoscaler only
        self.ticket: Ticket[Any] | None = None
        self.cut: Cut | None = None
        self.attempt: int = 0  # number of the current one
        self.started: float = 0.0  # when it began
        self.first: float = 0.0  # when the first attempt of its item began

    # ----------------------------------------------------------------- what the shift calls

    async def work(self) -> None:
        """Live: open the resource, serve, close it, say farewell."""
        try:
            if self._shift.plan.resource is None:
                self.opened = True
                await self._serve(())
            else:
                await self._serve_with(self._shift.plan.resource)
        except get_cancelled_exc_class():
            # Cancelled alone, as user code can do: this task ends either way, the pool goes on.
            if current_effective_deadline() == -inf:
                raise
        finally:
            self._shift.farewell(self)

    def interrupt(self, cut: Cut) -> None:
        """Cancel the function that runs; the wish of a person outranks a clock."""
        if self.cut is not Cut.CANCEL:
            self.cut = cut
        self._halt()

    def expire(self) -> None:
        """Interrupt the attempt because its time is over."""
        self.interrupt(Cut.TIMEOUT)

    def quench(self) -> None:
        """Stop waiting for a token; the item for it is gone."""
        self._halt()

    def retire(self) -> None:
        """End this worker, which has no item in its hands."""
        self.retired = True
        self._halt()

    def statistics(self) -> WorkerStatistics:
        """Return the figures of this moment."""
        return WorkerStatistics(
            number=self.number,
            state="opening" if not self.opened else "idle" if self.ticket is None else "running",
            attempts=self._attempts,
            failed=self._failed,
            busy=self._busy,
        )

    # ------------------------------------------------------------------------- private core

    def _halt(self) -> None:
        self.halted = True
        self._scope.cancel()

    async def _serve_with(self, factory: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        """Serve inside a resource; whatever it raises is reported."""
        try:
            async with factory() as resource:
                self.opened = True
                await self._serve((resource,))
        except Exception as error:
            self._shift.resource_failed(self, error)
        except get_cancelled_exc_class() as error:
            if cancel_requested():
                raise
            broken = RuntimeError(f"the resource of {self._shift.plan.name!r} cancelled itself")
            broken.__cause__ = error
            self._shift.resource_failed(self, broken)

    async def _serve(self, resource: tuple[Any, ...]) -> None:
        """Run items until this worker is no longer needed; a new scope whenever one has fired."""
        while not self.retired:
            self.halted = False
            try:
                with CancelScope() as self._scope:
                    await self._run_items(resource)
            except get_cancelled_exc_class():
                if cancel_requested():
                    raise
                self.cut = Cut.CANCEL  # by the function itself
            ticket, cut = self.ticket, self.cut
            self.ticket = self.cut = None
            if ticket is not None:
                self._shift.interrupted(ticket, self, cut)

    async def _run_items(self, resource: tuple[Any, ...]) -> None:
        """Run one item after the other until the scope fires or it is crowded.

        A cancellation that a function lets through leaves from here, with the item in hand.
        """
        shift, staff, steps = self._shift, self._shift.staff, self._steps
        limited, cancelling, until_turn = shift.plan.rate is not None, cancel_count(), _TURN
        while not self.halted and not (staff.crowded and staff.surplus(self)):
            ready = not limited or await self._get_token()
            if self.halted:  # the item for the token is gone; the token is kept for the next
                return
            ticket = shift.take() if ready else None
            if ticket is None:
                await self._sit_down()
                continue
            try:
                awaited = ticket.variables.run(steps.send, self._begin(ticket, resource))
                if awaited is not steps:
                    await steps.rest(ticket.variables, awaited)
            except Exception as error:
                now = self._stop()
                self.ticket = None
                self._failed += 1
                shift.failed(ticket, self, error, now)
            except BaseException:
                self._stop()
                raise
            else:
                now = self._stop()
                self.ticket = None
                value, steps.result = steps.result, None
                shift.done(ticket, self, value, now)
            until_turn = until_turn - 1 or _TURN
            if until_turn == _TURN or cancelling():  # which lands here, not in the next item
                await yield_now()

    def _sit_down(self) -> Parked:
        """There is nothing to do; returns what to wait for."""
        staff = self._shift.staff
        self._token = False
        if staff.scaled:
            self.idle_since = monotonic()
        staff.idle.append(self)
        self.seat = seat = self._future()
        return seat

    async def _get_token(self) -> bool:
        """Get a token of the rate limit; False if there is no item for one.

        The item is taken out of the backlog afterwards, so a token goes to the one that comes
        next *then*, and an item that is cancelled meanwhile costs none.
        """
        shift, staff = self._shift, self._shift.staff
        while not self._token:  # a refusal has failed one item; there may be others
            if staff.paused or shift.backlog.ready <= len(staff.thirsty):
                return False
            staff.thirsty.append(self)
            try:
                self._token = await self._acquire()
                await shift.unpaused()
            finally:
                if self in staff.thirsty:
                    staff.thirsty.remove(self)
        return True

    async def _acquire(self) -> bool:
        """Wait for a token of the rate limit; False if it was refused and an item has failed."""
        shift, rate = self._shift, self._shift.plan.rate
        assert rate is not None
        try:
            await rate.acquire()
        except Exception as error:
            refused = error
        except get_cancelled_exc_class() as error:
            if cancel_requested():
                raise
            refused = own_error(f"the rate limit of pool {shift.plan.name!r}", error)
        else:
            return True
        ticket = shift.take()
        if ticket is not None:
            shift.start(ticket, self)
            shift.failed(ticket, self, refused, monotonic())
        await yield_now()  # a limiter that refuses without a wait keeps nobody from anything
        return False

    def _begin(self, ticket: Ticket[Any], resource: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        """Begin an attempt; returns its work, none of which has run."""
        shift = self._shift
        self.ticket = ticket
        self._token = False
        shift.start(ticket, self)
        if shift.alarms is not None:
            shift.alarms.arm(self._expire)
        plan = shift.plan
        work = plan.call(ticket.value, *resource) if resource else plan.call(ticket.value)
        if plan.retry is not None and (scope := plan.retry.scope(self.first)) is not None:
            return _within(scope, work)
        return work

    def _stop(self) -> float:
        """The attempt is over: disarm its timeout, note how long it took; returns the time."""
        alarms = self._shift.alarms
        if alarms is not None:
            alarms.disarm(self._expire)
        now = monotonic()
        seconds = now - self.started
        self._attempts += 1
        self._busy += seconds
        self._record(seconds)
        return now


async def _within(scope: TimeoutScope, work: Coroutine[Any, Any, R]) -> R:
    """Run what is left of all attempts together (``Until(total=...)``)."""
    with scope:
        return await work
