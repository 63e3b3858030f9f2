"""A server program as a child that never outlives us.

A process that is killed by SIGKILL cannot clean up, and a child of its does not notice: it is
handed to ``init`` and runs on. So each server gets a watchdog, a shell of one line that reads from
a pipe whose other end only we hold. However we end, the kernel closes our end, the read comes back
empty, and the watchdog kills the server and deletes its temporary directory::

      we ------------ signals ------------> server
       |                                       ^
       `-- pipe --> sh: read || kill -KILL ----'

This needs no thread, no polling, and nothing of Linux alone (``PR_SET_PDEATHSIG``, the usual
answer, ends the child with the *thread* that started it). It costs 1 ms a start.

Guarantees: a server is gone within milliseconds after its parent, also if it was stopped by
SIGSTOP. Ctrl-C in a terminal reaches neither of the two: they have a session of their own, so that
the program can still finish its work with the server.

Not guaranteed: children *forked* by us and still alive hold the pipe open, and with it the server.

Waiting is written once, for blocking and for asynchronous callers: a generator yields how long to
pause, and :func:`block` or :func:`wait` does so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["POLL", "Pauses", "ServerProcess", "Startable", "block", "delete", "lock", "wait"]

Pauses: TypeAlias = "Generator[float, None, None]"
"""Seconds to pause before each next step; done when it ends."""

POLL: Final = 0.002
"""Seconds between two looks at a process that starts or ends."""

# An empty line sends the watchdog home; the end of the pipe means that we are gone.
_WATCHDOG: Final = 'read -r _ || { kill -KILL "$1"; [ -z "$2" ] || rm -rf -- "$2"; }'


def block(steps: Pauses) -> None:
    """Go through ``steps`` and block the thread in their pauses."""
    never = Event()
    for pause in steps:
        never.wait(pause)


async def wait(steps: Pauses) -> None:
    """Go through ``steps`` and let other tasks run in their pauses.

    Cancellation: the steps are closed at once, and clean up what they began.
    """
    with closing(steps):
        for pause in steps:
            await sleep(pause)


class Startable(ABC):
    """What can be started and stopped, with and without an event loop.

    Subclasses say in steps how: :meth:`_starting`, which cleans up when it is cut short or fails;
    :meth:`_stopping`; and :meth:`_forget`, which deletes what is left.
    """

    __slots__ = ()

    def start(self) -> None:
        """Start, and return when it can be used.

        Raises:
            BackendUnavailableError: It is not installed, or did not start; the error says why.
            RuntimeError: It runs already.
        """
        block(self._starting())

    def stop(self) -> None:
        """Stop, and delete what is temporary; nothing to do if it does not run."""
        try:
            block(self._stopping())
        finally:
            self._forget()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start; other tasks run meanwhile.

        Cancellation: what was started is killed.
        """
        await wait(self._starting())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; other tasks run meanwhile.

        Cancellation: it is killed instead.
        """
        try:
            await wait(self._stopping())
        finally:
            self._forget()

    @abstractmethod
    def _starting(self) -> Pauses: ...

    @abstractmethod
    def _stopping(self) -> Pauses: ...

    @abstractmethod
    def _forget(self) -> None: ...


@final
class ServerProcess:
    """One run of a server program; made by :meth:`spawn`.

    Args:
        child: The server.
        watchdog: The shell that ends the server when we end.
        log: File with all that the server prints.
    """

    __slots__ = ("_child", "_log", "_parent", "_watchdog")

    def __init__(
        self, child: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes], log: Path
    ) -> None:
        self._child = child
        self._watchdog: subprocess.Popen[bytes] | None = watchdog
        self._log = log
        self._parent = os.getpid()

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        scratch: Path | None = None,
        user: str | None = None,
        keep_open: Sequence[int] = (),
    ) -> ServerProcess:
        """Start a server; it does not answer yet.

        Args:
            command: Program and arguments. The program is run by exactly this name: some servers
                are links to one program that asks for its name to know what it is.
            log: File that all output is appended to.
            scratch: Directory to delete if we die without ending the server.
            user: Run as this user (needs root).
            keep_open: Descriptors that the server inherits.

        Raises:
            OSError: The program cannot be run.
        """
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=log.parent,
                user=user,
                group=user and _group_of(user),
                extra_groups=() if user else None,
                pass_fds=keep_open,
            )
        doomed = "" if scratch is None else str(scratch)
        try:
            watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, "sh", str(child.pid), doomed],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            child.kill()
            child.wait()
            raise
        return cls(child, watchdog, log)

    @property
    def pid(self) -> int:
        """Id of the server's process."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the server is alive (it may be paused)."""
        if self._child.poll() is None:
            return True
        self._dismiss()  # its process id may be another's soon
        return False

    @property
    def exit_code(self) -> int | None:
        """How it ended: 0 is well, a negative number is a signal's; None while it runs."""
        return self._child.returncode

    @property
    def ours(self) -> bool:
        """Whether this process started it; a forked child has copies that are not its own."""
        return self._parent == os.getpid()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the server is gone."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """End the server by SIGKILL and return when it is gone; blocks for about a millisecond."""
        self.send(signal.SIGKILL)
        self._dismiss()
        self._child.wait()

    def ending(self, grace: float) -> Pauses:
        """Wait until the server has ended by itself, at most ``grace`` seconds; then kill it.

        Cut short, it kills the server at once.
        """
        try:
            for _ in range(int(grace / POLL)):
                if not self.running:
                    return
                yield POLL
        finally:
            self.kill()

    def starting(self, what: str, answers: Callable[[], bool], timeout: float) -> Pauses:
        """Wait until ``answers`` says that the server can be used.

        Raises:
            BackendUnavailableError: The server has ended, or does not answer in time; the error
                has its last words.
        """
        for _ in range(int(timeout / POLL)):
            if not self.running:
                raise BackendUnavailableError(
                    f"the {what} did not start; its last words:\n{self.last_words()}"
                )
            if answers():
                return
            yield POLL
        raise BackendUnavailableError(
            f"the {what} did not answer within {timeout} s; its last words:\n{self.last_words()}"
        )

    def last_words(self, lines: int = 5) -> str:
        """Return the last lines of the log."""
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-lines:])

    def _dismiss(self) -> None:
        """Send the watchdog home."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.communicate(b"\n")


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def lock(directory: Path) -> int:
    """Lock a data directory, made if need be, and return the descriptor that holds the lock.

    The server inherits it: the directory is locked until both we and the server are gone.

    Raises:
        BackendUnavailableError: Another process has locked it.
    """
    import fcntl

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            msg = f"{directory} is in use by another server; share it by its URL instead"
            raise BackendUnavailableError(msg) from None
        raise
    return descriptor


def delete(directory: Path) -> None:
    """Delete a temporary directory with all that is in it, as far as possible."""
    shutil.rmtree(directory, ignore_errors=True)
