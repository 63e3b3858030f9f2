"""A database of PostgreSQL: single statements over a few connections of its own.

Statements that run at once have a connection each, up to a bound; PostgreSQL syncs their commits
together by itself. A connection that has failed, or whose answer nobody has waited for, is never
used again.

Each statement commits by itself, with ``synchronous_commit`` as the server has it: ``off`` there
may lose the last commits when the server crashes, and is refused with the first statement.
"""

from __future__ import annotations

import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from anyio import move_on_after

from aiopatterns.backends.dialects import POSTGRESQL
from aiopatterns.backends.sql import link
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.core.validate import count, text
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.database import ANSWERED_WITHIN, Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg import AsyncConnection

    from aiopatterns.backends.sql import Answer, SqlLink

__all__ = ["CONNECTIONS", "PostgresDatabase"]

T = TypeVar("T")

#: Connections at most, unless told otherwise.
CONNECTIONS: Final = 4
_DURABLE: Final = "SHOW synchronous_commit"
# Whose host has gone in the middle of it holds its locks no longer than others wait.
_BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED;"
    f" SET LOCAL idle_in_transaction_session_timeout = {int(ANSWERED_WITHIN * 1_000)}"
)


@final
class PostgresDatabase(Database):
    """A database of PostgreSQL.

    Args:
        dsn: How to connect, as psycopg takes it.
        connections: How many at most.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``dsn`` is empty or none, or ``connections`` is below 1.
        ImportError: The extra ``postgres`` is not installed.
    """

    __slots__ = ("_dsn", "_idle", "_limit", "_turns", "_used")

    def __init__(self, dsn: str, *, connections: int = CONNECTIONS) -> None:
        self._dsn = text("dsn", dsn)
        super().__init__(POSTGRESQL, _masked(dsn))
        self._limit = count("connections", connections)
        self._idle: list[AsyncConnection[Any]] = []
        self._used = 0
        self._turns = Waiters()
        weakref.finalize(self, _finish, self._idle)

    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement; where nobody can cancel it, for drivers lose their way by that."""
        return await self._in_turn(lambda link: link.run(statement, **values))

    async def transact(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        """Run several statements as one transaction, on a connection of its own."""

        async def transaction(link: SqlLink) -> T:
            await link.run(_BEGIN)
            result = await work(link)
            await link.commit()
            return result

        return await self._in_turn(transaction)

    async def aclose(self) -> None:
        """Close the connections that nobody uses."""
        _finish(self._idle)

    # --------------------------------------------------------------------------- private core

    async def _in_turn(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        while self._used >= self._limit:
            await self._turns.wait()
        self._used += 1
        try:
            return await to_the_end(lambda: self._in_time(work))
        finally:
            self._used -= 1
            self._turns.wake()

    async def _in_time(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        import psycopg

        try:
            with move_on_after(ANSWERED_WITHIN):
                return await self._connected(work)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            _finish(self._idle)  # what one has lost, the others have lost as well
            raise BackendUnavailableError(f"PostgreSQL at {self.place}: {error}") from error
        except psycopg.Error as error:
            raise BackendError(f"PostgreSQL at {self.place}: {error}") from error
        raise BackendUnavailableError(
            f"PostgreSQL at {self.place} has not answered within {ANSWERED_WITHIN:g} s"
        )

    async def _connected(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            answer = await work(link(connection))
        except BaseException:
            connection.pgconn.finish()
            raise
        self._idle.append(connection)
        return answer

    async def _connect(self) -> AsyncConnection[Any]:
        import psycopg

        connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        try:
            durable = await link(connection).run(_DURABLE)
            if durable.rows[0][0] == "off":
                raise BackendError(
                    f"PostgreSQL at {self.place} has synchronous_commit = off, which may lose"
                    " what was committed last; give the role of this store another value"
                )
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection


def _masked(dsn: str) -> str:
    """Return ``dsn`` without its password.

    Raises:
        ValueError: It is none.
        ImportError: Psycopg is not there.
    """
    if find_spec("psycopg") is None:
        msg = "PostgreSQL needs psycopg: pip install 'aiopatterns[postgres]'"
        raise ImportError(msg, name="psycopg")
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        parts = conninfo_to_dict(dsn)
    except ProgrammingError as error:
        msg = f"dsn must be one of PostgreSQL, such as postgresql://user@host/name: {error}"
        raise ValueError(msg) from None
    parts.pop("password", None)
    return make_conninfo("", **parts)


def _finish(idle: list[AsyncConnection[Any]]) -> None:
    """Close what nobody uses; no connection is closed in the middle of its work."""
    while idle:
        connection = idle.pop()  # held, for one that nobody holds complains of being open
        connection.pgconn.finish()
