"""A pool of workers: bounded queue in, handles out, everything in between decided once.

A task for each item has no bound, and a semaphore still makes all the tasks at once. A pool has a
few long-lived workers and a bounded queue; whoever submits more than they can do waits, and that
is back-pressure::

    submit(item) ---> [ queue: priority, then order ] ---> worker 1: await fn(item) --.
      waits for room     a key runs one at a time     |--> worker 2: await fn(item) --+--> handle
      handle = ...       a retry waits here           `--> worker n: await fn(item) --'
                         then a token of `rate`            timeout, policy, resource

Guarantees:

* ``accepted == done + failed + cancelled + dropped + queued + running`` at every instant.
* At most ``workers`` functions run at any moment, also during retries and while shrinking.
* The highest priority first, and first in, first out among equals; items with an equal key one
  at a time in the order of submission, without holding anybody else back.
* Every accepted item comes to an end, and its handle tells: whatever the function does, whatever
  is cancelled, however the pool is left. Leaving normally finishes everything, retries and items
  submitted meanwhile included. Leaving by an error or a cancellation cancels what runs and
  settles all handles before the block is left.
* ``submit`` is detached: the item lives in the pool, and whoever waits for the handle may go.
  ``run`` is bound: when its caller is cancelled, the item is cancelled and awaited.
* Each item sees the context variables of its submitter, and none that another item has set.
* A retry that waits holds no worker. A cancelled queued item takes no token of ``rate``.

Not guaranteed: a function that refuses to be cancelled, or runs in a thread, keeps its worker, and
the pool, for as long as it likes. A function that waits for its own pool may wait for itself.
"""

from __future__ import annotations

from inspect import isawaitable, iscoroutinefunction
from sys import float_info
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast, final, overload

from anyio import CapacityLimiter, get_cancelled_exc_class, to_thread

from aiopatterns.core.errors import ClosedError, QueueFullError
from aiopatterns.core.lifecycle import Owner, OwnerState
from aiopatterns.core.types import as_async_iterator
from aiopatterns.core.validate import (
    choice,
    count,
    function,
    instance,
    is_async,
    number,
    optional_positive,
    plain_function,
)
from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.flow.handle import Terms
from aiopatterns.flow.ledger import PoolStatistics
from aiopatterns.flow.outcomes import OutcomeStream
from aiopatterns.flow.shift import Shift
from aiopatterns.flow.staff import PoolPlan
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

    from aiopatterns.core.outcome import Outcome
    from aiopatterns.core.types import Source
    from aiopatterns.flow.handle import Handle, Ticket
    from aiopatterns.flow.outcomes import StreamErrors
    from aiopatterns.resilience.ratelimit import Limiter

    Wrapper = Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]

__all__ = ["WorkerPool"]

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

_GREATEST: Final = float_info.max


@final
class WorkerPool(Owner, Generic[T, R]):
    """Run a function on many items with a bounded number of workers.

    Args:
        fn: Function of one item, or of an item and the worker's resource. A synchronous one runs
            in a thread; if it returns an awaitable (a lambda around a coroutine function), that
            is awaited here.
        workers: How many items run at once, at least 1; or an :class:`Autoscale`.
        queue: How many items may wait, at least 1. Retries may exceed it by the number of workers.
        retry: How to try again after a failure; None tries once.
        rate: A limiter; each attempt takes a token right before it starts.
        timeout: Seconds for each attempt; one that takes longer fails with
            ``TimeoutExceededError``, which ``retry`` may retry.
        policy: Wraps one attempt: a ``Stack``, a ``CircuitBreaker``, or any decorator of async
            functions.
        resource: Function of no arguments that makes an async context manager. Each worker enters
            one of its own before its first item, and leaves it when it ends.

    Raises:
        ValueError: A number is senseless.
        TypeError: An argument is not what it should be.

    Complexity: about 6 us for an item that is submitted and awaited, 3 us for one in a long
        queue; 250 bytes for each item that waits, 4 KB for each worker. Workers start when there
        is something to do.

    Source: bounded worker pools as in Go's conc (``pool``, 2023), with priorities as in p-queue
        and keys as in Akka's ``mapAsyncPartitioned``.

    Example::

        async with WorkerPool(fetch, workers=8, retry=Retry(on=OSError), timeout=5) as pool:
            handle = await pool.submit("https://example.org")
            page = await handle
    """

    __slots__ = ("_plan", "_shift")

    @overload
    def __init__(
        self,
        fn: Callable[[T], Awaitable[R]],
        workers: int | Autoscale = 8,
        *,
        queue: int = 100,
        retry: Retry | None = None,
        rate: Limiter | None = None,
        timeout: float | None = None,
        policy: Wrapper | None = None,
        resource: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        fn: Callable[[T, S], Awaitable[R]],
        workers: int | Autoscale = 8,
        *,
        queue: int = 100,
        retry: Retry | None = None,
        rate: Limiter | None = None,
        timeout: float | None = None,
        policy: Wrapper | None = None,
        resource: Callable[[], AbstractAsyncContextManager[S]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        fn: Callable[[T], R],
        workers: int | Autoscale = 8,
        *,
        queue: int = 100,
        retry: Retry | None = None,
        rate: Limiter | None = None,
        timeout: float | None = None,
        policy: Wrapper | None = None,
        resource: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        fn: Callable[[T, S], R],
        workers: int | Autoscale = 8,
        *,
        queue: int = 100,
        retry: Retry | None = None,
        rate: Limiter | None = None,
        timeout: float | None = None,
        policy: Wrapper | None = None,
        resource: Callable[[], AbstractAsyncContextManager[S]],
    ) -> None: ...
    def __init__(
        self,
        fn: Callable[..., Any],
        workers: int | Autoscale = 8,
        *,
        queue: int = 100,
        retry: Retry | None = None,
        rate: Limiter | None = None,
        timeout: float | None = None,
        policy: Wrapper | None = None,
        resource: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(_name(function("fn", fn)))
        if retry is not None:
            instance("retry", retry, Retry, "a Retry or None")
        limiter = rate is None or callable(getattr(rate, "acquire", None))
        if not limiter or isinstance(rate, type):
            raise TypeError(f"rate must be a limiter such as TokenBucket, or None, not {rate!r}")
        self._plan: PoolPlan[R] = PoolPlan(
            name=self.name,
            call=_attempt(fn, None if policy is None else plain_function("policy", policy)),
            workers=workers if isinstance(workers, Autoscale) else count("workers", workers),
            capacity=count("queue", queue),
            retry=retry,
            rate=rate,
            timeout=optional_positive("timeout", timeout),
            resource=None if resource is None else plain_function("resource", resource),
        )
        self._shift: Shift[T, R] | None = None

    # ------------------------------------------------------------------------------ submitting

    async def submit(
        self,
        item: T,
        *,
        priority: int = 0,
        key: Hashable | None = None,
        deadline: float | None = None,
    ) -> Handle[R]:
        """Give the pool an item, waiting for room in its queue, first come, first served.

        Args:
            item: What the function gets.
            priority: A higher number runs first; any int.
            key: Items with an equal key run one at a time, in the order of submission, their
                retries included.
            deadline: Monotonic seconds (``core.clock.monotonic()``); when they have come, the
                item fails with ``TimeoutExceededError``: without running if it still waits, else
                it is interrupted. The function sees it as ``core.deadline()``.

        Returns:
            The handle of the item; await it or not.

        Raises:
            ClosedError: The pool is not open, or was closed during the wait.
            RuntimeError: The pool is open on another event loop.
            ValueError: ``deadline`` is NaN.
            TypeError: ``priority`` is no int, ``key`` cannot be hashed, ``deadline`` is no number.

        Cancellation: the item was not submitted.

        Complexity: O(1); see the class.
        """
        shift = self._at_work()
        terms = _terms(priority, key, deadline)
        if shift.full():
            await shift.reserve()
        return shift.accept(item, terms)

    def submit_nowait(
        self,
        item: T,
        *,
        priority: int = 0,
        key: Hashable | None = None,
        deadline: float | None = None,
    ) -> Handle[R]:
        """Give the pool an item now.

        Args:
            item: What the function gets.
            priority: As in :meth:`submit`.
            key: As in :meth:`submit`.
            deadline: As in :meth:`submit`.

        Returns:
            The handle of the item.

        Raises:
            QueueFullError: There is no room in the queue.
            ClosedError: The pool is not open.
            RuntimeError: The pool is open on another event loop.
            ValueError: ``deadline`` is NaN.
            TypeError: As in :meth:`submit`.
        """
        shift = self._at_work()
        terms = _terms(priority, key, deadline)
        if shift.full():
            msg = f"the queue of WorkerPool {self.name!r} is full ({self._plan.capacity} items)"
            raise QueueFullError(msg, name=self.name)
        return shift.accept(item, terms)

    async def run(
        self,
        item: T,
        *,
        priority: int = 0,
        key: Hashable | None = None,
        deadline: float | None = None,
    ) -> R:
        """Submit an item and wait for its result, as if calling the function.

        Args:
            item: What the function gets.
            priority: As in :meth:`submit`.
            key: As in :meth:`submit`.
            deadline: As in :meth:`submit`.

        Returns:
            What the function returned.

        Raises:
            Exception: What the function raised at last, and what :meth:`submit` raises.
            JobCancelledError: The item was cancelled by the pool or by itself.
            TimeoutExceededError: The deadline, or the last attempt's timeout, is over.

        Cancellation: cancels the item and waits for its end.
        """
        handle = await self.submit(item, priority=priority, key=key, deadline=deadline)
        try:
            return await handle
        except get_cancelled_exc_class():
            handle.cancel()
            await cast("Ticket[R]", handle).outlast()
            raise

    @overload
    def stream(
        self, items: Source[T], *, ordered: bool = False, errors: Literal["collect"] = "collect"
    ) -> OutcomeStream[Outcome[R]]: ...
    @overload
    def stream(
        self, items: Source[T], *, ordered: bool = False, errors: Literal["raise", "skip"]
    ) -> OutcomeStream[R]: ...
    def stream(
        self, items: Source[T], *, ordered: bool = False, errors: StreamErrors = "collect"
    ) -> OutcomeStream[Any]:
        """Put many items through the pool and read what becomes of them.

        At most ``queue + workers`` items are taken from the source and not read, so a slow reader
        holds the source back. Leaving the block early cancels and awaits the rest.

        Args:
            items: An iterable, an async iterable or an object receive stream.
            ordered: True gives the outcomes in the order of the items.
            errors: ``"collect"`` gives an ``Ok`` or ``Err`` for each item, ``"raise"`` results
                until the first failure, which leaves bare, and ``"skip"`` results only.

        Returns:
            What ``async with`` takes and ``async for`` reads.

        Raises:
            ValueError: ``errors`` is no known choice.
            TypeError: ``items`` cannot be iterated over.

        Example::

            async with pool.stream(urls, ordered=True) as outcomes:
                async for outcome in outcomes:
                    print(outcome.index, outcome.ok)
        """
        source = as_async_iterator("items", items)
        choice("errors", errors, ("collect", "raise", "skip"))
        return OutcomeStream(self._for_stream, source, ordered=bool(ordered), errors=errors)

    # ------------------------------------------------------------------------------ steering

    async def drain(self) -> None:
        """Wait until nothing waits or runs; the pool stays open and goes on taking items.

        Items submitted meanwhile are waited for as well. Not for use inside the pool's own
        function, which would wait for itself.

        Raises:
            ClosedError: The pool is not open.
            RuntimeError: The pool is open on another event loop.

        Cancellation: leaves everything alone.
        """
        await self._at_work().drained()

    def resize(self, n: int) -> None:
        """Allow ``n`` workers from now on; a smaller number takes effect as workers finish.

        Args:
            n: How many items may run at once, at least 1.

        Raises:
            ClosedError: The pool is not open.
            RuntimeError: The pool sizes itself, or is open on another event loop.
            ValueError: ``n`` is below 1.
            TypeError: ``n`` is no int.
        """
        count("n", n)
        shift = self._at_work()
        if shift.staff.scaled:
            raise RuntimeError(f"WorkerPool {self.name!r} sizes itself by its Autoscale")
        shift.staff.resize(n)

    def pause(self) -> None:
        """Start no item until :meth:`resume`; what runs goes on, and the queue fills up.

        Does nothing while the block is being left, which would never end.

        Raises:
            ClosedError: The pool is not open.
            RuntimeError: The pool is open on another event loop.
        """
        self._at_work().staff.paused = self.state is OwnerState.RUNNING

    def resume(self) -> None:
        """Start items again. Leaving the block normally does so too, or it would never end.

        Raises:
            ClosedError: The pool is not open.
            RuntimeError: The pool is open on another event loop.
        """
        self._at_work().resume()

    def statistics(self) -> PoolStatistics:
        """Return the figures of this run, or of the last one; all zero before the first.

        Complexity: O(workers), and the histogram behind the percentiles.
        """
        return PoolStatistics() if self._shift is None else self._shift.statistics()

    # ------------------------------------------------------------------------- private core

    def _at_work(self) -> Shift[T, R]:
        """Return the run that takes items, or say why there is none."""
        shift = self._shift
        if shift is None or shift.closed:
            self._open_group()
            raise ClosedError(f"WorkerPool {self.name!r} is closing; it takes no items")
        home = shift.home
        if not home.running() or get_ident() != home.thread:  # as `here` does, one call less
            shift.check_loop()
        return shift

    def _for_stream(self) -> tuple[Shift[T, R], TaskGroup]:
        return self._at_work(), self._open_group()

    async def _start(self, tasks: TaskGroup) -> None:
        self._shift = Shift(self._plan, tasks)

    async def _drain(self) -> None:
        assert self._shift is not None
        await self._shift.close()

    async def _leave(self, group: TaskGroup, cause: BaseException | None) -> None:
        """Drop what waits before the workers are cancelled, so that none of it starts."""
        if self._shift is not None:
            self._shift.abandon()
        await super()._leave(group, cause)

    def _settle(self) -> None:
        if self._shift is not None:
            self._shift.finish()


def _terms(priority: int, key: Hashable | None, deadline: float | None) -> Terms | None:
    """Check what is special about an item; None if nothing is."""
    if type(priority) is int and not priority and key is None and deadline is None:
        return None
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority must be a whole number, not {priority!r}")
    try:
        hash(key)
    except TypeError:
        raise TypeError(f"key must be hashable, not {key!r}") from None
    if deadline is not None:  # a greater int than any float is as endless as infinity
        deadline = max(number("deadline", deadline), -_GREATEST)
        deadline = None if deadline > _GREATEST else deadline
    return Terms(priority, key, deadline)


def _name(fn: Callable[..., Any]) -> str:
    """Return the name of a function, if it has one that reads well in a message."""
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "pool"


def _attempt(
    fn: Callable[..., Any], policy: Wrapper | None
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the coroutine function for one attempt: ``fn``, in a thread if need be, wrapped."""
    call = fn if is_async(fn) else _in_thread(fn)
    if policy is not None:
        call = function("what policy returns", policy(call))
    if iscoroutinefunction(call):
        return call

    async def attempt(*args: Any) -> Any:
        return await call(*args)

    return attempt


def _in_thread(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a coroutine function that calls ``fn`` in a thread."""

    async def call(*args: Any) -> Any:
        # A token of its own: the workers are the limit, not anyio's default of 40 threads.
        value = await to_thread.run_sync(fn, *args, limiter=CapacityLimiter(1))
        return await value if isawaitable(value) else value

    return call
