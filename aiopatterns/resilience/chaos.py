"""Chaos: failures on purpose, so that you know what happens before it happens.

Retries, timeouts and breakers are code that hardly ever runs, until it has to. Chaos makes some
calls slow, and some fail, by chance and by a seed::

    call --roll < rate?--no--------------------------------> [ fn ]
                |
               yes --> sleep(latency) --> raise one of errors
                                     '-- no errors given --> [ fn ]

Put it innermost in a stack, where the real failures would come from. Two in a row, each with a
rate of its own, make some calls slow and others fail.

Guarantees:

* What it injects are ordinary failures: a sleep that can be cancelled, and fresh errors, each with
  a note that says where it comes from.
* With a ``seed``, the same calls in the same order are struck, in every run and every process.
* Switched off it costs one test of a flag. The switch works at once, for every call and stream.

Not guaranteed: anything about what has begun; the call itself is never interrupted.

Source: "Principles of Chaos Engineering" (2015); the fault and latency strategies of Polly v8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeAlias, TypeVar, cast, final

from aiopatterns.core.clock import rng, seeded, sleep
from aiopatterns.core.notes import note
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import (
    count,
    error_type,
    in_range,
    instance,
    non_negative,
    plain_function,
)
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Coroutine

    from aiopatterns.core.clock import Random

__all__ = ["Chaos", "ChaosInjected", "ChaosStatistics"]

P = ParamSpec("P")
T = TypeVar("T")

ErrorSource: TypeAlias = Callable[[], Exception]  # an exception type is one, too
Latency: TypeAlias = "float | Callable[[Random], float]"


@final
@dataclass(frozen=True, slots=True)
class ChaosStatistics:
    """What was injected.

    Args:
        calls: Calls, and steps of streams, that were made while it was switched on.
        delayed: Those that were made to wait.
        failed: Those that were made to fail.
    """

    calls: int
    delayed: int
    failed: int


@dataclass(frozen=True, slots=True)
class ChaosInjected(Event):
    """A call was struck.

    Args:
        delay: Seconds that it has to wait; 0 for none.
        error: What it will raise; None if it goes on.
    """

    name: ClassVar[str] = "aiopatterns.chaos.injected"

    delay: float
    error: Exception | None


@final
class Chaos(Policy):
    """Make some calls slow, and some fail, on purpose.

    Args:
        latency: Seconds that a call which is struck waits, or a function of the dice (a
            ``random.Random``) that returns them; None for no wait.
        errors: What a call which is struck raises after that: an exception type that needs no
            arguments, a function of no arguments that makes an error, or a sequence of them of
            which one is drawn. Without any, the call goes on.
        rate: Share of the calls that are struck, 0 to 1; or a function of no arguments that
            returns it, whose result is clamped to that.
        seed: Seed of the dice; None rolls those of the library, which a simulation seeds.
        enabled: Whether it strikes now; the attribute of that name may be set at any time.

    Of a stream each step is a call: it may fail before any item.

    Example::

        flaky = Chaos(latency=2.0, errors=ConnectionResetError, rate=0.05, enabled=STAGING)


        @Stack(Retry(on=OSError), Timeout(1), flaky)
        async def fetch(url: str) -> bytes: ...
    """

    __slots__ = (
        "_calls",
        "_delayed",
        "_dice",
        "_enabled",
        "_errors",
        "_failed",
        "_latency",
        "_rate",
    )

    kind = "chaos"

    def __init__(
        self,
        *,
        latency: Latency | None = None,
        errors: ErrorSource | Sequence[ErrorSource] = (),
        rate: float | Callable[[], float] = 0.1,
        seed: int | None = None,
        enabled: bool = True,
    ) -> None:
        self._latency = latency if latency is None else _check_latency(latency)
        self._errors = _check_errors(errors)
        if latency is None and not self._errors:
            msg = "errors must name at least one error if latency is None, not ()"
            raise ValueError(msg)
        self._rate = (
            plain_function("rate", rate) if callable(rate) else in_range("rate", rate, 0, 1)
        )
        self._dice = None if seed is None else seeded(count("seed", seed, minimum=0))
        self._calls = self._delayed = self._failed = 0
        self.enabled = enabled

    def __repr__(self) -> str:
        rate = "fn" if callable(self._rate) else f"{self._rate:g}"
        return f"Chaos(rate={rate})"

    @property
    def enabled(self) -> bool:
        """Whether it strikes; set it to switch it on or off at once."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = instance("enabled", enabled, bool, "True or False")

    def statistics(self) -> ChaosStatistics:
        """Return what was injected since it was made."""
        return ChaosStatistics(self._calls, self._delayed, self._failed)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that may be struck before each call of ``fn``."""

        async def struck(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._enabled:
                await self._roll()
            return await fn(*args, **kwargs)

        return struck

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function that may be struck before each item, and before the end."""

        async def struck(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            stream = fn(*args, **kwargs)
            try:
                if self._enabled:
                    await self._roll()
                async for item in stream:
                    yield item
                    if self._enabled:
                        await self._roll()
            finally:
                await stream.aclose()

        return struck

    async def _roll(self) -> None:
        """Strike, or do not."""
        self._calls += 1
        dice = self._dice or rng()
        # All rolls are in [0, 1), so a rate out of range, or NaN, is clamped by this comparison.
        if not dice.random() < (self._rate() if callable(self._rate) else self._rate):
            return
        delay, error = self._draw(dice)
        if listening():
            emit(ChaosInjected(delay, error))
        if delay > 0:
            self._delayed += 1
            await sleep(delay)
        if error is not None:
            self._failed += 1
            raise error

    def _draw(self, dice: Random) -> tuple[float, Exception | None]:
        """Draw the wait and the error of a call that is struck."""
        latency = self._latency
        delay = 0.0 if latency is None else latency(dice) if callable(latency) else latency
        if not self._errors:
            return delay, None
        error = dice.choice(self._errors)()
        instance("what errors makes", error, Exception, "an Exception")
        note(error, "injected by Chaos")
        return delay, error


def _check_latency(latency: Latency) -> Latency:
    return (
        plain_function("latency", latency)
        if callable(latency)
        else non_negative("latency", latency)
    )


def _check_errors(errors: object) -> tuple[ErrorSource, ...]:
    if isinstance(errors, Sequence):
        return tuple(map(_check_error, cast("Sequence[ErrorSource]", errors)))
    return (_check_error(cast("ErrorSource", errors)),)


def _check_error(make: ErrorSource) -> ErrorSource:
    """Return ``make`` if it is a plain function, or an exception type that it can make."""
    return error_type("errors", make) if isinstance(make, type) else plain_function("errors", make)
