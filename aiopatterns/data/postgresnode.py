"""A PostgreSQL server as a router to replicas sees it: primary or hot standby.

One class for both, for a standby may become the primary. Which it is, the server says itself:

* a primary tells how far it has written (``pg_current_wal_insert_lsn``);
* a standby tells how far it has replayed (``pg_last_wal_replay_lsn``), and what it shows to its
  readers is at least that.

Its lag is the age of the last commit that it has replayed; 0 if it has replayed all that it has
received and receives still, and infinite if it has received and has replayed no commit since it was
started. A standby that was promoted, or has lost its primary, follows nobody: the first is infinitely
late, the second grows late.

Not guaranteed: on an idle primary the last commit is old, so a standby that has just begun to
replay the next one seems late for that moment. A standby whose primary is cut off without a word
believes for ``wal_receiver_timeout`` (a minute, unless set) that it is still up to date; positions,
and with them sessions, are not deceived by that.

Source: PostgreSQL documentation, "Recovery Information Functions" and "pg_stat_wal_receiver".
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, LiteralString, final

from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.validate import text
from aiopatterns.data.position import Position
from aiopatterns.data.postgresconnections import PostgresConnections

if TYPE_CHECKING:
    from aiopatterns.data.postgresconnections import Borrowed

__all__ = ["PostgresNode"]

_POSITION: Final = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END::text
"""
_LAG: Final = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN NULL
            WHEN pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()
                 AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
            WHEN pg_last_xact_replay_timestamp() IS NULL THEN NULL
            ELSE greatest(0, extract(epoch FROM clock_timestamp()
                                     - pg_last_xact_replay_timestamp())) END::float8
"""


@final
class PostgresNode:
    """A server of PostgreSQL, with a few connections of its own.

    Args:
        name: What statistics and events call it.
        dsn: How to connect, as psycopg takes it. With several hosts and
            ``target_session_attrs=read-write`` it is whichever is the primary.

    Raises:
        TypeError: A value is no text.
        ValueError: It is empty.
        ImportError: The extra ``postgres`` is not installed; the message has the command.
    """

    __slots__ = ("_connections", "_name")

    def __init__(self, name: str, dsn: str) -> None:
        self._name = text("name", name)
        self._connections = PostgresConnections(dsn)

    def __repr__(self) -> str:
        return f"PostgresNode({self._name!r})"

    @property
    def name(self) -> str:
        """What statistics and events call it."""
        return self._name

    def borrow(self) -> Borrowed:
        """Return an ``async with`` block around a connection that commits each statement.

        Raises (on entering):
            BackendUnavailableError: Nobody answers.
        """
        return self._connections.borrow()

    async def position(self) -> Position:
        """Return how far it has written, or replayed.

        Raises:
            BackendUnavailableError: It does not answer.
        """
        answer = await self._ask(_POSITION)
        return Position() if answer is None else Position.parse(answer)

    async def lag(self) -> float:
        """Return how many seconds it is late; infinite if it follows no primary, or nobody can tell.

        Raises:
            BackendUnavailableError: It does not answer.
        """
        answer = await self._ask(_LAG)
        return inf if answer is None else float(answer)

    async def aclose(self) -> None:
        """Close the connections that nobody uses; the next use connects again."""
        self._connections.close()

    async def _ask(self, question: LiteralString) -> Any:
        from psycopg import Error

        try:
            async with self._connections.borrow() as connection:
                row = await (await connection.execute(question)).fetchone()
        except Error as error:
            raise BackendUnavailableError(f"PostgreSQL {self._name!r}: {error}") from error
        assert row is not None, "one row"
        return row[0]
