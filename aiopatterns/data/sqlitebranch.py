"""The work of one transaction in SQLite: in a thread, in turns, and written down as it goes.

SQLite has one writer at a time, so transactions of one participant take turns here, where waiting
costs no thread. What is done is noted by SQLite's own authorizer, which is asked about every table
when a statement is compiled; so nobody has to say which tables a transaction has touched. It also
refuses what is not for a transaction: statements that end it, pragmas, changes of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from aiopatterns.backends.errand import Errand
from aiopatterns.backends.sql import Answer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    Values: TypeAlias = Sequence[Any] | Mapping[str, Any]

__all__ = [
    "BUSY_WITHIN",
    "LOCKED_WITHIN",
    "SqliteBranch",
    "SqliteTurns",
    "commit_work",
    "connect_durably",
    "undo_work",
]

#: Seconds that a transaction waits for other processes that write.
BUSY_WITHIN: Final = 5.0
#: Seconds that a transaction waits for those in doubt to be resolved.
LOCKED_WITHIN: Final = 5.0
_LOOK_AGAIN: Final = 0.01
# EXTRA is FULL, and with a rollback journal its directory is flushed as well.
_DURABLE: Final = ("PRAGMA synchronous = EXTRA", "PRAGMA fullfsync = ON")
_PLAIN: Final = (type(None), bool, int, float, str, bytes)
_OURS: Final = "aiopatterns_"


def connect_durably(path: str) -> sqlite3.Connection:
    """Return a connection without a transaction, whose commits are on the disk.

    Args:
        path: The file; made if it is not there.
    """
    import sqlite3

    connection = sqlite3.connect(
        path,
        timeout=BUSY_WITHIN,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=0,  # a cached one would not be shown to the authorizer again
    )
    for each in _DURABLE:
        connection.execute(each)
    return connection


def commit_work(connection: sqlite3.Connection) -> None:
    """Commit; for :meth:`SqliteBranch.finish`."""
    connection.execute("COMMIT")


def undo_work(connection: sqlite3.Connection) -> None:
    """Roll back; for :meth:`SqliteBranch.finish`."""
    connection.execute("ROLLBACK")


@final
class SqliteTurns:
    """Who may write now: one at a time."""

    __slots__ = ("_holder", "_waiters")

    def __init__(self) -> None:
        self._holder: object = None
        self._waiters = Waiters()

    async def take(self, holder: object) -> None:
        """Wait for the turn; free if ``holder`` has it."""
        while self._holder is not None and self._holder is not holder:
            await self._waiters.wait()
        self._holder = holder

    def give(self, holder: object) -> None:
        """Let the next one; harmless if ``holder`` has not the turn."""
        if self._holder is holder:
            self._holder = None
            self._waiters.wake()


@final
class SqliteBranch:
    """The work of one transaction; made by ``tx[participant]``.

    Args:
        path: The file.
        turns: Those of the participant.
        is_locked: Whether a transaction in doubt stands in the way, asked in the transaction.
    """

    __slots__ = (
        "_connection",
        "_guarded",
        "_is_locked",
        "_over",
        "_path",
        "_read",
        "_turns",
        "_written",
        "statements",
        "tables",
    )

    def __init__(
        self, path: str, turns: SqliteTurns, *, is_locked: Callable[[sqlite3.Connection], bool]
    ) -> None:
        self._path = path
        self._turns = turns
        self._is_locked = is_locked
        self._connection: sqlite3.Connection | None = None
        self._over = False
        self._guarded = False
        self._read: set[str] = set()
        self._written: set[str] = set()
        #: Statements that have changed something, and all tables that these depend on.
        self.statements: list[tuple[str, Values]] = []
        self.tables: set[str] = set()

    async def execute(self, statement: str, values: Values = ()) -> Answer:
        """Run one statement in the transaction.

        Args:
            statement: SQL, with ``?`` or ``:name`` for each of ``values``; it selects, inserts,
                updates or deletes.
            values: What stands for these: None, numbers, text and bytes.

        Returns:
            ``rows`` that it returned, and how many it has ``changed``.

        Raises:
            TypeError: A value is of another type.
            sqlite3.Error: SQLite refuses, or others have written for too long.

        Cancellation: the statement has run, or never does; the transaction can go on.
        """
        for each in values.values() if isinstance(values, Mapping) else values:
            if not isinstance(each, _PLAIN):
                msg = f"values must be None, numbers, text or bytes, not {each!r}"
                raise TypeError(msg)
        await self._begin()
        answer: Answer = await Errand(self._execute, statement, values).run()
        return answer

    async def finish(self, last: Callable[[sqlite3.Connection], Any]) -> Any:
        """Return what ``last`` makes of the connection, in a thread; the work is over then.

        Without work it is None. What ``last`` leaves open is rolled back.

        Cancellation: ``last`` has run, or never does.
        """
        try:
            return await Errand(self._finish, last).run()
        finally:
            self._turns.give(self)

    async def _begin(self) -> None:
        """Take the turn and begin, when what is in doubt has been resolved, or for long was not."""
        if self._over:
            raise ClosedError("this work is over; a transaction is used inside its block")
        if self._connection is not None:
            return
        await self._turns.take(self)
        patient = monotonic() + LOCKED_WITHIN
        while not await Errand(self._begun, patient).run():
            await sleep(_LOOK_AGAIN)

    # -- in a thread ----------------------------------------------------------------------------

    def _begun(self, patient: float) -> bool:
        connection = connect_durably(self._path)
        try:
            connection.execute("BEGIN IMMEDIATE")
            if self._is_locked(connection) and monotonic() < patient:
                connection.close()
                return False
            connection.execute("SAVEPOINT work")
            connection.set_authorizer(self._authorize)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return True

    def _execute(self, statement: str, values: Values) -> Answer:
        assert self._connection is not None, "begun"
        self._read.clear()
        self._written.clear()
        self._guarded = True
        try:
            cursor = self._connection.execute(statement, values)
            answer = Answer(cursor.fetchall(), cursor.rowcount)
        finally:
            self._guarded = False
        if self._written:
            self.statements.append((statement, values))
            self.tables |= self._written | self._read
        return answer

    def _finish(self, last: Callable[[sqlite3.Connection], Any]) -> Any:
        self._over = True
        connection, self._connection = self._connection, None
        if connection is None:
            return None
        try:
            connection.set_authorizer(None)
            return last(connection)
        finally:
            with suppress(Exception):
                connection.rollback()
            connection.close()

    def _authorize(self, action: int, first: str | None, *more: str | None) -> int:
        """Note what a statement touches, and refuse what is not for a transaction."""
        import sqlite3 as it

        if not self._guarded:
            return it.SQLITE_OK
        if action in {it.SQLITE_SELECT, it.SQLITE_FUNCTION, it.SQLITE_RECURSIVE}:
            return it.SQLITE_OK
        if action == it.SQLITE_READ and first is not None:
            self._read.add(first)
            return it.SQLITE_OK
        writes = action in {it.SQLITE_INSERT, it.SQLITE_UPDATE, it.SQLITE_DELETE}
        if not writes or more[1] != "main" or first is None or first.startswith(_OURS):
            return it.SQLITE_DENY
        self._written.add(first)
        return it.SQLITE_OK
