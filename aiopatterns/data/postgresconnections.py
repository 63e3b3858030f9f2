"""Connections to one PostgreSQL, for work that needs one to itself for a while.

A connection is a process of the server and costs milliseconds to make, so those that are free are
kept and used again. One that has failed, or that may be in the middle of something, never is.

Guarantees:

* One that the server has closed meanwhile, for it was restarted, is not given out, as far as that
  can be seen without asking.
* Connecting takes :data:`CONNECT_WITHIN` at most; nobody there is *unavailable*.
* What is kept is closed by ``aclose``, or with the object.

Not guaranteed: a bound of how many are in use. Whoever holds connections to two databases would
wait for others that hold them the other way round; bound the work instead.
"""

from __future__ import annotations

import weakref
from importlib.util import find_spec
from select import select
from typing import TYPE_CHECKING, Any, Final, final

from anyio import fail_after

from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import AsyncConnection

__all__ = ["CONNECT_WITHIN", "MAX_IDLE", "Borrowed", "PostgresConnections"]

#: Seconds that connecting may take.
CONNECT_WITHIN: Final = 10.0
#: Free connections that are kept at most.
MAX_IDLE: Final = 16


@final
class PostgresConnections:
    """Connections that commit each statement unless told ``BEGIN``.

    Args:
        dsn: How to connect, as psycopg takes it.

    Raises:
        TypeError: ``dsn`` is no text.
        ValueError: It is empty.
        ImportError: The extra ``postgres`` is not installed; the message has the command.
    """

    __slots__ = ("__weakref__", "_dsn", "_free")

    def __init__(self, dsn: str) -> None:
        self._dsn = text("dsn", dsn)
        if find_spec("psycopg") is None:
            msg = "PostgreSQL needs psycopg: pip install 'aiopatterns[postgres]'"
            raise ImportError(msg, name="psycopg")
        self._free: list[AsyncConnection[Any]] = []
        weakref.finalize(self, _finish, self._free)

    @property
    def idle(self) -> int:
        """How many are kept."""
        return len(self._free)

    async def take(self) -> AsyncConnection[Any]:
        """Return one; it is given back by :meth:`give`, or finished.

        Raises:
            BackendUnavailableError: Nobody answers.
        """
        while self._free:
            connection = self._free.pop()
            if _is_silent(connection):
                return connection
            connection.pgconn.finish()
        from psycopg import AsyncConnection, Error

        try:
            with fail_after(CONNECT_WITHIN):
                return await AsyncConnection.connect(self._dsn, autocommit=True)
        except (Error, OSError) as error:  # a TimeoutError is one of these
            reason = str(error).strip() or f"no answer within {CONNECT_WITHIN:g} s"
            raise BackendUnavailableError(f"PostgreSQL cannot be reached: {reason}") from error

    def give(self, connection: AsyncConnection[Any]) -> None:
        """Take one back; what is not at rest, or too much, is closed."""
        from psycopg.pq import TransactionStatus

        at_rest = connection.info.transaction_status == TransactionStatus.IDLE
        if at_rest and len(self._free) < MAX_IDLE:
            self._free.append(connection)
        else:
            connection.pgconn.finish()

    def borrow(self) -> Borrowed:
        """Return an ``async with`` block around one."""
        return Borrowed(self)

    def close(self) -> None:
        """Close what is kept; the next use connects again."""
        _finish(self._free)


@final
class Borrowed:
    """The block made by :meth:`PostgresConnections.borrow`.

    Args:
        connections: Where the connection comes from, and where it goes unless the block fails.
    """

    __slots__ = ("_connection", "_connections")

    def __init__(self, connections: PostgresConnections) -> None:
        self._connections = connections
        self._connection: AsyncConnection[Any] | None = None

    async def __aenter__(self) -> AsyncConnection[Any]:
        """Take one.

        Raises:
            BackendUnavailableError: Nobody answers.
        """
        self._connection = await self._connections.take()
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back, or close it after an error."""
        connection, self._connection = self._connection, None
        assert connection is not None, "entered"
        if exc is None:
            self._connections.give(connection)
        else:
            connection.pgconn.finish()


def _is_silent(connection: AsyncConnection[Any]) -> bool:
    """Whether the server has said nothing since its last answer; else that was a goodbye."""
    if connection.closed:
        return False
    return not select([connection.pgconn.socket], [], [], 0)[0]


def _finish(free: list[AsyncConnection[Any]]) -> None:
    while free:
        connection = free.pop()  # held, for one that nobody holds complains of being open
        connection.pgconn.finish()
