"""Time and chance: the only module that reads a clock or rolls dice.

Everything monotonic in the library asks :func:`monotonic`, which asks one replaceable source.
The simulated loop swaps that source for its virtual time, and with it the whole library moves:
an hour of timeouts, leases and backoff runs in microseconds and every run with one seed is the
same run. Wall time is for stored timestamps only, never for intervals.

The source is process-wide, one of the two pieces of process-wide state of the library (the other
is the tuple of installed listeners).

:class:`Alarms` is the timer that timeouts share. Calls with one equal budget expire in the order
in which they began, so a dict in insertion order and *one* loop timer for its head replace a
timer for each call: arming and disarming cost two dict operations instead of a heap push and a
cancelled handle that lingers until its time has come.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from threading import get_ident
from types import coroutine
from typing import TYPE_CHECKING, TypeAlias, final

from aiopatterns.core.validate import instance, non_negative, number

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = [
    "Alarms",
    "ClockSource",
    "Home",
    "Interrupt",
    "Parked",
    "Random",
    "call_later",
    "monotonic",
    "rng",
    "seeded",
    "set_source",
    "sleep",
    "sleep_until",
    "wall",
    "yield_now",
]


Random: TypeAlias = random.Random


@dataclass(frozen=True, slots=True)
class ClockSource:
    """Where time and chance come from.

    Args:
        monotonic: Seconds that only grow, from any origin.
        wall: Seconds since 1970-01-01 UTC.
        random: Source of jitter and of ids.
    """

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    random: random.Random


def seeded(seed: int | None = None) -> random.Random:
    """Return dice of its own that roll the same in every run; without a seed, by chance."""
    return random.Random(seed)  # noqa: S311 - jitter, ids and chaos, not keys


_chance = seeded()
_source = ClockSource(time.monotonic, time.time, _chance)
with suppress(AttributeError):  # Windows knows no fork
    # Forked children would otherwise all make the same "unique" ids.
    os.register_at_fork(after_in_child=_chance.seed)


_clock = partial(time.monotonic)
_clock.__doc__ = "Return seconds on the monotonic clock (virtual under the simulated loop)."

# Every policy reads it on every call. A function that asks `_source` costs 77 ns and the bare
# `time.monotonic` 46; so does a partial, and unlike that it can be pointed elsewhere in place, so
# `from ... import monotonic` stays good: `set_source` does it, by the public state of partials.
monotonic: Callable[[], float] = _clock


def wall() -> float:
    """Return seconds since 1970-01-01 UTC, for stored timestamps only."""
    return _source.wall()


def rng() -> random.Random:
    """Return the source of chance (seeded under the simulated loop). Not for secrets."""
    return _source.random


def set_source(source: ClockSource) -> ClockSource:
    """Replace the source of time and chance for the whole process.

    Args:
        source: The new source.

    Returns:
        The source that was in force, to be put back.
    """
    global _source
    previous, _source = _source, instance("source", source, ClockSource, "a ClockSource")
    # Typeshed does not know the method; every implementation of partials has it, to unpickle them.
    methodcaller("__setstate__", (source.monotonic, (), {}, vars(_clock)))(_clock)
    return previous


async def sleep(seconds: float) -> None:
    """Wait ``seconds`` (0 or less: one turn of the loop).

    Cancellation: leaves nothing behind.
    """
    await asyncio.sleep(max(number("seconds", seconds), 0.0))


async def sleep_until(deadline: float) -> None:
    """Wait until :func:`monotonic` has reached ``deadline``.

    Cancellation: leaves nothing behind.
    """
    await sleep(deadline - monotonic())


@coroutine
def yield_now() -> Generator[None, None, None]:
    """Give the loop one turn. Half the cost of ``asyncio.sleep(0)``; cancellation arrives here."""
    yield


def call_later(delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
    """Call ``callback`` after ``delay`` seconds on the running loop; cancel by the handle."""
    return asyncio.get_running_loop().call_later(max(number("delay", delay), 0.0), callback)


Parked: TypeAlias = "asyncio.Future[None]"
"""What a task that waits is parked on; ``set_result(None)`` wakes it."""


@final
class Home:
    """The loop that runs now, remembered: where futures come from, and whether one is there still.

    Asking for the running loop costs a system call on Python 3.11, 0.4 us; :attr:`here` takes a
    quarter of that.
    """

    __slots__ = ("future", "running", "thread")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.running: Callable[[], bool] = loop.is_running
        self.thread: int = get_ident()
        self.future: Callable[[], Parked] = loop.create_future

    @property
    def here(self) -> bool:
        """Whether this code runs on that loop."""
        return self.running() and get_ident() == self.thread


@final
class Interrupt:
    """A cancellation of the task that makes it, once, from outside, told apart from all others.

    For hot paths: a cancel scope in a task of its own costs 8 us, this 1. It has no deadline and
    cancels once, natively; work that swallows that goes on::

        interrupt = Interrupt()
        try:
            await work()  # meanwhile, somewhere: interrupt.fire()
        except BaseException as error:
            if not interrupt.took(error):
                raise

    Raises:
        RuntimeError: No task runs.
    """

    __slots__ = ("_before", "_task", "fired")

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            msg = "an Interrupt is made in the task that it may cancel"
            raise RuntimeError(msg)
        self._task = task
        self._before = task.cancelling()
        self.fired: bool = False

    def fire(self) -> None:
        """Cancel the task; only the first time, and only while its work has not ended."""
        if not self.fired:
            self.fired = True
            self._task.cancel()

    def took(self, error: BaseException | None) -> bool:
        """Take the cancellation back, once the work has ended; called once if it was fired.

        Args:
            error: What the work came to; None if it ended.

        Returns:
            Whether ``error`` is this cancellation and no other, and goes no further.
        """
        if not self.fired:
            return False
        left = self._task.uncancel()
        return left <= self._before and isinstance(error, asyncio.CancelledError)


class Alarms:
    """Expiry callbacks of many calls that share one budget, on one loop timer.

    Args:
        seconds: The budget, the same for every call; 0 or more.

    An instance belongs to the loop it was made on (:meth:`serves` tells). While no call is
    running it costs nothing; its timer may ring once more and is gone then.

    Complexity: O(1) to arm and to disarm; one loop timer at a time.
    """

    __slots__ = ("_armed", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = non_negative("seconds", seconds)
        self._loop = asyncio.get_running_loop()
        self._armed: dict[Callable[[], object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def serves(self) -> bool:
        """Whether this instance was made on the loop that is running now."""
        return self._loop is asyncio.get_running_loop()

    def arm(self, expire: Callable[[], object]) -> float:
        """Call ``expire`` when the budget is over; returns the deadline (monotonic seconds).

        Args:
            expire: A callable of its own for each call; it must not raise.
        """
        deadline = monotonic() + self._seconds
        self._armed[expire] = deadline
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._ring)
        return deadline

    def disarm(self, expire: Callable[[], object]) -> None:
        """Forget ``expire``; harmless if it has been called already."""
        self._armed.pop(expire, None)

    def _ring(self) -> None:
        """Call what is due, then wait for the next; an idle instance keeps no timer."""
        now = monotonic()
        due = now
        while self._armed and due <= now:
            expire, due = next(iter(self._armed.items()))
            if due <= now:
                del self._armed[expire]
                expire()  # may arm again: the timer that rings now still counts as set
        self._timer = self._loop.call_later(due - now, self._ring) if self._armed else None
