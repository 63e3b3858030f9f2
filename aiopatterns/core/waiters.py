"""Parked tasks: the waiting line under every channel, pool, bulkhead and limiter.

A task that must wait parks a future in a line; whoever changes the state wakes the next one. The
line never carries items: a woken task looks at the state again (*wake, then pop*), or the waker
has already claimed the state on its behalf and says how to undo that. Either way a task that is
cancelled after it was woken and before it ran loses nothing:

* it was not woken: it leaves the line;
* it was woken: ``lost`` is called, by default :meth:`Waiters.wake`, so the wake-up goes to the
  next in line; a permit that was granted is released instead.

That holds for ``Task.cancel()``, for cancel scopes and for ``asyncio.timeout`` alike, which is
where hand-over designs lose an item.

Orders: ``fifo``, ``lifo`` and ``priority`` (a higher number first, equal numbers first come first
served).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from aiopatterns.core.validate import choice

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aiopatterns.core.clock import Home

__all__ = [
    "Gate",
    "Line",
    "Order",
    "PriorityWaiters",
    "Waiters",
    "cancel_count",
    "cancel_requested",
    "canceller",
    "waiting_line",
]

Order: TypeAlias = Literal["fifo", "lifo", "priority"]


class Line(Protocol):
    """What all waiting lines have in common."""

    def __len__(self) -> int:
        """Number of tasks that still wait."""
        ...

    async def wait(self, *, priority: int = 0, lost: Callable[[], object] | None = None) -> None:
        """Wait to be woken; see :meth:`Waiters.wait`."""
        ...

    def wake(self) -> bool:
        """Wake the next in line; False if nobody waits."""
        ...

    def wake_all(self) -> None:
        """Wake everybody."""
        ...


class Waiters:
    """A line of parked tasks, first come first served or last come first served.

    Args:
        order: ``"fifo"`` or ``"lifo"``.

    Complexity: O(1) to join, leave and wake. ``len()`` counts those that still wait; hot paths
    test the truth of :attr:`parked` instead, which costs no call. It is the same object for ever.
    """

    __slots__ = ("_last", "parked")

    def __init__(self, order: Literal["fifo", "lifo"] = "fifo") -> None:
        self._last = choice("order", order, ("fifo", "lifo")) == "lifo"
        self.parked: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.parked)

    async def wait(self, *, priority: int = 0, lost: Callable[[], object] | None = None) -> None:
        """Wait to be woken.

        Args:
            priority: Taken for the sake of one call shape; this line has no priorities.
            lost: Called if this task was woken but is cancelled before it runs; by default the
                wake-up goes to the next in line.

        Cancellation: leaves the line as if it had never joined.
        """
        del priority
        parked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.parked[parked] = None
        try:
            await parked
        except BaseException:
            if _was_woken(parked):
                (lost or self.wake)()
            else:
                self.parked.pop(parked, None)
            raise

    def wake(self) -> bool:
        """Wake the next in line; False if nobody waits."""
        line = self.parked
        while line:
            parked, _ = line.popitem(last=self._last)
            if not parked.done():  # else it was cancelled in this very turn
                parked.set_result(None)
                return True
        return False

    def wake_all(self) -> None:
        """Wake everybody."""
        while self.wake():
            pass


class PriorityWaiters:
    """A line of parked tasks, the highest priority first, equals first come first served.

    Complexity: O(log n) to join and wake, O(1) amortised to leave (the entry is dropped when it
    comes up, or when half of the heap is such entries).
    """

    __slots__ = ("_heap", "_joined", "_waiting")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._joined = 0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    async def wait(self, *, priority: int = 0, lost: Callable[[], object] | None = None) -> None:
        """Wait to be woken.

        Args:
            priority: A higher number is woken first.
            lost: Called if this task was woken but is cancelled before it runs; by default the
                wake-up goes to the next in line.

        Cancellation: leaves the line as if it had never joined.
        """
        parked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined += 1
        self._waiting += 1
        heappush(self._heap, (-priority, self._joined, parked))
        try:
            await parked
        except BaseException:
            if _was_woken(parked):
                (lost or self.wake)()
            else:
                self._leave(parked)
            raise

    def wake(self) -> bool:
        """Wake the highest priority; False if nobody waits."""
        while self._heap:
            parked = heappop(self._heap)[2]
            if not parked.done():
                self._waiting -= 1
                parked.set_result(None)
                return True
        return False

    def wake_all(self) -> None:
        """Wake everybody."""
        while self.wake():
            pass

    def _leave(self, parked: asyncio.Future[None]) -> None:
        """Count one fewer; sweep the heap once half of it has left."""
        self._waiting -= 1
        parked.cancel()  # marks the entry; it is done already unless the coroutine was closed
        if len(self._heap) > 2 * self._waiting:
            self._heap = [entry for entry in self._heap if not entry[2].done()]
            heapify(self._heap)


class Gate:
    """Where tasks wait for one event, in no order: ``await gate`` in each, then ``gate.open()``.

    Much leaner than a line, for places where one task waits, or a few: no coroutine, and no memory
    but the future. After it was opened the gate is closed again for those who come then.

    Args:
        home: The loop of those who wait.

    Cancellation: leaves as if the task had never come; nobody is woken in its place.
    """

    __slots__ = ("_home", "_parked")

    def __init__(self, home: Home) -> None:
        self._home = home
        self._parked: asyncio.Future[None] | list[asyncio.Future[None]] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait until the gate is opened."""
        future = self._home.future()
        if self._parked is None:
            self._parked = future
        else:
            self._join(future, self._parked)
        return future.__await__()

    def open(self) -> None:
        """Wake everybody who waits."""
        parked = self._parked
        if parked is None:
            return
        self._parked = None
        if not isinstance(parked, list):
            if not parked.done():  # else its task was cancelled
                parked.set_result(None)
            return
        for future in parked:
            if not future.done():
                future.set_result(None)

    def _join(
        self,
        future: asyncio.Future[None],
        parked: asyncio.Future[None] | list[asyncio.Future[None]],
    ) -> None:
        """Wait beside others; those cancelled are swept out whenever a power of two is reached."""
        line = parked if isinstance(parked, list) else [parked]
        if not len(line) & (len(line) - 1):
            line = [each for each in line if not each.done()]
        line.append(future)
        self._parked = line


def waiting_line(order: Order) -> Line:
    """Make the line for ``order``: ``"fifo"``, ``"lifo"`` or ``"priority"``."""
    choice("order", order, ("fifo", "lifo", "priority"))
    return PriorityWaiters() if order == "priority" else Waiters(order)


def cancel_requested() -> bool:
    """Whether somebody has asked that the running task be cancelled, by whatever means.

    Tells a cancellation that has to be obeyed from one that user code raised by itself, or got
    from a future or task of its own that was cancelled.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def cancel_count() -> Callable[[], int]:
    """Return the function that tells how often the running task has been asked to end.

    For a loop that runs user code, which may swallow the request: asking costs a few nanoseconds,
    and a loop that was asked starts nothing new.
    """
    task = asyncio.current_task()
    assert task is not None, "called outside a task"
    return task.cancelling


def canceller() -> Callable[[], object]:
    """Return the function that cancels the running task, through every shield.

    For an owner whose time is over: a scope cannot reach work that shields itself.
    """
    task = asyncio.current_task()
    assert task is not None, "called outside a task"
    return task.cancel


def _was_woken(parked: asyncio.Future[None]) -> bool:
    return parked.done() and not parked.cancelled()
