"""SQL: a connection of the caller's, seen the same whatever its driver is.

Tables that stand beside the data of an application are written in the application's own
transaction, so the connection is the application's too. :func:`link` takes the connections that
people have and gives each the same few verbs::

    SQLAlchemy AsyncConnection, AsyncSession --+
    psycopg AsyncConnection -------------------+--> SqlLink: run, begin, commit, rollback
    sqlite3 Connection (in a thread) ----------+

Statements have ``:name`` for a value. Errors of the driver leave as they are: it is the caller's
transaction that they concern.

Guarantees:

* Nothing is committed or rolled back but by ``commit`` and ``rollback``.
* The caller's row factories are neither used nor changed.
* After a cancelled call no statement of it is still running.

Not guaranteed: use by several tasks at once. A connection has one transaction, so it is one
task's.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from anyio import move_on_after

from aiopatterns.backends.dialects import POSTGRESQL, SQLITE, dialect_named
from aiopatterns.backends.errand import Errand

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from psycopg import AsyncConnection as PsycopgConnection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from aiopatterns.backends.dialects import Dialect

__all__ = ["ABANDONED_WITHIN", "Answer", "SqlConnection", "SqlLink", "link"]

#: What people have.
SqlConnection: TypeAlias = (
    "AsyncConnection | AsyncSession | PsycopgConnection[Any] | sqlite3.Connection"
)

#: Seconds that a rollback may take where nobody asks what becomes of it.
ABANDONED_WITHIN: Final = 5.0
_VALUE: Final = re.compile(r":([a-z_]+)")


@final
class Answer(NamedTuple):
    """What a statement came to.

    Attributes:
        rows: The rows it returned.
        changed: Rows that it inserted, updated or deleted.
    """

    rows: Sequence[tuple[Any, ...]]
    changed: int


class SqlLink(ABC):
    """One connection, with one set of verbs; made by :func:`link`.

    Args:
        dialect: The language of the database.
    """

    __slots__ = ("dialect",)

    def __init__(self, dialect: Dialect) -> None:
        self.dialect: Final[Dialect] = dialect

    @abstractmethod
    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement.

        Args:
            statement: With ``:name`` for each of ``values``.
            values: What stands for the names.
        """

    @abstractmethod
    async def run_many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        """Run one statement that returns nothing, once for each of ``values``, in one go.

        Args:
            statement: With ``:name`` for each name of a mapping.
            values: At least one mapping.
        """

    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether the caller has a transaction open."""

    @abstractmethod
    async def has_written(self) -> bool:
        """Whether the open transaction has changed anything, as far as that can be known."""

    async def begin(self) -> None:
        """Open a transaction; most drivers do so by themselves with the first statement."""

    @abstractmethod
    async def commit(self) -> None:
        """Commit the open transaction, if there is one."""

    @abstractmethod
    async def rollback(self) -> None:
        """Roll the open transaction back, if there is one."""

    async def abandon(self) -> None:
        """Roll back what nobody needs any more; an error in that is none.

        Cancellation: a cancel scope's waits, :data:`ABANDONED_WITHIN` at most.
        """
        with move_on_after(ABANDONED_WITHIN, shield=True), suppress(Exception):
            await self.rollback()

    async def look(self, statement: str, **values: object) -> Answer:
        """Run a statement that only reads; a transaction is open afterwards if one was before.

        Args:
            statement: With ``:name`` for each of ``values``.
            values: What stands for the names.
        """
        own = not self.in_transaction()
        try:
            return await self.run(statement, **values)
        finally:
            if own:
                await self.abandon()

    async def create(self, *statements: str) -> None:
        """Create what may be there, also while others create the same.

        In the caller's transaction if one is open; else it is committed.

        Args:
            statements: Each with IF NOT EXISTS, and without values.

        Cancellation: a transaction of the caller's stays as it is; an own one is rolled back.
        """
        own = not self.in_transaction()
        try:
            for each in self.dialect.creation(statements):
                await self.run(each)
            if own:
                await self.commit()
        except BaseException:
            if own:
                await self.abandon()
            raise


def link(connection: SqlConnection) -> SqlLink:
    """Return ``connection`` with the verbs of all.

    Args:
        connection: An ``AsyncConnection`` or ``AsyncSession`` of SQLAlchemy, an
            ``AsyncConnection`` of psycopg, or a ``Connection`` of sqlite3.

    Raises:
        TypeError: It is none of these.
        ValueError: It leads to another database than PostgreSQL or SQLite.
    """
    given: Any = connection
    alchemy = sys.modules.get("sqlalchemy.ext.asyncio")
    if alchemy and isinstance(given, (alchemy.AsyncConnection, alchemy.AsyncSession)):
        return _AlchemyLink(given)
    psycopg = sys.modules.get("psycopg")
    if psycopg and isinstance(given, psycopg.AsyncConnection):
        return _PsycopgLink(given)
    sqlite = sys.modules.get("sqlite3")
    if sqlite and isinstance(given, sqlite.Connection):
        return _SqliteLink(given)
    msg = (
        "connection must be an AsyncConnection or AsyncSession of SQLAlchemy, an AsyncConnection"
        f" of psycopg, or a Connection of sqlite3, not {connection!r}"
    )
    raise TypeError(msg)


_WRITTEN: Final = "SELECT txid_current_if_assigned() IS NOT NULL"


@final
class _AlchemyLink(SqlLink):
    """SQLAlchemy, with any of its drivers; it opens transactions by itself."""

    __slots__ = ("_connection", "_text")

    def __init__(self, connection: AsyncConnection | AsyncSession) -> None:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncSession

        bind = connection.get_bind() if isinstance(connection, AsyncSession) else connection.engine
        super().__init__(dialect_named(bind.dialect.name))
        self._connection = connection
        self._text = text

    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement."""
        result: Any = await self._connection.execute(self._text(statement), values)
        if result.returns_rows:
            return Answer([tuple(each) for each in result.all()], 0)
        return Answer((), result.rowcount)

    async def run_many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        """Run one statement with many values."""
        await self._connection.execute(self._text(statement), list(values))

    def in_transaction(self) -> bool:
        """Whether SQLAlchemy has begun one, by itself or because it was told to."""
        return self._connection.in_transaction()

    async def has_written(self) -> bool:
        """Ask the server, or SQLite's own flag."""
        if self.dialect is POSTGRESQL:
            return bool((await self.run(_WRITTEN)).rows[0][0])
        return bool((await self._raw()).driver_connection.in_transaction)

    async def begin(self) -> None:
        """Refuse a connection of PostgreSQL that would let go of its locks at once.

        Raises:
            ValueError: It commits each statement.
        """
        if self.dialect is POSTGRESQL and (await self._raw()).dbapi_connection.autocommit:
            msg = "connection must have transactions, not the isolation level 'AUTOCOMMIT'"
            raise ValueError(msg)

    async def commit(self) -> None:
        """Commit."""
        await self._connection.commit()

    async def rollback(self) -> None:
        """Roll back."""
        await self._connection.rollback()

    async def _raw(self) -> Any:
        from sqlalchemy.ext.asyncio import AsyncSession

        held = self._connection
        own = await held.connection() if isinstance(held, AsyncSession) else held
        return await own.get_raw_connection()


@final
class _PsycopgLink(SqlLink):
    """Psycopg; it opens transactions by itself unless it commits each statement."""

    __slots__ = ("_connection", "_rows")

    def __init__(self, connection: PsycopgConnection[Any]) -> None:
        from psycopg.rows import tuple_row

        super().__init__(POSTGRESQL)
        self._connection = connection
        self._rows = tuple_row

    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement."""
        query = _VALUE.sub(r"%(\1)s", statement).encode()
        async with self._connection.cursor(row_factory=self._rows) as cursor:
            await cursor.execute(query, values or None)
            rows = await cursor.fetchall() if cursor.description else ()
            return Answer(rows, cursor.rowcount)

    async def run_many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        """Run one statement with many values, in a pipeline."""
        query = _VALUE.sub(r"%(\1)s", statement).encode()
        async with self._connection.cursor(row_factory=self._rows) as cursor:
            await cursor.executemany(query, values)

    def in_transaction(self) -> bool:
        """Whether the server says so."""
        from psycopg.pq import TransactionStatus

        return self._connection.info.transaction_status != TransactionStatus.IDLE

    async def has_written(self) -> bool:
        """Ask the server."""
        return bool((await self.run(_WRITTEN)).rows[0][0])

    async def begin(self) -> None:
        """Begin where the driver would not."""
        if self._connection.autocommit:
            await self.run("BEGIN")

    async def commit(self) -> None:
        """Commit."""
        await self._connection.commit()

    async def rollback(self) -> None:
        """Roll back."""
        await self._connection.rollback()


@final
class _SqliteLink(SqlLink):
    """The standard library's sqlite3, in a thread if the connection lets itself be used there."""

    __slots__ = ("_bound", "_connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(SQLITE)
        self._connection = connection
        self._bound: bool | None = None  # to its thread, or not known yet

    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement."""
        answer: Answer = await self._call(self._run, statement, values)
        return answer

    async def run_many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        """Run one statement with many values."""
        await self._call(self._run_many, statement, values)

    def in_transaction(self) -> bool:
        """Whether SQLite says so."""
        return self._connection.in_transaction

    async def has_written(self) -> bool:
        """Without a word about reads, every open transaction counts."""
        return self._connection.in_transaction

    async def commit(self) -> None:
        """Commit."""
        await self._call(self._connection.commit)

    async def rollback(self) -> None:
        """Roll back."""
        await self._call(self._connection.rollback)

    def _run(self, statement: str, values: Mapping[str, object]) -> Answer:
        cursor = self._connection.cursor()
        try:
            cursor.row_factory = None
            rows = cursor.execute(statement, values).fetchall()
            return Answer(rows, cursor.rowcount)
        finally:
            cursor.close()

    def _run_many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        self._connection.executemany(statement, values).close()

    async def _call(self, fn: Callable[..., Any], *args: Any) -> Any:
        if self._bound is None:
            self._bound = await Errand(self._is_bound).run()
        return fn(*args) if self._bound else await Errand(fn, *args).run()

    def _is_bound(self) -> bool:
        """Whether this thread, which is not the caller's, is refused."""
        try:
            self._connection.cursor().close()
        except Exception as error:
            return "thread" in str(error)
        return False
