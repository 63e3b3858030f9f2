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

The waiting line of a key::

    acquire --> [ head | next | ... | tail ]      first come, first served; no barging
                   |
                   `- one timer, for the moment at which the head's cost is there

Guarantees:

* FIFO for each key. Nobody passes a waiting task, not even a small request a big one.
* The wait is known before it begins. If it is longer than ``max_wait``, or than the time left
  until the deadline that is bound here, the call is refused at once and consumes nothing.
* Tokens are conserved: they are taken in the step in which the head is woken. A task that is
  cancelled while it waits has taken nothing, and one that is cancelled after it was woken gives
  its tokens back and they go to the next in line.
* Memory is bounded: a key that is back at rest is forgotten, and beyond ``MAX_KEYS`` keys the one
  unused for longest is, except those on which a task waits.

Not guaranteed: what other processes do (see ``SharedRateLimit``); an exact rate for a key that
was forgotten beyond ``MAX_KEYS``, which begins anew with its full burst.

Source: GCRA as in ITU-T I.371; the limits of a window follow the usual token bucket analysis.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    final,
)

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.context import remaining
from aiopatterns.core.errors import RateLimitedError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import at_least, function, instance, non_negative, positive
from aiopatterns.core.waiters import Waiters
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

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
# A wait shorter than this is rounding of the clock: a timer for it would fire at once, for ever.
_INSTANT: Final = 1e-9
# A window is remembered in at most this many slices, so that memory does not grow with the rate.
_SLICES: Final = 1024

KeyFunction: TypeAlias = Callable[..., Hashable]


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """So many, per so many seconds.

    Args:
        amount: How many, above 0.
        per: In how many seconds, above 0.

    Example::

        Rate(100)  # a hundred a second
        Rate(5, per=60)  # five a minute
    """

    amount: float
    per: float = 1.0

    def __post_init__(self) -> None:
        positive("amount", self.amount)
        positive("per", self.per)

    def __str__(self) -> str:
        return f"{self.amount:g} per {self.per:g} s"


class Grant(NamedTuple):
    """The answer of a limiter.

    Args:
        allowed: Whether the call may start; only then something was consumed.
        retry_after: Seconds until it would be allowed, 0 if it is, infinite if it never will be.
        remaining: How many whole calls could start now.
        reset_after: Seconds until nothing is remembered of the calls so far.
    """

    allowed: bool
    retry_after: float
    remaining: int
    reset_after: float


class Limiter(Protocol):
    """What a worker pool or a job queue asks of a limiter."""

    def try_acquire(self, cost: float = 1, *, key: Hashable = None) -> Grant:
        """Take ``cost`` now if it is there; never waits."""

    async def acquire(
        self, cost: float = 1, *, key: Hashable = None, max_wait: float | None = None
    ) -> Grant:
        """Take ``cost``, waiting for it if need be."""


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


class _Ticket:
    """One place in the line."""

    __slots__ = ("cost", "parked", "taken_at")

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.parked = Waiters()
        self.taken_at: float | None = None


class _Meter(ABC):
    """What is remembered of one key, and the line of those who wait for it. All synchronous.

    Invariant: while the line is not empty there is one timer, for the turn of its head.
    """

    __slots__ = ("_timer", "line")

    def __init__(self) -> None:
        self.line: OrderedDict[_Ticket, None] = OrderedDict()
        self._timer: Callable[[], None] | None = None  # cancels it

    @abstractmethod
    def short(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` is there (0 or less: it is), whoever waits."""

    @abstractmethod
    def behind(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` is there for somebody who joins the line now."""

    @abstractmethod
    def take(self, cost: float, now: float) -> None:
        """Take ``cost``, which is there."""

    @abstractmethod
    def give_back(self, cost: float, taken_at: float) -> None:
        """Undo the :meth:`take` of that instant."""

    @abstractmethod
    def grant(self, wait: float, now: float) -> Grant:
        """Build the answer: yes if ``wait`` is 0."""

    @abstractmethod
    def at_rest(self, now: float) -> bool:
        """Whether this meter is as good as new."""

    def claim(self, cost: float, now: float) -> float:
        """Take ``cost`` and return 0 if it is there and nobody waits; else take nothing.

        Returns:
            Seconds until it would be there, above 0.
        """
        wait = self.wait(cost, now)
        if not wait:
            self.take(cost, now)
        return wait

    def wait(self, cost: float, now: float) -> float:
        """Seconds until a newcomer could take ``cost``, exactly 0 if that is now."""
        if self.line:
            return max(self.behind(cost, now), _INSTANT)
        wait = self.short(cost, now)
        return wait if wait > _INSTANT else 0.0

    def join(self, cost: float) -> _Ticket:
        """Take the last place in the line."""
        ticket = _Ticket(cost)
        self.line[ticket] = None
        self.queued(cost)
        if self._timer is None:
            # Not serve(): nobody is parked on this ticket yet, so it could not be woken.
            self._timer = call_later(self.short(cost, monotonic()), self.serve).cancel
        return ticket

    def leave(self, ticket: _Ticket) -> None:
        """Give up a place, and what was taken for it already; the next may be served sooner."""
        if ticket.taken_at is not None:
            self.give_back(ticket.cost, ticket.taken_at)
        elif ticket in self.line:
            del self.line[ticket]
            self.queued(-ticket.cost)
        self.serve()

    def queued(self, cost: float) -> None:
        """Note that the line's costs changed by ``cost``."""

    def serve(self) -> None:
        """Take for and wake everybody whose turn has come; set the timer for the next."""
        if self._timer is not None:
            self._timer()
            self._timer = None
        now = monotonic()
        while self.line:
            ticket = next(iter(self.line))
            wait = self.short(ticket.cost, now)
            if wait > _INSTANT:
                self._timer = call_later(wait, self.serve).cancel
                return
            del self.line[ticket]
            self.queued(-ticket.cost)
            if ticket.parked.wake():  # else it was cancelled in this very turn
                self.take(ticket.cost, now)
                ticket.taken_at = now


@final
class _Level(_Meter):
    """A level of tokens that fills at the rate, up to its capacity."""

    __slots__ = ("_at", "_capacity", "_interval", "_owed", "_speed", "_tokens")

    def __init__(self, rate: Rate, capacity: float) -> None:
        super().__init__()
        self._capacity = self._tokens = float(capacity)
        self._speed = rate.amount / rate.per
        self._interval = rate.per / rate.amount
        self._owed = 0.0
        self._at = -math.inf

    def claim(self, cost: float, now: float) -> float:
        """Take ``cost`` if it is there and nobody waits: the hot path, all in one."""
        if self.line:
            return self.wait(cost, now)
        tokens = self._tokens
        if now > self._at:
            filled, full = tokens + (now - self._at) * self._speed, self._capacity
            tokens = min(full, filled)
        self._at = now
        if cost <= tokens:
            self._tokens = tokens - cost
            return 0.0
        self._tokens = tokens
        return super().claim(cost, now)

    def short(self, cost: float, now: float) -> float:
        return (cost - self._level(now)) * self._interval

    def behind(self, cost: float, now: float) -> float:
        return self.short(cost + self._owed, now)

    def take(self, cost: float, now: float) -> None:
        self._tokens = max(self._level(now) - cost, 0.0)

    def give_back(self, cost: float, taken_at: float) -> None:
        del taken_at
        self._tokens = min(self._tokens + cost, self._capacity)

    def grant(self, wait: float, now: float) -> Grant:
        free = self._level(now) - self._owed if now > self._at else self._tokens - self._owed
        left = int(free) if free > 0.0 else 0
        return _new(Grant, (not wait, wait, left, (self._capacity - free) * self._interval))

    def at_rest(self, now: float) -> bool:
        return not self.line and self._level(now) >= self._capacity

    def queued(self, cost: float) -> None:
        self._owed = self._owed + cost if self.line else 0.0

    def _level(self, now: float) -> float:
        """Let the level fill until ``now``; a clock that went back adds and takes nothing."""
        if now > self._at:
            filled = self._tokens + (now - self._at) * self._speed
            self._tokens = min(filled, self._capacity)
        self._at = now
        return self._tokens


class _Slice:
    """Calls that a window remembers as one: it forgets them when the last is old enough."""

    __slots__ = ("cost", "first", "last")

    def __init__(self, cost: float, now: float) -> None:
        self.cost = cost
        self.first = self.last = now


@final
class _Window(_Meter):
    """What was taken within the last ``per`` seconds."""

    __slots__ = ("_grain", "_limit", "_per", "_slices", "_used")

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self._limit = rate.amount + _INSTANT  # sums of fractional costs are not exact
        self._per = rate.per
        self._grain = rate.per / _SLICES
        self._slices: deque[_Slice] = deque()
        self._used = 0.0

    def short(self, cost: float, now: float) -> float:
        return self._last_of((cost,), now)

    def behind(self, cost: float, now: float) -> float:
        return self._last_of((*(ticket.cost for ticket in self.line), cost), now)

    def take(self, cost: float, now: float) -> None:
        slices = self._slices
        self._used += cost
        span = now - slices[-1].first if slices else math.inf
        if not span or (span <= self._grain and len(slices) >= _SLICES):
            slices[-1].cost += cost
            slices[-1].last = now
        else:
            slices.append(_Slice(cost, now))

    def give_back(self, cost: float, taken_at: float) -> None:
        for each in reversed(self._slices):
            if each.first <= taken_at <= each.last:
                each.cost -= cost
                self._used -= cost
                return

    def grant(self, wait: float, now: float) -> Grant:
        self._forget(now)
        free = self._limit - self._used - sum(ticket.cost for ticket in self.line)
        rest = self._slices[-1].last + self._per - now if self._slices else 0.0
        return Grant(not wait, wait, max(int(free), 0), rest)

    def at_rest(self, now: float) -> bool:
        self._forget(now)
        return not self.line and not self._slices

    def _forget(self, now: float) -> None:
        """Drop what is old enough, and what is of another clock's future."""
        slices = self._slices
        if slices and slices[-1].last > now:
            slices.clear()
        while slices and slices[0].last + self._per <= now + _INSTANT:
            self._used -= slices.popleft().cost
        if not slices:
            self._used = 0.0

    def _last_of(self, costs: tuple[float, ...], now: float) -> float:
        """Seconds until the last of ``costs`` is there if they are taken in order."""
        self._forget(now)
        held = deque((each.last, each.cost) for each in self._slices)
        used, at = self._used, now
        for cost in costs:
            while held and used + cost > self._limit:
                taken_at, freed = held.popleft()
                used -= freed
                at = max(at, taken_at + self._per)
            held.append((at, cost))
            used += cost
        return at - now


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
        self._meters: OrderedDict[Hashable, _Meter] = OrderedDict()
        self._one = self._fresh()

    @abstractmethod
    def _fresh(self) -> _Meter:
        """Make the meter of a key that is at rest."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._rate})"

    @property
    def rate(self) -> Rate:
        """The rate, as given."""
        return self._rate

    def try_acquire(self, cost: float = 1, *, key: Hashable = None) -> Grant:
        """Take ``cost`` now if it is there and nobody waits for it; never waits.

        Args:
            cost: How much to take, above 0.
            key: Whose; None is a key like any other.

        Returns:
            The answer; nothing was consumed if it says no.

        Complexity: O(1); for a window, and only when it refuses, O(calls remembered).
        """
        if cost != 1:
            positive("cost", cost)
        meter = self._one if key is None else self._meter(key)
        now = monotonic()
        if cost > self._capacity:
            return meter.grant(math.inf, now)
        return meter.grant(meter.claim(cost, now), now)

    def peek(self, cost: float = 1, *, key: Hashable = None) -> Grant:
        """Say what :meth:`try_acquire` would answer; takes nothing and remembers no key."""
        if cost != 1:
            positive("cost", cost)
        meter = self._one if key is None else self._meters.get(key) or self._fresh()
        now = monotonic()
        return meter.grant(meter.wait(cost, now) if cost <= self._capacity else math.inf, now)

    async def acquire(
        self, cost: float = 1, *, key: Hashable = None, max_wait: float | None = None
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
        if cost != 1:
            positive("cost", cost)
        limit = self._max_wait if max_wait is None else _check_wait(max_wait)
        meter = self._one if key is None else self._meter(key)
        now = monotonic()
        wait = meter.claim(cost, now)
        if wait:
            await self._queue(meter, cost, wait, limit)
            now = monotonic()
        return meter.grant(0.0, now)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that takes one token, of its key, before each call of ``fn``."""
        key = self._key
        one = self._one

        async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            meter = one if key is None else self._meter(key(*args, **kwargs))
            wait = meter.claim(1, monotonic())
            if wait:
                await self._queue(meter, 1, wait, self._max_wait)
            return await fn(*args, **kwargs)

        return limited

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take: the longest wait, and what is inside."""
        return self._max_wait + inner

    def _meter(self, key: Hashable) -> _Meter:
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

    async def _queue(self, meter: _Meter, cost: float, wait: float, limit: float) -> None:
        """Wait in line for what will be there in ``wait`` seconds, or refuse at once."""
        if cost > self._capacity:
            msg = f"cost must be at most {self._capacity:g} for {self!r}, not {cost!r}"
            raise ValueError(msg)
        left = remaining()
        if wait > limit or (left is not None and wait > left):
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

    def _fresh(self) -> _Meter:
        return _Level(self._rate, self._capacity)


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

    def _fresh(self) -> _Meter:
        return _Level(self._rate, self._capacity)


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

    def _fresh(self) -> _Meter:
        return _Window(self._rate)


def _check_rate(rate: Rate) -> Rate:
    return instance("rate", rate, Rate, "a Rate, as in Rate(100, per=1.0)")


def _check_burst(burst: float) -> float:
    return at_least("burst", positive("burst", burst), 1)


def _check_wait(max_wait: float) -> float:
    return non_negative("max_wait", max_wait, finite=False)


_new = tuple.__new__  # Grant(...) without the detour through its Python-level __new__
