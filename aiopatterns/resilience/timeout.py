"""Timeouts: a bound on the time of one call.

``Timeout`` is a policy, and its :meth:`Timeout.scope` a plain ``with`` block for a part of a
function. When the time is over the work is cancelled, and what leaves is a
``TimeoutExceededError``::

    enter: set the alarm, bind the deadline --> work --> leave: disarm
                                                  ^
                 time over: cancel the work ------'        --> TimeoutExceededError

Guarantees:

* ``TimeoutExceededError`` is raised if, and only if, this very scope cancelled the work. A
  ``TimeoutError`` of the work's own passes untouched, and so does any other result or error the
  work comes to in spite of its cancellation.
* Of nested timeouts that are both over, the outer one wins. A cancellation from outside wins too.
* Inside, :func:`aiopatterns.core.deadline` is the end of the time, unless an earlier one is bound
  already. Retries and limiters inside refuse a wait that would end after it.
* One object serves any number of calls at once, on one loop after another.

Not guaranteed: work that refuses to be cancelled, or blocks the loop, is not abandoned; the
timeout fires when it gives the loop a turn. The block has to be left in the task that entered it.

Cost. The scope is an anyio cancel scope without a deadline; the calls of one ``Timeout`` share one
loop timer (see :class:`aiopatterns.core.clock.Alarms`), so the price is that of the bare scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, TypeAlias, TypeVar, final

from anyio import CancelScope

from aiopatterns.core.clock import Alarms, call_later, monotonic
from aiopatterns.core.context import pop_deadline, push_deadline
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import choice, positive
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Self

__all__ = ["StreamTime", "Timeout", "TimeoutExpired", "TimeoutScope"]

P = ParamSpec("P")
T = TypeVar("T")

StreamTime: TypeAlias = Literal["total", "first", "each"]


@dataclass(frozen=True, slots=True)
class TimeoutExpired(Event):
    """A timeout fired and the work was cancelled.

    Args:
        seconds: The budget that was over.
    """

    name: ClassVar[str] = "aiopatterns.timeout.expired"
    level: ClassVar[str] = "warning"

    seconds: float


@final
class Timeout(Policy):
    """Cancel a call that takes longer than ``seconds``.

    Args:
        seconds: The budget of a call, above 0.
        stream: What the budget of a stream is for: ``"total"``, from the first step to the end,
            with the time its reader takes; ``"first"``, the time to the first item; ``"each"``,
            every step for itself, which finds a stream that stalls.

    Example::

        slow = Timeout(2.0)


        @slow
        async def fetch(url: str) -> bytes: ...


        with slow.scope():
            await fetch_all()
    """

    __slots__ = ("_alarms", "_scope_type", "_seconds", "_stream")

    kind = "timeout"

    def __init__(self, seconds: float, *, stream: StreamTime = "total") -> None:
        self._seconds = positive("seconds", seconds)
        self._stream: StreamTime = choice("stream", stream, ("total", "first", "each"))
        self._alarms: Alarms | None = None
        self._scope_type = CancelScope

    def __repr__(self) -> str:
        return f"Timeout({self._seconds:g})"

    @property
    def seconds(self) -> float:
        """The budget of a call."""
        return self._seconds

    @property
    def stream(self) -> StreamTime:
        """What the budget of a stream is for."""
        return self._stream

    def scope(self) -> TimeoutScope:
        """Return a fresh ``with`` block that is cancelled when the time is over.

        Raises (on leaving the block):
            TimeoutExceededError: The time was over, and the work was cancelled for it.

        Cancellation: passes; disarmed and unbound in any case.
        """
        return TimeoutScope(self)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that runs ``fn`` in a scope of its own."""

        async def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with TimeoutScope(self):
                return await fn(*args, **kwargs)

        return timed

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function whose steps run in a scope each, none across a ``yield``."""
        if self._stream == "first":
            return super().wrap_stream(fn)

        async def timed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            stream = fn(*args, **kwargs)
            ends = monotonic() + self._seconds if self._stream == "total" else None
            try:
                while step := await _step(stream, TimeoutScope(self, ends)):
                    yield step[0]
            finally:
                await stream.aclose()

        return timed

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take: the budget, if what is inside may take more."""
        return min(self._seconds, inner)

    def fresh(self) -> tuple[CancelScope, Alarms]:
        """Return a new cancel scope, and the timer that the calls on the running loop share."""
        alarms = self._alarms
        if alarms is None or not alarms.serves():
            alarms = self._alarms = Alarms(self._seconds)
            # CancelScope() looks for the running backend and its class every time; once will do.
            self._scope_type = type(CancelScope())
        return self._scope_type(), alarms


@final
class TimeoutScope:
    """One ``with`` block under a timeout; made by :meth:`Timeout.scope`, used once.

    Args:
        timeout: Whose budget it is.
        ends: When the time is over, if that is not the budget from now.
    """

    __slots__ = ("_disarm", "_ends", "_expire", "_scope", "_timeout", "_token")

    def __init__(self, timeout: Timeout, ends: float | None = None) -> None:
        self._timeout = timeout
        self._ends = ends

    def __enter__(self) -> Self:
        """Start the clock and bind the deadline.

        Raises:
            TimeoutExceededError: The time is over already.
        """
        ends = self._ends
        scope, alarms = self._timeout.fresh()
        expire = scope.cancel
        if ends is None:
            scope.__enter__()
            ends = alarms.arm(expire)
            self._disarm: Callable[[Callable[[], object]], object] = alarms.disarm
        else:
            left = ends - monotonic()
            if left <= 0:
                raise self._expired()
            scope.__enter__()
            timer = call_later(left, expire)
            self._disarm = lambda _: timer.cancel()
        self._scope, self._expire = scope, expire
        self._token = push_deadline(ends)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the clock.

        Raises:
            TimeoutExceededError: This scope, and nothing else, cancelled the work.
        """
        self._disarm(self._expire)
        pop_deadline(self._token)
        if self._scope.__exit__(exc_type, exc, traceback):
            raise self._expired() from exc

    def _expired(self) -> TimeoutExceededError:
        seconds = self._timeout.seconds
        if listening():
            emit(TimeoutExpired(seconds))
        return TimeoutExceededError(f"timed out after {seconds:g} s", timeout=seconds)


async def _step(stream: AsyncGenerator[T, Any], scope: TimeoutScope) -> tuple[T, ...]:
    """Take one item inside ``scope``; an empty tuple at the end of the stream."""
    with scope:
        async for item in stream:
            return (item,)
    return ()
