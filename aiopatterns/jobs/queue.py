"""JobQueue: typed jobs that survive the process, defined at module level.

::

    producers                      one store a partition                  workers
    job.enqueue(...) ---.        .---- lanes by priority ----.       .--- Worker(jobs)
    jobs.enqueue_many --+------->|     due, waiting          |------>+--- Worker(jobs)
    cron ticks ---------'  1 RT  '---- dead letters ---------'       '--- Supervisor(...)
                                          ^
    handles, events, statistics ----------'

The queue is the producers' side: it defines jobs, sends them, and asks about them. It runs none;
that is for a :class:`~aiopatterns.jobs.worker.Worker`, in this process or another.

Guarantees, as the backend keeps what it has acknowledged:

* What ``enqueue`` has returned for is run, at least once, and by a worker of the same name of queue.
* One id is one job, one unique key at a time is one job, also across processes.
* Correlation, deadline and hops of the code that enqueues are there where the job runs.
* Payloads are data: JSON or msgpack, checked by their signature before they are read.

Not guaranteed: order (but for equal priority in one partition, as they are taken), and that a job
runs once.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, Unpack, final

from aiopatterns.backends.names import check_name
from aiopatterns.backends.opening import resolve
from aiopatterns.backends.owner import BackendOwner
from aiopatterns.backends.queue import MAX_BATCH, UniqueKey
from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import BackendError, ClosedError
from aiopatterns.core.notes import note
from aiopatterns.core.validate import count, instance, optional_function, positive
from aiopatterns.jobs.bulk import Bulk
from aiopatterns.jobs.definitions import Definitions
from aiopatterns.jobs.desk import Desk
from aiopatterns.jobs.envelope import Envelopes
from aiopatterns.jobs.events import JobEvents
from aiopatterns.jobs.handle import Handle, Origin
from aiopatterns.jobs.ids import partition_of
from aiopatterns.jobs.inline import Inline, run_here
from aiopatterns.jobs.job import UnsentJob
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.results import Results
from aiopatterns.jobs.statistics import summed
from aiopatterns.jobs.terms import Stamp, Terms
from aiopatterns.jobs.tracing import sending

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import Enqueued, NewJob, Queue
    from aiopatterns.core.codec import Codec
    from aiopatterns.jobs.bulk import Which
    from aiopatterns.jobs.deadletter import DeadLetter
    from aiopatterns.jobs.job import Job
    from aiopatterns.jobs.statistics import JobStatistics

__all__ = ["JobQueue", "Lifespan", "Wire"]

R = TypeVar("R")

Lifespan: TypeAlias = "Callable[[], AbstractAsyncContextManager[Any]]"


class Wire(TypedDict, total=False):
    """How payloads become bytes, as keywords of a queue; see :class:`Envelopes`."""

    codec: Codec | Sequence[Codec]
    signing: Sequence[str | bytes]
    max_bytes: int


@final
class JobQueue(Definitions, BackendOwner):
    """A queue of typed jobs.

    Args:
        name: Name of the queue; producers and workers of one name share it.
        backend: A backend or its URL. A backend object is opened with the queue and closed with
            it, unless others have it open.
        lease: Seconds after which a worker that is not heard of counts as dead, and its jobs are
            given to others.
        partitions: In how many parts the queue is kept, each on one server of a cluster. Must be
            the same everywhere; keys and dependencies hold within a partition.
        lifespan: A function that returns an async context manager; what it yields is ``ctx.state``
            in each worker.
        limits: A limit of the whole queue; only without partitions.
        wire: ``codec`` (one, or several of which the first writes and all read), ``signing``
            (keys, of which the first signs and all verify) and ``max_bytes`` of a payload.

    Raises:
        ValueError: A value is out of its range.
        ImportError: The backend needs an extra that is missing; it names the command.

    Example::

        jobs = JobQueue("thumbnails", "redis://localhost")


        @jobs.job(timeout=30)
        async def thumbnail(path: str, *, size: int = 128) -> str: ...


        async with jobs:
            handle = await thumbnail.enqueue("a.png", size=64)
            print(await handle.result(timeout=10))
    """

    __slots__ = (
        "_desk",
        "_inline",
        "_origin",
        "_results",
        "_stores",
        "backend",
        "envelopes",
        "lease",
        "lifespan",
    )

    def __init__(
        self,
        name: str,
        backend: Backend | str = "memory://",
        *,
        lease: float = 15.0,
        partitions: int = 1,
        lifespan: Lifespan | None = None,
        limits: Limits | None = None,
        **wire: Unpack[Wire],
    ) -> None:
        super().__init__(
            check_name("name", name), partitions=count("partitions", partitions), limits=limits
        )
        if limits is not None:
            instance("limits", limits, Limits, "Limits or None")
            _check_shared(limits, partitions)
        self.lease: float = positive("lease", lease)
        self.lifespan: Lifespan | None = optional_function("lifespan", lifespan)
        self.envelopes: Envelopes = Envelopes(**wire)
        self.backend: Backend = resolve(backend)
        names = [name] if partitions == 1 else [f"{name}:{each}" for each in range(partitions)]
        self._stores = tuple(self.backend.queue(each) for each in names)
        self._desk: Desk | None = None
        self._results: tuple[Results, ...] = ()
        self._inline: Inline | None = None
        self._origin = Origin(name, self.envelopes, self._opened)

    @property
    def stores(self) -> tuple[Queue, ...]:
        """The queues of the backend, one for each partition."""
        return self._stores

    def desk(self) -> Desk:
        """Return what this opening asks its stores with.

        Raises:
            ClosedError: The queue is not open.
        """
        return self._opened() if self._inline is None else self._inline.desk

    def _opened(self) -> Desk:
        if self._desk is None:
            msg = (
                f"JobQueue {self.name!r} is not open; write 'async with jobs:' around this, jobs"
                f" being your queue (a Worker opens it by itself)"
            )
            raise ClosedError(msg)
        return self._desk

    def now(self) -> float:
        """Return the server's time in seconds since 1970, without asking; enqueues measure it."""
        return self.desk().now()

    async def enqueue_many(self, jobs: Iterable[UnsentJob[R]]) -> list[Handle[R]]:
        """Enqueue many calls, made by ``job.job(...)``, of one job or of several.

        All are checked and encoded before the first is sent, then they go in chunks of 500, each
        added as a whole or not at all. Chunks that were sent stay if a later one fails.

        Args:
            jobs: The calls.

        Returns:
            A handle for each, in order.

        Raises:
            TypeError: One is no call of a job.
            ValueError: One is of another queue.
            CodecError: One cannot be encoded.
            BackendUnavailableError: Nobody answers; a note says how many were sent.

        Cancellation: some chunks may have been sent.

        Complexity: 1 round trip for 500 jobs of a partition.
        """
        unsent = list(jobs)
        with sending(self.name, count=len(unsent)):
            return await self._send_many(unsent)

    async def _send_many(self, unsent: Sequence[UnsentJob[R]]) -> list[Handle[R]]:
        parts = await self._built(unsent)
        handles: dict[int, Handle[R]] = {}
        for partition, (numbers, built) in parts.items():
            for start in range(0, len(built), MAX_BATCH):
                try:
                    made = await self._enqueue(partition, built[start : start + MAX_BATCH])
                except BackendError as error:
                    note(error, f"{len(handles)} of {len(unsent)} jobs were enqueued before")
                    raise
                for number, answer in zip(numbers[start : start + MAX_BATCH], made, strict=True):
                    handles[number] = self._handle(unsent[number].job, answer, partition)
        return [handles[number] for number in range(len(unsent))]

    async def send(self, unsent: UnsentJob[R]) -> Handle[R]:
        """Enqueue one call; what :meth:`Job.enqueue` does."""
        with sending(self.name, unsent.job.name) as span:
            partition, new = unsent.build(await self._stamp())
            (answer,) = await self._enqueue(partition, [new])
            span.note("id", answer.id)
            return self._handle(unsent.job, answer, partition)

    async def enqueue_tick(self, job: Job[[], Any], tick: float, window: float) -> Handle[Any]:
        """Enqueue the cron job of a tick, unless somebody has; see :class:`CronRunner`."""
        key = f"cron:{job.name}:{tick:.0f}"
        terms = Terms(id=key, unique=UniqueKey(key, "throttle", window))
        return await self.send(UnsentJob(job, (), {}, terms))

    def handle(self, job_id: str, *, type: Any = Any) -> Handle[Any]:
        """Return the handle of a job that was enqueued before, here or elsewhere.

        Args:
            job_id: Its id.
            type: What its result must be; ``job.handle(id)`` knows it.
        """
        partition = partition_of(check_name("job_id", job_id), self.partitions)
        origin = self._origin if self._inline is None else self._inline.origin
        return Handle(origin, job_id, partition=partition, type=type)

    async def run_here(
        self, job: Job[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run a call here and now; what ``await job(...)`` does."""
        return await run_here(self, job, args, kwargs)

    @contextmanager
    def inline(self) -> Generator[None]:
        """Run jobs at their enqueue inside a ``with`` block, for tests; see ``inline.py``.

        Example::

            with jobs.inline():
                handle = await thumbnail.enqueue("a.png", size=64)
                assert await handle.result() == "a-64.png"
        """
        outer, self._inline = self._inline, Inline(self)
        try:
            yield
        finally:
            self._inline = outer

    async def pause(self) -> None:
        """Give out no more jobs; those that run go on, and enqueueing does. 1 round trip."""
        await self.desk().all(lambda store: store.pause(paused=True))

    async def resume(self) -> None:
        """Give out jobs again. 1 round trip."""
        await self.desk().all(lambda store: store.pause(paused=False))

    async def statistics(self) -> JobStatistics:
        """Return how many jobs are where, over all partitions. O(workers), 1 round trip."""
        return summed(await self.desk().all(lambda store: store.counts()))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first; O(limit), 1 round trip for 500.

        Args:
            limit: How many at most.
        """
        return await self._bulk().dead_letters(limit)

    async def requeue(self, jobs: Which) -> int:
        """Queue dead letters again, under their ids and with all their attempts.

        Args:
            jobs: Handles or ids, or a filter.

        Returns:
            How many of them were dead letters.

        Complexity: O(jobs), 1 round trip for 500; a filter reads all dead letters. Repeated safely.
        """
        return await self._bulk().requeue(jobs)

    async def cancel(self, jobs: Which) -> int:
        """Cancel jobs that have not ended, and with each those that wait for it.

        Args:
            jobs: Handles or ids, or a filter.

        Returns:
            How many of them are cancelled, or run and were asked to stop.

        Complexity: O(jobs + dependents), 1 round trip for 500; a filter reads all jobs in its
        states. Repeated safely.
        """
        return await self._bulk().cancel(jobs)

    async def purge(self) -> int:
        """Remove all dead letters; return how many there were."""
        return sum(await self.desk().all(lambda store: store.purge()))

    def events(self) -> JobEvents:
        """Look on what happens to jobs; ``async with jobs.events() as events: async for ...``."""
        return JobEvents(self.name, self.desk().stores, self.envelopes)

    async def _start(self, tasks: TaskGroup) -> None:
        now = await self.backend.time()
        self._results = tuple(Results(self.name, store) for store in self._stores)
        self._desk = Desk(self._stores, self._results, now)
        for results in self._results:
            tasks.start_soon(results.watch)
            tasks.start_soon(results.look)

    def _settle(self) -> None:
        self._desk = None
        for results in self._results:
            results.close()

    def _bulk(self) -> Bulk:
        return Bulk(self.desk(), self.envelopes)

    async def _enqueue(self, partition: int, jobs: Sequence[NewJob]) -> list[Enqueued]:
        if self._inline is not None:
            return await self._inline.enqueue(partition, jobs)
        return await self._stores[partition].enqueue(jobs)

    async def _stamp(self) -> Stamp:
        """Return what the jobs of one enqueue share, with a time that is not old."""
        desk = self.desk()
        if self._inline is None and desk.outdated:
            await desk.measure(self.backend.time)
        return Stamp(desk, self.envelopes)

    async def _built(
        self, unsent: Sequence[UnsentJob[R]]
    ) -> dict[int, tuple[list[int], list[NewJob]]]:
        """Return checked and encoded jobs by partition, each with its place in ``unsent``."""
        stamp = await self._stamp()
        parts: dict[int, tuple[list[int], list[NewJob]]] = {}
        for number, each in enumerate(unsent):
            if not isinstance(each, UnsentJob) or each.job.queue is not self:
                raise _foreign(self.name, each)
            partition, new = each.build(stamp)
            numbers, built = parts.setdefault(partition, ([], []))
            numbers.append(number)
            built.append(new)
            if len(built) % MAX_BATCH == 0:
                await yield_now()
        return parts

    def _handle(self, job: Job[..., R], answer: Enqueued, partition: int) -> Handle[R]:
        return Handle(
            self._origin if self._inline is None else self._inline.origin,
            answer.id,
            partition=partition,
            type=job.signature.result_type,
            created=answer.created,
        )


def _check_shared(limits: Limits, partitions: int) -> None:
    """Refuse a limit of the whole queue that would not be one."""
    if limits.key is not None:
        msg = f"limits of a queue must have no key, which is for jobs, not {limits.key!r}"
        raise ValueError(msg)
    if partitions > 1:
        msg = (
            "limits of a queue must be None if it has partitions, each of which would have its own"
        )
        raise ValueError(msg)


def _foreign(queue: str, unsent: UnsentJob[Any]) -> Exception:
    """Return the error of what is no call of a job, or one of another queue."""
    if not isinstance(unsent, UnsentJob):
        return TypeError(f"jobs must be calls made by job.job(...), not {unsent!r}")
    other = unsent.job.queue.name
    return ValueError(f"jobs must be calls of this queue {queue!r}, not of {other!r}: {unsent!r}")
