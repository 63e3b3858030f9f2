"""SqlSyncStore: records in a database, SQLite or PostgreSQL.

Three tables: records, notes (what the store knows of itself, and checkpoints), and quarantine. They
are created when they are first needed::

    {table}              key | seq | deleted | changed_at | bucket | digest | vectors | body
    {table}_notes        name | body              the state has the empty name
    {table}_quarantine   key | peer | reason | held_at | body

A transaction locks the state first, so writers of one store come one after the other, from however
many processes, and the numbers of its log become visible in their order. A sequence of the
database would not do: its numbers are taken before a commit, and become visible in any order.

Guarantees: those of :class:`~aiopatterns.data.SyncStore`; what was answered is on disk.

A database that is restored from a backup is to be told so, by :meth:`SqlSyncStore.renew`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from aiopatterns.backends.dialects import POSTGRESQL, table_name
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendError
from aiopatterns.core.validate import text
from aiopatterns.data.clock import MAX_DRIFT
from aiopatterns.data.draft import Draft, Held, State, fresh_state
from aiopatterns.data.postgresdatabase import PostgresDatabase
from aiopatterns.data.record import Row, head
from aiopatterns.data.sqlitedatabase import SqliteDatabase
from aiopatterns.data.syncstore import PAGE, SyncStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.sql import Answer, SqlLink
    from aiopatterns.data.database import Database
    from aiopatterns.data.record import Head

__all__ = ["RECORDS_TABLE", "SqlSyncStore"]

T = TypeVar("T")

#: Where records are, unless told otherwise.
RECORDS_TABLE: Final = "aiopatterns_records"

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (key TEXT{by_code} PRIMARY KEY, seq BIGINT NOT NULL,"
    " deleted INTEGER NOT NULL, changed_at DOUBLE PRECISION NOT NULL, bucket INTEGER NOT NULL,"
    " digest BIGINT NOT NULL, vectors {blob} NOT NULL, body {blob} NOT NULL)"
)
_CREATE_NOTES: Final = (
    "CREATE TABLE IF NOT EXISTS {notes} (name TEXT PRIMARY KEY, body {blob} NOT NULL)"
)
_CREATE_QUARANTINE: Final = (
    "CREATE TABLE IF NOT EXISTS {quarantine} (key TEXT{by_code} PRIMARY KEY, peer TEXT NOT NULL,"
    " reason TEXT NOT NULL, held_at DOUBLE PRECISION NOT NULL, body {blob} NOT NULL)"
)
_BY_SEQ: Final = "CREATE UNIQUE INDEX IF NOT EXISTS {index_seq} ON {table} (seq)"
_BY_BUCKET: Final = "CREATE INDEX IF NOT EXISTS {index_bucket} ON {table} (bucket, key)"
_BY_DEATH: Final = (
    "CREATE INDEX IF NOT EXISTS {index_tombstones} ON {table} (seq) WHERE deleted = 1"
)
_TABLES: Final = (_CREATE, _CREATE_NOTES, _CREATE_QUARANTINE, _BY_SEQ, _BY_BUCKET, _BY_DEATH)
_BEGIN: Final = "INSERT INTO {notes} (name, body) VALUES ('', :body) ON CONFLICT DO NOTHING"
_LATEST: Final = "SELECT COALESCE(MAX(seq), 0) FROM {table}"
_STATE: Final = "SELECT body FROM {notes} WHERE name = ''"
_STATE_LOCKED: Final = "SELECT body FROM {notes} WHERE name = ''{locked}"
_NOTE: Final = "SELECT body FROM {notes} WHERE name = :name"
_HEAD: Final = "SELECT key, seq, vectors FROM {table} WHERE "
_CHANGES: Final = _HEAD + "seq > :since ORDER BY seq LIMIT :limit"
_SCAN: Final = _HEAD + "key > :after ORDER BY key LIMIT :limit"
_SCAN_BUCKET: Final = _HEAD + "bucket = :bucket AND key > :after ORDER BY key LIMIT :limit"
_HEADS: Final = _HEAD + "key {among}"
_DIGESTS: Final = "SELECT bucket, CAST(SUM(digest) AS BIGINT) FROM {table} GROUP BY bucket"
_ROWS: Final = (
    "SELECT key, seq, deleted, changed_at, bucket, digest, vectors, body FROM {table}"
    " WHERE key {among}"
)
_TOMBSTONES: Final = _HEAD + (
    "deleted = 1 AND changed_at <= :before AND seq > :since AND seq <= :passed"
    " ORDER BY seq LIMIT :limit"
)
_HELD: Final = "SELECT key, peer, reason, held_at, body FROM {quarantine} WHERE "
_HELD_PAGE: Final = _HELD + "key > :after ORDER BY key LIMIT :limit"
_HELD_KEYS: Final = _HELD + "key {among}"
_REMOVE: Final = "DELETE FROM {table} WHERE key {among}"
_WRITE: Final = (
    "INSERT INTO {table} (key, seq, deleted, changed_at, bucket, digest, vectors, body)"
    " VALUES (:key, :seq, :deleted, :changed_at, :bucket, :digest, :vectors, :body)"
    " ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, deleted = excluded.deleted,"
    " changed_at = excluded.changed_at, digest = excluded.digest, vectors = excluded.vectors,"
    " body = excluded.body"
)
_HOLD: Final = (
    "INSERT INTO {quarantine} (key, peer, reason, held_at, body)"
    " VALUES (:key, :peer, :reason, :held_at, :body) ON CONFLICT (key) DO UPDATE SET"
    " peer = excluded.peer, reason = excluded.reason, held_at = excluded.held_at,"
    " body = excluded.body"
)
_RELEASE: Final = "DELETE FROM {quarantine} WHERE key {among}"
_KEEP: Final = (
    "INSERT INTO {notes} (name, body) VALUES (:name, :body)"
    " ON CONFLICT (name) DO UPDATE SET body = excluded.body"
)
_row_of: Final = MSGPACK.decoder(Row)


@final
class SqlSyncStore(SyncStore):
    """A store in a database.

    Works as it is; ``async with store:`` closes the database at the end, else it is closed with
    the store. Several processes may use one, under the same name.

    Args:
        url: ``sqlite:///path``, with a fourth slash if the path is absolute, or
            ``postgresql://...`` as psycopg takes it.
        name: Names this store among all that it is synchronised with.
        table: Name of the table; the others have it in front.
        max_drift: Seconds that the clock of another store may be ahead.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of its range.
        ImportError: The extra ``postgres`` is not installed.

    Complexity: a write is one transaction of about six statements; a page of any number of
    records, two.

    Example::

        store = SqlSyncStore("sqlite:///notes.db", name="laptop")
        await store.put("note", {"text": "milk"})
    """

    __slots__ = ("_created", "_database", "_entered", "_table", "_words")

    def __init__(
        self,
        url: str,
        *,
        name: str,
        table: str = RECORDS_TABLE,
        max_drift: float = MAX_DRIFT,
    ) -> None:
        super().__init__(name, max_drift=max_drift)
        self._database: Final[Database] = _database(url)
        self._table = table_name("table", table)
        self._words = _words(table, postgresql=self._database.dialect is POSTGRESQL)
        self._created = False
        self._entered = 0

    async def state(self) -> State:
        """Return what this store knows of itself. 1 statement."""
        return self._known(await self._run(_STATE))

    async def changes(self, since: int, limit: int) -> Sequence[Head]:
        """Return the records with the lowest numbers above ``since``, in order. 1 statement."""
        return _heads(await self._run(_CHANGES, since=since, limit=limit))

    async def scan(self, bucket: int | None, after: str, limit: int) -> Sequence[Head]:
        """Return the records of a bucket, or of all, from a key on. 1 statement."""
        if bucket is None:
            return _heads(await self._run(_SCAN, after=after, limit=limit))
        return _heads(await self._run(_SCAN_BUCKET, bucket=bucket, after=after, limit=limit))

    async def digests(self) -> Mapping[int, int]:
        """Return for each bucket that is not empty a number that its records make. 1 statement."""
        answer = await self._run(_DIGESTS)
        return {each[0]: each[1] for each in answer.rows}

    async def heads(self, keys: Collection[str]) -> Mapping[str, Head]:
        """Return the heads of those of ``keys`` that there are. 1 statement."""
        found = _heads(await self._run(_HEADS, many=self._many(keys)))
        return {each.key: each for each in found}

    async def fetch(self, keys: Collection[str]) -> Mapping[str, Row]:
        """Return the records of those of ``keys`` that there are, packed. 1 statement."""
        return _rows(await self._run(_ROWS, many=self._many(keys)))

    async def held(self, after: str, limit: int) -> Sequence[Held]:
        """Return what is in quarantine, with the first keys after ``after``. 1 statement."""
        return _held(await self._run(_HELD_PAGE, after=after, limit=limit))

    async def load(self, name: str) -> bytes | None:
        """Return a note, or None. 1 statement."""
        answer = await self._run(_NOTE, name=text("name", name))
        return bytes(answer.rows[0][0]) if answer.rows else None

    async def transact(
        self, keys: Collection[str], plan: Callable[[Draft], T], *, dry_run: bool = False
    ) -> T:
        """Lock the state, read, plan and write."""
        drafts: list[Draft] = []

        async def work(link: SqlLink) -> T:
            draft = await self._read(link, keys)
            planned = plan(draft)
            if not dry_run:
                await self._write(link, draft)
                drafts.append(draft)
            return planned

        await self._ensure()
        try:
            return await self._database.transact(work)
        finally:  # also if the answer was lost, or nobody waits for it any more
            for each in drafts:
                self._announce(each)

    async def aclose(self) -> None:
        """Close the database; the next call opens it again."""
        await self._database.aclose()

    async def __aenter__(self) -> Self:
        """Create the tables if they are not there."""
        await self._ensure()
        self._entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the database, if nobody else is inside."""
        self._entered -= 1
        if not self._entered:
            await self.aclose()

    # --------------------------------------------------------------------------- private core

    async def _tombstones(self, before: float, since: int, passed: int) -> Sequence[Head]:
        values = {"before": before, "since": since, "passed": passed, "limit": PAGE}
        return _heads(await self._run(_TOMBSTONES, **values))

    async def _read(self, link: SqlLink, keys: Collection[str]) -> Draft:
        state = self._known(await link.run(self._worded(_STATE_LOCKED)))
        rows, held, many = dict[str, Row](), dict[str, Held](), self._many(keys)
        if keys:
            rows = _rows(await link.run(self._worded(_ROWS), many=many))
        if keys and state.held:
            found = _held(await link.run(self._worded(_HELD_KEYS), many=many))
            held = {each.key: each for each in found}
        return Draft(self.clock, state, rows, held)

    async def _write(self, link: SqlLink, draft: Draft) -> None:
        async def drop(statement: str, keys: list[str]) -> None:
            if keys:
                await link.run(self._worded(statement), many=self._many(keys))

        async def keep(statement: str, values: list[dict[str, object]]) -> None:
            if values:
                await link.run_many(self._worded(statement), values)

        holds = [each for each in draft.holds.values() if each is not None]
        await drop(_REMOVE, draft.removals)
        await drop(_RELEASE, [key for key, each in draft.holds.items() if each is None])
        await keep(_WRITE, [_columns(each) for each in draft.writes.values()])
        await keep(_HOLD, [{**each._asdict(), "body": MSGPACK.encode(each.row)} for each in holds])
        notes = {**draft.notes, "": draft.state.pack()}
        await keep(_KEEP, [{"name": name, "body": body} for name, body in notes.items()])

    def _known(self, answer: Answer) -> State:
        if not answer.rows:
            msg = f"{self._database.place}: the state in {self._table}_notes is gone; start again"
            raise BackendError(msg)
        state = State.unpack(bytes(answer.rows[0][0]))
        if state.name != self.name:
            msg = f"name must be {state.name!r}, as when this store was made, not {self.name!r}"
            raise ValueError(msg)
        return state

    async def _run(self, statement: str, **values: object) -> Answer:
        await self._ensure()
        return await self._database.run(self._worded(statement), **values)

    async def _ensure(self) -> None:
        if self._created:
            return
        await self._database.create(*(self._worded(each) for each in _TABLES))
        ((seq,),) = (await self._database.run(self._worded(_LATEST))).rows
        body = fresh_state(self.name, seq).pack()
        await self._database.run(self._worded(_BEGIN), body=body)
        self._known(await self._database.run(self._worded(_STATE)))
        self._created = True

    def _worded(self, statement: str) -> str:
        for word, meaning in self._words.items():
            statement = statement.replace(word, meaning)
        return self._database.dialect.worded(statement, self._table)

    def _many(self, keys: Collection[str]) -> object:
        return self._database.dialect.many([*keys])

    def __repr__(self) -> str:
        return f"SqlSyncStore({self._database.place!r}, name={self.name!r})"


def _database(url: str) -> Database:
    scheme, slashes, path = text("url", url).partition(":///" if url[:7] == "sqlite:" else "://")
    if scheme == "sqlite" and slashes and path:
        return SqliteDatabase(path)
    if scheme in {"postgresql", "postgres"} and slashes:
        return PostgresDatabase(url)
    msg = f"url must be sqlite:///path or postgresql://user@host/name, not {scheme + slashes!r}..."
    raise ValueError(msg)


def _words(table: str, *, postgresql: bool) -> dict[str, str]:
    """Return what stands in braces beside the words of the dialect."""
    longest = table_name("table", f"{table}_quarantine")
    base = table.rpartition(".")[2]
    return {
        "{notes}": _quoted(f"{table}_notes"),
        "{quarantine}": _quoted(longest),
        "{index_seq}": f'"{base}_seq"',
        "{index_bucket}": f'"{base}_bucket"',
        "{index_tombstones}": f'"{base}_tombstones"',
        "{by_code}": ' COLLATE "C"' if postgresql else "",
        "{locked}": " FOR UPDATE" if postgresql else "",
    }


def _quoted(table: str) -> str:
    return ".".join(f'"{each}"' for each in table.split("."))


def _heads(answer: Answer) -> list[Head]:
    return [head(key, seq, bytes(vectors)) for key, seq, vectors in answer.rows]


def _rows(answer: Answer) -> dict[str, Row]:
    return {each[0]: _row(*each) for each in answer.rows}


def _row(key: str, seq: int, deleted: int, *rest: Any) -> Row:
    changed_at, bucket, digest, vectors, body = rest
    return Row(key, seq, bool(deleted), changed_at, bucket, digest, bytes(vectors), bytes(body))


def _columns(row: Row) -> dict[str, object]:
    return {**row._asdict(), "deleted": int(row.deleted)}


def _held(answer: Answer) -> list[Held]:
    return [
        Held(key, peer, reason, held_at, _row_of(bytes(body)))
        for key, peer, reason, held_at, body in answer.rows
    ]
