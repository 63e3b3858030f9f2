"""The workers of one run of a pool: when they start, when they leave, how many there may be.

A worker costs a task, so none starts before there is an item for it::

    an item is ready --> a worker is idle?  -- yes --> wake the one that was idle last
                              | no
                         fewer than limit?  -- yes --> start one
                              | no
                         the item waits for a worker that finishes

Idle workers stand in a stack. Those that are not needed stay at its bottom, and are seen to be
idle by the autoscaler, which is asked only while its answer could change.

A smaller limit ends idle workers at once, those idle for longest first, then those that wait for a
token of the rate limit, and busy ones when they have finished their item. A worker that leaves no
longer counts, though its resource may still be closing.

A resource that could not be opened is not tried again within a second, as long as other workers
live.
"""

from __future__ import annotations

import logging
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, final

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.autoscale import Autoscale, Load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

    from aiopatterns.flow.backlog import Backlog
    from aiopatterns.flow.handle import Timer
    from aiopatterns.flow.worker import Worker
    from aiopatterns.resilience.ratelimit import Limiter
    from aiopatterns.resilience.retry import Retry

__all__ = ["PoolPlan", "PoolScaled", "PoolWorkerFailed", "Staff"]

R = TypeVar("R")

# Seconds between attempts to open a resource while other workers live.
_REOPEN_AFTER: Final = 1.0


@dataclass(frozen=True, slots=True)
class PoolScaled(Event):
    """The number of workers a pool may have has changed.

    Args:
        pool: Name of the pool.
        before: The old limit.
        after: The new limit.
        reason: ``"wait"`` (items waited too long), ``"idle"`` or ``"resize"``.
    """

    name: ClassVar[str] = "aiopatterns.pool.scaled"
    pool: str
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class PoolWorkerFailed(Event):
    """The resource of a worker could not be opened, failed under it, or could not be closed.

    Args:
        pool: Name of the pool.
        worker: Number of the worker.
        stage: ``"open"`` or ``"close"``.
        error: What was raised.
    """

    name: ClassVar[str] = "aiopatterns.pool.worker_failed"
    level: ClassVar[str] = "error"
    pool: str
    worker: int
    stage: str
    error: Exception


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan(Generic[R]):
    """How a pool works; the same for all its runs.

    Args:
        name: Name of the pool.
        call: The function, made asynchronous, its policy around it.
        workers: How many workers.
        capacity: How many items may wait.
        retry: Decides whether a failed attempt is followed by another.
        rate: Gives a token for each attempt.
        timeout: Seconds an attempt may take.
        resource: Makes the context manager that each worker enters.
    """

    name: str
    call: Callable[..., Coroutine[Any, Any, R]]
    workers: int | Autoscale
    capacity: int
    retry: Retry | None
    rate: Limiter | None
    timeout: float | None
    resource: Callable[[], AbstractAsyncContextManager[Any]] | None

    @property
    def most_workers(self) -> int:
        """How many workers there may be at most."""
        return self.workers.max if isinstance(self.workers, Autoscale) else self.workers


@final
class Staff(Generic[R]):
    """The workers of one run; must be made on the running loop.

    Args:
        plan: How the pool works.
        group: The task group of the workers.
        backlog: What there is to do.
        make: Makes the worker with a number.
    """

    __slots__ = (
        "_alive",
        "_backlog",
        "_base",
        "_group",
        "_hired",
        "_left",
        "_look_at",
        "_make",
        "_name",
        "_reopen_at",
        "_scale",
        "_timer",
        "crowded",
        "idle",
        "limit",
        "paused",
        "scaled",
        "thirsty",
        "workers",
    )

    def __init__(
        self,
        plan: PoolPlan[R],
        group: TaskGroup,
        backlog: Backlog[R],
        make: Callable[[int], Worker],
    ) -> None:
        workers = plan.workers
        self._scale = workers if isinstance(workers, Autoscale) else None
        self.limit: int = workers.min if isinstance(workers, Autoscale) else workers
        self._name = plan.name
        self._group = group
        self._backlog = backlog
        self._make = make
        self._base = copy_context()  # workers live in this one, whoever submits
        self._hired = 0
        self._reopen_at = self._look_at = 0.0
        self._timer: Timer | None = None
        self.scaled: bool = self._scale is not None
        self.idle: list[Worker] = []  # a stack
        self.crowded: bool = False  # more workers than the limit; some have to leave
        self.paused: bool = False
        self.thirsty: list[Worker] = []  # those who wait for a token of the rate limit
        self.workers: dict[int, Worker] = {}  # those that count
        self._alive: dict[int, Worker] = {}  # and those that are leaving
        self._left = Waiters()

    # ----------------------------------------------------------------------- calling workers

    def call(self) -> None:
        """An item is ready: wake a worker, or start one."""
        if self.paused:
            return
        if self.idle:
            seat = self.idle.pop().seat
            if not seat.done():  # else its worker is being cancelled, and calls another
                seat.set_result(None)
        elif len(self.workers) < self.limit:
            self._hire()
        if self._scale is not None:
            self._watch(self._scale)

    def call_all(self) -> None:
        """Any number of items may be ready, and any number of workers may be allowed."""
        for _ in range(min(self._backlog.ready, self.limit)):
            self.call()

    def _count(self) -> None:
        self.crowded = len(self.workers) > self.limit

    def _hire(self) -> None:
        if self.workers and monotonic() < self._reopen_at:
            return
        number = self._hired
        self._hired += 1
        worker = self.workers[number] = self._alive[number] = self._make(number)
        name = f"{self._name} worker {number}"
        self._base.run(partial(self._group.start_soon, worker.work, name=name))

    # ----------------------------------------------------------------------- letting them go

    def surplus(self, worker: Worker) -> bool:
        """Send a worker away because it is crowded; it no longer counts."""
        del self.workers[worker.number]
        worker.halted = worker.retired = True
        self._count()
        return True

    def leave(self, worker: Worker) -> None:
        """A worker has ended."""
        self.workers.pop(worker.number, None)
        self._alive.pop(worker.number, None)
        if worker in self.idle:
            self.idle.remove(worker)
        self._count()
        self._left.wake_all()

    async def dismiss(self) -> None:
        """Let all workers go, now that there is nothing to do, and wait until they have closed.

        Resources are closed in peace, not under a cancellation. Those that still open are not
        waited for.
        """
        for worker in self.workers.values():
            worker.retire()
        self.workers.clear()
        self.idle.clear()
        while any(worker.opened for worker in self._alive.values()):
            await self._left.wait()

    def resize(self, limit: int, reason: str = "resize") -> None:
        """Allow so many workers from now on."""
        before, self.limit = self.limit, limit
        if before == limit:
            return
        self.call_all()
        unneeded = max(0, len(self.workers) - limit)
        leaving = self.idle[:unneeded]
        del self.idle[:unneeded]
        while self.thirsty and len(leaving) < unneeded:  # else each would start one more item
            leaving.append(self.thirsty.pop())
        for worker in leaving:
            del self.workers[worker.number]
            worker.retire()
        self._count()
        if listening():
            emit(PoolScaled(self._name, before, limit, reason))

    def resource_failed(self, worker: Worker, error: Exception) -> None:
        """Report it; an error of nobody's must not pass in silence."""
        if not worker.opened:
            self._reopen_at = monotonic() + _REOPEN_AFTER
        stage = "close" if worker.opened else "open"
        if listening():
            emit(PoolWorkerFailed(self._name, worker.number, stage, error))
            return
        logging.getLogger("aiopatterns").error(
            "worker %d of pool %r could not %s its resource",
            worker.number,
            self._name,
            stage,
            exc_info=error,
        )

    def relieve(self) -> None:
        """Items have gone: no more workers wait for a token than there are items for it."""
        while len(self.thirsty) > self._backlog.ready:
            self.thirsty.pop().quench()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --------------------------------------------------------------------------- autoscaling

    def load(self) -> Load:
        """Return what the decision is made from. Complexity: O(workers)."""
        now = monotonic()
        since = [each.terms.ready_at for each in self._backlog.firsts() if each.terms is not None]
        # More workers do not help against a pause or a rate limit.
        helpless = self.paused or self.thirsty
        return Load(
            limit=self.limit,
            ready=0 if helpless else self._backlog.ready,
            oldest_wait=now - min(since, default=now),
            idle=[now - each.idle_since for each in self.idle],
        )

    def _watch(self, scale: Autoscale) -> None:
        """See that the next look is near enough, now that an item is ready."""
        if self._timer is not None:
            if self._look_at <= monotonic() + scale.target_wait:
                return
            self._timer.cancel()
        self._set_look(scale)

    def _set_look(self, scale: Autoscale) -> None:
        """Look again when the decision could change."""
        self._timer = None
        after = scale.next_look(self.load())
        if after is not None:
            self._look_at = monotonic() + after
            self._timer = call_later(after, partial(self._look, scale))

    def _look(self, scale: Autoscale) -> None:
        """Look at the load, and carry out what is decided."""
        load = self.load()
        limit = scale.decide(load)
        self.resize(limit, "wait" if limit > load.limit else "idle")
        self._set_look(scale)
