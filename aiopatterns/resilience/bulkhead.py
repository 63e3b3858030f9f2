"""Bulkheads: how many at once, and who may wait for a place.

A bulkhead bounds the calls in flight to one dependency, so that when it gets slow it takes a
known number of tasks, connections and memory with it, and not all there are::

                         limit                        max_queue
    call --> [ permit | permit | permit ] <-- hands on -- [ waits | waits ] <-- call
                        |                                                        |
                        `--> fn                       full --> BulkheadFullError '

One counter and one line are the whole state. A permit that comes back goes to the next in line in
the same step, so nobody can take it in between, and ``available`` is above 0 only while nobody
waits.

Guarantees:

* ``in_flight + available == limit`` at every instant, except after a shrinking ``resize`` while
  more are in flight than the new limit.
* A permit is never lost. Who is cancelled in line leaves it; who is cancelled after a permit was
  granted and before it ran hands the permit on. That holds for every kind of cancellation.
* The line is first come first served, last come first served, or by priority; never a race.
* A call is refused at once when the line is full, and after ``max_wait`` or at the deadline bound
  here, whichever comes first. It has not started then, so it may safely be sent elsewhere.
* Permits belong to nobody: a task may hold several, and another may give one back.

Not guaranteed: other processes are not counted. A call that needs a second permit of the same
bulkhead to finish the first can wait for itself; bound that with ``max_wait``.

Source: the bulkhead pattern (Nygard, "Release It!", 2007, chapter 5).
"""

from __future__ import annotations

import math
from contextlib import aclosing
from dataclasses import dataclass
from types import coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeVar, cast, final

from anyio import move_on_after

from aiopatterns.core.context import remaining
from aiopatterns.core.errors import BulkheadFullError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import count, non_negative, number
from aiopatterns.core.waiters import waiting_line
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
    from types import TracebackType

    from aiopatterns.core.waiters import Line, Order

__all__ = ["Bulkhead", "BulkheadRejected", "BulkheadSlot", "BulkheadStatistics"]

P = ParamSpec("P")
T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """What a bulkhead holds at one instant.

    Args:
        available: Permits that are free.
        queued: Calls that wait for one.
        in_flight: Permits that are held.
    """

    available: int
    queued: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class BulkheadRejected(Event):
    """A bulkhead refused a call.

    Args:
        bulkhead: The bulkhead, as in its ``repr``.
        waited: The longest the call could wait; 0 if it did not even join the line.
        in_flight: Permits that are held.
        queued: Calls that wait.
    """

    name: ClassVar[str] = "aiopatterns.bulkhead.rejected"
    level: ClassVar[str] = "warning"

    bulkhead: str
    waited: float
    in_flight: int
    queued: int


@final
class Bulkhead(Policy):
    """Let at most ``limit`` calls run at once.

    Args:
        limit: Calls in flight at most; 0 refuses every call.
        max_queue: Calls that may wait for a permit; 0 refuses at once.
        max_wait: Seconds that a call waits at most; None is without limit, 0 never waits. Above 0
            it needs a queue.
        order: Who is next: ``"fifo"`` is fair; ``"lifo"`` keeps some calls fast under overload,
            where fifo makes all of them late; ``"priority"`` takes the highest ``priority`` of
            :meth:`slot`, equals first come first served.

    A stream holds its permit from its first step to its end, also while its reader works. As a
    policy every call has the priority 0.

    Example::

        database = Bulkhead(20, max_queue=100, max_wait=1.0)


        @database
        async def load(user: int) -> str: ...


        async with database.slot():
            await load_all()
    """

    __slots__ = ("_permits", "_slot")

    kind = "bulkhead"

    def __init__(
        self,
        limit: int,
        *,
        max_queue: int = 0,
        max_wait: float | None = None,
        order: Order = "fifo",
    ) -> None:
        count("limit", limit, minimum=0)
        count("max_queue", max_queue, minimum=0)
        if max_wait is None:
            max_wait = math.inf
        elif (max_wait := non_negative("max_wait", max_wait, finite=False)) and not max_queue:
            msg = f"max_wait must be None or 0 without a queue (max_queue=0), not {max_wait!r}"
            raise ValueError(msg)
        self._permits = _Permits(limit, max_queue, max_wait, order)
        self._slot = BulkheadSlot(self._permits, 0)

    def __repr__(self) -> str:
        return f"Bulkhead({self._permits.limit})"

    @property
    def limit(self) -> int:
        """Calls in flight at most."""
        return self._permits.limit

    def statistics(self) -> BulkheadStatistics:
        """Return what it holds now."""
        return self._permits.statistics()

    def try_acquire(self) -> bool:
        """Take a permit if one is free; never waits. Give it back by :meth:`release`."""
        permits = self._permits
        if permits.free > 0:
            permits.free -= 1
            return True
        return False

    def release(self) -> None:
        """Give back a permit that :meth:`try_acquire` took; the next in line gets it.

        Raises:
            RuntimeError: No permit is held.
        """
        if self._permits.free >= self._permits.limit:
            msg = "release() without a permit: call it once for each try_acquire() that said yes"
            raise RuntimeError(msg)
        self._permits.give_back()

    def slot(self, *, priority: int = 0) -> BulkheadSlot:
        """Return an ``async with`` block that holds a permit.

        Args:
            priority: A higher number gets the next permit first, in the order ``"priority"``.

        Raises (on entering the block):
            BulkheadFullError: No permit is free and the line is full, or none came in time.

        Cancellation: while waiting, leaves the line or hands the permit on; inside the block, the
            permit is given back.

        Complexity: O(1), and no turn of the loop if a permit is free; in the order
            ``"priority"`` O(log n) to wait.
        """
        if priority == 0 and type(priority) is int:  # a bool is none
            return self._slot
        number("priority", priority)
        return BulkheadSlot(self._permits, priority)

    def resize(self, limit: int) -> None:
        """Change the limit.

        Args:
            limit: Calls in flight at most, from now on. More wakes those who wait; fewer takes
                effect as permits come back, and nothing in flight is touched. 0 refuses every new
                call; who waits already goes on waiting.
        """
        permits = self._permits
        permits.free += count("limit", limit, minimum=0) - permits.limit
        permits.limit = limit
        permits.hand_on()

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that holds a permit for each call of ``fn``."""
        permits = self._permits

        async def held(*args: P.args, **kwargs: P.kwargs) -> T:
            if permits.free > 0:
                permits.free -= 1
            else:
                await permits.wait(0)
            try:
                return await fn(*args, **kwargs)
            finally:
                permits.free = free = permits.free + 1
                if free == 1:  # else one was free before, so nobody waits, or the limit shrank
                    permits.hand_on()

        return held

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function that holds a permit for the life of each stream."""

        async def held(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            async with self._slot, aclosing(fn(*args, **kwargs)) as stream:
                async for item in stream:
                    yield item

        return held

    def adopt(self, previous: Policy) -> bool:
        """Go on with the permits, and the line, of a bulkhead with the same order.

        Returns:
            Whether ``previous`` was one. Then both share them, with the limits of this one.
        """
        return isinstance(previous, Bulkhead) and self._share(previous)

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take: the longest wait, and what is inside."""
        return inner + (self._permits.max_wait if self._permits.max_queue else 0.0)

    def _share(self, other: Bulkhead) -> bool:
        mine, theirs = self._permits, other._permits
        if mine.order != theirs.order:
            return False
        theirs.max_queue, theirs.max_wait = mine.max_queue, mine.max_wait
        other.resize(mine.limit)
        self._permits, self._slot = theirs, other._slot
        return True


@final
class BulkheadSlot:
    """An ``async with`` block that holds one permit; made by :meth:`Bulkhead.slot`.

    It has no state of its own, so it may be entered any number of times, also at once. Its two
    methods are no coroutines: a permit that is free costs none.
    """

    __slots__ = ("_permits", "_priority")

    def __init__(self, permits: _Permits, priority: int) -> None:
        self._permits = permits
        self._priority = priority

    def __aenter__(self) -> Awaitable[None]:
        """Take a permit, waiting for it if that is allowed.

        Raises:
            BulkheadFullError: No permit is free and the line is full, or none came in time.
        """
        permits = self._permits
        if permits.free > 0:
            permits.free -= 1
            return _READY
        return permits.wait(self._priority)

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[None]:
        """Give the permit back."""
        permits = self._permits
        permits.free = free = permits.free + 1
        if free == 1:
            permits.hand_on()
        return _READY


@final
class _Permits:
    """The counter and the line.

    ``free`` is the limit less what is in flight: below 0 after a shrinking resize, above 0 only
    while nobody waits.
    """

    __slots__ = ("free", "limit", "line", "max_queue", "max_wait", "order")

    def __init__(self, limit: int, max_queue: int, max_wait: float, order: Order) -> None:
        self.free: int = limit
        self.limit: int = limit
        self.max_queue: int = max_queue
        self.max_wait: float = max_wait
        self.order = order
        self.line: Line = waiting_line(order)

    def statistics(self) -> BulkheadStatistics:
        return BulkheadStatistics(max(self.free, 0), len(self.line), self.limit - self.free)

    def give_back(self) -> None:
        self.free += 1
        self.hand_on()

    def hand_on(self) -> None:
        """Grant the free permits to those who wait."""
        while self.free > 0 and self.line.wake():
            self.free -= 1

    def wait(self, priority: int) -> Awaitable[None]:
        """Join the line and return what to await for a permit, or refuse at once."""
        left = remaining()
        longest = self.max_wait if left is None else min(self.max_wait, left)
        if not self.limit or longest <= 0 or len(self.line) >= self.max_queue:
            raise self._refusal(0.0)
        turn = self.line.wait(priority=priority, lost=self.give_back)
        return turn if math.isinf(longest) else self._in_time(turn, longest)

    async def _in_time(self, turn: Awaitable[None], longest: float) -> None:
        """Wait for ``turn``, but for no longer than ``longest`` seconds."""
        with move_on_after(longest) as scope:
            await turn
        if scope.cancelled_caught:
            raise self._refusal(longest)

    def _refusal(self, waited: float) -> BulkheadFullError:
        limit, in_flight, queued = self.limit, self.limit - self.free, len(self.line)
        if listening():
            emit(BulkheadRejected(f"Bulkhead({limit})", waited, in_flight, queued))
        why = f"no permit came within {waited:.3g} s" if waited else "no permit is free"
        msg = f"Bulkhead({limit}): {why} ({in_flight} in flight, {queued} queued)"
        return BulkheadFullError(msg, name="Bulkhead")


@coroutine
def _nothing() -> Generator[None, None, None]:
    yield from ()


def _ready() -> Awaitable[None]:
    """Return what can be awaited any number of times and is there at once.

    It is a coroutine made of a generator, run to its end: awaiting it again costs 12 ns, where a
    fresh ``async def`` costs 80.
    """
    ended = _nothing()
    next(cast("Generator[None, None, None]", ended), None)
    return ended


_READY: Final = _ready()
