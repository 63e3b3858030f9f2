"""Many items through a pool, and what became of them as they come: behind ``pool.stream``.

::

    source --feeder--> pool (queue, workers) --settled--> buffer --> async for
       ^                                                    |
       `---------- at most `window` between the two <-------'

One task feeds the pool; it waits when the pool has no room, and when the reader is slow: at most
``queue + workers`` items are taken from the source and not read. An item that has ended is put
into the buffer in the step in which it ends, so no outcome is lost.

Guarantees:

* One outcome for each item, in input order if asked for, else in the order in which they end.
* An error of the source is raised when everything taken from it has been read.
* Leaving the block, however that happens, stops the feeder, closes an async generator, cancels
  what has not ended and waits for it. Other items of the pool are not touched.
* If the pool is left by an error, the outcomes of what it drops are ``Err(JobCancelledError)``.

Not guaranteed: with ``ordered=True`` a slow item holds back what is read, and the source once the
window is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, final

from anyio import CancelScope, get_cancelled_exc_class

from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError
from aiopatterns.core.notes import note
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.calls import blame
from aiopatterns.flow.handle import HandleStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from aiopatterns.core.outcome import Outcome
    from aiopatterns.flow.handle import Ticket
    from aiopatterns.flow.shift import Shift

__all__ = ["OutcomeStream", "StreamErrors"]

T = TypeVar("T")
R = TypeVar("R")
Y_co = TypeVar("Y_co", covariant=True)

StreamErrors: TypeAlias = Literal["collect", "raise", "skip"]

# Outcomes read without a suspension before the loop gets a turn (as in flow.channel).
_TURN = 64


@final
class OutcomeStream(Generic[Y_co]):
    """Outcomes of a pool's items; made by ``WorkerPool.stream``, used once.

    Use it with ``async with`` and read it with ``async for``, from one task.
    """

    __slots__ = (
        "_arrived",
        "_buffer",
        "_closing",
        "_ended",
        "_error",
        "_errors",
        "_feeding",
        "_items",
        "_open",
        "_open_pool",
        "_ordered",
        "_passed",
        "_room",
        "_scope",
        "_settled",
        "_shift",
        "_taken",
        "_turn",
        "_unread",
        "_window",
    )

    def __init__(
        self,
        open_pool: Callable[[], tuple[Shift[Any, Any], TaskGroup]],
        items: AsyncIterator[Any],
        *,
        ordered: bool,
        errors: StreamErrors,
    ) -> None:
        self._open_pool = open_pool
        self._items = items
        self._ordered = ordered
        self._errors = errors
        self._shift: Shift[Any, Any] | None = None
        self._scope: CancelScope | None = None  # of the feeder
        self._open: dict[Ticket[Any], int] = {}  # not ended, and their positions in the input
        self._settled: dict[int, Outcome[Any]] = {}  # ended, and before them others have not
        self._buffer: deque[Outcome[Any]] = deque()
        self._unread = self._taken = self._passed = self._window = 0
        self._turn = _TURN
        self._arrived = Waiters()
        self._room = Waiters()
        self._ended = Waiters()
        self._feeding = False
        self._error: Exception | None = None  # of the source
        self._closing: Exception | None = None  # of the source's close

    async def __aenter__(self) -> Self:
        """Start feeding the pool.

        Raises:
            ClosedError: The pool is not open.
            RuntimeError: This stream has been used already.
        """
        if self._shift is not None:
            msg = "a stream of a pool is used once; call pool.stream(...) again"
            raise RuntimeError(msg)
        self._shift, group = self._open_pool()
        self._feeding = True
        self._scope = CancelScope()
        group.start_soon(
            self._feed, self._shift, self._scope, name=f"{self._shift.plan.name} feeder"
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop feeding, cancel what has not ended and wait for it."""
        assert self._scope is not None
        self._scope.cancel()
        for ticket in list(self._open):
            ticket.cancel()
        cancelled: BaseException | None = None
        with CancelScope(shield=True):
            # A native cancel gets through a shield; it is raised when all is over.
            while self._feeding or self._open:
                try:
                    await self._ended.wait()
                except get_cancelled_exc_class() as error:
                    cancelled = error
        self._buffer.clear()
        self._settled.clear()
        if cancelled is not None:
            raise cancelled
        closing, self._closing = self._closing, None
        if closing is not None and exc is None:
            raise closing

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Y_co:
        """Return the next outcome, or with ``errors`` "raise" or "skip" the next result.

        Raises:
            Exception: The error of the item (``errors="raise"``), or of the source.

        Cancellation: nothing was read.
        """
        while True:
            if not self._buffer or self._turn <= 0:
                await self._arrival()
            self._turn -= 1
            outcome = self._buffer.popleft()
            self._unread -= 1
            if self._room.parked:
                self._room.wake()
            if self._errors == "collect":
                return cast("Y_co", outcome)
            if isinstance(outcome, Ok):
                return cast("Y_co", outcome.value)
            if self._errors == "raise":
                if isinstance(outcome.error, JobCancelledError):
                    await yield_now()  # a cancellation of this task as well comes first
                raise blame(outcome.error, outcome.index)

    # ------------------------------------------------------------------------- private core

    async def _arrival(self) -> None:
        """Give the loop its turn if it is due, then wait for an outcome or the end."""
        if self._shift is None:
            msg = "use a stream of a pool with 'async with pool.stream(...) as outcomes:'"
            raise RuntimeError(msg)
        if self._turn <= 0:
            self._turn = _TURN
            await yield_now()
        while not self._buffer:
            if not self._feeding and not self._open:
                if self._error is not None:
                    await yield_now()  # what has ended the feeder may have cancelled this task too
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            await self._arrived.wait()

    async def _feed(self, shift: Shift[Any, Any], scope: CancelScope) -> None:
        """Take items from the source and give them to the pool."""
        try:
            with scope:
                await self._submit_all(shift, scope)
        except Exception as error:
            self._error = error
        except BaseException:
            msg = f"WorkerPool {shift.plan.name!r} was closed before the stream had ended"
            self._error = ClosedError(msg)
            raise
        finally:
            self._feeding = False
            self._arrived.wake_all()
            self._ended.wake_all()

    async def _submit_all(self, shift: Shift[Any, Any], scope: CancelScope) -> None:
        source = self._items
        try:
            async for item in source:
                if shift.full():
                    await shift.reserve()
                if scope.cancel_called:
                    shift.pass_on()
                    return
                self._unread += 1
                ticket = shift.accept(item, None, self._end)
                self._open[ticket] = self._taken
                self._taken += 1
                while self._unread >= self._window and self._is_full(shift):
                    await self._room.wait()
        finally:
            await self._close(source)

    def _is_full(self, shift: Shift[Any, Any]) -> bool:
        """Whether the window is full, now that the pool may have been resized."""
        workers = max(shift.plan.most_workers, shift.staff.limit)
        self._window = shift.plan.capacity + workers
        return self._unread >= self._window

    async def _close(self, source: AsyncIterator[Any]) -> None:
        """Close an async generator, which nobody else can; anything else is its owner's."""
        if isinstance(source, AsyncGenerator):
            try:
                with CancelScope(shield=True):
                    await source.aclose()
            except Exception as error:
                note(error, "raised by the source of the items, when it was closed")
                self._closing = error

    def _end(self, ticket: Ticket[Any], elapsed: float, attempts: int) -> None:
        """An item has ended: note its outcome, and pass on what may be read."""
        index = self._open.pop(ticket)
        outcome: Outcome[Any]
        if ticket.state is HandleStatus.DONE:
            outcome = Ok(ticket.value, index, elapsed, attempts)
        else:
            outcome = Err(ticket.error(), index, elapsed, attempts)
        if self._ordered:
            self._keep_order(outcome)
        else:
            self._buffer.append(outcome)
        if self._arrived.parked:
            self._arrived.wake()
        if not self._open and self._ended.parked:
            self._ended.wake_all()

    def _keep_order(self, outcome: Outcome[Any]) -> None:
        """Hold an outcome back until those before it are there."""
        self._settled[outcome.index] = outcome
        first = self._passed
        while (following := self._settled.pop(first, None)) is not None:
            self._buffer.append(following)
            first += 1
        self._passed = first
