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
from typing import TYPE_CHECKING, Any, TypeVar, final

from anyio import CancelScope, get_cancelled_exc_class

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.context import run_in
from aiopatterns.core.waiters import cancel_requested
from aiopatterns.flow.ledger import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Coroutine

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
        "_scope",
        "_shift",
        "_token",
        "attempt",
        "cut",
        "first",
        "idle_since",
        "number",
        "opened",
        "retired",
        "started",
        "ticket",
    )

    def __init__(self, shift: Shift[Any, Any], number: int) -> None:
        self._shift = shift
        self._scope = CancelScope()
        self._expire = self.expire  # one bound method: alarms know it by identity
        self._attempts = self._failed = 0
        self._busy = 0.0
        self._token = False  # of the rate limit, taken for an item that was cancelled meanwhile
        self.number = number
        self.opened = self.retired = False
        self.idle_since: float | None = None
        self.ticket: Ticket[Any] | None = None
        self.cut: Cut | None = None
        self.attempt = 0  # number of the current one
        self.started = 0.0  # when it began
        self.first = 0.0  # when the first attempt of its item began

    # ------------------------------------------------------------------ what the shift calls

    async def work(self) -> None:
        """Live: open the resource, serve, close it, say farewell."""
        try:
            await self._live()
        finally:
            self._shift.farewell(self)

    def interrupt(self, cut: Cut) -> None:
        """Cancel the function that runs; the wish of a person outranks a clock."""
        if self.cut is not Cut.CANCEL:
            self.cut = cut
        self._scope.cancel()

    def expire(self) -> None:
        """Interrupt the attempt because its time is over."""
        self.interrupt(Cut.TIMEOUT)

    def put_down(self) -> None:
        """Stop waiting for a token; the item has been settled."""
        self.ticket = None
        self._scope.cancel()

    def retire(self) -> None:
        """End this idle worker."""
        self.retired = True
        self._scope.cancel()

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

    async def _live(self) -> None:
        """Serve inside the resource, if there is one; whatever it raises is reported."""
        factory = self._shift.plan.resource
        if factory is None:
            self.opened = True
            await self._serve(())
            return
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
        """Run one item after the other until the scope fires or there are too many workers."""
        shift, scope = self._shift, self._scope
        until_turn = _TURN
        while not (scope.cancel_called or shift.staff.surplus(self)):
            ticket = shift.take()
            if ticket is None:
                await self._rest()
                continue
            self.ticket = ticket
            if shift.plan.rate is None or await self._admit(ticket):
                await self._attempt(resource)
            until_turn -= 1
            if not until_turn:
                until_turn = _TURN
                await yield_now()

    async def _rest(self) -> None:
        """Wait for something to do."""
        self._token = False
        self.idle_since = monotonic()
        try:
            await self._shift.staff.idle.wait()
        finally:
            self.idle_since = None

    async def _admit(self, ticket: Ticket[Any]) -> bool:
        """Wait for a token, then hold the item that comes next by now; False if there is none.

        The item that was held while waiting goes back first: one of a higher priority may have
        come, and this token is as good for it.
        """
        shift = self._shift
        ticket.worker = self
        if not self._token and not await shift.token(self):
            return False
        self._token = True
        await shift.unpaused()
        if self.ticket is None:
            return False
        ticket.worker = self.ticket = None
        shift.backlog.put_back(ticket)
        self.ticket = shift.take()
        self._token = self.ticket is None
        return not self._token

    async def _attempt(self, resource: tuple[Any, ...]) -> None:
        """Run the function once and tell the shift how it ended; a cancellation passes through."""
        shift, ticket = self._shift, self.ticket
        assert ticket is not None
        shift.start(ticket, self)
        alarms = shift.alarms
        if alarms is not None:
            alarms.arm(self._expire)
        assert ticket.variables is not None
        try:
            work = shift.plan.call(ticket.value, *resource)
            retry = shift.plan.retry
            if retry is not None and (scope := retry.scope(self.first)) is not None:
                work = _within(scope, work)
            value = await run_in(ticket.variables, work)
        except Exception as error:
            self._stop()
            self._failed += 1
            self.ticket = None
            shift.failed(ticket, self, error)
        except BaseException:
            self._stop()
            raise
        else:
            self._stop()
            self.ticket = None
            shift.done(ticket, self, value)

    def _stop(self) -> None:
        """The attempt is over: disarm its timeout, note how long it took."""
        shift = self._shift
        if shift.alarms is not None:
            shift.alarms.disarm(self._expire)
        seconds = monotonic() - self.started
        self._attempts += 1
        self._busy += seconds
        shift.ledger.seconds.record(seconds)


async def _within(scope: TimeoutScope, work: Coroutine[Any, Any, R]) -> R:
    """Run what is left of all attempts together (``Until(total=...)``)."""
    with scope:
        return await work
