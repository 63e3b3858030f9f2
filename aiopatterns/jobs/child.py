"""One worker process of a supervisor: started, watched, started again.

A child is ``python -m aiopatterns worker`` in a session of its own, so that a Ctrl-C in the terminal
reaches the supervisor alone, who passes it on once. Its standard input is a pipe that nobody writes
to: it ends when the supervisor is gone, however that came about, and the child then stops as after
a signal. So a supervisor leaves no orphans.

::

    start --> runs --> ended by itself, code 0 (max_jobs)  --> start at once
      ^                crashed, or could not begin         --> start after the backoff
      '--------------------------------------------------------'
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, final

from anyio import CancelScope, move_on_after, open_process

from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import Process

__all__ = ["MARGIN", "Child", "ChildCrashed"]

_AGAIN: Final = Exponential(initial=0.2, factor=2, cap=5.0, jitter="equal")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
# A process that has lived so long begins with the shortest wait again.
_LIVED: Final = 10.0
#: Seconds beyond the grace after which a child that does not end is killed.
MARGIN: Final = 5.0


@dataclass(frozen=True, slots=True)
class ChildCrashed(Event):
    """A worker process has ended that should not have; another is started in its place.

    Args:
        pid: The process.
        code: Its exit code; that of a signal is negative.
        delay: Seconds until the next is started.
    """

    name: ClassVar[str] = "aiopatterns.supervisor.child_crashed"
    level: ClassVar[str] = "error"

    pid: int
    code: int
    delay: float


@final
class Child:
    """A place for one worker process.

    Args:
        arguments: Of ``python -m aiopatterns worker``.
        environment: What is set for it besides this process' own.
        grace: Seconds that it has to end after a signal.
        quiet: Whether what it prints is dropped.
    """

    __slots__ = (
        "_arguments",
        "_crashes",
        "_environment",
        "_grace",
        "_output",
        "_process",
        "_scope",
        "_stopping",
        "failures",
        "restarts",
    )

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] = _NOTHING,
        *,
        grace: float,
        quiet: bool = False,
    ) -> None:
        self._arguments = [sys.executable, "-m", "aiopatterns", "worker", *arguments]
        self._environment = environment
        self._grace = grace
        self._output = subprocess.DEVNULL if quiet else None
        self._process: Process | None = None
        self._scope = CancelScope()  # of the wait before the next start
        self._stopping = False
        self._crashes = 0
        self.failures: int = 0  # in a row: ends by itself, with an error, soon after the start
        self.restarts: int = 0

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return None if self._process is None else self._process.pid

    async def keep(self) -> None:
        """Keep a process running until :meth:`stop`; when cancelled, none is left either."""
        while True:
            born = monotonic()
            pid, code = await self._run()
            lived = monotonic() - born >= _LIVED
            self.failures = self.failures + 1 if code > 0 and not lived else 0
            if code == 0:
                self._crashes = 0
            elif not self._stopping:
                self._crashes = 1 if lived else self._crashes + 1
                await self._pause(pid, code)
            if self._stopping:
                return
            self.restarts += 1

    def stop(self) -> None:
        """End the process gracefully; called again, at once."""
        self._stopping = True
        self._scope.cancel()
        self._signal()

    def restart(self) -> None:
        """End the process gracefully, and start another in its place."""
        self._scope.cancel()
        self._signal()

    def kill(self) -> None:
        """End the process now."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _run(self) -> tuple[int, int]:
        """Run one process to its end; returns its id and its exit code."""
        process = await self._start()
        self._process = process
        if self._stopping:
            self._signal()
        try:
            return process.pid, await process.wait()
        finally:
            if process.returncode is None:
                await self._end(process)
            self._process = None
            with CancelScope(shield=True):
                await process.aclose()

    async def _start(self) -> Process:
        """Start a process; of a start that is cut off nobody would await the end, so none is."""
        started: list[Process] = []
        with CancelScope(shield=True):
            started.append(
                await open_process(
                    self._arguments,
                    stdin=subprocess.PIPE,
                    env={**os.environ, **self._environment},
                    stdout=self._output,
                    stderr=self._output,
                    start_new_session=True,
                )
            )
        return started[0]

    async def _end(self, process: Process) -> None:
        """The supervisor is cancelled: end the process, whatever it takes."""
        self._signal()
        with move_on_after(self._grace + MARGIN, shield=True):
            await process.wait()
        self.kill()
        with CancelScope(shield=True):
            await process.wait()

    async def _pause(self, pid: int, code: int) -> None:
        """Wait before the next start."""
        delay = _AGAIN.delay(self._crashes, rng=rng())
        if listening():
            emit(ChildCrashed(pid, code, delay))
        with CancelScope() as self._scope:
            await sleep(delay)

    def _signal(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
