"""Buckets: how many of their jobs may run at once, and how often one may start.

*Concurrency.* A job that comes up while its bucket is full is *parked* there, by priority and then
by rank: its rank is given out when it is first held back and stays until it starts, so being let
out and held back again costs it no place. Whenever a place may have become free the first parked
job is *offered*: it goes to the head of its lane and is looked at again. An offer too many costs
one look; an offer too few would leave a job for ever, so one is made whenever a job of the bucket
stops running, leaves the lane without having started, or starts while there is room for more.

*Rate.* GCRA, with three times for each bucket: ``spent`` counts what has started, ``promised`` also
what has been given a turn. A job that comes up too early is promised the next turn and scheduled
for it; when that has come, only ``spent`` is asked. If a job before it started late, it may still
be too early: then it moves behind ``moved``, the last that did, and not behind all that have a
turn. So each job is looked at a few times, newcomers do not overtake, and the rate holds also if
many turns were missed because no worker was free; those are then only roughly in order.

Source: GCRA as in ITU-T I.371, with the theoretical arrival time as state.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple, final

from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.memory.queuejob import Place
from aiopatterns.backends.queuetimes import spacing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.memory.queuejob import Job
    from aiopatterns.backends.memory.queueplaces import Places
    from aiopatterns.backends.queue import Bucket
    from aiopatterns.core.rate import Rate

__all__ = ["Limits"]


class _Level(NamedTuple):
    """State of a rate: arrival times (ms) that follow what started, has a turn, was moved."""

    spent: float
    promised: float
    moved: float


_REST = _Level(0.0, 0.0, 0.0)


@final
class Limits:
    """The buckets of one queue.

    Args:
        home: Whose time it is that rates at rest are forgotten by.
        places: Where jobs go.

    Complexity: O(buckets of the job) for each job, O(log n) to park one.
    """

    __slots__ = ("_busy", "_levels", "_offers", "_parked", "_places", "_ranks", "parked")

    def __init__(self, home: MemoryHome, places: Places) -> None:
        self._places = places
        self._busy: dict[str, int] = {}
        self._levels: Expiring[str, _Level] = Expiring(home)
        self._parked: dict[str, list[tuple[int, int, Job]]] = {}
        self._offers: dict[str, int] = {}
        self._ranks = 0
        self.parked: dict[str, Job] = {}

    def admit(self, job: Job, now: int) -> bool:
        """Let ``job`` start, taking its places; else park or schedule it and return False."""
        full = next((each for each in job.limits if not self._has_room(each)), None)
        if full is not None:
            self._park(job, full)
            self.offer(job)
            return False
        if not self._on_time(job, now):
            self.offer(job)
            return False
        job.turn, job.rank = False, 0
        for bucket in job.limits:
            if bucket.concurrency is not None:
                self._busy[bucket.key] = self._busy.get(bucket.key, 0) + 1
        self.offer(job)
        return True

    def free(self, job: Job) -> None:
        """Give the places of ``job`` back, which ran until now."""
        for bucket in job.limits:
            if bucket.concurrency is not None:
                left = self._busy[bucket.key] - 1
                if left:
                    self._busy[bucket.key] = left
                else:
                    del self._busy[bucket.key]
                self._offers[bucket.key] = self._offers.get(bucket.key, 0) + 1

    def offer(self, job: Job) -> None:
        """Let the buckets of ``job`` that have room look for another."""
        for bucket in job.limits:
            if bucket.key in self._parked and self._has_room(bucket):
                self._offers[bucket.key] = self._offers.get(bucket.key, 0) + 1

    def flush(self) -> None:
        """Send those to whom places were offered to the heads of their lanes."""
        offers, self._offers = self._offers, {}
        jobs: list[Job] = []
        for key, places in offers.items():
            for _ in range(places):
                jobs.extend(self._unpark(key))
        self._places.push(jobs)

    def remove(self, job: Job) -> None:
        """Take ``job``, which is parked, out; its entry is dropped when it comes up."""
        del self.parked[job.id]
        self._sweep(job.bucket)

    def forget(self, job: Job) -> None:
        """Drop what is remembered of a job that will not start now."""
        job.turn, job.rank = False, 0

    def by_order(self) -> list[Job]:
        """Return what is parked, as it will be let out, bucket by bucket."""
        return sorted(
            self.parked.values(), key=lambda job: (-job.priority, job.bucket.encode(), job.rank)
        )

    def _has_room(self, bucket: Bucket) -> bool:
        most = bucket.concurrency
        return most is None or self._busy.get(bucket.key, 0) < most

    def _park(self, job: Job, bucket: Bucket) -> None:
        if not job.rank:
            self._ranks += 1
            job.rank = self._ranks
        job.place, job.bucket = Place.PARK, bucket.key
        self.parked[job.id] = job
        heappush(self._parked.setdefault(bucket.key, []), (-job.priority, job.rank, job))

    def _unpark(self, key: str) -> Iterable[Job]:
        """Take the first of those parked at a bucket."""
        self._sweep(key)
        heap = self._parked.get(key)
        if heap is None:
            return ()
        job = heappop(heap)[2]
        del self.parked[job.id]
        self._sweep(key)
        return (job,)

    def _sweep(self, key: str) -> None:
        """Drop entries at the head whose jobs have left, and a heap without entries."""
        heap = self._parked.get(key, [])
        while heap and self.parked.get(heap[0][2].id) is not heap[0][2]:
            heappop(heap)
        if not heap:
            self._parked.pop(key, None)

    def _on_time(self, job: Job, now: int) -> bool:
        """Spend from the rates of ``job``; if it is too early, promise it a turn instead."""
        rates = [(each.key, each.rate) for each in job.limits if each.rate is not None]
        levels = [self._levels.get(key) or _REST for key, _ in rates]
        if all(
            _turn(job, rate, level) <= now for (_, rate), level in zip(rates, levels, strict=True)
        ):
            for (key, rate), level in zip(rates, levels, strict=True):
                self._keep(key, _spend(level, spacing(rate)[0], now, promised=job.turn), now)
            return True
        due = now
        for (key, rate), level in zip(rates, levels, strict=True):
            interval, slack = spacing(rate)
            line = level.moved if job.turn else max(level.promised, level.moved)
            start = max(level.spent, line, now)
            due = max(due, math.ceil(start - slack))
            end = start + interval
            late = level._replace(moved=end) if job.turn else level._replace(promised=end)
            self._keep(key, late, now)
        job.turn = True
        self._places.schedule(job, max(due, now + 1))
        return False

    def _keep(self, key: str, level: _Level, now: int) -> None:
        self._levels.put(key, level, max(1, math.ceil(max(level) - now)) / 1_000)


def _spend(level: _Level, interval: float, now: int, *, promised: bool) -> _Level:
    """Return the level after a start."""
    spent = max(level.spent, now) + interval
    line = level.promised if promised else max(level.promised, level.moved, now) + interval
    return _Level(spent, max(spent, line), level.moved)


def _turn(job: Job, rate: Rate, level: _Level) -> float:
    """Return the time from which on ``job`` may start by one rate."""
    reached = level.spent if job.turn else max(level)
    return reached - spacing(rate)[1]
