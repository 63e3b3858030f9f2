"""Decisions in SQL: SqliteLog and PostgresLog, one table and the same statements.

A decision is one statement, ``INSERT ... ON CONFLICT ... RETURNING``, so there is no moment between
looking and writing. Ends are not urgent: they are gathered and go to the disk with one statement
for many; if they are lost, recovery finds all participants done and writes them again::

    decide -- insert once, synced -----------> aiopatterns_decisions
    end, end, end -- one update, later --------^

Decisions of transactions that commit at the same time share one flush of the disk.

Guarantees: those of :mod:`aiopatterns.data.decisions`. When the disk fails under SQLite, nobody
knows any more what it holds; the log then stops for good and says so in every call, until the
process is started again.

Not guaranteed: decisions that a standby of PostgreSQL has not got when it is promoted. Name a
synchronous standby, or promote none.

Source: Rebello et al., "Can applications recover from fsync failures?" (2020), for the stop.
"""

from __future__ import annotations

from binascii import crc32
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.dialects import table_name
from aiopatterns.core.codec import JSON
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import BackendError, CodecError
from aiopatterns.data.decisions import Decision, DecisionRecord, Enlisted, FencedError
from aiopatterns.data.postgresdatabase import PostgresDatabase
from aiopatterns.data.sqlitedatabase import SqliteDatabase

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.sql import Answer
    from aiopatterns.data.database import Database
    from aiopatterns.data.decisions import Proposal

__all__ = ["DECISIONS_TABLE", "PostgresLog", "SqliteLog"]

#: Where decisions are, unless told otherwise.
DECISIONS_TABLE: Final = "aiopatterns_decisions"
#: Ends that are gathered at most.
MAX_ENDS: Final = 256

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (gid TEXT PRIMARY KEY, decision TEXT NOT NULL,"
    " body TEXT NOT NULL, checked BIGINT NOT NULL, decided_at DOUBLE PRECISION NOT NULL,"
    " acked TEXT NOT NULL DEFAULT '{{}}', attempts INTEGER NOT NULL DEFAULT 0, error TEXT,"
    " ended_at DOUBLE PRECISION, swept INTEGER NOT NULL DEFAULT 0)"
)
# The log's own identity, and who recovers.
_CREATE_NAMES: Final = (
    "CREATE TABLE IF NOT EXISTS {names} (name TEXT PRIMARY KEY, holder TEXT NOT NULL,"
    " epoch BIGINT NOT NULL, until DOUBLE PRECISION NOT NULL)"
)
_IDENTITY: Final = (
    "INSERT INTO {names} (name, holder, epoch, until) VALUES ('log', :holder, 0, 0)"
    " ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING holder"
)
_COLUMNS: Final = "gid, decision, body, checked, decided_at, acked, attempts, error, ended_at"
_INSERT: Final = (
    "INSERT INTO {table} (gid, decision, body, checked, decided_at)"
    " SELECT :gid, :decision, :body, :checked, {now} WHERE"
)
_ONCE: Final = f" ON CONFLICT (gid) DO UPDATE SET gid = excluded.gid RETURNING {_COLUMNS}"
_FENCE: Final = " EXISTS (SELECT 1 FROM {names} WHERE name = 'recovery' AND epoch = :epoch)"
_DECIDE: Final = f"{_INSERT} true{_ONCE}"
_DECIDE_FENCED: Final = f"{_INSERT}{_FENCE}{_ONCE}"
_DECIDE_IF_FREE: Final = f"{_INSERT} true ON CONFLICT (gid) DO NOTHING"
_SELECT: Final = f"SELECT {_COLUMNS} FROM"
_READ: Final = _SELECT + " {table} WHERE gid = :gid"
_UNFINISHED: Final = (
    _SELECT + " {table} WHERE decision = 'commit' AND ended_at IS NULL"
    " AND decided_at <= {now} - :seconds ORDER BY decided_at LIMIT :limit"
)
_NOTE: Final = (
    "UPDATE {table} SET acked = :acked, attempts = attempts + 1, error = :error WHERE gid = :gid"
)
_END: Final = "UPDATE {table} SET ended_at = {now} WHERE ended_at IS NULL AND gid {among}"
_SETTLED: Final = (
    "SELECT gid FROM {table} WHERE ended_at IS NOT NULL AND swept = 0"
    " ORDER BY ended_at LIMIT :limit"
)
_SWEPT: Final = "UPDATE {table} SET swept = 1 WHERE gid {among}"
_PURGE: Final = (
    "DELETE FROM {table} WHERE (swept = 1 OR decision = 'abort') AND decided_at <= {now} - :seconds"
)
_CLAIM: Final = (
    "INSERT INTO {names} AS held (name, holder, epoch, until)"
    " VALUES ('recovery', :holder, 1, {now} + :ttl) ON CONFLICT (name) DO UPDATE"
    " SET epoch = held.epoch + CASE WHEN held.holder = excluded.holder THEN 0 ELSE 1 END,"
    " holder = excluded.holder, until = excluded.until"
    " WHERE held.holder = excluded.holder OR held.until < {now} RETURNING epoch"
)
_RELEASE: Final = "UPDATE {names} SET until = 0 WHERE name = 'recovery' AND holder = :holder"


class _SqlLog:
    """What both logs are.

    Args:
        database: Where it is.
        table: Its table; that of its names has ``_names`` at the end.
    """

    __slots__ = ("_database", "_ends", "_failed", "_identity", "_table")

    def __init__(self, database: Database, table: str) -> None:
        self._database = database
        table_name("table", f"{table_name('table', table)}_names")
        self._table = table
        self._identity = ""
        self._failed: str | None = None
        self._ends: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.place!r})"

    async def identity(self) -> str:
        """Return the name that this log got when its tables were made."""
        if not self._identity:
            await self._database.create(self._worded(_CREATE), self._worded(_CREATE_NAMES))
            answer = await self._run(_IDENTITY, holder=new_id()[:12])
            self._identity = answer.rows[0][0]
        return self._identity

    async def decide(self, proposal: Proposal) -> DecisionRecord:
        """Insert the decision unless there is one; return the one that is there then."""
        await self.identity()
        values = _written(proposal)
        if proposal.epoch is None:
            answer = await self._run(_DECIDE, **values)
        else:
            answer = await self._run(_DECIDE_FENCED, **values, epoch=proposal.epoch)
        if not answer.rows:
            raise FencedError(f"epoch {proposal.epoch} is over, another one recovers")
        return _record(answer.rows[0])

    async def read(self, gid: str) -> DecisionRecord | None:
        """Return the decision about ``gid``, or None if there is none."""
        await self.identity()
        answer = await self._run(_READ, gid=gid)
        return _record(answer.rows[0]) if answer.rows else None

    async def unfinished(
        self, *, older_than: float = 0.0, limit: int = 1_000
    ) -> Sequence[DecisionRecord]:
        """Return the oldest decisions to commit that not all have carried out."""
        await self.identity()
        await self.flush()
        answer = await self._run(_UNFINISHED, seconds=older_than, limit=limit)
        return [_record(each) for each in answer.rows]

    async def note(self, gid: str, acked: Mapping[str, float], error: str) -> None:
        """Count an attempt that has not reached all."""
        await self._run(_NOTE, gid=gid, acked=JSON.encode(dict(acked)).decode(), error=error)

    async def end(self, gid: str) -> None:
        """Note that all have committed ``gid``; written when there are many, or by ``flush``."""
        self._ends[gid] = None
        if len(self._ends) >= MAX_ENDS:
            await self.flush()

    async def flush(self) -> None:
        """Bring to the disk what :meth:`end` was told."""
        if not self._ends:
            return
        ends, self._ends = self._ends, {}
        try:
            await self._run(_END, many=self._database.dialect.many([*ends]))
        except BaseException:
            self._ends = {**ends, **self._ends}
            raise

    async def settled(self, *, limit: int = 1_000) -> Sequence[str]:
        """Return transactions that have ended and are not swept yet."""
        await self.identity()
        await self.flush()
        answer = await self._run(_SETTLED, limit=limit)
        return [gid for (gid,) in answer.rows]

    async def swept(self, gids: Collection[str]) -> None:
        """Note that no participant remembers ``gids`` any more."""
        await self._run(_SWEPT, many=self._database.dialect.many([*gids]))

    async def purge(self, *, older_than: float) -> int:
        """Forget what was swept, and aborts, decided so many seconds ago; return how many."""
        await self.identity()
        return (await self._run(_PURGE, seconds=older_than)).changed

    async def claim(self, holder: str, *, ttl: float) -> int | None:
        """Take the lease of those who recover, or renew it; None if another holds it."""
        await self.identity()
        answer = await self._run(_CLAIM, holder=holder, ttl=ttl)
        return answer.rows[0][0] if answer.rows else None

    async def release(self, holder: str) -> None:
        """Give the lease back if ``holder`` has it."""
        await self._run(_RELEASE, holder=holder)

    async def aclose(self) -> None:
        """Write what was gathered and close what is open; the next call opens it again."""
        with suppress(BackendError):  # ends may be lost
            await self.flush()
        await self._database.aclose()

    async def __aenter__(self) -> Self:
        """Return this log; nothing is opened yet."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what is open."""
        await self.aclose()

    # --------------------------------------------------------------------------- private core

    def _worded(self, statement: str) -> str:
        names = ".".join(f'"{each}"' for each in f"{self._table}_names".split("."))
        return self._database.dialect.worded(statement.replace("{names}", names), self._table)

    async def _run(self, statement: str, **values: object) -> Answer:
        if self._failed is not None:
            raise BackendError(self._failed)
        try:
            return await self._database.run(self._worded(statement), **values)
        except BackendError as error:
            if getattr(error.__cause__, "sqlite_errorname", "").startswith("SQLITE_IOERR"):
                self._failed = (
                    f"{error}; the disk has failed, so nobody knows what is on it: see to the disk,"
                    " then start the process again"
                )
            raise


@final
class SqliteLog(_SqlLog):
    """Decisions in a file of SQLite, for the coordinators of one machine.

    Args:
        path: The file; made if it is not there. Several processes may share it.
        table: Its table.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``path`` names no file, or ``table`` is no name.

    Complexity: a decision is a share of one flush of the disk.
    """

    __slots__ = ()

    def __init__(self, path: str | os.PathLike[str], *, table: str = DECISIONS_TABLE) -> None:
        super().__init__(SqliteDatabase(path), table)

    @property
    def path(self) -> str:
        """The file."""
        return self._database.place

    def insertion(self, proposal: Proposal) -> tuple[str, dict[str, object]]:
        """Return the statement that inserts a decision unless there is one, and its values.

        For a transaction on the same file that commits with it; the tables must be there, which
        they are after :meth:`identity`.
        """
        return self._worded(_DECIDE_IF_FREE), _written(proposal)


@final
class PostgresLog(_SqlLog):
    """Decisions in a table of PostgreSQL, for coordinators anywhere.

    Args:
        dsn: How to connect, as psycopg takes it.
        table: Its table.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``dsn`` is none, or ``table`` is no name.
        ImportError: The extra ``postgres`` is not installed.

    Complexity: a decision is 1 round trip.
    """

    __slots__ = ()

    def __init__(self, dsn: str, *, table: str = DECISIONS_TABLE) -> None:
        super().__init__(PostgresDatabase(dsn), table)


def _written(proposal: Proposal) -> dict[str, object]:
    """Return the columns of a decision; the body is everything that nobody looks for."""
    gid, decision, *rest = proposal
    body = JSON.encode(rest).decode()
    return {
        "gid": gid,
        "decision": decision.value,
        "body": body,
        "checked": _checked(gid, decision.value, body),
    }


def _checked(gid: str, decision: str, body: str) -> int:
    return crc32(f"{gid} {decision} {len(body)} {body}".encode())


def _record(row: Sequence[Any]) -> DecisionRecord:
    """Return the decision of a row.

    Raises:
        BackendError: It is damaged: a person has to look.
    """
    gid, decision, body, checked, decided_at, acked, attempts, error, ended_at = row
    try:
        if checked != _checked(gid, decision, body):
            raise CodecError("the sum is wrong")
        enlisted, coordinator, created_at, deadline_at, epoch = JSON.decode(body.encode())
        return DecisionRecord(
            gid,
            Decision(decision),
            participants=tuple(Enlisted(*each) for each in enlisted),
            coordinator=coordinator,
            created_at=created_at,
            deadline_at=deadline_at,
            epoch=epoch,
            decided_at=decided_at,
            acked=JSON.decode(acked.encode(), dict[str, float]),
            attempts=attempts,
            error=error,
            ended_at=ended_at,
        )
    except (CodecError, ValueError, TypeError) as wrong:
        raise BackendError(f"the decision about {gid} is damaged, look at it: {wrong}") from wrong
