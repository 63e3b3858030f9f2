"""Jobs as a page shows them: lists by state, one job in detail, dead letters.

A list is read page by page, as the backend gives it; a name is looked for in a bounded number of
jobs, and the page says where to go on. A job is found by its id in the state that it is in, in a
bounded number as well: of one that is too far behind there are the state and no arguments.

Arguments are shown as their kinds and sizes, or as text where that was asked for; errors and
tracebacks always without what looks like a secret (:mod:`aiopatterns.dashboard.redaction`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from aiopatterns.core.clock import wall
from aiopatterns.core.errors import CodecError
from aiopatterns.dashboard.redaction import clean, shape, shown
from aiopatterns.jobs.deadletter import read_letter
from aiopatterns.jobs.ids import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.queue import JobState, Queue, StoredJob
    from aiopatterns.dashboard.queues import KnownQueue
    from aiopatterns.jobs.envelope import Envelope, ErrorRecord

__all__ = ["LISTED", "ErrorView", "JobDetail", "JobPage", "JobRow", "Jobs", "LetterView"]

#: States whose jobs can be listed.
LISTED: Final[tuple[JobState, ...]] = ("queued", "scheduled", "waiting", "running", "dead")
# Jobs that one question reads at most, and how many at a time.
_READ: Final = 2_000
_AT_ONCE: Final = 500


@final
class ErrorView(msgspec.Struct, frozen=True):
    """An error in words."""

    type: str
    message: str
    traceback: str


@final
class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a list; ``at``: when it is due, or has died; None if neither."""

    id: str
    queue: str
    name: str
    state: str
    attempts: int
    enqueued_at: float | None
    at: float | None


@final
class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs, and where to go on (None: that was all)."""

    jobs: list[JobRow]
    after: str | None


@final
class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be said of one job.

    Attributes:
        id: Its id.
        queue: Its queue.
        name: The job's name; empty if its bytes cannot be read, or were not found.
        state: Where it is.
        arguments: Its arguments as text; None if they were not found.
        attempts: How often it was started.
        error: What it failed with.
        enqueued_at: When it was enqueued.
        at: When it is due, or has died.
        age: Seconds since it was enqueued.
        progress: The fraction that it told last.
        correlation_id: Joins all that is done for one request.
        dependencies: Ids of the jobs that it waits for; None: the backend does not tell.
    """

    id: str
    queue: str
    name: str
    state: str
    arguments: str | None
    attempts: int
    error: ErrorView | None
    enqueued_at: float | None
    at: float | None
    age: float | None
    progress: float | None
    correlation_id: str | None
    dependencies: list[str] | None = None


@final
class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter."""

    id: str
    queue: str
    name: str
    arguments: str
    attempts: int
    error: ErrorView
    died_at: float


@final
class Jobs:
    """Reads the jobs of queues.

    Args:
        arguments: Whether arguments are shown as text.
    """

    __slots__ = ("_arguments",)

    def __init__(self, *, arguments: bool) -> None:
        self._arguments = arguments

    async def page(
        self, queue: KnownQueue, state: JobState, *, name: str, after: str | None, limit: int
    ) -> JobPage:
        """Return some jobs in one state.

        Args:
            queue: The queue.
            state: One of :data:`LISTED`.
            name: Those of one job; empty: of all.
            after: Where to go on, as the page before said.
            limit: How many at most; about, if a page of the backend has more that fit.

        Raises:
            ValueError: ``after`` is none.

        Complexity: O(jobs read), at most 2,000; 1 round trip for 500.
        """
        part, cursor = _place(after, len(queue.stores))
        rows: list[JobRow] = []
        read = 0
        while part < len(queue.stores):
            size = _AT_ONCE if name else limit - len(rows)
            found = await queue.stores[part].page(state, cursor=cursor, limit=size)
            some = [_row(queue, state, each) for each in found.jobs]
            rows += [row for row in some if name in {"", row.name}]
            read += max(1, len(found.jobs))
            cursor = found.cursor
            if cursor is None:
                part += 1
            if len(rows) >= limit or read >= _READ:
                break
        done = part >= len(queue.stores)
        return JobPage(jobs=rows, after=None if done else f"{part}.{cursor or ''}")

    async def detail(self, queue: KnownQueue, job_id: str) -> JobDetail | None:
        """Return what can be said of a job; None if it is unknown.

        Complexity: O(jobs in its state), at most 2,000; a few round trips.
        """
        for store in _stores(queue, job_id):
            state = (await store.states([job_id]))[job_id]
            if state != "unknown":
                return await self._told(queue, store, job_id, state)
        return None

    async def letters(self, queue: KnownQueue, limit: int) -> list[LetterView]:
        """Return the newest dead letters. O(limit), 1 round trip for each part."""
        found: list[StoredJob] = []
        for store in queue.stores:
            found += (await store.page("dead", limit=limit)).jobs
        found.sort(key=lambda each: each.at, reverse=True)
        return [self._letter(queue, each) for each in found[:limit]]

    async def _told(
        self, queue: KnownQueue, store: Queue, job_id: str, state: JobState
    ) -> JobDetail:
        stored = await _found(store, job_id, state) if state in LISTED else None
        envelope = None if stored is None else _opened(queue, stored)
        attempts, error = 0, b""
        if stored is not None:
            attempts, error = stored.attempts, stored.error
        elif (outcome := (await store.outcomes([job_id])).get(job_id)) is not None:
            attempts, error = outcome.attempts, outcome.data if state == "dead" else b""
        since = None if envelope is None else envelope.enqueued_at
        return JobDetail(
            id=job_id,
            queue=queue.name,
            name="" if envelope is None else envelope.name,
            state=state,
            arguments=None if envelope is None else self._told_arguments(envelope),
            attempts=attempts,
            error=_error(queue.envelopes.read_error(error)) if state == "dead" else None,
            enqueued_at=since,
            at=None if stored is None else stored.at or None,
            age=None if since is None else max(0.0, wall() - since),
            progress=await store.progress(job_id) if state == "running" else None,
            correlation_id=None if envelope is None else envelope.header.correlation_id,
        )

    def _letter(self, queue: KnownQueue, stored: StoredJob) -> LetterView:
        letter = read_letter(stored, queue.envelopes)
        return LetterView(
            id=letter.job_id,
            queue=queue.name,
            name=letter.name,
            arguments=self._text(letter.args, letter.kwargs),
            attempts=letter.attempts,
            error=_error(letter.error),
            died_at=letter.died_at,
        )

    def _told_arguments(self, envelope: Envelope) -> str:
        return self._text(envelope.args, envelope.kwargs)

    def _text(self, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        """Return arguments as they stand in a call."""
        if self._arguments:
            told = [shown(each) for each in args]
            told += [f"{name}={shown(each, name=name)}" for name, each in kwargs.items()]
        else:
            told = [shape(each) for each in args]
            told += [f"{name}={shape(each)}" for name, each in kwargs.items()]
        return ", ".join(told)


def _opened(queue: KnownQueue, stored: StoredJob) -> Envelope | None:
    try:
        return queue.envelopes.decode(stored.body)
    except CodecError:  # signed, of another codec, or no job at all
        return None


def _row(queue: KnownQueue, state: JobState, stored: StoredJob) -> JobRow:
    envelope = _opened(queue, stored)
    return JobRow(
        id=stored.id,
        queue=queue.name,
        name="" if envelope is None else envelope.name,
        state=state,
        attempts=stored.attempts,
        enqueued_at=None if envelope is None else envelope.enqueued_at,
        at=stored.at or None,
    )


def _error(record: ErrorRecord) -> ErrorView:
    return ErrorView(record.type, clean(record.message), clean(record.traceback))


def _stores(queue: KnownQueue, job_id: str) -> Sequence[Queue]:
    part = partition_of(job_id, len(queue.stores))
    return queue.stores if part is None else (queue.stores[part],)


async def _found(store: Queue, job_id: str, state: JobState) -> StoredJob | None:
    """Look for a job among those in its state."""
    cursor, read = None, 0
    while read < _READ:
        page = await store.page(state, cursor=cursor, limit=_AT_ONCE)
        for each in page.jobs:
            if each.id == job_id:
                return each
        cursor, read = page.cursor, read + max(1, len(page.jobs))
        if cursor is None:
            return None
    return None


def _place(after: str | None, parts: int) -> tuple[int, str | None]:
    """Return the part and the cursor that a page ended at."""
    if not after:
        return 0, None
    part, dot, cursor = after.partition(".")
    if not (dot and part.isascii() and part.isdecimal() and int(part) < parts):
        msg = f"after must be what the page before said, not {after!r}"
        raise ValueError(msg)
    return int(part), cursor or None
