"""Times: an instant from a datetime, the ticks of a cron expression, and what runs at them.

A tick is a time by the server's clock, so all workers of a fleet see the same ticks. Every worker
enqueues the job of each, under an id that is made of the job's name and the tick, and under a
unique key that outlives the job: one of them makes it, the others find it there::

    worker 1   --- 10:05:00.002 enqueue "cron:report:1763978700" ---> made
    worker 2   --- 10:05:00.004 enqueue "cron:report:1763978700" ---> there already

Guarantees: a tick fires at most once in a fleet whose workers are less apart than the window of its
key (twice the distance of two ticks, between a minute and an hour); never for a tick that had
begun when the worker started. Who is later than half of that window leaves the tick out.

Not guaranteed: that every tick fires. One at which no worker runs, or the backend is away for
longer, is left out and not made up for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final
from zoneinfo import ZoneInfo

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.validate import instance, text

if TYPE_CHECKING:
    from aiopatterns.jobs.job import Job
    from aiopatterns.jobs.queue import JobQueue

__all__ = ["Cron", "CronRunner", "Moment", "Schedule", "instant"]

Moment: TypeAlias = datetime
"""A datetime with a time zone."""

_FIELDS: Final = (5, 6)
_SHORTEST_WINDOW: Final = 60.0
_LONGEST_WINDOW: Final = 3600.0
# Seconds of sleep at most: the server's clock is asked again at least that often.
_LONGEST_SLEEP: Final = 30.0
# Seconds until the next try while the backend is away.
_AGAIN: Final = 1.0


def instant(name: str, value: datetime) -> float:
    """Return an aware datetime as seconds since 1970.

    Raises:
        TypeError: ``value`` is no datetime.
        ValueError: It has no time zone, so nobody knows when it is.
    """
    instance(name, value, datetime, "a datetime with a time zone")
    if value.utcoffset() is None:
        msg = f"{name} must have a time zone, as datetime.now(UTC) has, not {value!r}"
        raise ValueError(msg)
    return value.timestamp()


@final
class Schedule:
    """The ticks of a cron expression.

    Args:
        expression: Five fields (minute, hour, day, month, weekday), or six with seconds first.
        timezone: Name of the zone in which they are meant.

    Raises:
        ValueError: The expression has another number of fields, a value that is out of range, or
            no tick at all; or there is no such zone.
        ImportError: The extra is missing; it names the command.

    Complexity: O(1), some 100 us for a tick.
    """

    __slots__ = ("_croniter", "_zone", "expression")

    def __init__(self, expression: str, *, timezone: str = "UTC") -> None:
        self.expression: str = text("expression", expression)
        self._zone = _zone(timezone)
        self._croniter = _croniter()
        if len(expression.split()) not in _FIELDS:
            raise _refused(expression, "it has neither five fields nor six with seconds first")
        try:
            self.next(0.0)
        except (ValueError, KeyError) as error:
            raise _refused(expression, str(error)) from None

    def next(self, now: float) -> float:
        """Return the first tick after ``now``; both in seconds since 1970."""
        begin = datetime.fromtimestamp(now, self._zone)
        ticks = self._croniter(self.expression, begin, second_at_beginning=True)
        found: float = ticks.get_next(float)
        return found


@final
class Cron:
    """A job with its schedule; made by ``@jobs.cron``."""

    __slots__ = ("job", "schedule")

    def __init__(self, schedule: Schedule, job: Job[[], Any]) -> None:
        self.schedule: Schedule = schedule
        self.job: Job[[], Any] = job

    def window(self, tick: float) -> float:
        """Return the seconds for which the key of ``tick`` is kept."""
        period = self.schedule.next(tick) - tick
        return min(max(2 * period, _SHORTEST_WINDOW), _LONGEST_WINDOW)


@final
class CronRunner:
    """Enqueues the cron jobs of an open queue at their ticks; every worker runs one.

    Args:
        queue: The queue.
    """

    __slots__ = ("_queue",)

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def run(self) -> None:
        """Enqueue at every tick, for ever; returns at once if there is no cron job.

        Cancellation: leaves nothing behind; the tick of the moment may have been enqueued.
        """
        crons = self._queue.crons
        if not crons:
            return
        now = await self._now()
        ticks = [(cron.schedule.next(now), number) for number, cron in enumerate(crons)]
        heapify(ticks)
        while True:
            tick, number = ticks[0]
            now = await self._until(tick)
            await self._fire(crons[number], tick, now)
            heapreplace(ticks, (crons[number].schedule.next(max(tick, now)), number))

    async def _until(self, tick: float) -> float:
        """Sleep until the server's clock has reached ``tick``; return what it shows then."""
        while (now := await self._now()) < tick:
            await sleep(min(tick - now, _LONGEST_SLEEP))
        return now

    async def _now(self) -> float:
        """Return the server's time, however long it takes to hear it."""
        while True:
            try:
                return await self._queue.backend.time()
            except BackendError:
                await sleep(_AGAIN)

    async def _fire(self, cron: Cron, tick: float, now: float) -> None:
        """Enqueue the job of a tick, unless it is too late for it."""
        window = cron.window(tick)
        while now - tick <= window / 2:
            try:
                await self._queue.enqueue_tick(cron.job, tick, window)
            except BackendError:
                await sleep(_AGAIN)
                now = await self._now()
            else:
                return


def _croniter() -> Any:
    try:
        from croniter import croniter
    except ImportError:
        msg = "cron jobs need the extra 'cron': pip install 'aiopatterns[cron]'"
        raise ImportError(msg) from None
    return croniter


def _zone(timezone: str) -> Any:
    if text("timezone", timezone) == "UTC":
        return UTC
    try:
        return ZoneInfo(timezone)
    except (ValueError, KeyError, OSError) as error:
        msg = f"timezone must be the name of a zone such as 'Europe/Berlin', not {timezone!r}"
        raise ValueError(msg) from error


def _refused(expression: str, why: str) -> ValueError:
    return ValueError(f"expression must be a cron expression, not {expression!r}: {why}")
