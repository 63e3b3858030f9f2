"""The workers of the chaos act, which are killed and come back.

Where a Redis can be started they are processes, ``aiopatterns worker``, and are killed by SIGKILL.
Where none can, they are tasks of this process over a backend in memory, and are cancelled: the
weaker of the two, and the act says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final, Protocol, final

from anyio import CancelScope, open_process, sleep_forever

from aiopatterns.cli.chaosjobs import CONCURRENCY, LEDGER, TARGET, URL, define
from aiopatterns.core.clock import sleep
from aiopatterns.jobs.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import IO

    from anyio.abc import Process

    from aiopatterns.backends.protocols import Backend

__all__ = ["Place", "ProcessPlace", "TaskPlace"]

_COMMAND: Final = (sys.executable, "-m", "aiopatterns", "worker", TARGET, "--child", "--grace", "1")
_PAUSE: Final = 1.0


class Place(Protocol):
    """Where one worker after the other works."""

    @property
    def marks(self) -> Sequence[int]:
        """What those who have worked here sign the ledger with, the newest at the end."""
        ...

    async def run(self) -> None:
        """Have a worker here, for ever; a new one whenever the last has ended."""
        ...

    def kill(self) -> bool:
        """Kill the one who works here; False if there is none just now."""
        ...


@final
class ProcessPlace:
    """A place for worker processes.

    Args:
        url: The server.
        ledger: Where ends are noted.
        log: Where what a worker prints goes.
    """

    __slots__ = ("_environment", "_log", "_process", "marks")

    def __init__(self, url: str, ledger: Path, log: IO[bytes]) -> None:
        self._environment = {**os.environ, URL: url, LEDGER: str(ledger)}
        self._log = log
        self._process: Process | None = None
        self.marks: list[int] = []

    async def run(self) -> None:
        """Have a process here, for ever.

        Cancellation: kills it.
        """
        while True:
            started = await open_process(
                [*_COMMAND, "--concurrency", str(CONCURRENCY)],
                stdin=subprocess.PIPE,  # its end is the worker's, should we be killed ourselves
                stdout=self._log,
                stderr=self._log,
                env=self._environment,
                start_new_session=True,
            )
            async with started:
                self._process = started
                self.marks.append(started.pid)
                try:
                    code = await started.wait()
                finally:
                    self._process = None
            if code != -signal.SIGKILL:
                await sleep(_PAUSE)  # it could not begin; nobody killed it

    def kill(self) -> bool:
        """Kill the process."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.kill()
        return True


@final
class TaskPlace:
    """A place for workers that are tasks.

    Args:
        backend: Where the jobs are.
        ledger: Where ends are noted.
        number: What they sign the ledger with.
    """

    __slots__ = ("_queue", "_scope", "marks")

    def __init__(self, backend: Backend, ledger: Path, number: int) -> None:
        self._queue = define(backend, ledger, who=number)
        self._scope = CancelScope()
        self.marks: list[int] = [number]

    async def run(self) -> None:
        """Have a worker here, for ever.

        Cancellation: cancels it.
        """
        while True:
            with CancelScope() as self._scope:
                async with Worker(self._queue, concurrency=CONCURRENCY, publish=False):
                    await sleep_forever()

    def kill(self) -> bool:
        """Cancel the worker, and what it runs."""
        self._scope.cancel()
        return True
