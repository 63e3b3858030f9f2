"""Outbox: messages that are sent if, and only if, a transaction is committed.

Writing to a database and then sending a message are two steps, and a crash in between loses the
message; the other way round it tells of what never happened. An outbox makes the message a row of
the same transaction. A relay passes committed rows on and deletes them::

    application   begin; update ...; add(topic, payload); commit
                                      |
                                      v  a row: id, topic, envelope
    relay         claim the oldest -> sink(message) -> delete, commit
                       ^                   |
                       +--- crash, error --+   the rows are there still: they are passed on again

**Several relays.** On PostgreSQL each locks the rows that it has in hand (SKIP LOCKED), and a
relay that dies gives them back with its connection. On SQLite a file beside the database keeps
out all but one, so that nobody who writes has to wait for the sink; in memory there is no file.

Guarantees:

* What is rolled back is never passed on; what is committed is passed on at least once.
* A relay passes on in the order of ids, and stops at the first message that the sink refuses;
  those before it are marked.
* What is no message, or one of a newer release, is set aside with the reason, and stays; those
  behind it are passed on.
* Relays that run at the same time lose nothing, and pass nothing on twice unless one fails.

Not guaranteed: exactly one delivery. A crash after the sink and before the commit passes on again
what was in hand, with the ids it had; an :class:`~aiopatterns.messaging.Inbox` at the other end
makes one of them. Nor order between several relays, each of which has rows of its own; nor that
ids are in the order of commits, for a database gives them when rows are written.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeVar, final

import msgspec
from anyio import move_on_after
from anyio.lowlevel import checkpoint_if_cancelled

from aiopatterns.backends.dialects import SQLITE, table_name
from aiopatterns.backends.errand import Errand
from aiopatterns.backends.sql import link
from aiopatterns.backends.sqlitelock import SqliteLock
from aiopatterns.core.codec import JSON
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.context import run_in
from aiopatterns.core.errors import CodecError, TimeoutExceededError
from aiopatterns.core.notes import in_words, note
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.types import as_sink
from aiopatterns.core.validate import count
from aiopatterns.messaging.envelope import MAX_BYTES
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.scribe import Scribe
from aiopatterns.messaging.serving import origin, serve
from aiopatterns.messaging.topics import topic_name
from aiopatterns.messaging.tracing import onward, processing, sending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiopatterns.backends.sql import Answer, SqlConnection
    from aiopatterns.core.codec import Codec
    from aiopatterns.core.types import Sink
    from aiopatterns.messaging.message import Kind

__all__ = ["OUTBOX_TABLE", "Backlog", "Outbox", "OutboxRefused"]

T = TypeVar("T")

#: Where messages are, unless told otherwise.
OUTBOX_TABLE: Final = "aiopatterns_outbox"
#: Seconds that the database may take to claim or to mark; a relay cannot be cancelled meanwhile.
ANSWERED_WITHIN: Final = 10.0

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (id {serial}, topic TEXT NOT NULL, envelope {blob} NOT NULL,"
    " attempts INTEGER NOT NULL DEFAULT 0, refused TEXT,"
    " added_at DOUBLE PRECISION NOT NULL DEFAULT {now})"
)
_ADD: Final = "INSERT INTO {table} (topic, envelope) VALUES (:topic, :envelope)"
_CLAIM: Final = (
    "SELECT id, envelope, attempts FROM {table} WHERE refused IS NULL"
    " ORDER BY id LIMIT :limit{skip_locked}"
)
_SENT: Final = "DELETE FROM {table} WHERE id {among}"
_FAILED: Final = "UPDATE {table} SET attempts = attempts + 1 WHERE id = :id"
_REFUSED: Final = "UPDATE {table} SET refused = :reason WHERE id = :id"
_RETRIED: Final = "UPDATE {table} SET refused = NULL WHERE refused IS NOT NULL"
_BACKLOG: Final = (
    "SELECT count(*), count(refused),"
    " {now} - min(CASE WHEN refused IS NULL THEN added_at END) FROM {table}"
)
_FILE: Final = "SELECT file FROM pragma_database_list WHERE name = 'main'"

_NO_HEADERS: Final = Message(type="none").headers


@final
@dataclass(frozen=True, slots=True)
class OutboxRefused(Event):
    """A row was set aside, because it holds no message that this release can read.

    Attributes:
        table: The outbox.
        row: Id of the row.
        reason: What is wrong with it.
    """

    name: ClassVar[str] = "aiopatterns.outbox.refused"
    level: ClassVar[str] = "error"

    table: str
    row: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Backlog:
    """What is in an outbox.

    Attributes:
        waiting: Messages that are to be passed on, with those that relays have in hand.
        refused: Rows that were set aside.
        oldest: Seconds since the first of those that wait was added; 0 if none waits.
    """

    waiting: int
    refused: int
    oldest: float


class _Row(NamedTuple):
    id: int
    envelope: object
    attempts: int


@final
@dataclass(slots=True)
class _Round:
    """How far one call of relay has come."""

    own: bool  # whether the transaction is the relay's
    lock: SqliteLock | None = None
    sent: list[int] = field(default_factory=list[int])
    refused: dict[int, str] = field(default_factory=dict[int, str])
    failed: int | None = None
    marked: bool = False
    silent: bool = False  # the database, when it was asked last


@final
class Outbox:
    """Messages in a table, for one connection.

    Args:
        connection: The connection of the application's transaction, or the relay's: an
            ``AsyncConnection`` or ``AsyncSession`` of SQLAlchemy, an ``AsyncConnection`` of
            psycopg, or a ``Connection`` of sqlite3.
        table: Name of the table.
        codec: How messages are written; JSON and msgpack are read as well.
        max_bytes: Size of a message at most.

    Raises:
        TypeError: ``connection`` is none of these, or a value is of another type.
        ValueError: It leads to neither PostgreSQL nor SQLite, or a value is out of its range.

    Example::

        async with engine.begin() as connection:
            await connection.execute(insert(orders).values(order))
            await Outbox(connection).add("order.created", order)
    """

    __slots__ = ("_envelopes", "_link", "_relaying", "_table")

    def __init__(
        self,
        connection: SqlConnection,
        *,
        table: str = OUTBOX_TABLE,
        codec: Codec = JSON,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._link = link(connection)
        self._table = table_name("table", table)
        self._envelopes = Scribe(codec, max_bytes=max_bytes).envelopes
        self._relaying = False

    async def create_tables(self) -> None:
        """Create the table if it is not there.

        In the caller's transaction if one is open; else it is committed.

        Cancellation: the table is there or not; nothing is left open.
        """
        await self._link.create(self._link.dialect.worded(_CREATE, self._table))

    async def add(
        self,
        topic: str,
        payload: object = None,
        *,
        key: str | None = None,
        type: str | None = None,
        version: int = 1,
        kind: Kind = "event",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Add a message to the caller's transaction; nothing is committed here.

        Args:
            topic: Where it goes: a topic without wildcards.
            payload: What it says: whatever the codec can write.
            key: The message's key.
            type: What the payload is; by default the topic.
            version: Version of the payload's form.
            kind: What the message is for.
            headers: Anything else, text to text.

        Returns:
            The message's id, the same in every delivery.

        Raises:
            ValueError: ``topic`` is no topic, or a value is out of its range.
            TypeError: A value is of another type.
            CodecError: The payload cannot be written, or is too long; nothing was added.
            RejectedError: Services ask each other in a circle.

        Cancellation: roll the transaction back, as after any other error.

        Complexity: 1 round trip.
        """
        correlation, causation, hops = origin(topic_name("topic", topic))
        with sending("outbox", topic, "add", type) as span:
            message = Message(
                type=topic if type is None else type,
                version=version,
                kind=kind,
                topic=topic,
                key=key,
                correlation_id=correlation,
                causation_id=causation,
                hops=hops,
                headers=onward(headers) or _NO_HEADERS,
                payload=payload,
            )
            span.note("id", message.id)
            envelope = self._envelopes.encode(message)
            await self._run(_ADD, topic=topic, envelope=envelope)
        return message.id

    async def relay(self, sink: Sink[Message], limit: int = 100) -> int:
        """Pass the oldest messages on, one after the other.

        The connection should have no transaction open: then each call is one of its own. In an
        open one that has written nothing, what was passed on is marked by the caller's commit; on
        SQLite others are kept out only until the call returns, so commit before they begin.

        While ``sink`` runs, the message's correlation is bound, and what the sink sends bears the
        message's id as its cause.

        Args:
            sink: ``sink(message)``, or an object send stream; it returns when the message is safe.
            limit: Messages at most, 1 or more; so many are passed on again after a crash.

        Returns:
            How many were passed on; 0 if none waits, or if others have all of them in hand.

        Raises:
            RuntimeError: The open transaction has written something, which its rollback would
                undo when it has been told to the world; or this outbox relays already.
            ValueError: ``limit`` is out of its range, or SQLAlchemy was told ``AUTOCOMMIT``.
            TypeError: ``sink`` or ``limit`` is of another type.
            TimeoutExceededError: The database has not answered in time.
            Exception: Whatever ``sink`` raises, when those before it are marked.

        Cancellation: what was passed on is marked, the message in the sink is not. Only the sink is
        cancelled; the database is waited for.

        Complexity: O(limit), 3 round trips and what ``sink`` needs.
        """
        send = as_sink("sink", sink)
        count("limit", limit)
        if self._relaying:
            msg = "this outbox relays already; a connection serves one task at a time"
            raise RuntimeError(msg)
        self._relaying = True
        done = _Round(own=not self._link.in_transaction())
        try:
            await checkpoint_if_cancelled()
            return await self._relay(send, limit, done)
        finally:
            self._relaying = False
            if done.lock is not None:
                done.lock.release()

    async def backlog(self) -> Backlog:
        """Return what is in the outbox, for a health check or a gauge.

        Complexity: O(messages), 1 round trip.
        """
        statement = self._link.dialect.worded(_BACKLOG, self._table)
        answer = await self._link.look(statement)
        everything, refused, oldest = answer.rows[0]
        return Backlog(everything - refused, refused, max(0.0, oldest or 0.0))

    async def retry_refused(self) -> int:
        """Let relays try again what was set aside, in the caller's transaction.

        That is of use when relays of a newer release have started.

        Returns:
            How many rows there are.
        """
        answer = await self._run(_RETRIED)
        return answer.changed

    # --------------------------------------------------------------------------- private core

    async def _run(self, statement: str, **values: object) -> Answer:
        return await self._link.run(self._link.dialect.worded(statement, self._table), **values)

    async def _relay(
        self, send: Callable[[Message], Awaitable[object]], limit: int, done: _Round
    ) -> int:
        try:
            rows = await self._answered(partial(self._claim, limit, done), done)
            try:
                await self._pass_on(rows, send, done)
                await self._answered(partial(self._mark, done), done)
            except BaseException as error:
                await self._mark_late(done, error)
                raise
        except BaseException:
            if done.own:
                await self._link.abandon()
            raise
        return len(done.sent)

    async def _answered(self, ask: Callable[[], Awaitable[T]], done: _Round) -> T:
        """Ask the database where nobody can cancel it: drivers lose their way by that.

        Raises:
            TimeoutExceededError: The database does not answer.
        """

        async def in_time() -> T:
            with move_on_after(ANSWERED_WITHIN):
                return await ask()
            done.silent = True
            msg = f"the database has not answered the outbox within {ANSWERED_WITHIN:g} s"
            raise TimeoutExceededError(msg, timeout=ANSWERED_WITHIN)

        return await to_the_end(in_time)

    async def _claim(self, limit: int, done: _Round) -> Sequence[_Row]:
        if not done.own and await self._link.has_written():
            msg = (
                "relay would tell the world what this transaction may still roll back; commit"
                " first, or give relay a connection of its own"
            )
            raise RuntimeError(msg)
        if not await self._is_alone(done):
            return []
        if done.own:
            await self._link.begin()
        answer = await self._run(_CLAIM, limit=limit)
        return [_Row(*each) for each in answer.rows]

    async def _is_alone(self, done: _Round) -> bool:
        """Keep other relays out, where rows cannot be locked; False if one is at work."""
        if self._link.dialect is not SQLITE:
            return True
        found = await self._link.look(_FILE)
        path: str = found.rows[0][0]
        if not path:
            return True
        done.lock = SqliteLock(f"{path}-{self._table}")
        return bool(await Errand(done.lock.try_acquire).run())

    async def _pass_on(
        self,
        rows: Sequence[_Row],
        send: Callable[[Message], Awaitable[object]],
        done: _Round,
    ) -> None:
        for row in rows:
            message = self._open(row, done)
            if message is None:
                continue
            done.failed = row.id
            await run_in(copy_context(), _sent(send, message))
            done.failed = None
            done.sent.append(row.id)

    def _open(self, row: _Row, done: _Round) -> Message | None:
        """Return the message of a row, or None if there is none in it."""
        try:
            if not isinstance(row.envelope, bytes):  # a column of SQLite's holds anything
                raise CodecError(f"not bytes but {type(row.envelope).__name__}")
            message = self._envelopes.decode(row.envelope)
        except CodecError as error:
            done.refused[row.id] = in_words(error)
            return None
        return msgspec.structs.replace(message, attempt=row.attempts + 1)

    async def _mark_late(self, done: _Round, error: BaseException) -> None:
        """Mark what was passed on before ``error``; nothing takes its place."""
        if done.silent or done.marked:
            return
        if not isinstance(error, Exception):
            done.failed = None  # cancelled: that says nothing about the message
        try:
            await self._answered(partial(self._mark, done), done)
        except Exception as another:
            note(error, f"what was passed on could not be marked: {in_words(another)}")

    async def _mark(self, done: _Round) -> None:
        """Note what became of each row."""
        for row, reason in done.refused.items():
            await self._run(_REFUSED, reason=reason, id=row)
        if done.failed is not None:
            await self._run(_FAILED, id=done.failed)
        if done.sent:
            await self._run(_SENT, many=self._link.dialect.many(done.sent))
        if done.own:
            await self._link.commit()
        done.marked = True
        self._tell(done)

    def _tell(self, done: _Round) -> None:
        if listening():
            for row, reason in done.refused.items():
                emit(OutboxRefused(self._table, row, reason))


async def _sent(send: Callable[[Message], Awaitable[object]], message: Message) -> None:
    """Give a message to the sink, in a context that is its own."""
    serve(message)
    with processing("outbox", message):
        await send(message)
