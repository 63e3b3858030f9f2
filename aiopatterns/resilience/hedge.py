"""Hedges: ask a second time when the first answer is late, and take whichever comes first.

One replica in a hundred is slow at any moment, for reasons of its own. A caller that waits for it
is slow too; one that asks another after a while is not, and if "a while" is the time in which 95
of 100 answers have come, it costs five percent more load::

    primary  ----------------------------x        cancelled, and awaited
                 after
    hedge        |------------> answer            the first success is the result

The primary runs in the caller's own task, hedges in tasks of one group around it. A hedge begins

* ``after`` seconds after the call before it began, or
* at once when a call fails with an error that ``on`` names.

It does not begin if ``max_extra`` have begun, the shared budget has no extra call left, or the
deadline bound here has passed.

Guarantees:

* The first success wins. An error that ``on`` does not name is an answer too and ends the race.
* Before the call returns, every other has been cancelled and has ended; nothing runs on behalf of
  nobody, however the caller itself is cancelled, also twice.
* If all fail, what leaves is the error of the primary, the same instance, with the others as its
  notes.
* A success that came too late goes to ``discard``, so that a connection can be closed; also the
  winner's, if the caller was cancelled while the losers ended.
* Hedges see the context variables as they were when the call began.

Not guaranteed: that it is safe to run twice at once. The caller says so by ``idempotent=True``. A
function that refuses to be cancelled keeps its caller waiting.

Source: Dean and Barroso, "The Tail at Scale" (CACM, 2013): hedged requests, after the 95th
percentile; a failure starts the next at once as in Polly v8.
"""

from __future__ import annotations

import math
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    final,
)

from anyio import (
    create_task_group,
    current_effective_deadline,
    get_cancelled_exc_class,
    move_on_after,
)

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.context import deadline
from aiopatterns.core.notes import note
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.core.quantile import Histogram
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import async_function, count, instance, non_negative
from aiopatterns.core.waiters import cancel_count
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.matching import Matcher
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from anyio.abc import TaskGroup

    from aiopatterns.resilience.matching import On

__all__ = ["Hedge", "HedgeDiscardFailed", "HedgeStarted", "HedgeWon"]

P = ParamSpec("P")
T = TypeVar("T")

Discard: TypeAlias = "Callable[[Any], Awaitable[object]]"

# "The Tail at Scale": a hedge after the 95th percentile adds about 5 % of load.
_QUANTILE: Final = 0.95
# Latencies that must be known before any hedge, and after how many more the quantile is taken anew.
_WARM_UP: Final = 20
# Latencies after which the older half is forgotten.
_REMEMBERED: Final = 1000
# Timers of many systems are no finer, so a call that takes less cannot be late.
_SHORTEST: Final = 0.001
# How long the discarding of one late result may take.
_DISCARD_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HedgeStarted(Event):
    """A call is late, or has failed, and another was begun beside it.

    Args:
        hedge: Which hedge of this call it is, from 1.
        elapsed: Seconds since the call began.
    """

    name: ClassVar[str] = "aiopatterns.hedge.started"

    hedge: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class HedgeWon(Event):
    """A hedge succeeded before the primary.

    Args:
        hedge: Which hedge of this call it is, from 1.
        elapsed: Seconds since the call began.
    """

    name: ClassVar[str] = "aiopatterns.hedge.won"

    hedge: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class HedgeDiscardFailed(Event):
    """A late result could not be discarded.

    Args:
        error: What ``discard`` raised; None if it was cancelled, as when it took too long.
    """

    name: ClassVar[str] = "aiopatterns.hedge.discard_failed"
    level: ClassVar[str] = "error"

    error: Exception | None


@final
class Hedge(Policy):
    """Ask again beside a call that is late; the first success wins.

    Args:
        after: Seconds after which a call is late; 0 begins all at once. None finds out: the 95th
            percentile of the last 500 to 1000 calls that succeeded, a millisecond at least, and no
            hedge but after a failure while fewer than 20 are known. A primary that lost counts with the time at
            which it was cancelled, so that hedging does not make itself look needless.
        idempotent: That the function may run twice at once, for the same arguments, with the
            effect of once. True is the only value there is; it stands in the code as a promise.
        max_extra: How many hedges a call may have, at least 1.
        on: Which errors start the next hedge at once instead of ending the call: an exception
            type, a tuple of them, or a predicate of the error. None is every ``Exception`` but
            refusals by our own policies.
        discard: Async function of a result that came too late; it runs before the call returns,
            shielded, for at most a second. What it raises is an event, no error.
        budget: A bound on hedges that is shared with other policies, retries too.

    Of a stream the opening is hedged, that is until it has given its first item; a stream that
    opened too late is closed, and ``discard`` is not asked.

    Example::

        @Hedge(0.05, idempotent=True)
        async def lookup(key: str) -> bytes: ...
    """

    __slots__ = ("_terms",)

    kind = "hedge"

    def __init__(
        self,
        after: float | None = None,
        *,
        idempotent: Literal[True] = True,
        max_extra: int = 1,
        on: On | None = None,
        discard: Discard | None = None,
        budget: Budget | None = None,
    ) -> None:
        _check_idempotent(idempotent)
        self._terms = _Terms(
            after if after is None else non_negative("after", after),
            count("max_extra", max_extra),
            Matcher(Exception if on is None else on, refusals=False).matches,
            discard if discard is None else async_function("discard", discard),
            budget if budget is None else instance("budget", budget, Budget, "a Budget"),
        )

    def __repr__(self) -> str:
        after = self._terms.after
        return f"Hedge({'p95' if after is None else f'{after:g}'})"

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that runs ``fn`` as a race with its own hedges."""
        terms = self._terms

        async def hedged(*args: P.args, **kwargs: P.kwargs) -> T:
            return await _Race(terms, partial(fn, *args, **kwargs)).run()

        return hedged

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function whose opening is a race; what opens too late is closed."""
        terms = self._terms
        closing = Hedge()
        closing._terms = _Terms(terms.after, terms.max_extra, terms.handles, _close, terms.budget)
        return Policy.wrap_stream(closing, fn)

    def calls(self) -> float:
        """Return the primary and its hedges."""
        return 1.0 + self._terms.max_extra

    def bound(self, inner: float) -> float:
        """Return the most seconds: each hedge begins as late as it can, and the last one is slow."""
        after = math.inf if self._terms.after is None else self._terms.after
        return inner + self._terms.max_extra * min(after, inner)


@final
class _Latencies:
    """How long recent calls took, in two halves of which the older is dropped in turn."""

    __slots__ = ("_known", "_newer", "_older", "late_after")

    def __init__(self) -> None:
        self._older = Histogram()
        self._newer = Histogram()
        self._known = 0
        #: Seconds after which a call is late; None while too little is known.
        self.late_after: float | None = None

    def record(self, seconds: float) -> None:
        """Count one call; every so often, take the quantile anew."""
        self._newer.record(seconds)
        self._known += 1
        if self._known % _WARM_UP:
            return
        both = Histogram()
        both.merge(self._older)
        both.merge(self._newer)
        self.late_after = max(both.quantile(_QUANTILE) or 0.0, _SHORTEST)
        if self._known >= _REMEMBERED // 2:
            self._older, self._newer, self._known = self._newer, Histogram(), 0


@final
class _Terms:
    """The settings of a hedge, and what it has learned."""

    __slots__ = ("after", "budget", "discard", "handles", "latencies", "max_extra")

    def __init__(
        self,
        after: float | None,
        max_extra: int,
        handles: Callable[[Exception], bool],
        discard: Discard | None,
        budget: Budget | None,
    ) -> None:
        self.after = after
        self.max_extra = max_extra
        self.handles = handles
        self.discard = discard
        self.budget = budget
        self.latencies = _Latencies()

    def late_after(self) -> float | None:
        """Return the seconds after which a call is late, None if that is not known."""
        return self.latencies.late_after if self.after is None else self.after


@final
class _Race(Generic[T]):
    """One call and its hedges.

    ``_end`` is the outcome, set once; from then on nothing begins and what comes is late.
    """

    __slots__ = (
        "_began",
        "_budget",
        "_call",
        "_cancelled",
        "_cancelled_before",
        "_deadline",
        "_end",
        "_errors",
        "_extras",
        "_group",
        "_late",
        "_left",
        "_over",
        "_terms",
        "_timer",
        "_variables",
    )

    def __init__(self, terms: _Terms, call: Callable[[], Awaitable[T]]) -> None:
        self._terms = terms
        self._call = call
        self._group: TaskGroup = create_task_group()
        self._variables = copy_context()
        self._began = monotonic()
        self._deadline = deadline()
        self._cancelled = cancel_count()
        self._cancelled_before = self._cancelled()
        self._left = terms.max_extra
        self._extras = 0
        self._timer: Callable[[], None] | None = None  # cancels it
        self._over = False
        self._end: Ok[T] | Err | None = None
        self._errors: dict[int, BaseException] = {}
        self._late: list[T] = []

    async def run(self) -> T:
        """Run the race to its end; nothing of it runs afterwards."""
        budget = self._terms.budget
        if budget is not None:
            budget.begin()
        try:
            async with self._group:
                self._set_timer()
                await self._run(0)
            self._check_cancelled()
            await self._discard()
        except BaseException:
            if isinstance(self._end, Ok):  # a result that its caller will not get
                self._late.append(self._end.value)
            await self._discard()
            raise
        finally:
            if budget is not None:
                self._settle(budget)
        return self._result()

    async def _run(self, number: int) -> None:
        """Run the primary (0) or a hedge."""
        try:
            value = await self._call()
        except Exception as error:
            self._failed(number, error)
        except BaseException as error:
            if number == 0:
                self._close()
                raise
            if not _own_cancellation(error):
                self._begin_no_more()  # and the primary may come to its end, or be cancelled, too
                raise
            self._failed(number, error)
        else:
            self._succeeded(number, value)

    def _succeeded(self, number: int, value: T) -> None:
        if self._over:
            self._late.append(value)
            return
        elapsed = monotonic() - self._began
        if self._terms.after is None and 0 not in self._errors:
            self._terms.latencies.record(elapsed)
        self._finish(Ok(value, index=number, elapsed=elapsed))
        if number and listening():
            emit(HedgeWon(number, elapsed))

    def _failed(self, number: int, error: BaseException) -> None:
        """Go on with the next hedge if ``error`` is handled; else it is the outcome."""
        self._errors[number] = error
        if self._over:
            return
        if not isinstance(error, Exception) or self._handles(number, error):
            self._begin_next()

    def _handles(self, number: int, error: Exception) -> bool:
        """Whether the race goes on after ``error``; if not, set the outcome."""
        # An error that the primary has put in the place of a cancellation is no reason to go on.
        handled = False
        try:
            handled = not (number == 0 and self._caller_cancelled()) and self._terms.handles(error)
        except Exception as broken:
            error = broken
        if not handled:
            self._finish(Err(error, index=number))
        return handled

    def _begin_next(self) -> None:
        """Begin another hedge, if there may be one."""
        self._stop_timer()
        if not self._may_begin():
            return
        self._left -= 1
        self._extras += 1
        self._variables.run(self._group.start_soon, self._run, self._extras)
        self._set_timer()
        if listening():
            emit(HedgeStarted(self._extras, monotonic() - self._began))

    def _may_begin(self) -> bool:
        if not self._left or self._group.cancel_scope.cancel_called:
            return False
        if self._deadline is not None and monotonic() >= self._deadline:
            return False
        budget = self._terms.budget
        if budget is not None and not budget.try_extra():
            self._left = 0
            return False
        return True

    def _set_timer(self) -> None:
        late_after = self._terms.late_after()
        if self._left and late_after is not None:
            self._timer = call_later(late_after, self._begin_next).cancel

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer()
            self._timer = None

    def _close(self) -> None:
        """Let nothing more begin, and call late what still comes."""
        self._over = True
        self._begin_no_more()

    def _begin_no_more(self) -> None:
        self._left = 0
        self._stop_timer()

    def _finish(self, end: Ok[T] | Err) -> None:
        """Set the outcome and cancel the others."""
        self._close()
        self._end = end
        if self._extras:
            self._group.cancel_scope.cancel()

    def _check_cancelled(self) -> None:
        """Raise the cancellation of the caller that a primary has swallowed while it lost.

        That of a cancel scope comes again by itself, at the next await.
        """
        swallowed = self._end is not None and self._end.index and self._caller_cancelled()
        if swallowed and current_effective_deadline() > -math.inf:
            raise get_cancelled_exc_class()

    def _caller_cancelled(self) -> bool:
        return self._cancelled() > self._cancelled_before

    def _settle(self, budget: Budget) -> None:
        """Tell the budget that the call and all its hedges have ended."""
        for _ in range(self._extras):
            budget.finish_extra()
        budget.finish()

    def _result(self) -> T:
        if self._end is not None:
            return self._end.unwrap()
        error = self._errors.pop(0)
        for number, other in sorted(self._errors.items()):
            note(error, f"hedge {number} failed as well: {other!r}")
        raise error

    async def _discard(self) -> None:
        """Give what came too late to ``discard``, each for a bounded time."""
        discard = self._terms.discard
        if discard is None:
            return
        interrupted: BaseException | None = None
        while self._late:
            try:
                await self._discard_one(discard, self._late.pop(0))
            except BaseException as error:
                interrupted = error  # cancelled by its task; the others still have their turn
        if interrupted is not None:
            raise interrupted

    async def _discard_one(self, discard: Discard, value: T) -> None:
        failed = False
        failure: Exception | None = None
        with move_on_after(_DISCARD_SECONDS, shield=True) as scope:
            try:
                await discard(value)
            except Exception as error:
                failed, failure = True, error
            except get_cancelled_exc_class():
                if self._caller_cancelled():  # else it has raised that by itself
                    raise
                failed = True
        if (failed or scope.cancelled_caught) and listening():
            emit(HedgeDiscardFailed(failure))


async def _close(opened: tuple[AsyncGenerator[Any], tuple[Any, ...]]) -> None:
    """Close a stream that opened too late."""
    await opened[0].aclose()


def _own_cancellation(error: BaseException) -> bool:
    """Whether a hedge was cancelled by its own doing, not with the group that it runs in."""
    cancelled = isinstance(error, get_cancelled_exc_class())
    return cancelled and current_effective_deadline() > -math.inf


def _check_idempotent(idempotent: object) -> None:
    if idempotent is True:
        return
    msg = (
        f"idempotent must be True, not {idempotent!r}: a hedged function runs twice at once; do not"
        " hedge one for which that is not the same as once"
    )
    raise ValueError(msg) if isinstance(idempotent, bool) else TypeError(msg)
