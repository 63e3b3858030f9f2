"""A private PostgreSQL for tests of two-phase commit, outbox, sagas and replicas.

Nothing of it is installed by us: it takes ``postgres`` and ``initdb`` from ``PATH``, or the newest
under ``/usr/lib/postgresql``. A cluster in a temporary directory listens on a Unix socket there and
nowhere else, trusts whoever can open it, and goes with us however we end. PostgreSQL refuses to run
as root, so for root it runs as ``postgres``, or as ``nobody``.

It does not wait for the disk (``fsync=off``): a killed server loses nothing by that, only a machine
without power does, and tests are several times faster.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.redis.process import ServerProcess, Startable, block, delete
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.core.validate import positive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiopatterns.backends.redis.process import Pauses

__all__ = ["PostgresServer"]

_PLACES: Final = Path("/usr/lib/postgresql")
# In this order, for root.
_USERS: Final = ("postgres", "nobody")
_SETTINGS: Final = (
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("max_prepared_transactions", "100"),  # two-phase commit is off without
    ("shared_buffers", "16MB"),
    ("dynamic_shared_memory_type", "mmap"),  # files that go with the directory
    ("log_min_messages", "warning"),
)
_INIT: Final = (
    "--username=postgres",
    "--auth=trust",
    "--no-sync",
    "--encoding=UTF8",
    "--locale=C",
)
# The last one writes down where the primary is, and that this is its standby.
_COPY: Final = ("--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf")
_SOCKET: Final = ".s.PGSQL.5432"
_WHAT: Final = "PostgreSQL server"
# What it says while processes of a killed one are alive; they need milliseconds.
_STILL_THERE: Final = "shared memory block"
_TRIES: Final = 50
_PAUSE: Final = 0.05
_GRACE: Final = 5.0
_INIT_TIMEOUT: Final = 60.0


@final
class PostgresServer(Startable):
    """A private PostgreSQL server.

    It is used with ``with``, with ``async with``, or by :meth:`start` and :meth:`stop`. The first
    start makes the cluster, which takes a second or two; later ones take 50 ms.

    Args:
        config: Settings of ``postgresql.conf`` by name.
        standby_of: The running server of which this one is to be a streaming standby; the first
            start copies it.
        start_timeout: Seconds within which the server must be ready.

    Example::

        with PostgresServer() as server:
            connection = await psycopg.AsyncConnection.connect(server.dsn)
    """

    __slots__ = ("_config", "_home", "_primary", "_process", "_start_timeout", "_user")

    def __init__(
        self,
        *,
        config: Mapping[str, str] | None = None,
        standby_of: PostgresServer | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self._config = {**dict(_SETTINGS), **(config or {})}
        self._start_timeout = positive("start_timeout", start_timeout)
        self._primary = standby_of
        self._home: Path | None = None
        self._process: ServerProcess | None = None
        self._user: str | None = None

    @property
    def dsn(self) -> str:
        """How to connect, as a URL that psycopg and libpq know.

        Raises:
            ClosedError: It was not started.
        """
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """How to connect to another database, which somebody has made."""
        return f"postgresql://postgres@/{database}?host={self._data.parent}"

    @property
    def socket_url(self) -> str:
        """Its socket, as a target of :class:`~aiopatterns.testing.proxy.FaultProxy`."""
        return f"unix://{self._data.parent / _SOCKET}"

    @property
    def running(self) -> bool:
        """Whether the server is alive, paused or not."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Id of the server's first process."""
        return self._own().pid

    def kill(self) -> None:
        """Kill the server by SIGKILL; its other processes notice and end. The data stays."""
        self._own().kill()

    def restart(self) -> None:
        """Start the server again over the same data, on the same socket; stop it first if it runs.

        Raises:
            BackendUnavailableError: It did not start again.
        """
        self._own()
        block(self._stopping())
        block(self._starting())

    def pause(self) -> None:
        """Freeze the first process by SIGSTOP: no new connection is served."""
        self._own().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._own().send(signal.SIGCONT)

    @property
    def _data(self) -> Path:
        if self._home is None:
            msg = "the server is not started; use it inside 'with PostgresServer() as server:'"
            raise ClosedError(msg)
        return self._home / "data"

    def _own(self) -> ServerProcess:
        if self._process is None:
            msg = "the server is not started; use it inside 'with PostgresServer() as server:'"
            raise ClosedError(msg)
        return self._process

    def _starting(self) -> Pauses:
        if self.running:
            raise RuntimeError(f"the server at {self.dsn} runs already")
        fresh = self._home is None
        try:
            programs = _find_programs()
            if fresh:
                yield from self._make_cluster(programs)
            yield from self._run(programs)
        except BaseException:
            if self._process is not None:
                self._process.kill()
            if fresh:
                self._forget()
            raise

    def _make_cluster(self, programs: Path) -> Pauses:
        """Make the directory and what PostgreSQL needs in it."""
        self._home = Path(tempfile.mkdtemp(prefix="ap-"))
        self._user = _unprivileged()
        if self._user is not None:
            shutil.chown(self._home, self._user)
        init = self._spawn(self._making(programs))
        yield from init.ending(_INIT_TIMEOUT)
        if init.exit_code != 0:
            raise BackendUnavailableError(
                "initdb or pg_basebackup could not make a PostgreSQL cluster; its last words:\n"
                f"{init.last_words()}"
            )

    def _making(self, programs: Path) -> list[str]:
        """Return the command that makes a fresh cluster, or copies the primary."""
        if self._primary is None:
            return [str(programs / "initdb"), f"--pgdata={self._data}", *_INIT]
        source = f"--dbname={self._primary.dsn}"
        return [str(programs / "pg_basebackup"), f"--pgdata={self._data}", source, *_COPY]

    def _run(self, programs: Path) -> Pauses:
        """Start the server and wait until it takes connections.

        After a kill its other processes are alive for some milliseconds; as long as they use the
        old shared memory, a new server ends at once, and is started again.
        """
        settings = [f"-c{name}={value}" for name, value in self._config.items()]
        command = [
            str(programs / "postgres"),
            f"-D{self._data}",
            f"-k{self._data.parent}",
            *settings,
        ]
        tries = _TRIES
        while True:
            self._drop_empty_locks()
            self._process = self._spawn(command)
            try:
                return (yield from self._process.starting(_WHAT, self._ready, self._start_timeout))
            except BackendUnavailableError as error:
                tries -= 1
                if not tries or _STILL_THERE not in str(error):
                    raise
            yield _PAUSE

    def _drop_empty_locks(self) -> None:
        """Remove the lock files of a server that was killed before it had written them.

        With them no other one would start, and there is no other one: the directory is ours alone.
        """
        for lock in (self._data / "postmaster.pid", self._data.parent / f"{_SOCKET}.lock"):
            if lock.exists() and not lock.stat().st_size:
                lock.unlink()

    def _spawn(self, command: list[str]) -> ServerProcess:
        home = self._data.parent
        return ServerProcess.spawn(command, log=home / "log", scratch=home, user=self._user)

    def _ready(self) -> bool:
        """Whether it takes connections: its lock file begins with its id and ends with its state."""
        try:
            words = (self._data / "postmaster.pid").read_text("utf-8").split()
        except FileNotFoundError:
            return False
        return words[:1] == [str(self._own().pid)] and words[-1] == "ready"

    def _stopping(self) -> Pauses:
        """Fast shutdown: transactions are rolled back, and the end is a clean one."""
        if self._process is not None and self._process.running:
            self._process.send(signal.SIGCONT)
            self._process.send(signal.SIGINT)
            yield from self._process.ending(_GRACE)

    def _forget(self) -> None:
        self._process = None
        if self._home is not None:
            delete(self._home)
            self._home = None


def _find_programs() -> Path:
    """Return the directory with ``postgres`` and ``initdb``.

    Raises:
        BackendUnavailableError: There is none.
    """
    for place in _candidates():
        if (place / "initdb").exists():
            return place
    raise BackendUnavailableError(
        "PostgreSQL is not installed: install postgresql with the system's package manager"
    )


def _candidates() -> Iterator[Path]:
    found = shutil.which("postgres")
    if found is not None:
        yield Path(found).resolve().parent  # often a link, and ``initdb`` is beside what it is to
    yield from sorted(_PLACES.glob("*/bin"), key=_release, reverse=True)


def _release(place: Path) -> tuple[int, ...]:
    return tuple(int(each) for each in place.parent.name.split(".") if each.isdecimal())


def _unprivileged() -> str | None:
    """Return the user to run as; None: as whoever we are.

    Raises:
        BackendUnavailableError: We are root, and there is nobody else.
    """
    if os.getuid() != 0:
        return None
    import pwd

    known = {each.pw_name for each in pwd.getpwall()}
    for name in _USERS:
        if name in known:
            return name
    raise BackendUnavailableError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(_USERS)} to run it as"
    )
