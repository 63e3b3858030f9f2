"""A crew: long-lived workers that share one source, behind :func:`~aiopatterns.flow.stream_map`.

What becomes of one item, and who moves it::

    source --admit--> ready --worker--> running --------> finished --reader--> read
      (window)          ^                  |    (lane, in order of       |
                        '--- timer <-- retry     start or of end)        '--> room for one more

A plain iterable is advanced by the workers themselves, each for its next item. An async source
has one task of its own, because an async generator may be entered by one task only, always the
same, if it holds a cancel scope.

All changes of state are made in the small synchronous methods; the coroutines wait. Whoever
waits is woken and looks again, so a cancelled wait loses nothing. Once nothing more can come the
workers leave, the last one ends the run, and the reader gets what is left and then the failure,
if there was one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, final

from aiopatterns.core.clock import call_later, monotonic, yield_now
from aiopatterns.core.context import run_in
from aiopatterns.core.notes import note
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.core.types import close
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.calls import (
    NotAsyncError,
    as_failure,
    blame,
    blame_source,
    called,
    own_cancellation,
    own_error,
    untouched,
)
from aiopatterns.flow.lane import TURN, Job, Lane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from anyio import TaskHandle
    from anyio.abc import TaskGroup

    from aiopatterns.core.types import AsyncFn, Source
    from aiopatterns.resilience.retry import Retry
    from aiopatterns.resilience.timeout import TimeoutScope

__all__ = ["GROWTH", "Crew", "Errors", "MapStatistics", "Plan"]

T = TypeVar("T")
R = TypeVar("R")
Y = TypeVar("Y")

Errors: TypeAlias = Literal["raise", "collect", "skip"]

# Workers that a worker starts with its first item: all are up in log2(limit) turns of the loop,
# and few are started for few items.
GROWTH: Final = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[T]):
    """What a crew is to do; see :func:`~aiopatterns.flow.stream_map` for the fields.

    ``fn`` returns what the reader gets, or with ``errors="collect"`` what goes into an ``Ok``.
    ``total`` tells that ``retry`` bounds the time of all attempts together.
    """

    fn: AsyncFn[T, Any]
    items: Source[T]
    limit: int
    window: int
    ordered: bool
    errors: Errors
    retry: Retry | None
    total: bool


@final
@dataclass(frozen=True, slots=True)
class MapStatistics:
    """Figures of a map; ``accepted == done + failed + cancelled + queued + running`` always holds.

    Args:
        accepted: Items taken from the source.
        done: Items whose call returned.
        failed: Items that failed for good.
        cancelled: Items that were given up when the map ended early.
        queued: Items that wait for a worker or for their next attempt.
        running: Items whose call runs now.
        unread: Items that have come to their end, or were skipped, and are not read yet.
        retries: Attempts beyond the first that were scheduled.
    """

    accepted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    queued: int = 0
    running: int = 0
    unread: int = 0
    retries: int = 0


@final
class Crew(Generic[T, Y]):
    """One run of a plan, on one loop.

    Args:
        plan: What to do.
        tasks: Where the workers live.
    """

    __slots__ = (
        "_accepted",
        "_alive",
        "_cancelled",
        "_done",
        "_exhausted",
        "_failed",
        "_handles",
        "_hired",
        "_idle",
        "_plain",
        "_plan",
        "_ready",
        "_retries",
        "_room",
        "_roused",
        "_running",
        "_stopped",
        "_tasks",
        "_timed",
        "_timers",
        "_turns_left",
        "_variables",
        "closing",
        "lane",
    )

    def __init__(self, plan: Plan[T], tasks: TaskGroup) -> None:
        self._plan = plan
        self._tasks = tasks
        self._timed = plan.retry is not None or plan.errors == "collect"
        self._variables = copy_context()
        self._plain: Iterator[T] | None = None
        self._ready: deque[Job[T, Y]] = deque()
        self._timers: dict[Job[T, Y], Callable[[], None]] = {}
        self._handles: list[TaskHandle[None]] = []
        self._idle = Waiters()
        self._room = Waiters() if isinstance(plan.items, AsyncIterable) else None
        hungry = self._idle if self._room is None else self._room
        self.lane: Lane[T, Y] = Lane(ordered=plan.ordered, hungry=hungry, read=self._make_room)
        self._accepted = self._done = self._failed = self._cancelled = self._retries = 0
        self._running = self._hired = self._alive = 0
        self._roused = 0  # workers that were woken and have not run yet
        self._turns_left = TURN
        self._exhausted = self._stopped = False
        self.closing: Exception | None = None

    def start(self) -> None:
        """Start the first workers, which start the others."""
        items = self._plan.items
        if isinstance(items, AsyncIterable):
            self._spawn(self._pull(aiter(items)))
        else:
            self._plain = iter(items)
        self._hire()

    def stop(self) -> None:
        """Give everything up that is not finished, and cancel the workers."""
        if self._stopped:
            return
        self._stopped = True
        retry = self._plan.retry
        for cancel in self._timers.values():
            cancel()
        given_up = [*self._ready, *self._timers]
        self._ready.clear()
        self._timers.clear()
        self._cancelled += len(given_up)
        for job in given_up:
            if retry is not None and job.attempts:
                retry.finish(job.attempts + 1)
        for handle in self._handles:
            handle.cancel()
        self._idle.wake_all()
        if self._room is not None:
            self._room.wake_all()

    def statistics(self) -> MapStatistics:
        """Return the figures of this moment."""
        return MapStatistics(
            accepted=self._accepted,
            done=self._done,
            failed=self._failed,
            cancelled=self._cancelled,
            queued=len(self._ready) + len(self._timers),
            running=self._running,
            unread=self.lane.unread(),
            retries=self._retries,
        )

    # ------------------------------------------------------------------------------- workers

    def _hire(self) -> None:
        """Start some more workers, until there are ``limit``."""
        for _ in range(min(GROWTH, self._plan.limit - self._hired)):
            self._hired += 1
            self._spawn(self._work())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._alive += 1
        self._handles.append(self._tasks.create_task(work, context=self._variables))

    def _left(self) -> None:
        """Count one task fewer; the last one ends the run."""
        self._alive -= 1
        if not self._alive:
            self.lane.end()

    async def _work(self) -> None:
        """Be a worker."""
        try:
            job = self._next() or await self._next_later()
            if job is not None:
                self._hire()
                await self._serve(job)
        except BaseException as error:
            self.lane.fail(as_failure(error, "a worker"))
            self.stop()
        finally:
            self._left()

    async def _serve(self, job: Job[T, Y] | None) -> None:
        """Make one call after another, until nothing more can come."""
        fn, variables = self._plan.fn, self._variables
        known = False
        while job is not None:
            try:
                direct = known and untouched(variables)
                value = await (fn(job.item) if direct else self._apart(job))
            except Exception as error:
                self._raised(job, error)
            except BaseException as error:
                if not self._own(job, error):
                    raise
            else:
                self._returned(job, value)
            known = not self._plan.total
            self._turns_left -= 1
            if self._turns_left <= 0:
                self._turns_left = TURN
                await yield_now()
            job = self._next() or await self._next_later()

    async def _apart(self, job: Job[T, Y]) -> Any:
        """Make the call in a context of its own, and within the time of all its attempts."""
        fn, retry = self._plan.fn, self._plan.retry
        scope = None if retry is None else retry.scope(job.started)
        work = called(fn, job.item) if scope is None else _within(scope, fn, job.item)
        return await run_in(self._variables.copy(), work)

    async def _next_later(self) -> Job[T, Y] | None:
        """Wait for a job; None when nothing more can come."""
        while not self._stopped and (self._ready or self._timers or not self._exhausted):
            await self._idle.wait()
            self._roused = max(self._roused - 1, 0)
            if (job := self._next()) is not None:
                self._rouse(GROWTH)
                return job
        self._idle.wake_all()
        return None

    def _rouse(self, workers: int = 1) -> None:
        """Wake idle workers for what there is to do.

        Not one for each job: a worker may do many without a suspension, and waking costs more
        than a short call. One is woken, and if it finds a job it wakes two more, and so on.
        """
        while self._roused < workers and self._idle.parked and self._next_exists():
            self._idle.wake()
            self._roused += 1

    def _next_exists(self) -> bool:
        return bool(self._ready) or (self._plain is not None and self.lane.open < self._plan.window)

    def _next(self) -> Job[T, Y] | None:
        """Begin the next attempt that may begin now, if there is one."""
        if self._stopped:
            return None
        if self._ready:
            job = self._ready.popleft()
            if self._room is not None:
                self._room.wake()
        elif self._plain is None or self.lane.open >= self._plan.window:
            return None
        elif (advanced := self._advance(self._plain)) is not None:
            job = advanced
        else:
            return None
        self._running += 1
        job.attempts += 1
        if self._timed and job.attempts == 1:
            self._begin(job)
        return job

    def _begin(self, job: Job[T, Y]) -> None:
        """Note the time of a first attempt, where somebody will ask for it."""
        if self._plan.retry is not None:
            self._plan.retry.begin()
        job.started = monotonic()

    # -------------------------------------------------------------------------------- source

    def _advance(self, source: Iterator[T]) -> Job[T, Y] | None:
        """Take one item from a plain source."""
        try:
            for item in source:
                return self._admit(item)
        except BaseException as error:
            self._source_failed(as_failure(error, "the source"))
        self._plain = None
        self._exhausted = True
        return None

    async def _pull(self, source: AsyncIterator[T]) -> None:
        """Take the items of an async source; alone, and only as far ahead as is allowed."""
        try:
            await self._feed(source)
        except BaseException as error:
            self._source_failed(as_failure(error, "the source"))
        finally:
            self._exhausted = True
            try:
                await self._close(source)
            finally:
                self._idle.wake_all()
                self._left()

    async def _feed(self, source: AsyncIterator[T]) -> None:
        async for item in source:
            job = self._admit(item)
            if self._stopped:  # in the very turn in which the item came
                self._cancelled += 1
                return
            self._ready.append(job)
            self._rouse()
            await self._until_room()
            if self._stopped:
                return

    async def _until_room(self) -> None:
        """Wait until one more item may be taken from an async source."""
        room, window, limit = self._room, self._plan.window, self._plan.limit
        assert room is not None
        self._turns_left -= 1
        if self._turns_left <= 0:
            self._turns_left = TURN
            await yield_now()
        while not self._stopped and (self.lane.open >= window or len(self._ready) >= limit):
            await room.wait()

    async def _close(self, source: AsyncIterator[T]) -> None:
        """Close an async generator, which nobody else can; anything else is its owner's."""
        try:
            await close(source)
        except Exception as error:
            note(error, "raised by the source of the items, when it was closed")
            self.closing = error

    def _admit(self, item: T) -> Job[T, Y]:
        job: Job[T, Y] = Job(item, self._accepted)
        self._accepted += 1
        self.lane.started(job)
        return job

    def _source_failed(self, error: Exception) -> None:
        self.lane.fail(blame_source(error, self._accepted))

    # --------------------------------------------------------------------------- ends of jobs

    def _returned(self, job: Job[T, Y], value: Any) -> None:
        """The call has returned."""
        self._running -= 1
        if self._plan.retry is not None and self._retried(job, None, value):
            return
        self._done += 1
        if self._plan.errors == "collect":
            value = Ok(value, job.index, monotonic() - job.started, job.attempts)
        job.value = value
        self.lane.finished(job)

    def _raised(self, job: Job[T, Y], error: Exception) -> None:
        """The call has raised."""
        self._running -= 1
        if self._plan.retry is None or not self._retried(job, error, None):
            self._failed_with(job, error)

    def _own(self, job: Job[T, Y], error: BaseException) -> bool:
        """Count a call that was interrupted; True if it has cancelled itself, which is a failure."""
        if own_cancellation(error):
            self._raised(job, own_error(f"the call for item {job.index}", error))
            return True
        self._running -= 1
        self._cancelled += 1
        if self._plan.retry is not None:
            self._plan.retry.finish(job.attempts)
        return False

    def _retried(self, job: Job[T, Y], error: Exception | None, value: Any) -> bool:
        """See to a retry; False if what the attempt came to is what the item comes to."""
        retry = self._plan.retry
        assert retry is not None
        if self._stopped or isinstance(error, NotAsyncError):
            retry.finish(job.attempts)
            return False
        elapsed = monotonic() - job.started
        try:
            if error is None:
                delay = retry.after_result(job.attempts, value, elapsed)
            else:
                delay = retry.after_error(job.attempts, error, elapsed)
        except Exception as broken:  # of a predicate: an error of the user's like any other
            self._failed_with(job, broken)
            return True
        if delay is None:
            return False
        self._retries += 1
        self._timers[job] = call_later(delay, partial(self._due, job)).cancel
        return True

    def _failed_with(self, job: Job[T, Y], error: Exception) -> None:
        """The item has failed for good."""
        self._failed += 1
        errors = self._plan.errors
        if errors == "raise" or isinstance(error, NotAsyncError):
            self.lane.fail(blame(error, job.index))
            self.stop()
            return
        if errors == "collect":
            elapsed = monotonic() - job.started
            job.value = cast("Y", Err(error, job.index, elapsed, job.attempts))
        job.skipped = errors == "skip"
        self.lane.finished(job)

    def _due(self, job: Job[T, Y]) -> None:
        """The wait of a retry is over."""
        del self._timers[job]
        self._ready.append(job)
        self._rouse()

    def _make_room(self) -> None:
        """There is room for one more."""
        if self._room is None:
            self._rouse()
        else:
            self._room.wake()


async def _within(scope: TimeoutScope, fn: AsyncFn[T, R], item: T) -> R:
    with scope:
        return await called(fn, item)
