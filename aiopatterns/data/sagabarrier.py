"""Barrier of a saga: actions and compensations that come twice, late, or for nothing.

A saga undoes what it does not know the outcome of, and repeats what it got no answer for. So a
compensation may arrive before its action, or without one, and an action after its compensation.
The barrier is one row for each step of each saga, written in the transaction of the change::

    action:      insert the row                       there already?  do nothing
    compensate:  insert it, as undone                 it was not?     nothing to undo, and an
                                                                      action that is late finds it
                 else: mark it undone                 it was?         do nothing

Guarantees, if the change is committed or rolled back with the row:

* An action and its compensation have an effect once each at most.
* A compensation has an effect only if its action has had one (no *empty* compensation).
* An action has no effect after its compensation (no *hanging* action).

Source: Alibaba Seata and DTM, "subtransaction barrier" (empty, repeated and hanging requests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, final

from aiopatterns.backends.dialects import table_name
from aiopatterns.backends.sql import link
from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from aiopatterns.backends.sql import SqlConnection

__all__ = ["BARRIER_TABLE", "SagaBarrier"]

#: Where rows are, unless told otherwise.
BARRIER_TABLE: Final = "aiopatterns_saga_barrier"

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (saga_id TEXT NOT NULL, step TEXT NOT NULL,"
    " undone INTEGER NOT NULL, PRIMARY KEY (saga_id, step))"
)
_ENTER: Final = (
    "INSERT INTO {table} (saga_id, step, undone) VALUES (:id, :step, :undone)"
    " ON CONFLICT DO NOTHING"
)
_UNDO: Final = "UPDATE {table} SET undone = 1 WHERE saga_id = :id AND step = :step AND undone = 0"
_OPERATIONS: Final = ("action", "compensate")


@final
class SagaBarrier:
    """What was done and undone by the steps of sagas, in one database.

    Args:
        connection: The connection of the step's transaction: an ``AsyncConnection`` or
            ``AsyncSession`` of SQLAlchemy, an ``AsyncConnection`` of psycopg, or a ``Connection``
            of sqlite3.
        table: Name of the table.

    Raises:
        TypeError: ``connection`` is none of these, or a value is of another type.
        ValueError: It leads to neither PostgreSQL nor SQLite, or a name is none.

    Example::

        async with engine.begin() as connection:
            if await SagaBarrier(connection).enter(order.id, "pay", "compensate"):
                await connection.execute(refund_of(order))
    """

    __slots__ = ("_link", "_table")

    def __init__(self, connection: SqlConnection, *, table: str = BARRIER_TABLE) -> None:
        self._link = link(connection)
        self._table = table_name("table", table)

    async def create_tables(self) -> None:
        """Create the table if it is not there.

        In the caller's transaction if one is open; else it is committed.

        Cancellation: the table is there or not; nothing is left open.
        """
        await self._link.create(self._worded(_CREATE))

    async def enter(self, id: str, step: str, op: Literal["action", "compensate"]) -> bool:
        """Whether to make the change; True once, when the transaction is committed.

        Args:
            id: Of the saga; with the saga's name in it if two sagas share ids.
            step: Its name.
            op: ``"action"`` or ``"compensate"``.

        Raises:
            ValueError: ``op`` is neither, or a text is empty.
            TypeError: ``id`` or ``step`` is no text.

        Cancellation: roll the transaction back, as after any other error.

        Complexity: 1 round trip, 2 for a compensation. It waits for another transaction that has
        entered the same step.
        """
        if op not in _OPERATIONS:
            msg = f"op must be 'action' or 'compensate', not {op!r}"
            raise ValueError(msg)
        values = {"id": text("id", id), "step": text("step", step)}
        undone = int(op == "compensate")
        is_first = (await self._link.run(self._worded(_ENTER), undone=undone, **values)).changed > 0
        if not undone or is_first:
            return is_first and not undone
        return (await self._link.run(self._worded(_UNDO), **values)).changed > 0

    def _worded(self, statement: str) -> str:
        return self._link.dialect.worded(statement, self._table)
