"""Many jobs at once: by their ids, or by a filter.

A filter is answered by reading the queue page by page, so it sees jobs as they were while it read;
one that moves meanwhile may be left out. The ids are collected first, then acted upon, 500 at a
time, each step atomic.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from aiopatterns.backends.names import check_name
from aiopatterns.backends.queue import MAX_BATCH
from aiopatterns.core.errors import CodecError
from aiopatterns.core.validate import choice, count, text
from aiopatterns.jobs.deadletter import read_letter
from aiopatterns.jobs.handle import Handle, JobStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from aiopatterns.backends.queue import JobState, StoredJob
    from aiopatterns.jobs.deadletter import DeadLetter
    from aiopatterns.jobs.desk import Desk
    from aiopatterns.jobs.envelope import Envelopes

__all__ = ["Bulk", "JobFilter", "Which"]

_LIVE: Final = (JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING)
_DEAD: Final = (JobStatus.DEAD,)


@final
@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs of a queue are meant.

    Args:
        name: Those of one job; None: of all.
        state: Those in one state, of QUEUED, SCHEDULED, WAITING, RUNNING and DEAD; None: in all
            that the operation is for.

    Raises:
        ValueError: ``state`` is another one; ended jobs are not listed.
    """

    name: str | None = None
    state: JobStatus | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            text("name", self.name)
        if self.state is not None:
            choice("state", self.state, (*_LIVE, *_DEAD))


Which: TypeAlias = "Collection[Handle[Any] | str] | JobFilter"
"""Handles or ids of jobs, or a filter."""


@final
class Bulk:
    """Operations on many jobs of an open queue.

    Args:
        desk: Asks the stores.
        envelopes: Reads what is stored.
    """

    __slots__ = ("_desk", "_envelopes")

    def __init__(self, desk: Desk, envelopes: Envelopes) -> None:
        self._desk = desk
        self._envelopes = envelopes

    async def cancel(self, which: Which) -> int:
        """Cancel jobs that have not ended; return how many are cancelled or asked to stop."""
        found = 0
        for partition, ids in await self._chunks(which, _LIVE):
            states = await self._desk.stores[partition].cancel(ids)
            found += sum(state in {"cancelled", "running"} for state in states.values())
        return found

    async def requeue(self, which: Which) -> int:
        """Queue dead letters again; return how many there were."""
        found = 0
        for partition, ids in await self._chunks(which, _DEAD):
            found += await self._desk.stores[partition].requeue(ids)
        return found

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters."""
        count("limit", limit)
        stored: list[StoredJob] = []
        for partition in range(len(self._desk.stores)):
            async for page in self._pages(partition, "dead", limit):
                stored += page
        stored.sort(key=lambda each: each.at, reverse=True)
        return [read_letter(each, self._envelopes) for each in stored[:limit]]

    async def _chunks(
        self, which: Which, states: tuple[JobStatus, ...]
    ) -> list[tuple[int, list[str]]]:
        """Return the ids that are meant, by partition, in lists that one call may carry."""
        if isinstance(which, JobFilter):
            parts = await self._matching(which, states)
        else:
            parts = self._desk.split(_ids(which))
        return [
            (partition, ids[start : start + MAX_BATCH])
            for partition, ids in parts.items()
            for start in range(0, len(ids), MAX_BATCH)
        ]

    async def _matching(
        self, which: JobFilter, states: tuple[JobStatus, ...]
    ) -> dict[int, list[str]]:
        if which.state is not None:
            states = tuple(each for each in states if each is which.state)
        parts: dict[int, list[str]] = {}
        for partition in range(len(self._desk.stores)):
            found: dict[str, None] = {}  # a job that moves meanwhile is read twice
            for state in states:
                async for page in self._pages(partition, state.value, None):
                    found.update(dict.fromkeys(e.id for e in page if self._fits(e, which.name)))
            parts[partition] = list(found)
        return parts

    def _fits(self, stored: StoredJob, name: str | None) -> bool:
        if name is None:
            return True
        try:
            return self._envelopes.decode(stored.body).name == name
        except CodecError:
            return False

    async def _pages(
        self, partition: int, state: JobState, limit: int | None
    ) -> AsyncGenerator[list[StoredJob]]:
        """Read the jobs in one state, ``limit`` of them at most, page by page."""
        store, cursor, left = self._desk.stores[partition], None, limit
        while left is None or left > 0:
            size = MAX_BATCH if left is None else min(left, MAX_BATCH)
            page = await store.page(state, cursor=cursor, limit=size)
            yield page.jobs
            cursor = page.cursor
            if cursor is None:
                return
            left = None if left is None else left - len(page.jobs)


def _ids(which: Iterable[Handle[Any] | str]) -> list[str]:
    if isinstance(which, (str, Handle)) or not isinstance(which, Collection):
        msg = f"jobs must be a collection of handles or ids, or a JobFilter, not {which!r}"
        raise TypeError(msg)
    return [each.job_id if isinstance(each, Handle) else check_name("jobs", each) for each in which]
