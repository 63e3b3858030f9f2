"""Worker: runs the jobs of queues, as an owner in the background or until a signal.

::

    async with Worker(jobs):            in an app: the worker is there while the block is
    await Worker(jobs).serve()          as a process: until SIGTERM or SIGINT; a second one forces
    await Worker(jobs).run_until_empty()    in scripts and tests: until all is done

                 claim, settle, renew: one step in flight
    store <------------------------------------------------> loop --> runners --> your functions
          (one dialogue a partition, turns.py)                (long-lived, runner.py)

A job that ends is settled by the next step, together with whatever else has ended, and the same
step brings as many new ones as there are free places. What a step says counts only while the job is
still this worker's. See :mod:`aiopatterns.backends.queue` for the state machine and its bounds.

Guarantees:

* At least once. A worker that dies costs at most ``concurrency`` jobs a second run; they are given
  to others when its lease has ended, and one that may have killed it runs alone.
* An outage of the backend ends nothing: what runs goes on, what has ended is settled afterwards.
* Leaving normally finishes what runs, within ``grace``; what is left is cancelled and handed back,
  without counting an attempt. What does not let itself be cancelled is abandoned.

Not guaranteed: that a function runs once, or that one that blocks the loop can be cancelled.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final, final

from anyio import Event, create_task_group, open_signal_receiver

from aiopatterns.core.lifecycle import Owner, OwnerState, raise_bare
from aiopatterns.core.validate import count, instance, non_negative, optional_count
from aiopatterns.jobs.duty import Duty
from aiopatterns.jobs.ledger import add_up
from aiopatterns.jobs.queue import JobQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from aiopatterns.jobs.ledger import WorkerStatistics

__all__ = ["Worker"]

# The share of the grace, and the seconds at most, that are kept for cancelled functions to end.
_LAST_SHARE: Final = 0.2
_LAST: Final = 1.0


@final
class Worker(Owner):
    """Runs jobs.

    Args:
        queues: What to work for. A queue that is closed is opened and closed with the worker; one
            that several share, and that do not end together, is opened around all of them.
        concurrency: How many jobs run at once, over all queues.
        grace: Seconds that jobs have to come to their end when the worker ends, 0 or more.
        max_jobs: Jobs after which :meth:`serve` ends by itself; None: never.
        publish: Whether to tell the figures to all who look, by the backend
            (:mod:`aiopatterns.backends.publishing`).

    Raises:
        ValueError: A value is out of its range, no queue is given, or one twice.
        TypeError: A queue is none.

    Example::

        async with Worker(jobs, concurrency=20):
            handle = await thumbnail.enqueue("a.png")
            await handle.result()
    """

    __slots__ = ("_concurrency", "_duty", "_grace", "_max_jobs", "_publish", "_queues")

    def __init__(
        self,
        *queues: JobQueue,
        concurrency: int = 100,
        grace: float = 20.0,
        max_jobs: int | None = None,
        publish: bool = True,
    ) -> None:
        for each in queues:
            instance("queues", each, JobQueue, "JobQueues, as in Worker(jobs)")
        names = [each.name for each in queues]
        if not names or len({*names}) < len(names):
            msg = f"queues must be one queue or several of different names, not {names!r}"
            raise ValueError(msg)
        super().__init__("+".join(names))
        self._queues = queues
        self._concurrency = count("concurrency", concurrency)
        self._grace = non_negative("grace", grace)
        self._max_jobs = optional_count("max_jobs", max_jobs)
        self._publish = publish
        self._duty: Duty | None = None

    def statistics(self) -> WorkerStatistics:
        """Return the figures since the worker was opened last; all 0 before that."""
        return add_up(() if self._duty is None else self._duty.ledgers)

    async def serve(self) -> None:
        """Work until SIGTERM or SIGINT, or until ``max_jobs`` have run; then end gracefully.

        A second signal ends at once: what runs is cancelled and handed back. Only in the main
        thread, where signals arrive.

        Raises:
            BackendUnavailableError: Nobody answers at the beginning; later that ends nothing.

        Cancellation: abandons what runs, as leaving a block by an error does.
        """
        with open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            try:
                await self._serve(signals)
            except BaseExceptionGroup as errors:
                raise_bare(errors)

    async def run_until_empty(self) -> None:
        """Work until nothing is left to do.

        Waits for what is queued and what runs, also in other workers, for retries, for what a rate
        limit has put off, and for dependents; not for jobs with a delay or a time of yours. Opens
        this worker if it is closed.
        """
        if self.state is OwnerState.RUNNING:
            assert self._duty is not None
            await self._duty.emptied()
            return
        async with self:
            await self.run_until_empty()

    # --------------------------------------------------------------------------- private core

    async def _start(self, tasks: TaskGroup) -> None:
        self._duty = duty = Duty(
            self.name,
            self._queues,
            concurrency=self._concurrency,
            patience=self._last_share / 2,
            max_jobs=self._max_jobs,
            publish=self._publish,
        )
        await tasks.start(duty.run)

    async def _serve(self, signals: AsyncIterator[Any]) -> None:
        async with create_task_group() as tasks:
            stopping = Event()
            tasks.start_soon(self._obey, signals, stopping)
            async with self:
                assert self._duty is not None
                tasks.start_soon(_pass_on, self._duty.over, stopping)
                await stopping.wait()
            tasks.cancel_scope.cancel()

    async def _drain(self) -> None:
        assert self._duty is not None
        await self._duty.close(self._grace - self._last_share)
        self._duty.end()
        await self._duty.gone.wait()

    @property
    def _last_share(self) -> float:
        """Seconds of the grace in which functions are cancelled, and come to their ends."""
        return min(self._grace * _LAST_SHARE, _LAST)

    async def _obey(self, signals: AsyncIterator[Any], stopping: Event) -> None:
        """Stop at the first signal, force at the second."""
        async for _ in signals:
            if stopping.is_set() and self._duty is not None:
                self._duty.force()
            stopping.set()


async def _pass_on(event: Event, to: Event) -> None:
    await event.wait()
    to.set()
