"""The worker processes of a run: as many as are wanted, for as long as the run lasts.

Each is the same command as a worker on another machine, and ends with the run, however that ends:
its standard input is a pipe from here. It prints nothing, for a screen or a result of the run may
be on the same terminal; what matters of a job is told by its outcome.

Guarantees: a process that is killed is replaced, at once at first and then less and less often;
none outlives the block. If none can work, since each ends
by an error whenever it is started, the block ends by one as well, after a minute or more, which an
outage of the backend may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from anyio import Event, move_on_after

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import WorkerCrashedError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.jobs.child import MARGIN, Child
from aiopatterns.jobs.supervisor import SupervisorStatistics
from aiopatterns.jobs.target import BACKEND

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["TARGET", "Hands"]

TARGET: Final = "aiopatterns.processor.runjobs:run_queue"
"""What a worker is started with, here and on other machines."""

_GRACE: Final = 1.0
# Ends by an error after which there is no hope; by the waits in between, more than a minute.
_HOPELESS: Final = 20
_LOOK: Final = 1.0
# One chunk at a time, since it takes a whole processor.
_ARGUMENTS: Final = (TARGET, "--child", "--concurrency", "1", "--grace", f"{_GRACE:g}")


@final
class Hands(Owner):
    """Worker processes.

    Args:
        backend: URL of the backend; they have it from their environment.
        processes: How many.
    """

    __slots__ = ("_backend", "_children", "_ended", "_processes", "_running")

    def __init__(self, backend: str, processes: int) -> None:
        super().__init__("hands")
        self._backend = backend
        self._processes = processes
        self._children: list[Child] = []
        self._running = 0
        self._ended = Event()

    def statistics(self) -> SupervisorStatistics:
        """Return what runs now."""
        pids = (each.pid for each in self._children)
        return SupervisorStatistics(
            processes=len(self._children),
            pids=tuple(pid for pid in pids if pid is not None),
            restarts=sum(each.restarts for each in self._children),
        )

    async def _start(self, tasks: TaskGroup) -> None:
        environment = {BACKEND: self._backend}
        self._ended = Event()
        self._running = self._processes
        for _ in range(self._processes):
            child = Child(_ARGUMENTS, environment, grace=_GRACE, quiet=True)
            self._children.append(child)
            tasks.start_soon(self._keep, child)
        tasks.start_soon(self._watch)

    async def _watch(self) -> None:
        """Give up when no process can work."""
        while min(each.failures for each in self._children) < _HOPELESS:
            await sleep(_LOOK)
        message = (
            f"no worker process stays alive: each has ended {_HOPELESS} times in a row by an error;"
            f" see which by: python -m aiopatterns worker {TARGET} --backend URL"
        )
        raise WorkerCrashedError(message, attempts=_HOPELESS)

    async def _drain(self) -> None:
        """Stop them; kill those that do not obey."""
        for each in self._children:
            each.stop()
        with move_on_after(_GRACE + MARGIN):
            await self._ended.wait()
        for each in self._children:
            each.kill()

    def _settle(self) -> None:
        self._children.clear()

    async def _keep(self, child: Child) -> None:
        await child.keep()
        self._running -= 1
        if not self._running:
            self._ended.set()
