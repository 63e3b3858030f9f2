"""Shared flights: one run of a function for everybody who asks for the same thing meanwhile.

Single-flight and cache loads have the same problem: many callers want one result, and the work
must belong to none of them, or the first caller's timeout would take the others down. So a flight
is a task *owned by its waiters*::

    caller A --.                      first one in starts the task,
    caller B --+--> [ task: await fn() ]   others join it,
    caller C --'                      last one out cancels it and waits for its end

Guarantees:

* A waiter that is cancelled leaves alone; the others never notice.
* When the last waiter is cancelled, the flight leaves the table at once (a caller who comes now
  starts a new one), its task is cancelled, and that waiter stays, shielded, until the task has
  ended. Nothing runs on behalf of nobody. This holds for ``Task.cancel()``, also when it comes
  twice, for cancel scopes and for ``asyncio.timeout``.
* A flight may be *kept* by whoever answers for it, such as a cache that refreshes a value while
  nobody waits. It goes on without waiters, and its keeper dismisses it before it ends itself.
* Every waiter gets the result or an error of its own: the first waiter gets the original, the
  others exact copies, so that notes, context and tracebacks added by one are not seen by another.
  An error that cannot be copied exactly is shared, with its traceback cut back for each waiter.
* A ``CancelledError`` that the function raises by itself reaches all waiters; nobody hangs.
* The context variables are those of the first caller, except its deadline: there is none inside,
  for those who join may have more time. Each waiter is bounded by the timeouts around it.

Not guaranteed: a function that waits for its own key waits for itself, and a function that
refuses to be cancelled keeps its last waiter for as long as it likes.

This is the only module that may create a task outside a task group, because the waiters are the
group.
"""

from __future__ import annotations

import asyncio
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast, final

from anyio import CancelScope

from aiopatterns.core.context import forget_deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType

__all__ = ["Flight", "Flights", "Seat", "copied", "see_off"]

T = TypeVar("T")
K = TypeVar("K")

Seat: TypeAlias = "asyncio.Future[None]"
"""The place of one waiter."""

_FIELDS = (MemberDescriptorType, GetSetDescriptorType)
# What a copy must not share with its original.
_OWN = frozenset({"__dict__", "__weakref__", "__traceback__"})


@final
class Flight(Generic[T]):
    """One run of an async function, shared by everybody who joins it.

    Must be created on a running loop and joined or kept at once: its task starts with the next
    turn of the loop and is cancelled when the last waiter is cancelled.

    Args:
        fn: Async function of no arguments.
        ended: Called once, when the flight takes no more waiters: it has ended, or its last
            waiter has left and it is being cancelled.
        cancelled: Makes the error of a waiter where the task was cancelled and the waiter was not:
            the function has cancelled itself, or the flight was dismissed.

    Complexity: about 6 us for the task, 1 us for each waiter; memory O(waiters).
    """

    __slots__ = (
        "_cancelled",
        "_ended",
        "_first",
        "_kept",
        "_loop",
        "_model",
        "_parked",
        "_task",
        "_traceback",
    )

    def __init__(
        self,
        fn: Callable[[], Awaitable[T]],
        *,
        ended: Callable[[Flight[T]], object] | None = None,
        cancelled: Callable[[], BaseException] = asyncio.CancelledError,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._parked: dict[Seat, None] = {}
        self._ended = ended
        self._cancelled = cancelled
        self._first = True
        self._kept = False
        self._model: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._task: asyncio.Task[T] = self._loop.create_task(_fly(fn))
        self._task.add_done_callback(self._land)

    @property
    def waiters(self) -> int:
        """How many callers wait now."""
        return len(self._parked)

    @property
    def open(self) -> bool:
        """Whether it can be joined: under way, not being cancelled, and on the running loop."""
        return (
            not self._task.done()
            and not self._task.cancelling()
            and self._loop is asyncio.get_running_loop()
        )

    def keep(self) -> None:
        """Let it go on without waiters; who calls this answers for it, see :meth:`dismiss`."""
        self._kept = True

    def release(self) -> bool:
        """Keep it no more; False if nobody waits for it, so that it has to be dismissed."""
        self._kept = False
        return bool(self._parked)

    async def dismiss(self) -> None:
        """Cancel it and wait for its end; waiters get the cancellation. Not from inside it.

        Cancellation: waits, shielded, all the same; then it is raised.
        """
        self._close()
        self._task.cancel()
        if (cancelled := await self.end()) is not None:
            raise cancelled

    async def join(self) -> T:
        """Wait for the end of the flight; only for a flight that is :attr:`open`.

        Returns:
            What the function returned.

        Raises:
            BaseException: What the function raised, see the module's text.

        Cancellation: leaves the flight to the others; the last one out cancels it and waits,
            shielded, for its end. An error of the function's own cleanup becomes the
            ``__cause__`` of the cancellation.
        """
        return await self.ride(self.board())

    def board(self) -> Seat:
        """Become a waiter now, and wait later; only for a flight that is :attr:`open`.

        Returns:
            A seat, for one :meth:`ride` or :meth:`leave`. It must be used, whatever happens.
        """
        seat: Seat = self._loop.create_future()
        self._parked[seat] = None
        return seat

    async def ride(self, seat: Seat) -> T:
        """Wait on a seat, as :meth:`join` does."""
        try:
            await seat
        except asyncio.CancelledError as cancelled:
            if self.leave(seat):
                await self._see_off(cancelled)
            raise
        except BaseException:
            # The waiting coroutine is being closed: it may not wait for anything any more.
            self.leave(seat)
            raise
        error = self._error()
        if error is None:
            return self._task.result()
        raise error

    def leave(self, seat: Seat) -> bool:
        """Give a seat up; True if it was the last and the flight is being cancelled for it.

        Whoever is told so waits for the end, see :func:`see_off`.
        """
        self._parked.pop(seat, None)
        if self._parked or self._kept or self._task.done():
            return False
        self._close()
        self._task.cancel()
        return True

    def _close(self) -> None:
        """Tell, once, that nobody can join any more."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)

    async def _see_off(self, cancelled: asyncio.CancelledError) -> None:
        """Wait until the cancelled task has ended, however often this waiter is cancelled."""
        await self.end()
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise cancelled from error

    async def end(self) -> asyncio.CancelledError | None:
        """Wait, shielded, until the task has ended; return the last cancellation on the way.

        The caller raises that or the one that is in progress in the end, and the task's count of
        cancel requests is left alone, so absorbing one here hides nothing.
        """
        last: asyncio.CancelledError | None = None
        with CancelScope(shield=True):
            while not self._task.done():
                try:
                    await asyncio.wait((self._task,))
                except asyncio.CancelledError as cancelled:
                    last = cancelled
        return last

    def _land(self, task: asyncio.Task[T]) -> None:
        """Keep the outcome and wake everybody."""
        self._close()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._traceback = error.__traceback__
            if len(self._parked) > 1:  # now, for the first of them may add to the original
                self._model = copied(error)
        parked, self._parked = self._parked, {}
        for each in parked:
            if not each.done():
                each.set_result(None)

    def _error(self) -> BaseException | None:
        """Return the error for one waiter, or None if the function returned."""
        if self._task.cancelled():
            # Without the original's text: it may name a cancel scope that is not the waiter's.
            return self._cancelled()
        error = self._task.exception()
        if error is None:
            return None
        first, self._first = self._first, False
        own = None if first or self._model is None else copied(self._model)
        return (own or error).with_traceback(self._traceback)


@final
class Flights(Generic[K, T]):
    """The flights under way, by key.

    May be made at module level and used on successive loops.

    Example::

        flights: Flights[str, User] = Flights()
        user = await flights.run("user:1", lambda: load_user(1))
    """

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[K, Flight[T]] = {}

    async def run(self, key: K, fn: Callable[[], Awaitable[T]]) -> T:
        """Join the flight of ``key``, or start one.

        Args:
            key: What is asked for; hashable.
            fn: Async function of no arguments; runs only if no flight of the key is under way.

        Returns:
            What the flight's function returned.

        Raises:
            BaseException: What the flight's function raised.

        Cancellation: leaves the flight to the other waiters; the last one out cancels the
            function and waits, shielded, until it has ended.

        Complexity: O(1).
        """
        flight = self._flights.get(key)
        if flight is None or not flight.open:
            flight = self._start(key, fn)
        return await flight.join()

    def get(self, key: K) -> Flight[T] | None:
        """Return the flight of ``key`` that can be joined, or None."""
        flight = self._flights.get(key)
        return flight if flight is not None and flight.open else None

    def detach(self, key: K) -> Flight[T] | None:
        """Let later callers start anew; those who wait already are answered by the old flight.

        An invalidation calls this while a load is under way. The load can tell by
        ``flights.get(key) is not flight`` that what it brings must not be stored.

        Returns:
            The detached flight, or None if there was none.
        """
        return self._flights.pop(key, None)

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: object) -> bool:
        return key in self._flights

    def _start(self, key: K, fn: Callable[[], Awaitable[T]]) -> Flight[T]:
        def ended(flight: Flight[T]) -> None:
            # By identity: the key may have been detached and taken by a newer flight.
            if flights.get(key) is flight:
                del flights[key]

        flights = self._flights
        flight = flights[key] = Flight(fn, ended=ended)
        return flight


async def see_off(flights: Iterable[Flight[Any]]) -> None:
    """Wait, shielded, for the end of flights that have been cancelled.

    Cancellation: waits all the same; then it is raised.
    """
    ways = [await flight.end() for flight in flights]
    for cancelled in ways:
        if cancelled is not None:
            raise cancelled


async def _fly(fn: Callable[[], Awaitable[T]]) -> T:
    """Call ``fn`` inside the task, so that whatever it raises is the flight's."""
    forget_deadline()
    return await fn()


def copied(error: BaseException) -> BaseException | None:
    """Copy an error exactly, or return None.

    Its constructor is not called, for it may take other arguments than it stored and may do
    anything. Instead every field of its layout is carried over: arguments, cause and context,
    what built-in errors keep outside their ``__dict__`` (``OSError.errno``), slots, and the
    ``__dict__`` with a list of notes of its own. An extension's error with a field that cannot
    be written has no exact copy.
    """
    try:
        copy = _blank(type(error), error)
        for field in _layout(type(error)):
            _carry(field, error, copy)
        copy.__suppress_context__ = error.__suppress_context__  # the cause has switched it on
        copy.__dict__.update(error.__dict__)
        if hasattr(error, "__notes__"):
            copy.__notes__ = list(error.__notes__)
    except Exception:
        return None
    return copy


def _blank(kind: type[BaseException], error: BaseException) -> BaseException:
    """Allocate an error as its first built-in base does."""
    new = next(vars(base)["__new__"] for base in kind.__mro__ if _is_builtin_error(base))
    blank: BaseException
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        blank = new(kind, group.message, group.exceptions)
    else:
        blank = new(kind)
    return blank


def _is_builtin_error(kind: type) -> bool:
    return kind.__module__ == "builtins" and "__new__" in vars(kind)


def _layout(kind: type) -> Iterator[GetSetDescriptorType | MemberDescriptorType]:
    """Iterate over what an error keeps outside its ``__dict__``, its base's fields first."""
    for base in reversed(kind.__mro__):
        for name, field in vars(base).items():
            if isinstance(field, _FIELDS) and name not in _OWN:
                yield field


def _carry(field: GetSetDescriptorType | MemberDescriptorType, old: object, new: object) -> None:
    """Give ``new`` the field of ``old``; one that is not set, or the same already, stays."""
    try:
        value = field.__get__(old)
    except AttributeError:
        return
    if getattr(new, field.__name__, None) is not value:
        field.__set__(new, value)
