"""Retry: do it again, with patience and within bounds.

One synchronous decision is the core, and everything else only waits::

                .------------------------ sleep(delay) <------ Again(delay)
                v                                                  |
    begin --> attempt --error--> decide(attempt, error, elapsed) --'
                |                                |
              result                        Stop(reason) --> the original error, with a note
                v                                v
              finish                             .

The decision stops, in this order, when

1. the error is not one of ``on``                                 ``error``
2. the attempts are used up                                       ``attempts``
3. the wait would end after ``until``                             ``elapsed``
4. ... or after the deadline bound here (by a ``Timeout``)        ``deadline``
5. the budget has no extra call left                              ``budget``

Guarantees:

* What leaves in the end is the original error, the same instance, with a note that says how many
  attempts were made and what ended them.
* Only an ``Exception`` is ever looked at. Cancellation passes at once and no predicate sees it.
* An ``ExceptionGroup`` is retried only if every error in it would be.
* Refusals of our own policies (``RejectedError``) are retried only if ``on`` names them: the
  breaker inside says *not now*, and asking five times makes five noes.
* A retry without delay still gives the loop a turn, so a hot failing loop can be cancelled.
* Attempts of a retry around a retry multiply. The inner one warns, once for each place in the
  code, when it is about to retry inside an attempt that is itself a retry.

Not guaranteed: that it is safe to call twice. That is for the caller to know.

Source: the bounds and the budget follow "Timeouts, retries and backoff with jitter" (Amazon
Builders' Library, 2019) and the SRE book, chapter 22.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    final,
)

from aiopatterns.core.clock import monotonic, rng, sleep, yield_now
from aiopatterns.core.context import remaining
from aiopatterns.core.notes import note
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import (
    count,
    function,
    instance,
    non_negative,
    optional_count,
    optional_positive,
    plain_function,
    positive,
)
from aiopatterns.resilience.attempts import Attempts, again, warn_if_nested
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.matching import Matcher
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.timeout import Timeout, TimeoutScope

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from aiopatterns.resilience.backoff import Backoff
    from aiopatterns.resilience.matching import On

__all__ = [
    "Again",
    "Hint",
    "Retry",
    "RetryBudgetExhausted",
    "RetryScheduled",
    "Stop",
    "StopReason",
    "Until",
]

P = ParamSpec("P")
T = TypeVar("T")

StopReason: TypeAlias = Literal["error", "attempts", "elapsed", "deadline", "budget"]

# A hint is stretched by up to this much if the backoff has jitter, so that all who were told to
# come back in 10 s do not come back together.
_SPREAD: Final = 0.1
# A greater int in a hint, and anybody may send one, would not fit into a float.
_ENDLESS: Final = sys.float_info.max
_WHY: Final = MappingProxyType(
    {
        "attempts": "no attempt is left",
        "elapsed": "the next would begin too late",
        "deadline": "the deadline comes first",
        "budget": "the retry budget is used up",
    }
)

# Waits up to this attempt are added up one by one for ``explain``, later ones are the longest.
_SUMMED: Final = 100


@final
@dataclass(frozen=True, slots=True)
class Again:
    """Try again.

    Args:
        delay: Seconds to wait before.
    """

    delay: float


@final
@dataclass(frozen=True, slots=True)
class Stop:
    """Do not try again.

    Args:
        reason: What ended it; see the module's text.
    """

    reason: StopReason


@final
@dataclass(frozen=True, slots=True)
class Until:
    """How long to go on; the first limit that is reached counts.

    Args:
        elapsed: No attempt begins later than so many seconds after the first.
        total: The same, and an attempt that still runs then is cancelled: the call ends with
            ``TimeoutExceededError``.
    """

    elapsed: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        optional_positive("elapsed", self.elapsed)
        optional_positive("total", self.total)

    def allows(self, start: float) -> bool:
        """Whether an attempt may begin ``start`` seconds after the first."""
        return (self.elapsed is None or start <= self.elapsed) and (
            self.total is None or start < self.total
        )


@final
@dataclass(frozen=True, slots=True)
class Hint:
    """When the other side says how long to wait, believe it.

    Args:
        fn: Function of the error that returns seconds, or None if it holds no hint; by default
            the error's attribute ``retry_after``.
        cap: The longest hint that is obeyed, in seconds.

    A hint takes the place of the backoff; with a backoff that has jitter it is stretched by up to
    a tenth. A hint beyond the time that is left stops at once.
    """

    fn: Callable[[Exception], float | None] | None = None
    cap: float = 60.0

    def __post_init__(self) -> None:
        if self.fn is not None:
            function("fn", self.fn)
        positive("cap", self.cap)

    def read(self, error: Exception) -> float | None:
        """Return the hint in ``error``, or None if it has none that makes sense."""
        value = getattr(error, "retry_after", None) if self.fn is None else self.fn(error)
        if not isinstance(value, (int, float)) or not value >= 0:  # also not a number
            return None
        return min(value, _ENDLESS)


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """An attempt failed and another will be made.

    Args:
        attempt: The attempt that failed, from 1.
        delay: Seconds until the next.
        error: What it raised; None if its result was not wanted.
    """

    name: ClassVar[str] = "aiopatterns.retry.scheduled"
    level: ClassVar[str] = "warning"

    attempt: int
    delay: float
    error: Exception | None


@dataclass(frozen=True, slots=True)
class RetryBudgetExhausted(Event):
    """An attempt failed and would have been made again, but the budget has no extra call left.

    Args:
        attempt: The attempt that failed, from 1.
        error: What it raised; None if its result was not wanted.
    """

    name: ClassVar[str] = "aiopatterns.retry.budget_exhausted"
    level: ClassVar[str] = "warning"

    attempt: int
    error: Exception | None


@final
class Retry(Policy):
    """Make a call again when it fails.

    Args:
        on: What to retry: an exception type, a tuple of them, or a predicate of the error.
        attempts: How many times in all, the first included; None is without limit.
        backoff: How long to wait between attempts.
        until: How long to go on.
        hint: How to read a wait that the other side asks for; None reads nothing.
        on_result: Predicate of a result: True if it is as bad as an error. When the attempts are
            used up, the last result is returned.
        budget: A bound on retries that is shared with other policies.

    A stream is retried until it has given its first item, and ``on_result`` is not asked.

    Example::

        @Retry(on=OSError, attempts=3)
        async def fetch(url: str) -> bytes: ...


        async for attempt in Retry(on=OSError).attempts():
            async with attempt:
                await fetch("https://example.org")
    """

    __slots__ = (
        "_attempts",
        "_backoff",
        "_budget",
        "_hint",
        "_matcher",
        "_on",
        "_on_result",
        "_spread",
        "_total",
        "_until",
    )

    kind = "retry"

    def __init__(
        self,
        on: On,
        *,
        attempts: int | None = 5,
        backoff: Backoff | None = None,
        until: Until | None = None,
        hint: Hint | None = None,
        on_result: Callable[[Any], bool] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._on = on
        self._matcher = Matcher(on, refusals=False)
        self._attempts = optional_count("attempts", attempts)
        self._backoff = Exponential() if backoff is None else _check_backoff(backoff)
        self._spread = _SPREAD if getattr(self._backoff, "jitter", "none") != "none" else 0.0
        until = Until() if until is None else until
        self._until = instance("until", until, Until, "an Until, as in Until(elapsed=30)")
        self._hint = hint if hint is None else instance("hint", hint, Hint, "None or a Hint")
        self._on_result = on_result if on_result is None else plain_function("on_result", on_result)
        self._budget = budget if budget is None else instance("budget", budget, Budget, "a Budget")
        self._total = None if until.total is None else Timeout(until.total)

    def __repr__(self) -> str:
        attempts = "unlimited" if self._attempts is None else self._attempts
        return f"Retry(attempts={attempts}, backoff={self._backoff!r})"

    @property
    def budget(self) -> Budget | None:
        """The bound on retries that is shared with other policies, if there is one."""
        return self._budget

    def matches(self, error: Exception) -> bool:
        """Whether ``error`` is one of ``on``; of a group, whether all that it holds are."""
        return self._matcher.matches(error)

    def begin(self) -> None:
        """Note, for the budget, that a call begins: once, before its first attempt."""
        if self._budget is not None:
            self._budget.begin()

    def finish(self, attempt: int) -> None:
        """Note, for the budget, that a call has ended in ``attempt`` otherwise than by an error.

        It succeeded or was cancelled, or was cancelled while it waited for ``attempt``. After an
        error :meth:`decide` sees to this.
        """
        if self._budget is not None:
            if attempt > 1:
                self._budget.finish_extra()
            self._budget.finish()

    def decide(self, attempt: int, error: Exception | None, elapsed: float) -> Again | Stop:
        """Decide what to do about an attempt that failed: the synchronous core.

        Whoever runs the attempts by other means, such as a worker pool that requeues an item,
        calls :meth:`begin` once, and then after each attempt either this or :meth:`finish`. Only
        with a budget do the other two matter.

        Args:
            attempt: Which attempt failed, from 1.
            error: What it raised; None if its result was not wanted.
            elapsed: Seconds since the first attempt began.

        Returns:
            ``Again`` with the wait, or ``Stop`` with the reason.

        Complexity: O(1).
        """
        count("attempt", attempt)
        non_negative("elapsed", elapsed)
        return self._decide(attempt, error, elapsed)

    def _decide(self, attempt: int, error: Exception | None, elapsed: float) -> Again | Stop:
        budget = self._budget
        if budget is not None and attempt > 1:
            budget.finish_extra()
        verdict: Again | Stop = Stop("error")  # also if a predicate raises
        try:
            verdict = self._judge(attempt, error, elapsed)
        finally:
            if budget is not None and isinstance(verdict, Stop):
                budget.finish()
        if listening():
            _tell(attempt, error, verdict)
        return verdict

    def attempts(self) -> Attempts:
        """Return the attempts of one call, for ``async for`` (see the class's example).

        A block that ends normally, or by ``break`` or ``return``, ends the attempts.
        """
        return Attempts(self)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn`` until it succeeds or this policy says stop."""
        budget, on_result = self._budget, self._on_result

        async def retried(*args: P.args, **kwargs: P.kwargs) -> T:
            started = monotonic()
            if budget is not None:
                budget.begin()
            attempt = 1
            while True:
                try:
                    result = await (
                        fn(*args, **kwargs) if attempt == 1 else again(fn, *args, **kwargs)
                    )
                except Exception as error:
                    delay = self.after_error(attempt, error, monotonic() - started)
                    if delay is None:
                        raise
                except BaseException:
                    self.finish(attempt)
                    raise
                else:
                    if on_result is None and budget is None:
                        return result
                    delay = self.after_result(attempt, result, monotonic() - started)
                    if delay is None:
                        return result
                await self.pause(attempt, delay)
                attempt += 1

        return retried if self._total is None else self._total.wrap(retried)

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function that is tried until the stream has given its first item."""
        if self._on_result is None:
            return super().wrap_stream(fn)
        opening = Retry(
            self._on,
            attempts=self._attempts,
            backoff=self._backoff,
            until=self._until,
            hint=self._hint,
            budget=self._budget,
        )
        return opening.wrap_stream(fn)

    def scope(self, started: float) -> TimeoutScope | None:
        """Return the scope for one attempt of a call that began at ``started``, if one is due."""
        total = self._total
        return None if total is None else TimeoutScope(total, started + total.seconds)

    async def pause(self, attempt: int, delay: float) -> None:
        """Wait between ``attempt`` and the next; without delay for one turn of the loop.

        Cancellation: the budget is told.
        """
        try:
            await (sleep(delay) if delay > 0 else yield_now())
        except BaseException:
            self.finish(attempt + 1)
            raise

    def calls(self) -> float:
        """Return the attempts."""
        return math.inf if self._attempts is None else float(self._attempts)

    def bound(self, inner: float) -> float:
        """Return the most seconds: of all attempts and all waits, or what ``until`` says."""
        until = self._until
        most = math.inf
        if self._attempts is not None:
            waits = sum(self._longest(n) for n in range(1, min(self._attempts, _SUMMED)))
            rest = max(self._attempts - _SUMMED, 0) * self._longest(self._attempts)
            most = self._attempts * inner + waits + rest
        if until.elapsed is not None:
            most = min(most, until.elapsed + inner)
        return most if until.total is None else min(most, until.total)

    def _longest(self, n: int) -> float:
        delay = self._backoff.delay(n, rng=_Highest())
        return delay if self._hint is None else max(delay, self._hint.cap)

    def _judge(self, attempt: int, error: Exception | None, elapsed: float) -> Again | Stop:
        if error is not None and not self.matches(error):
            return Stop("error")
        if self._attempts is not None and attempt >= self._attempts:
            return Stop("attempts")
        delay, needed = self._delay(attempt, error)
        if not self._until.allows(elapsed + needed):
            return Stop("elapsed")
        left = remaining()
        if left is not None and needed >= left:
            return Stop("deadline")
        warn_if_nested()
        if self._budget is not None and not self._budget.try_extra():
            return Stop("budget")
        return Again(delay)

    def _delay(self, attempt: int, error: Exception | None) -> tuple[float, float]:
        """Return the wait, and the wait that was asked for, which a hint's cap may shorten."""
        hint = None if self._hint is None or error is None else self._hint.read(error)
        if self._hint is None or hint is None:
            delay = max(self._backoff.delay(attempt, rng=rng()), 0.0)
            return delay, delay
        stretched = hint * (1.0 + self._spread * rng().random())
        return min(stretched, self._hint.cap), hint

    def after_error(self, attempt: int, error: Exception, elapsed: float) -> float | None:
        """Return the wait before the next attempt; None, and a note on ``error``, to stop."""
        verdict = self._decide(attempt, error, elapsed)
        if isinstance(verdict, Again):
            return verdict.delay
        if verdict.reason != "error":
            tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
            note(error, f"gave up after {tries} in {elapsed:.3g} s: {_WHY[verdict.reason]}")
        return None

    def after_result(self, attempt: int, result: object, elapsed: float) -> float | None:
        """Return the wait before the next attempt; None if ``result`` is what it will be."""
        unwanted = False
        try:
            unwanted = self._on_result is not None and bool(self._on_result(result))
        finally:
            if not unwanted:
                self.finish(attempt)
        verdict = self._decide(attempt, None, elapsed) if unwanted else None
        return verdict.delay if isinstance(verdict, Again) else None


@final
class _Highest:
    """Dice that show the highest number, for the longest delay."""

    __slots__ = ()

    def random(self) -> float:
        """Return 1."""
        return 1.0


def _tell(attempt: int, error: Exception | None, verdict: Again | Stop) -> None:
    if isinstance(verdict, Again):
        emit(RetryScheduled(attempt, verdict.delay, error))
    elif verdict.reason == "budget":
        emit(RetryBudgetExhausted(attempt, error))


def _check_backoff(backoff: Backoff) -> Backoff:
    if not callable(getattr(backoff, "delay", None)):
        msg = f"backoff must have a method delay(n, *, rng), as Exponential has, not {backoff!r}"
        raise TypeError(msg)
    return backoff
