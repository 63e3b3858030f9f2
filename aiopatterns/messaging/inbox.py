"""Inbox: which messages were handled already, in the handler's own transaction.

Whoever passes messages on reliably passes some of them on twice. A handler that changes a database
writes the message's id there, in the same transaction as its change: both are there, or neither::

    begin; first("m1") -> True;  update account ...; commit      the change is made
    begin; first("m1") -> False;                     commit      it came again: nothing to do

Guarantees:

* Of all transactions that ask for one id, one is told True and commits; one that rolls back
  leaves the id as if it had never asked.
* Two that ask at the same time are told one after the other: the second waits for what becomes of
  the first.

Not guaranteed: anything about what is done outside of the database; a mail that the handler sends
goes out again if the transaction fails afterwards. An id that was purged is new again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.dialects import table_name
from aiopatterns.backends.sql import link
from aiopatterns.core.validate import non_negative, text

if TYPE_CHECKING:
    from aiopatterns.backends.sql import SqlConnection

__all__ = ["INBOX_TABLE", "Inbox"]

#: Where ids are, unless told otherwise.
INBOX_TABLE: Final = "aiopatterns_inbox"

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (consumer TEXT NOT NULL, message_id TEXT NOT NULL,"
    " seen_at DOUBLE PRECISION NOT NULL DEFAULT {now}, PRIMARY KEY (consumer, message_id))"
)
_SEE: Final = (
    "INSERT INTO {table} (consumer, message_id) VALUES (:consumer, :id) ON CONFLICT DO NOTHING"
)
_FORGET: Final = "DELETE FROM {table} WHERE consumer = :consumer AND seen_at <= {now} - :seconds"


@final
class Inbox:
    """The ids of messages that one consumer has handled.

    Args:
        connection: The connection of the handler's transaction: an ``AsyncConnection`` or
            ``AsyncSession`` of SQLAlchemy, an ``AsyncConnection`` of psycopg, or a ``Connection``
            of sqlite3.
        consumer: Who handles. Several that handle the same messages have a name each.
        table: Name of the table.

    Raises:
        TypeError: ``connection`` is none of these, or a value is of another type.
        ValueError: It leads to neither PostgreSQL nor SQLite, or a name is none.

    Example::

        async with engine.begin() as connection:
            if await Inbox(connection).first(message.id):
                await connection.execute(update_of(message))
    """

    __slots__ = ("_link", "_table", "consumer")

    def __init__(
        self, connection: SqlConnection, *, consumer: str = "default", table: str = INBOX_TABLE
    ) -> None:
        self._link = link(connection)
        self._table = table_name("table", table)
        self.consumer: Final[str] = text("consumer", consumer)

    async def create_tables(self) -> None:
        """Create the table if it is not there.

        In the caller's transaction if one is open; else it is committed.

        Cancellation: the table is there or not; nothing is left open.
        """
        await self._link.create(self._worded(_CREATE))

    async def first(self, message_id: str) -> bool:
        """Whether this message is new; it no longer is when the transaction is committed.

        Args:
            message_id: The id that stays the same when the message comes again.

        Returns:
            True once, False ever after.

        Raises:
            TypeError: ``message_id`` is no text.
            ValueError: It is empty.

        Cancellation: roll the transaction back, as after any other error.

        Complexity: 1 round trip. It waits for another transaction that has asked for the same id.
        """
        values = {"consumer": self.consumer, "id": text("message_id", message_id)}
        answer = await self._link.run(self._worded(_SEE), **values)
        return answer.changed > 0

    async def purge(self, *, older_than: float) -> int:
        """Forget the ids of this consumer that came long ago, in the caller's transaction.

        Args:
            older_than: Seconds, 0 or more: longer than a message may be under way.

        Returns:
            How many were forgotten.

        Raises:
            ValueError: ``older_than`` is negative.
            TypeError: It is no number.

        Complexity: O(ids of the consumer).
        """
        seconds = float(non_negative("older_than", older_than))
        values = {"consumer": self.consumer, "seconds": seconds}
        answer = await self._link.run(self._worded(_FORGET), **values)
        return answer.changed

    def _worded(self, statement: str) -> str:
        return self._link.dialect.worded(statement, self._table)
