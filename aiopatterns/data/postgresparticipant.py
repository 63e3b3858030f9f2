"""PostgresParticipant: a database of PostgreSQL that takes part in two-phase commits.

PostgreSQL can promise: what ``PREPARE TRANSACTION`` has answered survives ``kill -9`` and the loss
of power, and belongs to no connection any more; any of them may end it::

    work        BEGIN; ...                        a connection to itself
    promise     mark, PREPARE TRANSACTION 'g17'   the connection is free again
    outcome     COMMIT PREPARED 'g17'             any connection, also after a restart

The server has to allow it: ``max_prepared_transactions`` is 0 by default, which is refused with the
first use. Each transaction that is in doubt takes one of these slots; when they are used up, votes
are NO.

Guarantees:

* A YES is one: the server's own words are read, see :mod:`aiopatterns.data.postgresbranch`.
* "Committed before" is told from "rolled back by hand" by the mark, a row of the transaction itself.
* A transaction that has changed nothing is not promised.

Not guaranteed, by PostgreSQL: temporary tables, ``LISTEN``, ``NOTIFY`` and cursors ``WITH HOLD``
cannot be promised, so the vote is NO. Promises that an asynchronous standby has not got are lost
when it is promoted; recovery reports them as heuristic.

Source: https://www.postgresql.org/docs/current/sql-prepare-transaction.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from anyio import fail_after

from aiopatterns.backends.dialects import POSTGRESQL
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.data.participants import Fate, Prepared, Vote, participant_name
from aiopatterns.data.postgresbranch import MARKS_TABLE, PostgresBranch, quoted
from aiopatterns.data.postgresconnections import PostgresConnections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from types import TracebackType
    from typing import Self

    from psycopg import AsyncConnection

__all__ = ["ANSWERED_WITHIN", "PostgresParticipant"]

T = TypeVar("T")

#: Seconds that the server may take for anything but the statements of the caller.
ANSWERED_WITHIN: Final = 10.0

# What the server calls our promises: its own, this, the transaction's id, the participant.
_PREFIX: Final = "aiopatterns"
_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS aiopatterns_marks (gid TEXT NOT NULL, participant TEXT NOT NULL,"
    " at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (gid, participant))"
)
_IS_THERE: Final = "SELECT to_regclass(%s) IS NOT NULL"
_SLOTS: Final = "SELECT CAST(current_setting('max_prepared_transactions') AS INTEGER)"
# Prefix and name are compared as they are: LIKE would take an underscore for any character.
_IN_DOUBT: Final = (
    "SELECT split_part(gid, '.', 2), CAST(extract(epoch FROM clock_timestamp() - prepared) AS"
    " DOUBLE PRECISION) FROM pg_prepared_xacts WHERE database = current_database()"
    " AND split_part(gid, '.', 1) = %s AND split_part(gid, '.', 3) = %s ORDER BY prepared"
)
_IS_PROMISED: Final = (
    "SELECT 1 FROM pg_prepared_xacts WHERE database = current_database() AND gid = %s"
)
_IS_MARKED: Final = "SELECT 1 FROM aiopatterns_marks WHERE gid = %s AND participant = %s"
_FORGET: Final = "DELETE FROM aiopatterns_marks WHERE participant = %s AND gid = ANY(%s)"


@final
class PostgresParticipant:
    """A database of PostgreSQL.

    Args:
        name: Its name: up to 40 letters, digits, ``_`` and ``-``. Two names for one database are
            two participants, and may both be in a transaction.
        dsn: How to connect, as psycopg takes it. All who recover connect as the same user.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``name`` is none, or ``dsn`` is empty.
        ImportError: The extra ``postgres`` is not installed.

    Complexity: 4 round trips and two flushes for a transaction, beside its statements.

    Example::

        async with transfers.transaction() as tx:
            await tx[bank].execute("UPDATE accounts SET balance = balance - %s", (10,))
    """

    __slots__ = ("_branches", "_connections", "_ready", "name")

    def __init__(self, name: str, dsn: str) -> None:
        self.name: Final[str] = participant_name(name)
        self._connections = PostgresConnections(dsn)
        self._branches: dict[str, PostgresBranch] = {}
        self._ready = False

    def __repr__(self) -> str:
        return f"PostgresParticipant({self.name!r})"

    def branch(self, gid: str) -> PostgresBranch:
        """Begin work under ``gid``; connects with the first statement."""
        branch = PostgresBranch(self._connections, gid, self.name, label=self._label(gid))
        self._branches[gid] = branch
        return branch

    async def create_tables(self) -> None:
        """Create the table of marks if it is not there, and see whether the server can promise.

        Called by itself with the first promise; by hand, where only an administrator may create.

        Raises:
            BackendUnavailableError: Nobody answers.
            BackendError: The server allows no promises.
        """
        return await self._answered(self._create_tables)

    async def prepare(self, gid: str) -> Vote:
        """Promise the work of ``gid``."""
        return await self._answered(lambda: self._prepare(gid))

    async def commit(self, gid: str) -> bool:
        """Commit what was promised; False if there is no such promise."""
        self._branches.pop(gid, None)
        return await self._answered(lambda: self._end("COMMIT", gid))

    async def commit_alone(self, gid: str) -> bool:
        """Commit in one phase; when the answer is lost, the server is asked what it was."""
        committed = await self._answered(self._branches[gid].commit)
        del self._branches[gid]
        return committed

    async def rollback(self, gid: str) -> bool:
        """Undo the work, promised or not; False if there is none."""
        return await self._answered(lambda: self._rollback(gid))

    async def in_doubt(self) -> Sequence[Prepared]:
        """Return what was promised in this database under this name, by whomever."""
        return await self._answered(self._in_doubt)

    async def outcome(self, gid: str) -> Fate:
        """Return what is known of ``gid``.

        The promise is looked for first: what becomes a commit in between has its mark by then.
        """
        return await self._answered(lambda: self._outcome(gid))

    async def forget(self, gids: Collection[str]) -> None:
        """Remove the marks of ``gids``."""
        return await self._answered(lambda: self._forget(gids))

    async def aclose(self) -> None:
        """Close connections that nobody uses; the next use connects again."""
        self._connections.close()

    async def __aenter__(self) -> Self:
        """Return this participant; nothing is connected yet."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close connections that nobody uses."""
        await self.aclose()

    def _label(self, gid: str) -> str:
        return f"{_PREFIX}.{gid}.{self.name}"

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask where nobody can cancel it, and not for ever."""

        async def in_time() -> T:
            try:
                with fail_after(ANSWERED_WITHIN):
                    return await ask()
            except TimeoutError as error:
                raise BackendUnavailableError(
                    f"the PostgreSQL of {self.name!r} has not answered within {ANSWERED_WITHIN:g} s"
                ) from error

        return await to_the_end(in_time)

    async def _create_tables(self) -> None:
        async with self._connections.borrow() as connection:
            (slots,) = await _one(connection, _SLOTS)
            if not slots:
                raise BackendError(
                    f"the PostgreSQL of {self.name!r} allows no prepared transactions: set"
                    " max_prepared_transactions to max_connections or more, and restart it"
                )
            (there,) = await _one(connection, _IS_THERE, (MARKS_TABLE,))
            for each in () if there else POSTGRESQL.creation((_CREATE,)):
                await connection.execute(each.encode())
        self._ready = True

    async def _prepare(self, gid: str) -> Vote:
        await self._see_to_tables()
        return Vote.YES if await self._branches[gid].promise() else Vote.READ_ONLY

    async def _rollback(self, gid: str) -> bool:
        branch = self._branches.pop(gid, None)
        if branch is not None:
            await branch.give_up()
            if not branch.asked:
                return True
        return await self._end("ROLLBACK", gid)

    async def _in_doubt(self) -> Sequence[Prepared]:
        async with self._connections.borrow() as connection:
            cursor = await connection.execute(_IN_DOUBT, (_PREFIX, self.name))
            return [Prepared(*each) for each in await cursor.fetchall()]

    async def _outcome(self, gid: str) -> Fate:
        await self._see_to_tables()
        async with self._connections.borrow() as connection:
            if await _one(connection, _IS_PROMISED, (self._label(gid),)):
                return Fate.PREPARED
            marked = await _one(connection, _IS_MARKED, (gid, self.name))
            return Fate.COMMITTED if marked else Fate.UNKNOWN

    async def _forget(self, gids: Collection[str]) -> None:
        await self._see_to_tables()
        async with self._connections.borrow() as connection:
            await connection.execute(_FORGET, (self.name, [*gids]))

    async def _see_to_tables(self) -> None:
        if not self._ready:
            await self._create_tables()

    async def _end(self, verb: str, gid: str) -> bool:
        """End a promise; False if there is none."""
        from psycopg.errors import UndefinedObject

        async with self._connections.borrow() as connection:
            try:
                await connection.execute(f"{verb} PREPARED {quoted(self._label(gid))}".encode())
            except UndefinedObject:
                return False
        return True


async def _one(
    connection: AsyncConnection[Any], query: str, values: Sequence[Any] = ()
) -> tuple[Any, ...]:
    """Return the only row, or an empty one if there is none."""
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchone() or ()
