"""Map every item, fold the results: in threads, in processes, or right here, in bounded memory.

::

    source --> chunks --> [ executor: mapper(item), ... ] --> fold in input order --> total
                 |           at most 2 x capacity under way        reducer(total, mapped)
                 `-- with combine= the fold of a chunk happens in the executor too, and what comes
                     back is one partial total:                    combine(total, partial)

Guarantees:

* The result does not depend on which chunk ends first: folding goes in the order of the input,
  and the keys of a grouped result stand in the order in which they first occur.
* Memory is bounded by the chunks under way and those that wait for their turn in the fold; the
  source is pulled by one at a time, only as far ahead as that.
* The first error cancels everything that is under way, waits for its end, and leaves bare with a
  note that names the item or the chunk. An error of the source does the same.
* The source is read by one at a time, and a generator is closed, however this ends.
* A chunk whose worker process dies is run again, see :class:`~aiopatterns.flow.executors.Processes`.

Not guaranteed: with ``combine`` and automatic chunks the *grouping* of the additions depends on
timing, so ``combine`` must be associative, and sums of floats may differ in the last digits; a
fixed ``chunk`` makes them the same every time.

With ``chunk=None`` the size of a chunk follows the measured time of an item and aims at 20 ms of
work (5 ms inline, where a chunk occupies the loop), see :mod:`aiopatterns.flow.chunks`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

from anyio import create_task_group

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.lifecycle import OwnerState, raise_bare
from aiopatterns.core.notes import note
from aiopatterns.core.validate import function, instance, is_async, optional_count, plain_function
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.calls import own_cancellation, own_error
from aiopatterns.flow.chunks import Feed, Sizes
from aiopatterns.flow.executors import Executor, Inline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiopatterns.core.types import Source

__all__ = ["map_reduce"]

T = TypeVar("T")
M = TypeVar("M")
A = TypeVar("A")
K = TypeVar("K")

_AIM: Final = 0.02
_AIM_INLINE: Final = 0.005


@overload
async def map_reduce(
    source: Source[T],
    mapper: Callable[[T], Awaitable[M]],
    reducer: Callable[[A, M], A | Awaitable[A]],
    *,
    initial: Callable[[], A],
    chunk: int | None = None,
    combine: Callable[[A, A], A] | None = None,
    group_by: None = None,
    executor: Executor | None = None,
) -> A: ...
@overload
async def map_reduce(
    source: Source[T],
    mapper: Callable[[T], M],
    reducer: Callable[[A, M], A | Awaitable[A]],
    *,
    initial: Callable[[], A],
    chunk: int | None = None,
    combine: Callable[[A, A], A] | None = None,
    group_by: None = None,
    executor: Executor | None = None,
) -> A: ...
@overload
async def map_reduce(
    source: Source[T],
    mapper: Callable[[T], Awaitable[M]],
    reducer: Callable[[A, M], A | Awaitable[A]],
    *,
    initial: Callable[[], A],
    chunk: int | None = None,
    combine: Callable[[A, A], A] | None = None,
    group_by: Callable[[T], K],
    executor: Executor | None = None,
) -> dict[K, A]: ...
@overload
async def map_reduce(
    source: Source[T],
    mapper: Callable[[T], M],
    reducer: Callable[[A, M], A | Awaitable[A]],
    *,
    initial: Callable[[], A],
    chunk: int | None = None,
    combine: Callable[[A, A], A] | None = None,
    group_by: Callable[[T], K],
    executor: Executor | None = None,
) -> dict[K, A]: ...
async def map_reduce(
    source: Source[Any],
    mapper: Callable[[Any], Any],
    reducer: Callable[[Any, Any], Any],
    *,
    initial: Callable[[], Any],
    chunk: int | None = None,
    combine: Callable[[Any, Any], Any] | None = None,
    group_by: Callable[[Any], Any] | None = None,
    executor: Executor | None = None,
) -> Any:
    """Map every item of ``source`` and fold the results into one value, or one for each key.

    Args:
        source: An iterable, an async iterable or an object receive stream.
        mapper: ``mapper(item) -> mapped``, synchronous, or asynchronous with ``Inline``.
        reducer: ``reducer(total, mapped) -> total``; may change ``total`` in place and return it.
            Synchronous, or asynchronous where it runs on this loop (``Inline``, or no
            ``combine``).
        initial: Makes the total to start from; called once for each total, and with ``combine``
            once for each chunk, so it must be neutral then (0 for a sum).
        chunk: Items in one call of the executor; None measures.
        combine: ``combine(total, total) -> total``, associative and synchronous. Moves the folding
            of each chunk into the executor; worth it when partial totals are smaller than the
            mapped values.
        group_by: ``group_by(item) -> key``, synchronous, runs beside the mapper; the result is
            then a dict of one total for each key.
        executor: Where the mapper runs: ``Inline()`` (None means that), ``Threads(n)``,
            ``Processes(n)`` or another :class:`Executor`. One that is open is used, one that is
            not is opened for this call; calls at the same time share an open one.

    Returns:
        The total (``initial()`` for an empty source), or the dict of totals.

    Raises:
        Exception: What a function or the source raised, bare, with a note.
        TypeError: An asynchronous function where it cannot run, or one that cannot be sent to a
            process.
        WorkerCrashedError: A chunk killed every worker process that tried it.

    Cancellation: the chunks under way are cancelled and awaited; an executor opened here is
        closed. Nothing is left behind.

    Complexity: O(items); about 0.1 ms for each chunk in a process, 50 us in a thread.

    Example::

        async with Processes(4) as processes:
            words = await map_reduce(
                paths, count_words, add, initial=Counter, combine=add, executor=processes
            )
    """
    job = _Job(mapper, reducer, initial, combine, group_by)
    optional_count("chunk", chunk)
    engine = Inline() if executor is None else executor
    instance("executor", engine, Executor, "an executor such as Processes(4)")
    job.check(engine)
    aim = _AIM_INLINE if isinstance(engine, Inline) else _AIM
    feed = Feed(source, Sizes(chunk, aim=aim, workers=engine.capacity))
    async with AsyncExitStack() as stack:
        if engine.state is not OwnerState.RUNNING:
            await stack.enter_async_context(engine)
        run = _Run(job, feed, engine)
        await run.run()
    return run.result()


@final
class _Job:
    """The user's functions, and what the executor is asked to call for a chunk."""

    __slots__ = ("combine", "group_by", "initial", "mapper", "reducer")

    def __init__(
        self,
        mapper: Callable[[Any], Any],
        reducer: Callable[[Any, Any], Any],
        initial: Callable[[], Any],
        combine: Callable[[Any, Any], Any] | None,
        group_by: Callable[[Any], Any] | None,
    ) -> None:
        self.mapper = function("mapper", mapper)
        self.reducer = function("reducer", reducer)
        self.initial = plain_function("initial", initial)
        self.combine = combine if combine is None else plain_function("combine", combine)
        self.group_by = group_by if group_by is None else plain_function("group_by", group_by)

    def check(self, engine: Executor) -> None:
        """Refuse asynchronous functions where they cannot run."""
        if isinstance(engine, Inline):
            return
        remote = {"mapper": self.mapper} | ({"reducer": self.reducer} if self.combine else {})
        for name, fn in remote.items():
            if is_async(fn):
                raise TypeError(
                    f"{name} is asynchronous, which runs on this loop only: use "
                    f"executor=Inline(), or a synchronous {name} with {type(engine).__name__}"
                )

    def call(self, engine: Executor, start: int, items: Sequence[Any]) -> tuple[Any, ...]:
        """Return what to run for a chunk: a function and its arguments."""
        if isinstance(engine, Inline):
            return map_here, self.mapper, self.group_by, start, items
        if self.combine is None:
            return map_chunk, self.mapper, self.group_by, start, items
        return fold_chunk, self.mapper, self.reducer, self.initial, self.group_by, start, items

    def folds_there(self, engine: Executor) -> bool:
        """Whether chunks come back folded. Inline they never do: one fold here is the same."""
        return self.combine is not None and not isinstance(engine, Inline)


@final
class _Run:
    """One call of :func:`map_reduce`: workers that map chunks, and one fold in input order."""

    __slots__ = (
        "_asked",
        "_engine",
        "_failure",
        "_feed",
        "_folded",
        "_folding",
        "_job",
        "_parts",
        "_room",
        "_totals",
        "_window",
        "_workers",
    )

    def __init__(self, job: _Job, feed: Feed, engine: Executor) -> None:
        self._job = job
        self._feed = feed
        self._engine = engine
        # Twice the capacity, so that the next chunk is at hand when one ends.
        self._workers = engine.capacity * (1 if isinstance(engine, Inline) else 2)
        self._window = 2 * self._workers
        self._parts: dict[int, tuple[int, Any]] = {}
        self._asked = 0
        self._folded = 0
        self._folding = False
        self._room = Waiters()
        self._totals: dict[Any, Any] = {}
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Map and fold everything, or raise the first error when nothing runs any more."""
        try:
            async with create_task_group() as group:
                parts = [self._work] * self._workers
                for part in [self._feed.pump, *parts] if self._feed.waits else parts:
                    group.start_soon(self._guarded, part, group.cancel_scope.cancel)
        except BaseExceptionGroup as errors:
            raise_bare(errors)
        finally:
            await self._close()
        if self._failure is not None:
            raise self._failure

    async def _close(self) -> None:
        try:
            await self._feed.close()
        except Exception as error:
            note(error, "map_reduce: raised by the source when it was closed")
            self._fail(error)

    def result(self) -> Any:
        """Return the total, or the totals by key."""
        if self._job.group_by is not None:
            return self._totals
        return self._totals[None] if self._totals else self._job.initial()

    async def _guarded(
        self, part: Callable[[], Awaitable[None]], stop: Callable[[], object]
    ) -> None:
        """Do a part of the work; an error in it ends the others."""
        try:
            await part()
        except BaseException as error:
            if isinstance(error, Exception):
                self._fail(error)
            elif own_cancellation(error):
                self._fail(own_error("a function of map_reduce", error))
            else:
                raise
            stop()

    def _fail(self, error: Exception) -> None:
        """Keep the first error; later ones become notes on it."""
        if self._failure is None:
            self._failure = error
        else:
            note(self._failure, f"after that: {error!r}")

    async def _work(self) -> None:
        """Map chunk after chunk, until the source has ended."""
        while await self._one_chunk():
            await yield_now()

    async def _one_chunk(self) -> bool:
        while self._asked - self._folded >= self._window:
            await self._room.wait()
        self._asked += 1
        chunk = await self._feed.next()
        if chunk is None:
            return False
        number, start, items = chunk
        try:
            elapsed, part = await self._engine.run(*self._job.call(self._engine, start, items))
        except Exception as error:
            note(error, f"map_reduce: in the chunk of items {start} to {start + len(items) - 1}")
            raise
        self._feed.learn(chunk, elapsed)
        self._parts[number] = (start, part)
        await self._fold_ready()
        return True

    async def _fold_ready(self) -> None:
        """Fold what has its turn; one worker at a time does this for all."""
        if self._folding:
            return
        self._folding = True
        try:
            while self._folded in self._parts:
                start, part = self._parts.pop(self._folded)
                if self._job.folds_there(self._engine):
                    self._combine(part)
                else:
                    await self._reduce(start, *part)
                self._folded += 1
                self._room.wake_all()
        finally:
            self._folding = False

    def _combine(self, partials: dict[Any, Any]) -> None:
        combine, totals = self._job.combine, self._totals
        assert combine is not None, "partial totals come only with combine"
        for key, partial in partials.items():
            totals[key] = combine(totals[key], partial) if key in totals else partial

    async def _reduce(self, start: int, mapped: list[Any], keys: list[Any] | None) -> None:
        job, totals = self._job, self._totals
        position = start
        try:
            for key, value in zip(keys or repeat(None), mapped, strict=False):
                total = job.reducer(totals[key] if key in totals else job.initial(), value)
                totals[key] = await total if hasattr(total, "__await__") else total
                position += 1
        except Exception as error:
            note(error, f"map_reduce: while reducing item {position}")
            raise


async def map_here(
    mapper: Callable[[Any], Any],
    group_by: Callable[[Any], Any] | None,
    start: int,
    items: Sequence[Any],
) -> tuple[float, tuple[list[Any], list[Any] | None]]:
    """Map a chunk; returns the time it took, the mapped values and their keys."""
    began = monotonic()
    mapped: list[Any] = []
    keys: list[Any] | None = None if group_by is None else []
    try:
        for item in items:
            if keys is not None and group_by is not None:
                keys.append(group_by(item))
            value = mapper(item)
            mapped.append(await value if hasattr(value, "__await__") else value)
    except Exception as error:
        note(error, f"map_reduce: while mapping item {start + len(mapped)}")
        raise
    return monotonic() - began, (mapped, keys)


def map_chunk(*call: Any) -> tuple[float, tuple[list[Any], list[Any] | None]]:
    """Map a chunk in a worker, where nothing can wait; arguments of :func:`map_here`."""
    mapping = map_here(*call)
    try:
        mapping.send(None)
    except StopIteration as end:
        result: tuple[float, tuple[list[Any], list[Any] | None]] = end.value
        return result
    mapping.close()
    raise TypeError("mapper gave an awaitable, which runs on this loop only: use Inline()")


def fold_chunk(  # six plain values, because they travel to another process
    mapper: Callable[[Any], Any],
    reducer: Callable[[Any, Any], Any],
    initial: Callable[[], Any],
    group_by: Callable[[Any], Any] | None,
    start: int,
    items: Sequence[Any],
) -> tuple[float, dict[Any, Any]]:
    """Map and fold a chunk in a worker; returns the time it took and the partial totals."""
    began = monotonic()
    totals: dict[Any, Any] = {}
    position = start
    try:
        for item in items:
            key = None if group_by is None else group_by(item)
            total = totals[key] if key in totals else initial()
            totals[key] = reducer(total, mapper(item))
            position += 1
    except Exception as error:
        note(error, f"map_reduce: while mapping and reducing item {position}")
        raise
    return monotonic() - began, totals
