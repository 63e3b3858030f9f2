"""Rate limits inside one process: how many, per how long, in which order.

A limiter answers one of two questions. ``try_acquire`` never waits: may this call start now, and
if not, when? ``acquire`` waits for its turn, or refuses at once if the wait would be too long.

The algorithms are named by what they promise for a rate of ``amount`` per ``per`` seconds:

===============  ===============================  ==============================================
limiter          promise                          most calls in any window of ``per`` seconds
===============  ===============================  ==============================================
TokenBucket      ``amount`` a period on average,  ``burst + amount`` (twice the amount, by
                 saved up to ``burst``            default)
GCRA             evenly spaced, ``per / amount``  ``burst + amount`` (one more than the amount,
                 apart                            by default)
SlidingWindow    never more than ``amount``       ``amount``
===============  ===============================  ==============================================

GCRA, the generic cell rate algorithm, and the token bucket are one machine: a level that drains
or fills at the rate. They differ in how much may be saved up, so in their default burst.

Guarantees:

* FIFO for each key. Nobody passes a waiting task, not even a small request a big one.
* The wait is known before it begins. If it is longer than ``max_wait``, or than the time left
  until the deadline that is bound here, the call is refused at once and consumes nothing.
* Tokens are conserved. A task that is cancelled while it waits has taken nothing, and one that is
  cancelled after its turn came gives its tokens back and they go to the next in line (see
  ``meter.py``).
* Memory is bounded: a key that is back at rest is forgotten, and beyond ``MAX_KEYS`` keys the one
  unused for longest is, except those on which a task waits.

A timer of the loop fires a little late. For tasks in line, token bucket and GCRA make up for that,
up to 5 ms, so that high rates are reached; their bounds above grow by as much.

Not guaranteed: what other processes do (see ``SharedRateLimit``); an exact rate for a key that
was forgotten beyond ``MAX_KEYS``, which begins anew with its full burst.

Source: GCRA as in ITU-T I.371; the limits of a window follow the usual token bucket analysis.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    final,
)

from aiopatterns.core.clock import monotonic
from aiopatterns.core.context import remaining
from aiopatterns.core.errors import RateLimitedError
from aiopatterns.core.rate import Grant, Rate
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import at_least, function, instance, non_negative, positive
from aiopatterns.resilience.meter import Level, Window
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from aiopatterns.resilience.meter import Meter

__all__ = [
    "GCRA",
    "MAX_KEYS",
    "Grant",
    "Limiter",
    "Rate",
    "RateLimitRejected",
    "SlidingWindow",
    "TokenBucket",
]

P = ParamSpec("P")
T = TypeVar("T")

#: Keys a limiter remembers at most, those on which a task waits not counted.
MAX_KEYS: Final = 65_536

KeyFunction: TypeAlias = Callable[..., Hashable]


class Limiter(Protocol):
    """What a worker pool or a job queue asks of a limiter."""

    def try_acquire(self, cost: float = 1.0, *, key: Hashable = None) -> Grant:
        """Take ``cost`` now if it is there; never waits."""
        ...

    async def acquire(
        self, cost: float = 1.0, *, key: Hashable = None, max_wait: float | None = None
    ) -> Grant:
        """Take ``cost``, waiting for it if need be."""
        ...


@dataclass(frozen=True, slots=True)
class RateLimitRejected(Event):
    """A limiter refused a call because the wait would have been too long.

    Args:
        limiter: The limiter, as in its ``repr``.
        retry_after: Seconds until the call would be allowed.
    """

    name: ClassVar[str] = "aiopatterns.ratelimit.rejected"
    level: ClassVar[str] = "warning"

    limiter: str
    retry_after: float


class _Limited(Policy):
    """What all limiters share: keys, waiting, refusing, and being a policy."""

    __slots__ = ("_capacity", "_key", "_max_wait", "_meters", "_one", "_rate")

    kind = "ratelimit"

    def __init__(
        self, rate: Rate, capacity: float, key: KeyFunction | None, max_wait: float | None
    ) -> None:
        self._rate = rate
        self._capacity = capacity
        self._key = None if key is None else function("key", key)
        self._max_wait = math.inf if max_wait is None else _check_wait(max_wait)
        self._meters: OrderedDict[Hashable, Meter] = OrderedDict()
        self._one = self._fresh()

    @abstractmethod
    def _fresh(self) -> Meter:
        """Make the meter of a key that is at rest."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._rate})"

    @property
    def rate(self) -> Rate:
        """The rate, as given."""
        return self._rate

    def try_acquire(self, cost: float = 1.0, *, key: Hashable = None) -> Grant:
        """Take ``cost`` now if it is there and nobody waits for it; never waits.

        Args:
            cost: How much to take, above 0.
            key: Whose; None is a key like any other.

        Returns:
            The answer; nothing was consumed if it says no.

        Complexity: O(1); for a window, and only when it refuses, O(calls remembered).
        """
        if cost != 1.0:
            positive("cost", cost)
        meter = self._one if key is None else self._meter(key)
        now = monotonic()
        if cost > self._capacity:
            return meter.grant(math.inf, now)
        return meter.ask(cost, now)

    def peek(self, cost: float = 1.0, *, key: Hashable = None) -> Grant:
        """Say what :meth:`try_acquire` would answer; takes nothing and remembers no key."""
        if cost != 1.0:
            positive("cost", cost)
        meter = self._one if key is None else self._meters.get(key) or self._fresh()
        now = monotonic()
        return meter.grant(meter.wait(cost, now) if cost <= self._capacity else math.inf, now)

    async def acquire(
        self, cost: float = 1.0, *, key: Hashable = None, max_wait: float | None = None
    ) -> Grant:
        """Take ``cost``, waiting for it if need be.

        Args:
            cost: How much to take, above 0 and not more than can be there at once.
            key: Whose; None is a key like any other.
            max_wait: Refuse at once if the wait would be longer than so many seconds; 0 never
                waits, None is what the constructor says.

        Returns:
            The answer, always a yes.

        Raises:
            RateLimitedError: The wait would be too long, or end after the deadline bound here.
            ValueError: ``cost`` can never be there.

        Cancellation: leaves the line; nothing is consumed, and the next in line moves up.

        Complexity: O(1) and no turn of the loop if nobody waits and the cost is there.
        """
        if cost != 1.0 and positive("cost", cost) > self._capacity:
            msg = f"cost must be at most {self._capacity:g} for {self!r}, not {cost!r}"
            raise ValueError(msg)
        if max_wait is not None:
            _check_wait(max_wait)
        meter = self._one if key is None else self._meter(key)
        if not meter.line:
            grant = meter.ask(cost, monotonic())
            if grant[0]:
                return grant
        await self._queue(meter, cost, self._max_wait if max_wait is None else max_wait)
        return meter.grant(0.0, monotonic())

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that takes one token, of its key, before each call of ``fn``."""
        key, max_wait = self._key, self._max_wait

        async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            meter = self._one
            if not meter.claim(1.0, monotonic()):
                await self._queue(meter, 1.0, max_wait)
            return await fn(*args, **kwargs)

        async def limited_by_key(*args: P.args, **kwargs: P.kwargs) -> T:
            assert key is not None
            meter = self._meter(key(*args, **kwargs))
            if not meter.claim(1.0, monotonic()):
                await self._queue(meter, 1.0, max_wait)
            return await fn(*args, **kwargs)

        return limited if key is None else limited_by_key

    def adopt(self, previous: Policy) -> bool:
        """Go on with the tokens, and the lines, of a limiter of the same kind, rate and burst.

        Returns:
            Whether ``previous`` was one. Then both take from the same.
        """
        match previous:
            case _Limited(_rate=rate, _capacity=capacity, _one=one, _meters=meters) if type(
                previous
            ) is type(self) and (rate, capacity) == (self._rate, self._capacity):
                self._one, self._meters = one, meters
                return True
            case _:
                return False

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take: the longest wait, and what is inside."""
        return self._max_wait + inner

    def _meter(self, key: Hashable) -> Meter:
        """Find the meter of ``key``, or make it, and note that it was used last."""
        if key is None:
            return self._one
        meter = self._meters.get(key)
        if meter is None:
            self._make_room()
            meter = self._meters[key] = self._fresh()
        else:
            self._meters.move_to_end(key)
        return meter

    def _make_room(self) -> None:
        """Forget up to two of the keys unused for longest: more go than come while they rest."""
        meters = self._meters
        now = monotonic()
        for _ in range(min(2, len(meters))):
            key, meter = next(iter(meters.items()))
            if meter.line:
                meters.move_to_end(key)
            elif meter.at_rest(now) or len(meters) >= MAX_KEYS:
                del meters[key]
            else:
                return

    async def _queue(self, meter: Meter, cost: float, limit: float) -> None:
        """Wait in line for ``cost``, or refuse at once what would take longer than ``limit``."""
        left = remaining()
        limit = limit if left is None else min(limit, left)
        # A window adds up its line for this, so it is not asked when the answer does not matter.
        if limit < math.inf and (wait := meter.wait(cost, monotonic())) > limit:
            if listening():
                emit(RateLimitRejected(repr(self), wait))
            msg = f"{self!r} is used up; try again in {wait:.3g} s"
            raise RateLimitedError(msg, name=type(self).__name__, retry_after=wait)
        ticket = meter.join(cost)
        try:
            await ticket.parked.wait()
        except BaseException:
            meter.leave(ticket)
            raise


@final
class TokenBucket(_Limited):
    """So many on average, and what was saved up at once.

    Use it in front of something that takes bursts well, such as a paid API with a quota.

    Args:
        rate: The average, and the speed at which tokens come back.
        burst: How many tokens can be saved up, at least 1; by default the rate's amount.
        key: As a policy: a function of the call's arguments that says whose tokens to take.
        max_wait: The longest wait in seconds; None waits for ever, 0 refuses at once.

    Example::

        quota = TokenBucket(Rate(100), burst=20)


        @quota
        async def fetch(url: str) -> bytes: ...
    """

    __slots__ = ()

    def __init__(
        self,
        rate: Rate,
        *,
        burst: float | None = None,
        key: KeyFunction | None = None,
        max_wait: float | None = None,
    ) -> None:
        _check_rate(rate)
        burst = max(rate.amount, 1) if burst is None else _check_burst(burst)
        super().__init__(rate, burst, key, max_wait)

    def _fresh(self) -> Meter:
        return Level(self._rate, self._capacity)


@final
class GCRA(_Limited):
    """Evenly spaced: one each ``per / amount`` seconds, and up to ``burst`` after a pause.

    Use it in front of something that takes bursts badly.

    Args:
        rate: The spacing.
        burst: How many may start at once after a pause, at least 1.
        key: As a policy: a function of the call's arguments that says whose turn it is.
        max_wait: The longest wait in seconds; None waits for ever, 0 refuses at once.
    """

    __slots__ = ()

    def __init__(
        self,
        rate: Rate,
        *,
        burst: float = 1,
        key: KeyFunction | None = None,
        max_wait: float | None = None,
    ) -> None:
        super().__init__(_check_rate(rate), _check_burst(burst), key, max_wait)

    def _fresh(self) -> Meter:
        return Level(self._rate, self._capacity)


@final
class SlidingWindow(_Limited):
    """Never more than ``amount`` in any window of ``per`` seconds, wherever it begins.

    Use it where the other side counts, and punishes, strictly. Windows of more than 1024 calls
    are remembered in slices of ``per / 1024`` seconds, so that memory is bounded: a call may then
    be allowed that much later than it could be, never earlier.

    Args:
        rate: The window and its limit, an amount of at least 1.
        key: As a policy: a function of the call's arguments that says whose window it is.
        max_wait: The longest wait in seconds; None waits for ever, 0 refuses at once.
    """

    __slots__ = ()

    def __init__(
        self, rate: Rate, *, key: KeyFunction | None = None, max_wait: float | None = None
    ) -> None:
        at_least("rate.amount", _check_rate(rate).amount, 1)
        super().__init__(rate, rate.amount, key, max_wait)

    def _fresh(self) -> Meter:
        return Window(self._rate)


def _check_rate(rate: Rate) -> Rate:
    return instance("rate", rate, Rate, "a Rate, as in Rate(100, per=1.0)")


def _check_burst(burst: float) -> float:
    return at_least("burst", positive("burst", burst), 1)


def _check_wait(max_wait: float) -> float:
    return non_negative("max_wait", max_wait, finite=False)
