"""Maps: one async function over many items, a bounded number at a time.

``gather`` starts everything at once, a task an item costs 5 to 50 us, and a semaphore around it
still holds a task for each item that waits. Here a few long-lived workers share one iterator:
``limit`` tasks in all, any number of items, infinite sources too::

                 .---- worker 1: await fn(item) ----.
    items ------>+---- worker 2: await fn(item) ----+----> results
    (one at a    `---- worker n: await fn(item) ----'      amap: a list, in input order
     time)            limit = workers                      stream_map: as you read
                 |<----------- window ------------->|
                   taken and not yet read by you

:func:`amap` returns a list. :func:`stream_map` hands results over while others are still being
made, holds back when its reader is slow, and lets the reader leave early.

Guarantees:

* At most ``limit`` calls run at any moment; at most ``window`` items are taken and unread.
* The first failure leaves bare, with a note that names the item. Before it leaves, the other
  calls are cancelled and awaited. Results that came before are read first.
* An error of the source is raised when everything taken from the source has been read.
* Leaving the ``async with`` early cancels and awaits all calls, and closes an async generator,
  whose cleanup may wait.
* Each call sees the context variables of the caller, and none that another call has set.
* A call, or a source, that raises ``CancelledError`` on its own has failed
  (``JobCancelledError``).
* A retry that waits holds no worker, but keeps its place in the window.

Not guaranteed: a call that refuses to be cancelled, or a generator that refuses to be closed,
keeps the map open for as long as it likes.
Results that were not read before leaving are gone, and so are errors of calls that failed then;
the statistics count them.

Cost: 0.3 us an item for ``amap``, 1.3 us for ``stream_map``; more for calls that set context
variables (0.6 us), for collected outcomes (1.2 us) and for a timeout (5 us).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sized
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast, final, overload

from anyio import create_task_group

from aiopatterns.core.clock import yield_now
from aiopatterns.core.context import run_in
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.notes import note
from aiopatterns.core.validate import async_function, choice, count, instance, positive
from aiopatterns.flow.calls import as_failure, blame, blame_source, called, untouched
from aiopatterns.flow.crew import GROWTH, Crew, MapStatistics, Plan
from aiopatterns.flow.lane import TURN
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from contextvars import Context
    from types import TracebackType

    from anyio.abc import TaskGroup

    from aiopatterns.core.outcome import Outcome
    from aiopatterns.core.types import AsyncFn, Source
    from aiopatterns.flow.crew import Errors

__all__ = ["StreamMap", "amap", "stream_map"]

T = TypeVar("T")
R = TypeVar("R")
Y = TypeVar("Y")

_SOURCE: Final = "an iterable, an async iterable or an object receive stream"


async def amap(fn: AsyncFn[T, R], items: Source[T], limit: int = 8) -> list[R]:
    """Call ``fn`` with every item, at most ``limit`` at a time.

    Args:
        fn: Async function of one item.
        items: An iterable, an async iterable or an object receive stream; may be longer than
            memory would like tasks to be.
        limit: Most calls at a time, 1 or more.

    Returns:
        The results, in the order of the items.

    Raises:
        Exception: The first failure of a call, bare, or the error of the source; the other calls
            were cancelled and awaited.
        ValueError: ``limit`` is below 1.
        TypeError: ``fn`` is no async function, or ``items`` cannot be iterated over.

    Cancellation: cancels and awaits all calls.

    Complexity: O(items) time and memory, at most ``limit`` tasks; 0.3 us an item over the call.

    Source: long-lived workers over one shared iterator, as in Go's conc (``iter.Map``, 2023).

    Example::

        pages = await amap(fetch, urls, limit=20)
    """
    async_function("fn", fn)
    count("limit", limit)
    instance("items", items, (AsyncIterable, Iterable), _SOURCE)
    if isinstance(items, AsyncIterable):
        async with stream_map(fn, items, limit, ordered=True, window=sys.maxsize) as results:
            return [result async for result in results]
    if isinstance(items, Sized):
        limit = min(limit, len(items) or 1)
    return await _Gathering(fn, iter(items), limit).run()


@overload
def stream_map(
    fn: AsyncFn[T, R],
    items: Source[T],
    limit: int = 8,
    *,
    ordered: bool = False,
    errors: Literal["raise", "skip"] = "raise",
    window: int | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> StreamMap[R]: ...
@overload
def stream_map(
    fn: AsyncFn[T, R],
    items: Source[T],
    limit: int = 8,
    *,
    ordered: bool = False,
    errors: Literal["collect"],
    window: int | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> StreamMap[Outcome[R]]: ...
@overload
def stream_map(
    fn: AsyncFn[T, R],
    items: Source[T],
    limit: int = 8,
    *,
    ordered: bool = False,
    errors: Errors,
    window: int | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> StreamMap[R] | StreamMap[Outcome[R]]: ...
def stream_map(
    fn: AsyncFn[T, R],
    items: Source[T],
    limit: int = 8,
    *,
    ordered: bool = False,
    errors: Errors = "raise",
    window: int | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> StreamMap[R] | StreamMap[Outcome[R]]:
    """Call ``fn`` with every item, at most ``limit`` at a time, and read results as they come.

    The result is used with ``async with`` and read with ``async for``. A slow reader holds the
    calls back (``window``); leaving early cancels and awaits them.

    Args:
        fn: Async function of one item.
        items: An iterable, an async iterable or an object receive stream. An async one is pulled
            by one task of its own, at most ``limit`` items ahead of the calls.
        limit: Most calls at a time, 1 or more.
        ordered: True gives the results in the order of the items; a slow item then holds back
            what is read, and the starts only once the window is full.
        errors: ``"raise"`` the first failure; ``"collect"`` gives an ``Ok`` or ``Err`` for each
            item; ``"skip"`` leaves failures out and counts them.
        window: Most items that are taken and not yet read, at least ``limit``; by default twice
            ``limit``.
        retry: How to try again; its waits hold no worker. None tries once.
        timeout: Seconds for each attempt; an attempt that takes longer is cancelled and fails
            with ``TimeoutExceededError``.

    Returns:
        The stream of results. May be entered again if ``items`` can be iterated over again.

    Raises:
        ValueError: A number is out of range, or ``errors`` is no known choice.
        TypeError: ``fn`` is no async function, ``items`` cannot be iterated over, ``retry`` is
            no ``Retry``.

    Cancellation: cancels and awaits all calls.

    Complexity: at most ``limit`` tasks, O(window) memory; 1.3 us an item over the call.

    Source: windows as in Rust's ``buffered``; Broadway's demand (2019); structure by PEP 789.

    Example::

        async with stream_map(fetch, urls, limit=20) as pages:
            async for page in pages:
                ...
    """
    count("limit", limit)
    window = 2 * limit if window is None else count("window", window)
    if window < limit:
        msg = f"window must be at least limit ({limit}), not {window}"
        raise ValueError(msg)
    retry = retry if retry is None else instance("retry", retry, Retry, "None or a Retry")
    async_function("fn", fn)
    plan = Plan(
        fn=fn
        if timeout is None
        else Timeout(positive("timeout", timeout)).wrap(partial(called, fn)),
        items=instance("items", items, (AsyncIterable, Iterable), _SOURCE),
        limit=limit,
        window=window,
        ordered=ordered,
        errors=choice("errors", errors, ("raise", "collect", "skip")),
        retry=retry,
        total=retry is not None and retry.scope(0.0) is not None,
    )
    return StreamMap(plan)


@final
class StreamMap(Owner, AsyncIterator[Y]):
    """The results of :func:`stream_map`, which makes it.

    Args:
        plan: What to do.

    Raises:
        ClosedError: Read outside ``async with``.
        RuntimeError: Entered twice at the same time.
    """

    __slots__ = ("_crew", "_plan", "_statistics")

    def __init__(self, plan: Plan[Any]) -> None:
        super().__init__("results")
        self._plan = plan
        self._crew: Crew[Any, Y] | None = None
        self._statistics = MapStatistics()

    def __anext__(self) -> Coroutine[Any, Any, Y]:
        """Return the next result.

        Raises:
            StopAsyncIteration: There is none any more.
            Exception: The first failure, or the source's error; all calls have ended.
            ClosedError: Not inside ``async with``.

        Cancellation: nothing was read.
        """
        if self._crew is None:
            msg = "read the results inside 'async with stream_map(...) as results:'"
            raise ClosedError(msg)
        return self._crew.lane.read()

    def statistics(self) -> MapStatistics:
        """Return the figures of this moment, or of the end. Complexity: O(window)."""
        return self._statistics if self._crew is None else self._crew.statistics()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel and await the calls that still run.

        Raises:
            Exception: What closing the source has raised, unless the block has raised already.
        """
        self._open_group()
        crew = self._crew
        assert crew is not None
        crew.stop()
        await super().__aexit__(exc_type, exc, traceback)
        _tell(crew.closing, exc)

    async def _start(self, tasks: TaskGroup) -> None:
        self._crew = Crew(self._plan, tasks)
        self._crew.start()

    def _settle(self) -> None:
        crew, self._crew = self._crew, None
        assert crew is not None
        crew.stop()
        crew.lane.end()
        self._statistics = crew.statistics()


@final
class _Gathering(Generic[T, R]):
    """The run of one :func:`amap` over a plain iterable: nothing but the loop."""

    __slots__ = ("_failure", "_fn", "_group", "_hired", "_items", "_limit", "_others", "_results")

    def __init__(self, fn: AsyncFn[T, R], items: Iterator[T], limit: int) -> None:
        self._fn = fn
        self._items = items
        self._limit = limit
        self._group = create_task_group()
        self._results: list[R | None] = []
        self._failure: Exception | None = None
        self._others = 0
        self._hired = 0

    async def run(self) -> list[R]:
        """Return all results, or raise the first failure when all calls have ended."""
        variables = copy_context()
        async with self._group:
            self._hire(variables)
        if self._failure is None:
            return cast("list[R]", self._results)
        if self._others:
            note(self._failure, f"{self._others} more failed before everything had ended")
        raise self._failure

    def _hire(self, variables: Context) -> None:
        """Start some more workers, until there are ``limit``."""
        for _ in range(min(GROWTH, self._limit - self._hired)):
            self._hired += 1
            self._group.create_task(self._work(variables), context=variables)

    async def _work(self, variables: Context) -> None:
        """Make one call after another, until the items or the patience are at an end."""
        fn, results, scope = self._fn, self._results, self._group.cancel_scope
        direct, turns, index = False, TURN, -1
        try:
            for item in self._items:
                index = len(results)
                results.append(None)
                results[index] = await (fn(item) if direct else self._apart(item, variables))
                if scope.cancel_called:  # and the call has swallowed its cancellation
                    return
                direct = untouched(variables)
                turns -= 1
                if not turns:
                    turns = TURN
                    await yield_now()
                index = -1
        except BaseException as error:
            what = f"the call for item {index}" if index >= 0 else "the source"
            self._failed(index, as_failure(error, what))

    async def _apart(self, item: T, variables: Context) -> R:
        """Make a call in a context of its own; the first of a worker brings in more workers."""
        self._hire(variables)
        return await run_in(variables.copy(), called(self._fn, item))

    def _failed(self, index: int, error: Exception) -> None:
        """Keep the first failure and cancel the other calls; count what fails after it."""
        if self._failure is not None:
            self._others += 1
            return
        self._failure = (
            blame(error, index) if index >= 0 else blame_source(error, len(self._results))
        )
        self._group.cancel_scope.cancel()


def _tell(closing: Exception | None, error: BaseException | None) -> None:
    """Raise the error of closing the source, or note it on the one that leaves anyway."""
    if closing is not None and error is None:
        raise closing
    if closing is not None and error is not None:
        note(error, f"closing the source failed as well: {closing!r}")
