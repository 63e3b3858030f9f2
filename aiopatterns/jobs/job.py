"""Jobs: a function that can be called later, elsewhere and again, with its own signature.

``@jobs.job`` makes one of a function. It is called in four ways::

    await thumbnail.enqueue("a.png", size=64)              a handle; a worker runs it
    await thumbnail.using(delay=5).enqueue("a.png")        the same, on other terms
    thumbnail.job("a.png")                                 unsent, for jobs.enqueue_many([...])
    await thumbnail("a.png", size=64)                      runs here and now, and nothing is stored

Both type checkers know the signature in all four, without the context that the function may take
first.

Not guaranteed: that a job runs once. A worker that dies after the function has ended and before
that was told makes it run again (at least once), so write functions that may.
"""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast, final

from aiopatterns.backends.queue import NewJob
from aiopatterns.core.validate import is_async
from aiopatterns.jobs.invocation import Invocation
from aiopatterns.jobs.keys import Keys
from aiopatterns.jobs.signature import Signature
from aiopatterns.jobs.terms import PLAIN, terms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiopatterns.jobs.context import Context
    from aiopatterns.jobs.handle import Handle
    from aiopatterns.jobs.options import Batching, JobOptions
    from aiopatterns.jobs.queue import JobQueue
    from aiopatterns.jobs.schedule import Moment
    from aiopatterns.jobs.terms import Stamp, Terms

__all__ = ["Job", "JobKind", "Prepared", "UnsentJob"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

JobKind: TypeAlias = Literal["async", "sync", "batch"]


@final
class UnsentJob(Generic[R_co]):
    """A call that has not been sent; for ``jobs.enqueue_many``.

    Attributes:
        job: The job that it is a call of.
    """

    __slots__ = ("_args", "_kwargs", "_terms", "job")

    def __init__(
        self,
        job: Job[..., R_co],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        terms: Terms,
    ) -> None:
        job.signature.check(args, kwargs)
        self.job: Job[..., R_co] = job
        self._args = args
        self._kwargs = kwargs
        self._terms = terms

    def build(self, stamp: Stamp) -> tuple[int, NewJob]:
        """Return the partition that it goes to, and the job as the store takes it.

        Raises:
            CodecError: An argument cannot be encoded, or the whole is too long.
        """
        job, terms, options = self.job, self._terms, self.job.options
        keys = job.keys.of(self._args, self._kwargs)
        partition = stamp.place(terms, keys.route)
        new = NewJob(
            terms.id or stamp.new_id(partition),
            stamp.encode(job.name, self._args, self._kwargs),
            options.priority if terms.priority is None else terms.priority,
            terms.delay,
            terms.at,
            job.attempts,
            options.result_ttl,
            terms.after,
            terms.unique or keys.unique,
            keys.buckets,
        )
        return partition, new

    def __repr__(self) -> str:
        return f"<UnsentJob of {self.job.name!r}>"


@final
class Prepared(Generic[P, R]):
    """A job on terms of its own; made by :meth:`Job.using`, good for any number of calls."""

    __slots__ = ("_job", "_terms")

    def __init__(self, job: Job[P, R], terms: Terms) -> None:
        self._job = job
        self._terms = terms

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueue a call; see :meth:`Job.enqueue`."""
        return await self._job.queue.send(UnsentJob(self._job, args, kwargs, self._terms))

    def job(self, *args: P.args, **kwargs: P.kwargs) -> UnsentJob[R]:
        """Return a call to be sent by ``enqueue_many``; see :meth:`Job.job`."""
        return UnsentJob(self._job, args, kwargs, self._terms)


@final
class Job(Generic[P, R]):
    """A function of a queue; made by ``@jobs.job``, ``@jobs.batch`` and ``@jobs.cron``.

    Args:
        queue: The queue that it belongs to.
        fn: The function.
        name: How the queue calls it; what is stored names it so.
        options: How it is run.
        batching: How its jobs come together, for a batch.

    Raises:
        TypeError: ``fn`` is a generator, or a batch function of another form.
        ValueError: A template does not fit the function, or its keys do not fit the partitions.
    """

    __slots__ = (
        "__dict__",
        "_invocation",
        "attempts",
        "batching",
        "fn",
        "keys",
        "kind",
        "name",
        "options",
        "queue",
        "signature",
    )

    def __init__(
        self,
        queue: JobQueue,
        fn: Callable[..., Any],
        *,
        name: str,
        options: JobOptions,
        batching: Batching | None = None,
    ) -> None:
        self.queue: JobQueue = queue
        self.fn: Callable[..., Any] = fn
        self.name: str = name
        self.options: JobOptions = options
        # How often it may be started before a crash makes it a dead letter.
        self.attempts: int = options.attempts
        self.batching: Batching | None = batching
        self.kind: JobKind = "batch" if batching else "async" if is_async(fn) else "sync"
        self.signature: Signature = Signature(fn, batch=batching is not None)
        self.keys: Keys = Keys(name, options, self.signature, queue.limits)
        if queue.partitions > 1 and self.keys.splits:
            msg = (
                "unique.key and limits.key must be the same in a queue with partitions, where jobs"
                " that share one must meet"
            )
            raise ValueError(msg)
        self._invocation = Invocation(self.signature, fn, batch=batching is not None)
        update_wrapper(self, fn)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueue a call; a worker will run it.

        Returns:
            The handle of the job; of the one that is there already if its unique key is taken.

        Raises:
            TypeError: The arguments do not fit the function.
            CodecError: They cannot be encoded, or are longer than ``max_bytes``.
            ClosedError: The queue is not open.
            BackendUnavailableError: Nobody answers; the job may have been added or not. With an
                ``id`` of yours, enqueue it again: it is added once.

        Cancellation: the job may have been added or not.

        Complexity: 1 round trip.
        """
        return await self.queue.send(UnsentJob(self, args, kwargs, PLAIN))

    def using(
        self,
        *,
        delay: float = 0.0,
        at: Moment | None = None,
        priority: int | None = None,
        after: Iterable[Handle[Any] | str] = (),
        id: str | None = None,
    ) -> Prepared[P, R]:
        """Return this job on other terms, with ``enqueue`` and ``job``.

        Args:
            delay: Seconds until it may run.
            at: When it may run, instead of a delay; with a time zone.
            priority: 0 to 9, 9 first; by default the job's.
            after: Jobs of this queue (and partition), handles or ids, that must be done first; if
                one of them dies or is cancelled, this one is cancelled.
            id: An id of your own; a second job of the id is not made while the first is known.

        Raises:
            ValueError: A value is out of its range, ``delay`` and ``at`` are both given, ``at``
                has no time zone, or ``after`` names a job of another queue or partition.
        """
        terms = terms_of(self.queue, delay=delay, at=at, priority=priority, after=after, id=id)
        return Prepared(self, terms)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> UnsentJob[R]:
        """Return a call to be sent by ``jobs.enqueue_many([...])``.

        Raises:
            TypeError: The arguments do not fit the function.
        """
        return UnsentJob(self, args, kwargs, PLAIN)

    def handle(self, job_id: str) -> Handle[R]:
        """Return the handle of a job of this name that was enqueued before, here or elsewhere."""
        return cast("Handle[R]", self.queue.handle(job_id, type=self.signature.result_type))

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, with middleware, without a backend and without retries.

        The context is that of a first attempt; progress goes to events.
        """
        return cast("R", await self.queue.run_here(self, args, kwargs))

    async def attempt(self, ctx: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run one attempt: middleware, outermost first, and the function.

        Args:
            ctx: The context of this attempt.
            args: Positional arguments, as a codec gave them; for a batch, one list of items.
            kwargs: Keyword arguments, likewise.

        Returns:
            What the function returned; for a batch a list with one result for each item.

        Raises:
            CodecError: The arguments do not fit the function's annotations.
            Exception: What middleware or the function raised.

        Cancellation: reaches an asynchronous function; a synchronous one is awaited.
        """
        args, kwargs = self._invocation.convert(args, kwargs)
        return await self.run(ctx, args, kwargs)

    async def run(self, ctx: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run one attempt as :meth:`attempt` does, with arguments as they are."""
        return await self._invocation.run(ctx, args, kwargs, self.queue.middlewares)

    def __repr__(self) -> str:
        return f"<Job {self.name!r} of {self.queue.name!r}>"
