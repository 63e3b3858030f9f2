"""One worker process, as the program that started it sees it.

:class:`~aiopatterns.flow.executors.Processes` keeps one of these for each process; what happens
inside the process is in :mod:`aiopatterns.flow.child`. All state changes are synchronous; a call
only waits for the next change::

    starting --ready--> idle <--answer / call--> busy
        `---------------- dismissed, hung up, or dead ----> over --buried--> forgotten

Guarantees:

* :meth:`WorkerProcess.answer` returns the answer, or None if the process died under the call.
* A process that is dismissed before its start has ended is killed as soon as it exists.
* :meth:`WorkerProcess.bury` leaves no zombie.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.child import unpack_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.process import BaseProcess

__all__ = ["StartMethod", "Transport", "WorkerProcess", "processors", "start_methods"]

StartMethod: TypeAlias = Literal["forkserver", "spawn"]

# A killed process is gone within milliseconds; past this it hangs in the kernel, and waits are vain.
_REAPED_WITHIN: Final = 5.0


class Transport(Protocol):
    """What is needed of the connection to a process."""

    def write(self, data: bytes, /) -> object:
        """Send, buffering what does not fit."""

    def write_eof(self) -> object:
        """Send no more."""

    def abort(self) -> object:
        """Close at once."""


@final
class WorkerProcess:
    """One worker process and its calls, one at a time.

    Args:
        ended: Called when the process is gone and reaped.
    """

    __slots__ = (
        "_calls",
        "_ended",
        "_error",
        "_left",
        "_over",
        "_process",
        "_ready",
        "_reply",
        "_transport",
        "_turn",
        "ending",
    )

    def __init__(self, ended: Callable[[WorkerProcess], object]) -> None:
        self.ending: str = "did not start"
        self._ended = ended
        self._transport: Transport | None = None
        self._process: BaseProcess | None = None
        self._ready = self._over = self._left = False
        self._error: Exception | None = None
        self._calls = 0
        self._turn = Waiters()
        self._reply: memoryview | None = None

    def start(self, process: BaseProcess) -> None:
        """Start the process, unless it was dismissed before; called in a thread."""
        if self._over:
            return
        with _interrupts_held():
            process.start()
        self._process = process
        if self._over:  # meanwhile
            self.kill()
            self.bury()

    def takes(self, max_calls: int | None) -> bool:
        """Whether it takes another call; one that has done its share leaves."""
        if max_calls is not None and self._calls >= max_calls:
            self.hang_up()
            return False
        return not self._over

    async def answer(self, frame: bytes) -> memoryview | None:
        """Send one call and wait for the body of its answer; None if the process died.

        Cancellation: before the call was sent the process stays; afterwards it is killed.
        """
        while not (self._ready or self._over):
            await self._turn.wait()
        if self._error is not None:
            raise self._error
        if self._over or self._transport is None:
            return None
        self._calls += 1
        self._transport.write(frame)
        try:
            while self._reply is None and not self._over:
                await self._turn.wait()
        except BaseException:
            self.dismiss()
            raise
        reply, self._reply = self._reply, None
        return reply

    def hang_up(self) -> None:
        """Let it leave by itself; one that has not begun to serve is dismissed."""
        if self._over:
            return
        if self._ready and self._transport is not None:
            self._transport.write_eof()
        else:
            self.dismiss()

    async def gone(self) -> None:
        """Wait until it has left."""
        while not self._over:
            await self._turn.wait()

    def dismiss(self, error: Exception | None = None) -> None:
        """Kill it; ``error`` is what the call that waits for it shall raise."""
        self._error = self._error or error
        self._over = True
        self.kill()
        if self._transport is not None:
            self._transport.abort()
        self._turn.wake_all()

    def kill(self) -> None:
        """Kill the process if there is one; touches no loop."""
        if self._process is not None:
            self._process.kill()

    def bury(self) -> None:
        """Reap the process, which is dead or about to be."""
        process, self._process = self._process, None
        if process is not None:
            process.join(_REAPED_WITHIN)
            self.ending = _ending(process.exitcode)
            self._left = process.exitcode is not None and process.exitcode > 0
        self._ended(self)

    def death(self, fn: str) -> str:
        """Say how it died: under the call of ``fn``, or before it took calls at all."""
        if self._ready:
            return f"the worker process {self.ending} under {fn}"
        died = f"the worker process for {fn} {self.ending} before it took calls"
        if not self._left:
            return died
        return (
            f"{died}: it imports the main module, which must be a file that only starts something "
            "if __name__ == '__main__'"
        )

    # What the connection tells.

    def connected(self, transport: Transport) -> None:
        """The connection is made, though the process may not have started."""
        self._transport = transport
        if self._over:
            transport.abort()

    def answered(self, body: memoryview) -> None:
        """An answer came; the first one says that the process is ready, or why it is not."""
        if self._ready:
            self._reply = body
        else:
            try:
                unpack_reply(body)
            except Exception as error:
                self.dismiss(error)
            self._ready = True
        self._turn.wake_all()

    def lost(self) -> None:
        """The connection is closed: the process is dead, or dying, or of no use any more."""
        self.kill()
        self.bury()
        self._over = True
        self._turn.wake_all()


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Keep Ctrl-C from a process, or a fork server, that is started and does not ignore it yet.

    A terminal sends it to the whole group; what is started here inherits this thread's mask, and
    would otherwise end with a traceback in the middle of its imports.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # begun now, since its begin lets Ctrl-C through again
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _ending(code: int | None) -> str:
    """Say how a process ended."""
    if code is None:
        return "did not end"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def processors() -> int:
    """How many processors this program may use."""
    import os

    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def start_methods() -> tuple[StartMethod, ...]:
    """The start methods of this system, the best first; fork is none of them."""
    import multiprocessing

    found = multiprocessing.get_all_start_methods()
    return ("forkserver", "spawn") if "forkserver" in found else ("spawn",)
