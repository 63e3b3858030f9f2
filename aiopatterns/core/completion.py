"""Completion: work that a cancellation must not leave in the middle.

A cancel scope raises at *every* await until its block is left, so a driver that wants to tidy up
after a cancellation, with an await, loses its way, and its connection. Here the work has a task of
its own. :func:`to_the_end` lets it end whatever comes; :func:`cancelled_once` passes the
cancellation on, one time, and waits for the tidying up::

    caller   to_the_end(commit)  <-- cancelled ---- waits ---> CancelledError
    task     COMMIT PREPARED ... the answer ------------^

Not guaranteed: a bound of the waiting; whoever does the work bounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from anyio.lowlevel import checkpoint_if_cancelled

from aiopatterns.core.flight import Flight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["cancelled_once", "to_the_end"]

T = TypeVar("T")


async def to_the_end(fn: Callable[[], Awaitable[T]]) -> T:
    """Return what ``fn`` returns, where nobody can cancel it.

    Cancellation: is raised when ``fn`` has ended; that of a scope, by the next checkpoint.

    Complexity: 10 us.
    """
    flight = Flight(fn)
    flight.keep()
    seat = flight.board()
    if (cancelled := await flight.end()) is not None:
        flight.leave(seat)
        raise cancelled
    return await flight.ride(seat)


async def cancelled_once(fn: Callable[[], Awaitable[T]]) -> T:
    """Return what ``fn`` returns; a cancellation reaches it once, and it may tidy up by awaits.

    Cancellation: is raised when ``fn`` has ended.

    Complexity: 10 us.
    """
    await checkpoint_if_cancelled()
    return await Flight(fn).join()
