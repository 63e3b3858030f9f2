"""The meter of a rate limit: what is remembered of one key, and the line of those who wait.

A limiter has a meter for each key. A meter says whether a cost can be taken now and, if not, in
how many seconds. All of it is synchronous, so a claim is atomic; the coroutine of the limiter
only parks and is woken::

    join --> [ head | next | ... | tail ]      first come, first served; no barging
                |
                `- one timer, for the moment at which the head's cost is there

Invariants:

* While the line is not empty there is one timer, for the turn of its head.
* What is taken is taken in the step in which its waiter is woken. A waiter that was cancelled
  after that gives it back; one that was cancelled before has taken nothing.
* While anybody waits nobody else takes anything.

``Level`` is a level of tokens that fills at the rate, the machine of the token bucket and of GCRA.
``Window`` remembers what was taken within the last period.

A clock that goes back, as it does after a simulation, adds and takes nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from itertools import chain
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.rate import Grant
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.core.rate import Rate

__all__ = ["Level", "Meter", "Ticket", "Window"]

# A wait shorter than this is rounding of the clock: a timer for it would fire at once, for ever.
_INSTANT: Final = 1e-9
# Timers of a loop are late, by a millisecond or more. While tasks wait, so much of what a full
# level would lose meanwhile is kept for them, or a small burst could not reach a high rate.
_LATE: Final = 0.005
# A window is remembered call by call up to here, then in slices of this share of its length: in
# twice as many at most, so that memory does not grow with the rate.
_SLICES: Final = 1024


class Ticket:
    """One place in the line."""

    __slots__ = ("cost", "parked", "taken_at")

    def __init__(self, cost: float) -> None:
        self.cost: float = cost
        self.parked: Waiters = Waiters()
        self.taken_at: float | None = None


class Meter(ABC):
    """What is remembered of one key, and the line of those who wait for it."""

    __slots__ = ("_owed", "_timer", "line")

    def __init__(self) -> None:
        self.line: OrderedDict[Ticket, None] = OrderedDict()
        self._owed = 0.0  # the costs of the line
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

    def claim(self, cost: float, now: float) -> bool:
        """Take ``cost`` if it is there and nobody waits; else take nothing and say False."""
        if self.line or self.short(cost, now) > _INSTANT:
            return False
        self.take(cost, now)
        return True

    def ask(self, cost: float, now: float) -> Grant:
        """:meth:`claim`, with the answer in full."""
        return self.grant(0.0 if self.claim(cost, now) else self.wait(cost, now), now)

    def wait(self, cost: float, now: float) -> float:
        """Seconds until a newcomer could take ``cost``, exactly 0 if that is now."""
        if self.line:
            return max(self.behind(cost, now), _INSTANT)
        wait = self.short(cost, now)
        return wait if wait > _INSTANT else 0.0

    def join(self, cost: float) -> Ticket:
        """Take the last place in the line."""
        ticket = Ticket(cost)
        self.line[ticket] = None
        self._owed += cost
        if self._timer is None:
            # Not serve(): nobody is parked on this ticket yet, so it could not be woken.
            self._timer = call_later(self.short(cost, monotonic()), self.serve).cancel
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up a place, and what was taken for it already; the next may be served sooner."""
        if ticket.taken_at is not None:
            self.give_back(ticket.cost, ticket.taken_at)
        elif ticket in self.line:
            self._remove(ticket)
        self.serve()

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
            self._remove(ticket)
            if ticket.parked.wake():  # else it was cancelled in this very turn
                self.take(ticket.cost, now)
                ticket.taken_at = now

    def _remove(self, ticket: Ticket) -> None:
        del self.line[ticket]
        self._owed = self._owed - ticket.cost if self.line else 0.0


@final
class Level(Meter):
    """A level of tokens that fills at the rate, up to its capacity."""

    __slots__ = ("_at", "_capacity", "_interval", "_late", "_speed", "_tokens")

    def __init__(self, rate: Rate, capacity: float) -> None:
        super().__init__()
        self._capacity = self._tokens = float(capacity)
        self._speed = rate.amount / rate.per
        self._interval = rate.per / rate.amount
        self._late = self._speed * _LATE
        self._at = -math.inf

    # The two hot paths are the same few lines, spelled out: a call between them costs as much.

    def claim(self, cost: float, now: float) -> bool:
        """Take ``cost`` if it is there and nobody waits; else take nothing and say False."""
        tokens = self._tokens
        if now > self._at:
            tokens += (now - self._at) * self._speed
            if tokens > self._capacity:  # noqa: PLR1730 - min() costs a call
                tokens = self._capacity
        if cost > tokens or self.line:
            return super().claim(cost, now)
        self._at = now
        self._tokens = tokens - cost
        return True

    def ask(self, cost: float, now: float) -> Grant:
        """:meth:`claim`, with the answer in full."""
        tokens, full = self._tokens, self._capacity
        if now > self._at:
            tokens += (now - self._at) * self._speed
            if tokens > full:  # noqa: PLR1730 - min() costs a call
                tokens = full
        if cost > tokens or self.line:
            return super().ask(cost, now)
        self._at = now
        self._tokens = tokens = tokens - cost
        return _new(Grant, (True, 0.0, int(tokens), (full - tokens) * self._interval))

    def short(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` is there (0 or less: it is), whoever waits."""
        return (cost - self._level(now)) * self._interval

    def behind(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` is there for somebody who joins the line now."""
        return self.short(cost + self._owed, now)

    def take(self, cost: float, now: float) -> None:
        """Take ``cost``, which is there."""
        left = max(self._level(now) - cost, 0.0)
        self._tokens = left if self.line else min(left, self._capacity)

    def give_back(self, cost: float, taken_at: float) -> None:
        """Undo the :meth:`take` of that instant."""
        del taken_at
        self._tokens = min(self._tokens + cost, self._capacity)

    def grant(self, wait: float, now: float) -> Grant:
        """Build the answer: yes if ``wait`` is 0."""
        free = self._level(now) - self._owed if now > self._at else self._tokens - self._owed
        left = int(free) if free > 0.0 else 0
        return _new(Grant, (not wait, wait, left, (self._capacity - free) * self._interval))

    def at_rest(self, now: float) -> bool:
        """Whether this meter is as good as new."""
        return not self.line and self._level(now) >= self._capacity

    def _level(self, now: float) -> float:
        """Let the level fill until ``now``; a clock that went back adds and takes nothing."""
        if now > self._at:
            filled = self._tokens + (now - self._at) * self._speed
            full = self._capacity + self._late if self.line else self._capacity
            self._tokens = min(filled, full)
        self._at = now
        return self._tokens


class _Slice:
    """Calls that a window remembers as one: it forgets them when the last is old enough."""

    __slots__ = ("cost", "first", "last")

    def __init__(self, cost: float, now: float) -> None:
        self.cost = cost
        self.first = self.last = now


@final
class Window(Meter):
    """What was taken within the last ``per`` seconds."""

    __slots__ = ("_grain", "_limit", "_per", "_slices", "_used")

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self._limit = rate.amount + _INSTANT  # sums of fractional costs are not exact
        self._per = rate.per
        self._grain = rate.per / _SLICES
        self._slices: deque[_Slice] = deque()
        self._used = 0.0

    def claim(self, cost: float, now: float) -> bool:
        """Take ``cost`` if it is there and nobody waits; else take nothing and say False."""
        self._forget(now)
        if self.line or self._used + cost > self._limit:
            return False
        self.take(cost, now)
        return True

    def short(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` is there (0 or less: it is), whoever waits."""
        self._forget(now)
        return self._last_of((cost,), now)

    def behind(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` is there for somebody who joins the line now."""
        self._forget(now)
        return self._last_of((*(ticket.cost for ticket in self.line), cost), now)

    def take(self, cost: float, now: float) -> None:
        """Take ``cost``, which is there."""
        slices = self._slices
        self._used += cost
        span = now - slices[-1].first if slices else math.inf
        if not span or (span <= self._grain and len(slices) >= _SLICES):
            slices[-1].cost += cost
            slices[-1].last = now
        else:
            slices.append(_Slice(cost, now))

    def give_back(self, cost: float, taken_at: float) -> None:
        """Undo the :meth:`take` of that instant."""
        for each in reversed(self._slices):
            if each.first <= taken_at <= each.last:
                each.cost -= cost
                self._used -= cost
                return

    def grant(self, wait: float, now: float) -> Grant:
        """Build the answer: yes if ``wait`` is 0."""
        self._forget(now)
        free = self._limit - self._used - self._owed
        rest = self._slices[-1].last + self._per - now if self._slices else 0.0
        return Grant(not wait, wait, max(int(free), 0), rest)

    def at_rest(self, now: float) -> bool:
        """Whether this meter is as good as new."""
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
        planned: list[tuple[float, float]] = []
        # What will be forgotten, in order: what was taken, then what is being planned here.
        held = chain(((each.last, each.cost) for each in self._slices), planned)
        used, at = self._used, now
        for cost in costs:
            while used + cost > self._limit:
                taken_at, freed = next(held)
                used -= freed
                at = max(at, taken_at + self._per)
            planned.append((at, cost))
            used += cost
        return at - now


_new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - generic; saves Grant's Python-level __new__
