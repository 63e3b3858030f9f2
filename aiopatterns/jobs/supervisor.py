"""Supervisor: worker processes for one queue, as many as it takes.

One process runs one loop, and a loop one processor. A supervisor runs several worker processes,
starts those again that crash, lets their number follow the load, and restarts them when the source
changes::

    Supervisor("shop.jobs:jobs", processes=4)
         |-- python -m aiopatterns worker shop.jobs:jobs     (a Child each; Worker.serve inside)
         |-- ...
         '-- SIGTERM or SIGINT: passed on once, a second time forces, the last resort is SIGKILL

Guarantees: no child outlives its supervisor, not even one that is killed; a child that crashes is
started again, at first at once and then less and less often; what a child held when it crashed is
given to others when its lease has ended.

Not guaranteed: that the number of processes fits a load that changes within seconds.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from anyio import Event, create_task_group, move_on_after, open_signal_receiver, to_thread

from aiopatterns.backends.publishing import published
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.lifecycle import Owner, raise_bare
from aiopatterns.core.validate import count, instance, non_negative, optional_count
from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.jobs.child import MARGIN, Child
from aiopatterns.jobs.reload import sources
from aiopatterns.jobs.scaling import Sample, Scaler
from aiopatterns.jobs.target import BACKEND, load_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend

__all__ = ["Supervisor", "SupervisorStatistics"]

# Seconds between two looks at the load, and at the files.
_LOOK: Final = 1.0
_LOOK_AT_SOURCES: Final = 0.5


@final
@dataclass(frozen=True, slots=True)
class SupervisorStatistics:
    """What a supervisor has running.

    Args:
        processes: How many there should be.
        pids: Those that run.
        restarts: How often one was started again.
    """

    processes: int
    pids: tuple[int, ...]
    restarts: int


@final
class Supervisor(Owner):
    """Runs worker processes.

    Args:
        target: The queue, as ``"module:name"``; the module must be importable in the children,
            which run in this folder. Its backend must be one that processes share.
        processes: How many, unless ``autoscale`` says.
        autoscale: Fewest and most processes. ``target_wait`` is how long jobs may have to wait, by
            the rate at which they are done, before there are more.
        concurrency: Jobs that each process runs at once.
        grace: Seconds that jobs have to come to their end when a process ends.
        max_jobs: Jobs after which a process is replaced by a fresh one; None: never.
        reload: Restart the processes when a Python file in this folder changes; for development.
        backend: URL for a target that is a function of one; the children have it from their
            environment, where no list of processes shows its password.

    Raises:
        ValueError: A value is out of its range, the target is none, or its backend is in memory.

    Example::

        await Supervisor("shop.jobs:jobs", autoscale=Autoscale(1, 8, target_wait=5)).serve()
    """

    __slots__ = (
        "_alive",
        "_arguments",
        "_autoscale",
        "_children",
        "_concurrency",
        "_environment",
        "_grace",
        "_processes",
        "_queue",
        "_reload",
        "_restarts",
        "_stopped",
        "_tasks",
    )

    def __init__(
        self,
        target: str,
        *,
        processes: int = 2,
        autoscale: Autoscale | None = None,
        concurrency: int = 100,
        grace: float = 20.0,
        max_jobs: int | None = None,
        reload: bool = False,
        backend: str | None = None,
    ) -> None:
        queue = load_queue(target, backend)
        super().__init__(queue.name)
        if queue.backend.scheme == "memory":
            msg = (
                f"target must be a queue whose backend processes share, such as redis://, not"
                f" {target!r} with {queue.backend.url!r}"
            )
            raise ValueError(msg)
        if autoscale is not None:
            instance("autoscale", autoscale, Autoscale, "None or an Autoscale(min, max)")
        self._queue = queue
        self._processes = count("processes", processes) if autoscale is None else autoscale.min
        self._autoscale = autoscale
        self._concurrency = count("concurrency", concurrency)
        self._grace = non_negative("grace", grace)
        self._reload = reload
        self._arguments = [target, "--child", "--concurrency", str(concurrency)]
        self._arguments += ["--grace", f"{grace:g}"]
        if optional_count("max_jobs", max_jobs) is not None:
            self._arguments += ["--max-jobs", str(max_jobs)]
        self._environment = {} if backend is None else {BACKEND: backend}
        self._children: list[Child] = []  # that are needed
        self._alive: dict[Child, None] = {}  # all that have not ended
        self._restarts = 0
        self._stopped: Event | None = None
        self._tasks: TaskGroup | None = None

    def statistics(self) -> SupervisorStatistics:
        """Return what runs now."""
        return SupervisorStatistics(
            processes=len(self._children),
            pids=tuple(each.pid for each in self._alive if each.pid is not None),
            restarts=self._restarts + sum(each.restarts for each in self._alive),
        )

    async def serve(self) -> None:
        """Run the processes until SIGTERM or SIGINT; a second signal ends them at once.

        Only in the main thread, where signals arrive.

        Raises:
            BackendUnavailableError: Nobody answers at the beginning; later that ends nothing.
        """
        with open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            try:
                await self._serve(signals)
            except BaseExceptionGroup as errors:
                raise_bare(errors)

    # ---------------------------------------------------------------------------- private core

    async def _start(self, tasks: TaskGroup) -> None:
        async with self._queue.backend:
            await self._queue.backend.time()  # tell now that nobody is there
        self._tasks, self._stopped, self._restarts = tasks, Event(), 0
        self._resize(self._processes)
        if self._autoscale is not None:
            tasks.start_soon(self._follow_load, self._autoscale)
        if self._reload:
            tasks.start_soon(self._follow_sources, str(Path.cwd()))

    async def _serve(self, signals: AsyncIterator[Any]) -> None:
        async with create_task_group() as tasks:
            stopping = Event()
            tasks.start_soon(self._obey, signals, stopping)
            async with self:
                await stopping.wait()
            tasks.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Pass the signal on and wait; kill what does not obey."""
        assert self._stopped is not None
        self._resize(0)
        with move_on_after(self._grace + MARGIN):
            await self._stopped.wait()
        for each in self._alive:
            each.kill()

    def _settle(self) -> None:
        self._children.clear()
        self._alive.clear()
        self._tasks = None

    def _resize(self, processes: int) -> None:
        """Start or stop children until there are so many."""
        assert self._tasks is not None
        while len(self._children) > processes:
            self._children.pop().stop()
        while len(self._children) < processes:
            child = Child(self._arguments, self._environment, grace=self._grace)
            self._children.append(child)
            self._alive[child] = None
            self._tasks.start_soon(self._keep, child)

    async def _keep(self, child: Child) -> None:
        """Keep one child running until it is stopped."""
        assert self._stopped is not None
        await child.keep()
        del self._alive[child]
        self._restarts += child.restarts
        if not self._children and not self._alive:
            self._stopped.set()

    async def _obey(self, signals: AsyncIterator[Any], stopping: Event) -> None:
        """Stop at the first signal; pass a second one on, which forces."""
        async for _ in signals:
            if stopping.is_set():
                for each in self._alive:
                    each.stop()
            stopping.set()

    async def _follow_load(self, autoscale: Autoscale) -> None:
        """Let the number of processes follow the load."""
        scaler = Scaler(self._concurrency)
        async with self._queue.backend as backend:
            while True:
                await sleep(_LOOK)
                with suppress(BackendError):  # nobody can be asked: no change
                    sample = await self._sample(backend)
                    load = scaler.load(monotonic(), len(self._children), sample)
                    self._resize(autoscale.decide(load))

    async def _sample(self, backend: Backend) -> Sample:
        """Ask the stores what there is to do, and the workers what they have done."""
        counts = [await each.counts() for each in self._queue.stores]
        workers = await published(backend, kind="worker")
        done = [
            each.figures["processed"]
            for each in workers
            if each.name == self._queue.name and each.figures is not None
        ]
        return Sample(
            queued=sum(each.queued for each in counts),
            running=sum(each.running for each in counts),
            done=sum(done),
        )

    async def _follow_sources(self, root: str) -> None:
        """Restart the children when a source has changed."""
        seen = await to_thread.run_sync(sources, root)
        while True:
            await sleep(_LOOK_AT_SOURCES)
            found = await to_thread.run_sync(sources, root)
            if found != seen:
                seen = found
                for each in self._children:
                    each.restart()
