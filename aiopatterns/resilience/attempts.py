"""Attempts of a retry as blocks of code, and the detection of retries inside retries.

What is to be retried is not always one function. ``retry.attempts()`` gives the attempts of one
call one after the other, each a block of code::

    async for attempt in retry.attempts():
        async with attempt:
            ...   an error in here that is to be retried is swallowed, and the loop goes on

Attempts of a retry around a retry multiply, which few people mean. So an attempt that is itself a
retry (the second, third...) is marked by a context variable for as long as it lasts. A policy
that is about to retry inside such an attempt warns. First attempts are not marked, so a call that
succeeds pays nothing for this.
"""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from inspect import currentframe
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, final

from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from aiopatterns.resilience.retry import Retry

__all__ = ["Attempt", "Attempts", "again", "warn_if_nested"]

P = ParamSpec("P")
T = TypeVar("T")

_LIBRARY: Final = f"{__name__.partition('.')[0]}."

_around: ContextVar[_Round | None] = ContextVar("aiopatterns_retry", default=None)


@final
class Attempts:
    """The attempts of one call; made by :meth:`Retry.attempts`, iterated over once."""

    __slots__ = ("_last", "_retry", "_started")

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._last: Attempt | None = None
        self._started = 0.0

    def __aiter__(self) -> Self:
        """Return this iterator."""
        return self

    async def __anext__(self) -> Attempt:
        """Wait for the time of the next attempt.

        Raises:
            RuntimeError: The attempt before was not entered.
        """
        last = self._last
        if last is None:
            self._started = monotonic()
            self._retry.begin()
            self._last = Attempt(self._retry, 1, self._started)
        elif not last.entered:
            msg = "the attempt was not used; write 'async with attempt:' around the call"
            raise RuntimeError(msg)
        elif last.delay is None:
            raise StopAsyncIteration
        else:
            delay, last.delay = last.delay, None
            await self._retry.pause(last.number, delay)
            self._last = Attempt(self._retry, last.number + 1, self._started)
        return self._last

    def __del__(self) -> None:
        """Tell the budget, if the loop was left outside a block, where no block's end tells it."""
        last = self._last
        if last is not None and not last.entered:
            self._retry.finish(last.number)
        elif last is not None and last.delay is not None:
            self._retry.finish(last.number + 1)


@final
class Attempt:
    """One attempt, to be entered with ``async with``.

    Args:
        retry: Whose attempt it is.
        number: Which it is, from 1.
        started: When the first began, in monotonic seconds.

    ``delay`` is the wait before the next attempt, None while there is none to come.
    """

    __slots__ = ("_retry", "_round", "_scope", "_started", "delay", "entered", "number")

    def __init__(self, retry: Retry, number: int, started: float) -> None:
        self._retry = retry
        self._started = started
        self._scope = retry.scope(started)
        self._round = _Round() if number > 1 else None
        self.number: int = number
        self.delay: float | None = None
        self.entered: bool = False

    async def __aenter__(self) -> Self:
        """Begin the attempt.

        Raises:
            TimeoutExceededError: The total time is over.
        """
        self.entered = True
        if self._scope is not None:
            try:
                self._scope.__enter__()
            except BaseException:
                self._retry.finish(self.number)
                raise
        if self._round is not None:
            self._round.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the attempt; an error after which another follows is swallowed.

        Raises:
            TimeoutExceededError: The total time was over, and the work was cancelled for it.
        """
        if self._round is not None:
            self._round.leave()
        if not isinstance(exc, Exception):
            self._retry.finish(self.number)
        if self._scope is not None:
            self._scope.__exit__(exc_type, exc, traceback)
        if isinstance(exc, Exception):
            elapsed = monotonic() - self._started
            self.delay = self._retry.after_error(self.number, exc, elapsed)
        return self.delay is not None


@final
class _Round:
    """An attempt that is a retry: what runs inside can see it, while it lasts.

    The flag is for tasks that were started inside and live on with a copy of the context.
    """

    __slots__ = ("_token", "lasts")

    def enter(self) -> None:
        self.lasts = True
        self._token: Token[_Round | None] = _around.set(self)

    def leave(self) -> None:
        self.lasts = False
        _around.reset(self._token)


async def again(fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``fn`` in an attempt that is a retry."""
    attempt = _Round()
    attempt.enter()
    try:
        return await fn(*args, **kwargs)
    finally:
        attempt.leave()


def warn_if_nested() -> None:
    """Warn, once for each place in the code, if this is a retry inside a retry of another."""
    outer = _around.get()
    if outer is not None and outer.lasts:
        msg = (
            "a Retry is about to retry inside an attempt of another Retry that is itself a retry:"
            " their attempts multiply; keep one of the two"
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """Return the stack level, for the caller's warning, of the code that uses this library."""
    level, frame = 0, currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_LIBRARY):
        level, frame = level + 1, frame.f_back
    return level
