"""Adaptive limits: how many at once, found out instead of guessed.

The right limit of a bulkhead changes with every deployment of the other side. An adaptive limit
looks for it as TCP looks for the bandwidth of a line: while calls come back as they should, let
one more in; when they are dropped or get slow, let fewer::

    limit       .--.
             .--'  |     .--.      grows while it is used and all is well,
          .--'     |  .--'  |      shrinks at the first sign of overload
       .--'        '--'     '--

Two algorithms, pure and immutable, decide how far. ``AIMD`` looks at drops and at one latency
that is too slow in any case. ``Gradient`` compares the latency of now with that of the long run,
and so gives way before anything is dropped.

Calls are judged in *rounds* of as many calls as the limit allows, so that one slow call says
little and the limit moves at most once while a full load passes:

* A call that succeeds adds its latency to the round; when the round is full the limit moves.
* A call that is *dropped* (it timed out, by default) ends the round at once. Calls that began
  before such a cut say nothing about the new limit and are not counted, so that one jam in which
  twenty calls are lost cuts the limit once.
* A call that fails otherwise, or is cancelled, is not counted at all.

Guarantees: at most ``limit`` calls are in flight, except right after a cut, when those above it
finish. The limit stays between ``min_limit`` and ``max_limit`` and grows only while at least half
of it is used, so a quiet hour does not raise it. A call above it is refused at once.

Not guaranteed: that latency means load. A function that sleeps for other reasons, or a retry
inside, makes the limit a measure of that; put the adaptive limit right around the call. Nor that
``Gradient`` knows how fast an idle service is: an overload that lasts for many minutes becomes the
long run, and the limit follows it.

Source: AIMD as in Chiu and Jain, "Analysis of the Increase and Decrease Algorithms" (1989);
the round and the single cut for each as in TCP Reno (RFC 5681); ``Gradient`` is Gradient2 of
Netflix's concurrency-limits, with its defaults.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeAlias, TypeVar, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import OverloadedError, TimeoutExceededError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import at_least, count, in_range, instance, non_negative, positive
from aiopatterns.resilience.matching import Matcher
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from aiopatterns.resilience.matching import On

__all__ = [
    "AIMD",
    "AdaptiveLimit",
    "AdaptiveLimitChanged",
    "AdaptiveLimitRejected",
    "AdaptiveStatistics",
    "Gradient",
]

P = ParamSpec("P")
T = TypeVar("T")

# Gradient2: however slow the round was, the limit is at most halved, before smoothing.
_STEEPEST: Final = 0.5
# The long run: a plain mean of the first rounds, then an exponential one of so many seconds (that
# of Gradient2: 600 windows of 1 s). When it is far too slow, that was an outage, and 5 % of it are
# forgotten each round.
_FIRST_ROUNDS: Final = 10
_MEMORY_SECONDS: Final = 300.0
_OUTAGE: Final = 2.0
_FORGET: Final = 0.95
# Number of cuts that there never are: a stream that has opened is judged once.
_JUDGED: Final = -1
# Products of a ratio and a limit are off by less: 70 * 0.7 is a little less than 49.
_EXACT: Final = 1e-9


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AIMD:
    """Additive increase, multiplicative decrease.

    Args:
        initial: The limit to begin with.
        min_limit: Never less than so many, at least 1.
        max_limit: Never more than so many.
        backoff_ratio: What is left of the limit after a drop, above 0 and below 1.
        timeout: A mean latency above so many seconds counts as a drop.
    """

    initial: int = 20
    min_limit: int = 1
    max_limit: int = 200
    backoff_ratio: float = 0.9
    timeout: float = 5.0

    def __post_init__(self) -> None:
        _check_limits(self)
        _check_open_ratio("backoff_ratio", self.backoff_ratio)
        positive("timeout", self.timeout)

    def update(
        self,
        limit: int,
        *,
        rtt: float,
        in_flight: int,
        dropped: bool,
        baseline: float | None = None,
    ) -> int:
        """Return the limit that follows ``limit``: the pure decision.

        Args:
            limit: The limit now.
            rtt: Mean latency of the round, in seconds.
            in_flight: Most calls that were in flight at once during the round.
            dropped: Whether a call was dropped.
            baseline: Taken for the sake of one call shape; this algorithm needs none.
        """
        del baseline
        _check_sample(limit, rtt, in_flight)
        if dropped or rtt > self.timeout:
            limit = math.floor(limit * self.backoff_ratio + _EXACT)
        elif 2 * in_flight >= limit:
            limit += 1
        return _clamped(limit, self)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Gives way as soon as calls are slower than they are in the long run.

    Args:
        initial: The limit to begin with.
        min_limit: Never less than so many, at least 1.
        max_limit: Never more than so many.
        tolerance: How many times slower than in the long run is still fine, at least 1.
        smoothing_ratio: How much of the way to the new limit is made at once, above 0 to 1.
        queue: How many calls may queue at the other side; what the limit grows by.
    """

    initial: int = 20
    min_limit: int = 1
    max_limit: int = 200
    tolerance: float = 1.5
    smoothing_ratio: float = 0.2
    queue: int = 4

    def __post_init__(self) -> None:
        _check_limits(self)
        positive("tolerance", at_least("tolerance", self.tolerance, 1.0))
        positive("smoothing_ratio", in_range("smoothing_ratio", self.smoothing_ratio, 0.0, 1.0))
        count("queue", self.queue)

    def update(
        self,
        limit: int,
        *,
        rtt: float,
        in_flight: int,
        dropped: bool,
        baseline: float | None = None,
    ) -> int:
        """Return the limit that follows ``limit``: the pure decision.

        Args:
            limit: The limit now.
            rtt: Mean latency of the round, in seconds.
            in_flight: Most calls that were in flight at once during the round.
            dropped: Whether a call was dropped.
            baseline: Mean latency in the long run; None if that is not known yet.
        """
        _check_sample(limit, rtt, in_flight)
        if baseline is not None:
            non_negative("baseline", baseline)
        if dropped:
            target = limit * _STEEPEST
        elif 2 * in_flight >= limit:
            target = limit * self._gradient(rtt, baseline) + self.queue
        else:
            target = limit
        smooth = limit + (target - limit) * self.smoothing_ratio
        # Away from the limit that was: rounded towards it, small steps would never be made.
        limit = math.ceil(smooth - _EXACT) if smooth > limit else math.floor(smooth + _EXACT)
        return _clamped(limit, self)

    def _gradient(self, rtt: float, baseline: float | None) -> float:
        """Return 1 if the round was as fast as it should be, less if it was slower."""
        if baseline is None or rtt <= self.tolerance * baseline:
            return 1.0
        return max(_STEEPEST, self.tolerance * baseline / rtt)


Algorithm: TypeAlias = AIMD | Gradient


@final
@dataclass(frozen=True, slots=True)
class AdaptiveStatistics:
    """What an adaptive limit holds at one instant.

    Args:
        limit: Calls in flight at most, now.
        in_flight: Calls in flight.
        baseline: Mean latency in the long run, in seconds; None before the first round has ended.
    """

    limit: int
    in_flight: int
    baseline: float | None


@dataclass(frozen=True, slots=True)
class AdaptiveLimitChanged(Event):
    """A round has ended and the limit moved.

    Args:
        before: The limit that was.
        after: The limit that is.
        rtt: Mean latency of the round, in seconds.
        dropped: Whether a drop has ended the round.
    """

    name: ClassVar[str] = "aiopatterns.adaptive.changed"

    before: int
    after: int
    rtt: float
    dropped: bool


@dataclass(frozen=True, slots=True)
class AdaptiveLimitRejected(Event):
    """An adaptive limit refused a call.

    Args:
        limit: The limit now.
    """

    name: ClassVar[str] = "aiopatterns.adaptive.rejected"
    level: ClassVar[str] = "warning"

    limit: int


@final
class AdaptiveLimit(Policy):
    """Let as many calls run at once as the other side takes well.

    Args:
        algorithm: ``AIMD(...)`` or ``Gradient(...)``.
        on: Which errors are drops, that is signs of overload: an exception type, a tuple of them,
            or a predicate of the error. By default our timeouts; name the error by which the
            other side says that it is busy as well.

    A stream is in flight for its life and judged by its opening: its latency is the time to its
    first item.

    Example::

        search = AdaptiveLimit(Gradient(initial=10))


        @search
        async def find(text: str) -> list[str]: ...


        search.statistics().limit
    """

    __slots__ = ("_load",)

    kind = "bulkhead"

    def __init__(self, algorithm: Algorithm, *, on: On = TimeoutExceededError) -> None:
        instance("algorithm", algorithm, (AIMD, Gradient), "AIMD() or Gradient()")
        self._load = _Load(algorithm, Matcher(on, refusals=False))

    def __repr__(self) -> str:
        return f"AdaptiveLimit({type(self._load.algorithm).__name__})"

    def statistics(self) -> AdaptiveStatistics:
        """Return what it holds now."""
        load = self._load
        return AdaptiveStatistics(load.limit, load.in_flight, load.baseline)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn`` while the limit is not reached."""
        load = self._load

        async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            began, cuts = load.begin(), load.cuts
            try:
                result = await fn(*args, **kwargs)
            except Exception as error:
                load.failed(error, began, cuts)
                raise
            finally:
                load.in_flight -= 1
            load.succeeded(began, cuts)
            return result

        return limited

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function whose streams are in flight for their life."""
        load = self._load

        async def limited(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            began, cuts = load.begin(), load.cuts
            try:
                async with aclosing(fn(*args, **kwargs)) as stream:
                    async for item in stream:
                        load.succeeded(began, cuts)
                        cuts = _JUDGED
                        yield item
            except Exception as error:
                load.failed(error, began, cuts)
                raise
            finally:
                load.in_flight -= 1

        return limited

    def adopt(self, previous: Policy) -> bool:
        """Go on with the limit, and the calls in flight, of one with the same kind of algorithm.

        Returns:
            Whether ``previous`` was one. The limit is brought within the new bounds.
        """
        return isinstance(previous, AdaptiveLimit) and self._share(previous)

    def _share(self, other: AdaptiveLimit) -> bool:
        mine, theirs = self._load, other._load
        if type(mine.algorithm) is not type(theirs.algorithm):
            return False
        theirs.algorithm, theirs.drops = mine.algorithm, mine.drops
        theirs.limit = _clamped(theirs.limit, mine.algorithm)
        self._load = theirs
        return True


@final
class _Load:
    """The calls in flight, the round that is under way, and the limit."""

    __slots__ = (
        "_elapsed",
        "_learned_at",
        "_peak",
        "_rounds",
        "_samples",
        "algorithm",
        "baseline",
        "cuts",
        "drops",
        "in_flight",
        "limit",
    )

    def __init__(self, algorithm: Algorithm, drops: Matcher) -> None:
        self.algorithm = algorithm
        self.drops = drops
        self.limit = algorithm.initial
        self.in_flight = 0
        self.baseline: float | None = None
        self.cuts = 0
        self._rounds = 0
        self._peak = 0
        self._samples = 0
        self._elapsed = 0.0
        self._learned_at = 0.0

    def begin(self) -> float:
        """Let a call in and return the time, or refuse it."""
        in_flight = self.in_flight
        if in_flight >= self.limit:
            if listening():
                emit(AdaptiveLimitRejected(self.limit))
            msg = f"AdaptiveLimit: all {self.limit} places are taken"
            raise OverloadedError(msg, name="AdaptiveLimit")
        self.in_flight = in_flight + 1
        if in_flight >= self._peak:
            self._peak = in_flight + 1
        return monotonic()

    def succeeded(self, began: float, cuts: int) -> None:
        """Count a call that began after ``cuts`` cuts, and end the round if it is full."""
        if cuts != self.cuts:
            return
        self._elapsed += monotonic() - began
        self._samples += 1
        if self._samples >= self.limit:
            rtt = self._elapsed / self._samples
            self._end_round(rtt, dropped=False)
            self._learn(rtt)

    def failed(self, error: Exception, began: float, cuts: int) -> None:
        """End the round if ``error`` is a drop that says something about the limit of now."""
        if self.drops.matches(error) and cuts == self.cuts:
            self.cuts += 1
            self._end_round(monotonic() - began, dropped=True)

    def _end_round(self, rtt: float, *, dropped: bool) -> None:
        before = self.limit
        self.limit = self.algorithm.update(
            before, rtt=rtt, in_flight=self._peak, dropped=dropped, baseline=self.baseline
        )
        self._samples, self._elapsed, self._peak = 0, 0.0, self.in_flight
        if self.limit != before and listening():
            emit(AdaptiveLimitChanged(before, self.limit, rtt, dropped))

    def _learn(self, rtt: float) -> None:
        """Move the mean of the long run."""
        now = monotonic()
        self._rounds += 1
        weight = 1 / self._rounds
        if self._rounds > _FIRST_ROUNDS:
            weight = min(max(now - self._learned_at, 0.0) / _MEMORY_SECONDS, 1.0)
        mean = rtt if self.baseline is None else self.baseline
        mean += (rtt - mean) * weight
        self.baseline = mean * _FORGET if mean > _OUTAGE * rtt else mean
        self._learned_at = now


def _clamped(limit: int, algorithm: Algorithm) -> int:
    return max(algorithm.min_limit, min(limit, algorithm.max_limit))


def _check_limits(algorithm: Algorithm) -> None:
    count("min_limit", algorithm.min_limit)
    count("max_limit", algorithm.max_limit, minimum=algorithm.min_limit)
    count("initial", algorithm.initial)
    in_range("initial", algorithm.initial, algorithm.min_limit, algorithm.max_limit)


def _check_open_ratio(name: str, value: float) -> None:
    if not 0 < in_range(name, value, 0.0, 1.0) < 1:
        msg = f"{name} must be above 0 and below 1, not {value!r}"
        raise ValueError(msg)


def _check_sample(limit: int, rtt: float, in_flight: int) -> None:
    count("limit", limit)
    non_negative("rtt", rtt)
    count("in_flight", in_flight, minimum=0)
