"""The work of one transaction in PostgreSQL, up to its promise.

``PREPARE TRANSACTION`` has a trap. In a transaction that has failed it is no error: PostgreSQL
rolls back, answers ``ROLLBACK``, and drivers take that for success (psycopg's ``tpc_prepare`` does).
Others would commit then, on a YES that was none. So plain SQL is used, and the answer's own tag is
read: only ``PREPARE TRANSACTION`` is a YES.

Before it promises, a branch leaves a *mark* in its transaction: a row that is there if, and only if,
it was committed. So "no such promise" can be told from "committed before".
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from anyio import move_on_after

from aiopatterns.backends.sql import Answer
from aiopatterns.core.completion import cancelled_once
from aiopatterns.core.errors import BackendError, OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import LiteralString

    from psycopg import AsyncConnection

    from aiopatterns.data.postgresconnections import PostgresConnections

__all__ = ["MARKS_TABLE", "PostgresBranch", "quoted"]

#: Where marks are.
MARKS_TABLE: Final = "aiopatterns_marks"
_MARK: Final = "INSERT INTO aiopatterns_marks (gid, participant) VALUES (%s, %s)"
_XID: Final = "SELECT CAST(txid_current_if_assigned() AS TEXT)"
_STATUS: Final = "SELECT txid_status(CAST(%s AS BIGINT))"
_PREPARED: Final = "PREPARE TRANSACTION"
#: Seconds that a connection which may have failed is asked what it did.
_ASKED_WITHIN: Final = 10.0


def quoted(name: str) -> str:
    """Return ``name``, of letters, digits and ``_ . -`` only, as text in SQL; PREPARE takes no value."""
    assert "'" not in name, "checked when it was made"
    return f"'{name}'"


@final
class PostgresBranch:
    """The work of one transaction; made by ``tx[participant]``.

    Args:
        connections: Where it gets its connection, with the first statement.
        gid: Id of the transaction.
        participant: Name of the participant.
        label: What the server calls the promise.
    """

    __slots__ = ("_connection", "_connections", "_gid", "_label", "_participant", "asked")

    def __init__(
        self, connections: PostgresConnections, gid: str, participant: str, *, label: str
    ) -> None:
        self._connections = connections
        self._gid = gid
        self._participant = participant
        self._label = label
        self._connection: AsyncConnection[Any] | None = None
        self.asked: bool = False  # whether the server may have promised

    async def execute(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Answer:
        """Run one statement in the transaction.

        Args:
            statement: SQL, with ``%s`` or ``%(name)s`` for each of ``values``. Statements that end
                the transaction are not for here.
            values: What stands for these.

        Returns:
            ``rows`` that it returned, and how many it has ``changed``.

        Raises:
            BackendUnavailableError: Nobody answers.
            psycopg.Error: The server refuses; the transaction can only be rolled back then.

        Cancellation: the statement is cancelled; the transaction can only be rolled back then.
        """
        return await cancelled_once(lambda: self._execute(statement, values))

    async def promise(self) -> bool:
        """Promise the work; False if there is nothing to promise, and then it is over.

        Raises:
            BackendError: It cannot be promised: a statement has failed, or has ended the
                transaction.
            psycopg.Error: The server refuses, or cannot be reached.
        """
        connection = self._connection
        if connection is None:
            return False
        self._must_be_sound(connection)
        if await _xid(connection) is None:
            await self.give_up()
            return False
        await _run(connection, _MARK, (self._gid, self._participant))
        self.asked = True
        done = await connection.execute(f"{_PREPARED} {quoted(self._label)}".encode())
        if done.statusmessage != _PREPARED:
            raise BackendError(f"PostgreSQL has rolled back instead: {done.statusmessage}")
        self._connection = None
        self._connections.give(connection)
        return True

    async def commit(self) -> bool:
        """Commit without a promise; False if the server has rolled back instead.

        Raises:
            OutcomeUnknownError: The answer was lost, and nobody can be asked what it was.
            BackendError: A statement has failed, or has ended the transaction.
            psycopg.Error: A deferred constraint refuses.
        """
        connection = self._connection
        if connection is None:
            return True
        self._must_be_sound(connection)
        xid = await _xid(connection)
        try:
            done = await connection.execute("COMMIT")
        except Exception as error:
            if not connection.closed:  # an answer: it refuses
                raise
            return await self._asked_later(xid, error)
        self._connection = None
        self._connections.give(connection)
        return done.statusmessage == "COMMIT"

    async def give_up(self) -> None:
        """Roll back what is not promised; the server does so if it cannot be told."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with move_on_after(_ASKED_WITHIN), suppress(Exception):
            await connection.execute("ROLLBACK")
            self._connections.give(connection)
            return
        connection.pgconn.finish()

    async def _execute(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] | None
    ) -> Answer:
        if self._connection is None:
            connection = await self._connections.take()
            self._connection = connection
            await connection.execute("BEGIN")
        return await _run(self._connection, statement, values)

    def _must_be_sound(self, connection: AsyncConnection[Any]) -> None:
        """Refuse to promise what has failed already."""
        from psycopg.pq import TransactionStatus

        status = connection.info.transaction_status
        if status != TransactionStatus.INTRANS:
            raise BackendError(
                f"transaction {self._gid} in PostgreSQL is {status.name}: a statement has failed, or"
                " has ended it"
            )

    async def _asked_later(self, xid: str | None, error: Exception) -> bool:
        """Ask on another connection what became of a commit whose answer was lost."""
        status: LiteralString | None = None
        if xid is None:
            return True  # nothing was written
        with move_on_after(_ASKED_WITHIN):
            try:
                async with self._connections.borrow() as connection:
                    answer = await _run(connection, _STATUS, (xid,))
                    status = answer.rows[0][0]
            except Exception as another:
                error.add_note(f"then it could not be asked: {another}")
        if status in {"committed", "aborted"}:
            return status == "committed"
        raise OutcomeUnknownError(
            f"nobody knows whether transaction {self._gid} is committed: {error}", gid=self._gid
        ) from error


async def _xid(connection: AsyncConnection[Any]) -> str | None:
    """Return the number that the transaction got with its first change; None if there is none."""
    answer = await _run(connection, _XID)
    xid: str | None = answer.rows[0][0]
    return xid


async def _run(
    connection: AsyncConnection[Any],
    statement: str,
    values: Sequence[Any] | Mapping[str, Any] | None = None,
) -> Answer:
    async with connection.cursor() as cursor:
        await cursor.execute(statement.encode(), values)
        rows = await cursor.fetchall() if cursor.description else ()
        return Answer(rows, cursor.rowcount)
