"""The places of jobs that wait for a worker or for a time: lanes, suspects, and what is due.

Every move is O(1), in and out of ``due`` O(log n). The heap of due times is not searched when a
job leaves it early: its entry is recognised as outdated when it comes up, and once most entries
are outdated the heap is built anew.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aiopatterns.backends.memory.queuejob import Place
from aiopatterns.backends.queue import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiopatterns.backends.memory.queuejob import Job

__all__ = ["Places"]

# A heap of up to twice the live entries is left alone, a small one always.
_SMALL: Final = 64
# When, and for equal times the lane and the id, as on Redis; the number keeps jobs from being compared.
_Due: TypeAlias = "tuple[int, str, int, Job]"


@final
class Places:
    """Lanes by priority, suspects in order, and due times.

    Complexity: O(1) for lanes, O(log n) for due times, O(suspects) for suspects.
    """

    __slots__ = ("_heap", "_pushed", "lanes", "news", "scheduled", "suspects")

    def __init__(self) -> None:
        self.lanes: tuple[OrderedDict[str, Job], ...] = tuple(OrderedDict() for _ in PRIORITIES)
        self.suspects: list[tuple[int, str]] = []
        self.scheduled: dict[str, Job] = {}
        self._heap: list[_Due] = []
        self._pushed = 0
        self.news: bool = False  # suspects have come that no worker was told of

    def append(self, job: Job) -> None:
        """Put ``job`` at the end of its lane; a suspect goes back to the suspects."""
        if job.since is not None:
            self._suspect(job, job.since)
            return
        job.place = Place.LANE
        self.lanes[job.priority][job.id] = job

    def push(self, jobs: Sequence[Job]) -> None:
        """Put ``jobs`` at the head of their lanes, in order; suspects go back to the suspects."""
        for job in reversed(jobs):
            self.append(job)
            if job.since is None:
                self.lanes[job.priority].move_to_end(job.id, last=False)

    def schedule(self, job: Job, at: int) -> None:
        """Make ``job`` due at ``at``."""
        job.place, job.at = Place.DUE, at
        self.scheduled[job.id] = job
        self._pushed += 1
        heappush(self._heap, (at, _key(job), self._pushed, job))
        if len(self._heap) > 2 * len(self.scheduled) + _SMALL:
            self._heap = [each for each in self._heap if self._stands(each)]
            heapify(self._heap)

    def remove(self, job: Job) -> None:
        """Take ``job`` out of its lane, the suspects or the due times, wherever it is."""
        if job.place is Place.LANE:
            del self.lanes[job.priority][job.id]
        elif job.place is Place.DUE:
            del self.scheduled[job.id]
        elif job.place is Place.SUSPECT:
            self.suspects.remove((job.since or 0, job.id))

    def take(self, priority: int, most: int) -> list[Job]:
        """Take up to ``most`` jobs from the head of a lane."""
        lane = self.lanes[priority]
        if len(lane) <= most:
            jobs = list(lane.values())
            lane.clear()
            return jobs
        pop = lane.popitem
        return [pop(last=False)[1] for _ in range(most)]

    def take_suspect(self) -> str:
        """Take the first suspect out; return its id."""
        return self.suspects.pop(0)[1]

    def promote(self, now: int, most: int) -> list[Job]:
        """Move up to ``most`` jobs that are due to the ends of their lanes; return them."""
        moved: list[Job] = []
        while len(moved) < most and (job := self._head()) is not None and job.at <= now:
            heappop(self._heap)
            del self.scheduled[job.id]
            self.append(job)
            moved.append(job)
        return moved

    def next_due(self) -> int | None:
        """Return the time of the next due job."""
        head = self._head()
        return None if head is None else head.at

    def any_queued(self) -> bool:
        """Whether there is a job in a lane."""
        return any(self.lanes)

    def in_lanes(self) -> Iterator[Job]:
        """Iterate over the jobs in the lanes, the highest lane first."""
        for lane in reversed(self.lanes):
            yield from lane.values()

    def by_due(self) -> list[Job]:
        """Return what is scheduled, in order."""
        return sorted(self.scheduled.values(), key=lambda job: (job.at, _key(job)))

    def _suspect(self, job: Job, since: int) -> None:
        job.place = Place.SUSPECT
        insort(self.suspects, (since, job.id))
        self.news = True

    def _head(self) -> Job | None:
        """Return the job that is due next; drop outdated entries before it."""
        heap = self._heap
        while heap:
            if self._stands(heap[0]):
                return heap[0][3]
            heappop(heap)
        return None

    def _stands(self, entry: _Due) -> bool:
        """Whether an entry of the heap still says when its job is due."""
        at, _, _, job = entry
        return job.at == at and self.scheduled.get(job.id) is job


def _key(job: Job) -> str:
    """Return what orders jobs that are due at the same time."""
    return f"{job.priority}{job.id}"
