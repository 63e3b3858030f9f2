"""Jobs that run where they are called: ``with jobs.inline():`` for tests, ``await job(...)``.

Inside the block an ``enqueue`` runs the job before it returns, in a queue of its own in memory, so
neither a server nor a worker is needed, nor an open queue. All else is as it is in production:
arguments and results go through the codec, middleware and retries are applied, a failed job is a
dead letter, unique keys and dependencies hold. What would wait does not: delays, backoff and
limits are left out.

Handles, statistics and dead letters of the block answer from that queue, the handles for ever.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, final

from anyio import move_on_after

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.queue import Settled, Turn
from aiopatterns.core.clock import monotonic, sleep, wall
from aiopatterns.core.context import bind_deadline, correlation_id, deadline, new_id
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.jobs.context import Context, hops_onward
from aiopatterns.jobs.desk import Desk
from aiopatterns.jobs.events import JobProgress
from aiopatterns.jobs.handle import Origin
from aiopatterns.jobs.results import ENDED, cancelled, not_found
from aiopatterns.jobs.verdict import after_error, after_value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import ClaimedJob, Enqueued, NewJob, Outcome, Queue
    from aiopatterns.jobs.job import Job
    from aiopatterns.jobs.queue import JobQueue
    from aiopatterns.jobs.verdict import Verdict

__all__ = ["Inline", "run_here"]

_LEASE: Final = 86_400.0
# Unique keys of these modes hold until a job starts, which here is at once.
_UNTIL_START: Final = ("debounce", "keep_last")
# Seconds between two looks for a job that has not ended: one that is paused, or runs right now.
_LOOK: Final = 0.01


@final
class Inline:
    """The queue of one ``with jobs.inline():``.

    Args:
        queue: The queue that it stands in for.

    Attributes:
        desk: Asks its stores.
        origin: Of its handles.
    """

    __slots__ = ("_queue", "desk", "origin")

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        backend = open_backend("memory://")
        _open(backend)
        stores = tuple(backend.queue(each.name) for each in queue.stores)
        results = tuple(_Results(queue.name, each) for each in stores)
        self.desk: Desk = Desk(stores, results, wall())
        self.origin: Origin = Origin(queue.name, queue.envelopes, lambda: self.desk)

    async def enqueue(self, partition: int, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Enqueue jobs and run all that can run.

        Cancellation: reaches the function; what has not run is queued, for the next enqueue.
        """
        store = self.desk.stores[partition]
        made = await store.enqueue([_at_once(each) for each in jobs])
        await self._drain(store)
        return made

    async def _drain(self, store: Queue) -> None:
        """Work like a worker, one job at a time, until there is nothing left to run."""
        worker, number = new_id(), 0
        settled: list[Settled] = []
        try:
            while True:
                number += 1
                turned = await store.step(Turn(worker, number, _LEASE, settled, free=1))
                settled = [await self._run(job, turned.now) for job in turned.claimed]
                if not settled:
                    return
        finally:
            await store.step(Turn(worker, number + 1, _LEASE, leave=True))

    async def _run(self, claimed: ClaimedJob, now: float) -> Settled:
        verdict = await self._attempt(claimed, now)
        return Settled(claimed.id, verdict.how, verdict.data, counted=verdict.counted)

    async def _attempt(self, claimed: ClaimedJob, now: float) -> Verdict:
        envelopes = self._queue.envelopes
        envelope = envelopes.decode(claimed.body)
        job = self._queue.jobs[envelope.name]
        args = [envelope.args] if job.kind == "batch" else envelope.args
        timeout = job.options.timeout
        until = None if timeout is None else monotonic() + timeout
        try:
            with bind_deadline(until), move_on_after(timeout):
                async with _context(self._queue, job, claimed.id, claimed.attempt) as ctx:
                    value = await job.attempt(ctx, args, envelope.kwargs)
                    value = value[0] if job.kind == "batch" else value
                    return after_value(envelopes, value, kept=job.options.result_ttl > 0)
            msg = f"job {job.name!r} took longer than its {timeout} s"
            raise TimeoutExceededError(msg, timeout=timeout)
        except Exception as error:
            elapsed = now - envelope.enqueued_at
            retry = job.options.retry
            return after_error(envelopes, error, retry, attempt=claimed.attempt, elapsed=elapsed)


async def run_here(
    queue: JobQueue, job: Job[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Run a call here and now, as a first attempt; what ``await job(...)`` does."""
    job.signature.check(args, kwargs)
    async with _context(queue, job, new_id(), 1) as ctx:
        if job.kind != "batch":
            return await job.run(ctx, args, kwargs)
        (value,) = await job.run(ctx, [list(args)], {})
        return value


@final
class _Results:
    """Outcomes of a queue whose jobs have ended when they are asked for; nothing is watched."""

    __slots__ = ("_queue", "_store")

    def __init__(self, queue: str, store: Queue) -> None:
        self._queue = queue
        self._store = store

    async def wait(self, job_id: str) -> Outcome:
        while (state := (await self._store.states([job_id]))[job_id]) not in {*ENDED, "unknown"}:
            await sleep(_LOOK)
        found = await self._store.outcomes([job_id])
        if job_id in found:
            return found[job_id]
        raise cancelled(job_id) if state == "cancelled" else not_found(self._queue, job_id)


@asynccontextmanager
async def _context(
    queue: JobQueue, job: Job[..., Any], job_id: str, attempt: int
) -> AsyncGenerator[Context]:
    """Give the context of a run here; the queue's lifespan is entered if anybody could see it."""

    def report(fraction: float) -> None:
        if listening():
            emit(JobProgress(queue.name, job.name, job_id, fraction))

    ctx = Context(
        attempt=attempt,
        deadline=deadline(),
        correlation_id=correlation_id(),
        hops=hops_onward(),
        job_id=job_id,
        name=job.name,
        report=report,
    )
    if queue.lifespan is None or not (job.signature.takes_context or queue.middlewares):
        yield ctx
        return
    async with queue.lifespan() as state:
        ctx.state = {} if state is None else state
        yield ctx


def _at_once(new: NewJob) -> NewJob:
    """Return a job without what would make it wait."""
    unique = new.unique
    if unique is not None and unique.mode in _UNTIL_START:
        unique = None
    return new._replace(delay=0.0, at=None, limits=(), unique=unique)


def _open(backend: Backend) -> None:
    """Open a backend in memory, which waits for nothing, where ``await`` is not possible."""
    opening = backend.__aenter__()
    with suppress(StopIteration):
        opening.send(None)
