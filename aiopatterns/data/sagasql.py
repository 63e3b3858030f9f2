"""Sagas in a database: a file of SQLite, or PostgreSQL.

One table, one row for each saga, and single statements: each is atomic and on disk when it is
answered, so a process may die anywhere. The table is created when it is first needed.

SQLite's clock is that of the host, PostgreSQL's that of its server. Several processes may share
a file of SQLite on one host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.dialects import table_name
from aiopatterns.core.validate import positive
from aiopatterns.data.postgresdatabase import PostgresDatabase
from aiopatterns.data.sagajournal import SagaState
from aiopatterns.data.sagastore import KEEP, Filed, Listed
from aiopatterns.data.sqlitedatabase import SqliteDatabase

if TYPE_CHECKING:
    import os
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.sql import Answer
    from aiopatterns.data.database import Database

__all__ = ["SAGA_TABLE", "PostgresSagaStore", "SqliteSagaStore"]

#: Where sagas are, unless told otherwise.
SAGA_TABLE: Final = "aiopatterns_sagas"

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (saga TEXT NOT NULL, id TEXT NOT NULL,"
    " definition TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,"
    " fence BIGINT NOT NULL, revision BIGINT NOT NULL, body {blob} NOT NULL,"
    " held_until DOUBLE PRECISION NOT NULL, saved_at DOUBLE PRECISION NOT NULL,"
    " PRIMARY KEY (saga, id))"
)
_INDEX: Final = "CREATE INDEX IF NOT EXISTS {index} ON {table} (state, saga, held_until)"
_FILE: Final = (
    "INSERT INTO {table} (saga, id, definition, state, owner, fence, revision, body, held_until,"
    " saved_at) VALUES (:saga, :id, :definition, :state, :owner, :fence, :revision, :body,"
    " {now} + :lease, {now}) ON CONFLICT DO NOTHING"
)
_READ: Final = (
    "SELECT definition, state, owner, fence, revision, body FROM {table}"
    " WHERE saga = :saga AND id = :id"
)
_SAVE: Final = (
    "UPDATE {table} SET state = :state, revision = :revision, body = :body,"
    " held_until = {now} + :lease, saved_at = {now}"
    " WHERE saga = :saga AND id = :id AND owner = :owner AND fence = :fence"
    " AND revision < :revision AND state IN ('running', 'compensating', 'stuck')"
)
_CLAIM: Final = (
    "UPDATE {table} SET owner = :owner, fence = fence + 1, revision = revision + 1,"
    " held_until = {now} + :lease WHERE saga = :saga AND id = :id AND held_until <= {now}"
    " AND state IN ('running', 'compensating', 'stuck')"
    " RETURNING definition, state, owner, fence, revision, body"
)
_DUE: Final = (
    "SELECT id FROM {table} WHERE state IN ('running', 'compensating') AND saga = :saga"
    " AND held_until <= {now} AND definition = :definition ORDER BY held_until LIMIT :limit"
)
_UNFINISHED: Final = (
    "SELECT id, definition, state FROM {table}"
    " WHERE state IN ('running', 'compensating', 'stuck') AND saga = :saga"
    " ORDER BY saved_at LIMIT :limit"
)
_PURGE: Final = (
    "DELETE FROM {table} WHERE state IN ('completed', 'compensated')"
    " AND saved_at <= {now} - :seconds"
)


class _SqlSagaStore:
    """What both have in common: statements, and the table that they need."""

    __slots__ = ("_created", "_database", "_keep", "_table")

    def __init__(self, database: Database, *, table: str, keep: float) -> None:
        self._database = database
        self._table = table_name("table", table)
        self._keep = float(positive("keep", keep))
        self._created = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.place!r})"

    async def create(self, filed: Filed, *, lease: float) -> bool:
        """File a saga. 1 statement."""
        answer = await self._run(
            _FILE,
            saga=filed.saga,
            id=filed.id,
            definition=filed.definition,
            state=filed.state.value,
            owner=filed.owner,
            fence=filed.fence,
            revision=filed.revision,
            body=filed.body,
            lease=float(lease),
        )
        if answer.changed > 0:
            return True
        found = await self.read(filed.saga, filed.id)
        return found is not None and found.owner == filed.owner

    async def read(self, saga: str, id: str) -> Filed | None:
        """Return the record, or None. 1 statement."""
        return _filed(saga, id, await self._run(_READ, saga=saga, id=id))

    async def save(self, filed: Filed, *, lease: float) -> bool:
        """Write a record that its owner holds. 1 statement."""
        answer = await self._run(
            _SAVE,
            saga=filed.saga,
            id=filed.id,
            state=filed.state.value,
            owner=filed.owner,
            fence=filed.fence,
            revision=filed.revision,
            body=filed.body,
            lease=float(lease),
        )
        if answer.changed > 0:
            return True
        found = await self.read(filed.saga, filed.id)
        return found is not None and found.supersedes(filed)

    async def claim(self, saga: str, id: str, *, owner: str, lease: float) -> Filed | None:
        """Take a saga that nobody holds. 1 statement."""
        values = {"saga": saga, "id": id, "owner": owner, "lease": float(lease)}
        return _filed(saga, id, await self._run(_CLAIM, **values))

    async def due(self, saga: str, definition: str, *, limit: int) -> list[str]:
        """Return ids of sagas that nobody holds, the longest abandoned first. 1 statement."""
        answer = await self._run(_DUE, saga=saga, definition=definition, limit=limit)
        return [each[0] for each in answer.rows]

    async def unfinished(self, saga: str, *, limit: int) -> list[Listed]:
        """Return sagas that have not ended, the longest unchanged first. 1 statement."""
        answer = await self._run(_UNFINISHED, saga=saga, limit=limit)
        return [Listed(each[0], each[1], SagaState(each[2])) for each in answer.rows]

    async def purge(self) -> int:
        """Forget those that ended long ago. 1 statement."""
        return (await self._run(_PURGE, seconds=self._keep)).changed

    async def aclose(self) -> None:
        """Close the database; the next call opens it again."""
        await self._database.aclose()

    async def __aenter__(self) -> Self:
        """Create the table if it is not there."""
        await self._ensure()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the database."""
        await self.aclose()

    async def _run(self, statement: str, **values: object) -> Answer:
        await self._ensure()
        return await self._database.run(self._worded(statement), **values)

    async def _ensure(self) -> None:
        if not self._created:
            await self._database.create(self._worded(_CREATE), self._worded(_INDEX))
            self._created = True

    def _worded(self, statement: str) -> str:
        index = f'"{self._table.rpartition(".")[2]}_due"'
        worded = statement.replace("{index}", index)
        return self._database.dialect.worded(worded, self._table)


@final
class SqliteSagaStore(_SqlSagaStore):
    """Sagas in a file of SQLite.

    Works as it is; ``async with store:`` closes the file at the end, else it is closed with the
    store.

    Args:
        path: The file; made if it is not there.
        table: Name of the table.
        keep: Seconds for which a saga that has ended is remembered.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of its range.
    """

    __slots__ = ()

    def __init__(
        self, path: str | os.PathLike[str], *, table: str = SAGA_TABLE, keep: float = KEEP
    ) -> None:
        super().__init__(SqliteDatabase(path), table=table, keep=keep)


@final
class PostgresSagaStore(_SqlSagaStore):
    """Sagas in PostgreSQL.

    Works as it is; ``async with store:`` closes the connections at the end, else they are closed
    with the store.

    Args:
        dsn: How to connect, as psycopg takes it.
        table: Name of the table.
        keep: Seconds for which a saga that has ended is remembered.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of its range.
        ImportError: The extra ``postgres`` is not installed.
    """

    __slots__ = ()

    def __init__(self, dsn: str, *, table: str = SAGA_TABLE, keep: float = KEEP) -> None:
        super().__init__(PostgresDatabase(dsn), table=table, keep=keep)


def _filed(saga: str, id: str, answer: Answer) -> Filed | None:
    if not answer.rows:
        return None
    definition, state, owner, fence, revision, body = answer.rows[0]
    return Filed(saga, id, definition, SagaState(state), owner, fence, revision, bytes(body))
