"""What is defined on a queue: its jobs, its cron jobs, its middleware.

Three decorators take the options of a job as keywords, a fourth takes none::

    @jobs.job(name="thumbs.make", timeout=30)         async def f(path: str) -> str: ...
    @jobs.job                                         the same with all defaults
    @jobs.batch(size=100, within=0.5)                 async def f(rows: list[Row]) -> None: ...
    @jobs.cron("*/5 * * * *", timezone="UTC")         async def f() -> None: ...
    @jobs.middleware                                  async def f(ctx, call_next): ...

Definitions are made at module level, before the queue is opened or after; nothing is asked of
anybody. The name of a job is part of what is stored, so it must not change while jobs of it wait.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, cast, overload

from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.validate import async_function, function, text
from aiopatterns.jobs.job import Job
from aiopatterns.jobs.options import Batching, JobOptions
from aiopatterns.jobs.schedule import Cron, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiopatterns.jobs.context import Context
    from aiopatterns.jobs.decorators import BatchDecorator, Coro, CronDecorator, JobDecorator
    from aiopatterns.jobs.invocation import Middleware
    from aiopatterns.jobs.limits import Limits
    from aiopatterns.jobs.options import Options
    from aiopatterns.jobs.queue import JobQueue

__all__ = ["Definitions"]

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="Middleware")


class Definitions(Owner):
    """The defining side of a queue.

    Args:
        name: Name of the queue.
        partitions: How many partitions it has.
        limits: A limit of the whole queue.
    """

    __slots__ = ("_crons", "_jobs", "_middlewares", "limits", "partitions")

    def __init__(self, name: str, *, partitions: int, limits: Limits | None) -> None:
        super().__init__(name)
        self.partitions: int = partitions
        self.limits: Limits | None = limits
        self._jobs: dict[str, Job[..., Any]] = {}
        self._crons: tuple[Cron, ...] = ()
        self._middlewares: tuple[Middleware, ...] = ()

    @property
    def jobs(self) -> Mapping[str, Job[..., Any]]:
        """All jobs by name, cron jobs included; read-only."""
        return MappingProxyType(self._jobs)

    @property
    def crons(self) -> tuple[Cron, ...]:
        """The cron jobs."""
        return self._crons

    @property
    def middlewares(self) -> tuple[Middleware, ...]:
        """All middleware, outermost first."""
        return self._middlewares

    @overload
    def job(self, fn: Callable[Concatenate[Context, P], Coro[R]], /) -> Job[P, R]: ...
    @overload
    def job(self, fn: Callable[P, Coro[R]], /) -> Job[P, R]: ...
    @overload
    def job(self, fn: Callable[Concatenate[Context, P], R], /) -> Job[P, R]: ...
    @overload
    def job(self, fn: Callable[P, R], /) -> Job[P, R]: ...
    @overload
    def job(self, fn: None = None, /, **options: Unpack[Options]) -> JobDecorator: ...
    def job(self, fn: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
        """Make a job of a function, asynchronous or not; used bare or with options.

        Args:
            fn: The function; a plain ``def`` runs in a thread. If its first parameter is
                annotated as :class:`Context`, it is given the context there.
            options: ``name`` (by default the function's) and those of :class:`JobOptions`.

        Raises:
            ValueError: The name is taken, an option is out of its range, or a template does not
                fit the function.
            TypeError: An option of another name, or ``fn`` is no function.
        """
        if fn is not None:
            return self._define(fn, options=options)
        self._check(options)
        return partial(self._define, options=options)

    def batch(self, *, size: int, within: float, **options: Unpack[Options]) -> BatchDecorator:
        """Make a job of a function that takes a list: each ``enqueue`` takes one item.

        A worker calls the function when it has ``size`` jobs, or ``within`` seconds after it got
        the first of them. The function returns None, or a list with a result for each item. If it
        raises, every job of the batch has failed and is retried on its own terms.

        Args:
            size: Jobs in one call at most.
            within: Seconds to wait for them at most.
            options: As those of :meth:`job`.
        """
        batching = Batching(size, within)
        self._check(options)
        define = partial(self._define, options=options, batching=batching)
        return cast("BatchDecorator", define)

    def cron(
        self, expression: str, *, timezone: str = "UTC", **options: Unpack[Options]
    ) -> CronDecorator:
        """Make a job that is enqueued by the clock, once in a fleet.

        Workers see to it: to those that are defined when they start.

        Args:
            expression: Five fields, or six with seconds first; see :class:`Schedule`.
            timezone: Name of the zone in which it is meant.
            options: As those of :meth:`job`, without ``unique``.

        Raises:
            ValueError: ``expression`` has no meaning, or ``unique`` is given.
            TypeError: The function needs arguments.
            ImportError: The extra ``cron`` is missing.
        """
        schedule = Schedule(expression, timezone=timezone)
        if options.get("unique") is not None:
            msg = "unique must be None for a cron job, whose ticks are its keys"
            raise ValueError(msg)
        self._check(options)

        def decorate(fn: Callable[..., Any]) -> Job[[], Any]:
            job: Job[[], Any] = self._define(fn, options=options, call=())
            self._crons = (*self._crons, Cron(schedule, job))
            return job

        return cast("CronDecorator", decorate)

    def middleware(self, fn: M) -> M:
        """Put ``async def fn(ctx, call_next)`` around every attempt of every job.

        The first that is registered is the outermost. It awaits ``call_next(ctx)`` for the rest,
        returns a result, and may raise, also instead of calling.

        Returns:
            ``fn``, as it is.
        """
        self._middlewares = (*self._middlewares, async_function("middleware", fn))
        return fn

    def _check(self, options: Options) -> None:
        """Refuse options before there is a function."""
        _split(options, "job")

    def _define(
        self,
        fn: Callable[..., Any],
        *,
        options: Options,
        batching: Batching | None = None,
        call: tuple[Any, ...] | None = None,
    ) -> Job[..., Any]:
        name, rest = _split(options, getattr(function("fn", fn), "__name__", ""))
        if name in self._jobs:
            msg = f"name must be new in queue {self.name!r}, where {name!r} is a job already"
            raise ValueError(msg)
        queue = cast("JobQueue", self)
        job = Job[..., Any](queue, fn, name=name, options=rest, batching=batching)
        if call is not None:
            job.signature.check(call, {})
        self._jobs[name] = job
        return job


def _split(options: Options, name: str) -> tuple[str, JobOptions]:
    """Return the name and the checked options."""
    given = dict(options)
    found = given.pop("name", None)
    chosen = text("name", name if found is None else cast("str", found))
    if not chosen.isprintable():
        msg = f"name must be printable text, not {chosen!r}"
        raise ValueError(msg)
    return chosen, JobOptions(**cast("dict[str, Any]", given))
