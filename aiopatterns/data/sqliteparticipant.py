"""SqliteParticipant: a file of SQLite that takes part in two-phase commits, by staged intents.

SQLite cannot promise: an open transaction dies with its process, and as long as it lives nobody else
can write. So the work is tried, taken back, and *written down*, durably, with locks on the tables
that it depends on. To commit is to do it again::

    work       BEGIN IMMEDIATE; try every statement          errors and constraints show here
    promise    take it back; write intents and locks; COMMIT   the file is free for other tables
    commit     remove locks; do it again; mark; COMMIT       one transaction
    roll back  remove intents and locks; COMMIT

Since nothing that the statements depend on can change meanwhile, they come to the same again. The
locks hold against everybody, not just those who know of them: each table gets *guards*, triggers
that refuse to write it while a transaction on it is in doubt.

Guarantees:

* A YES survives ``kill -9`` and the loss of power, as far as the disk keeps its word.
* Whoever writes a table in doubt, with whatever program, gets an error (``aiopatterns: table ... is
  part of a transaction in doubt``). Other tables are free.

Not guaranteed:

* ``random()`` and the current time are others the second time; constraints on such values may fail
  then, and the transaction stays in doubt. Write values that the caller has made.
* Views, virtual tables and functions of the application cannot be promised: the vote is NO.

Where SQLite is the only such participant, and keeps the log, ``SqliteLastResource`` is cheaper.

Source: redo of intents as in Vitess (https://vitess.io/docs/reference/features/two-phase-commit/).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.errand import Errand
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.errors import ConflictError
from aiopatterns.core.validate import text
from aiopatterns.data.participants import Fate, Prepared, Vote, participant_name
from aiopatterns.data.sqlitebranch import (
    SqliteBranch,
    SqliteTurns,
    commit_work,
    connect_durably,
    undo_work,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

__all__ = ["SqliteParticipant"]

_INTENTS: Final = (
    "CREATE TABLE IF NOT EXISTS aiopatterns_intents (gid TEXT NOT NULL, participant TEXT NOT NULL,"
    " work BLOB NOT NULL, at REAL NOT NULL DEFAULT (julianday('now')),"
    " PRIMARY KEY (gid, participant))"
)
_LOCKS: Final = (
    "CREATE TABLE IF NOT EXISTS aiopatterns_locks (guarded TEXT PRIMARY KEY, gid TEXT NOT NULL,"
    " participant TEXT NOT NULL)"
)
_MARKS: Final = (
    "CREATE TABLE IF NOT EXISTS aiopatterns_marks (gid TEXT NOT NULL, participant TEXT NOT NULL,"
    " at REAL NOT NULL DEFAULT (julianday('now')), PRIMARY KEY (gid, participant))"
)
_CREATE: Final = (_INTENTS, _LOCKS, _MARKS)
_GUARD: Final = (
    'CREATE TRIGGER IF NOT EXISTS "aiopatterns_guard_{verb}_{name}" BEFORE {verb} ON "{name}"'
    " WHEN EXISTS (SELECT 1 FROM aiopatterns_locks WHERE guarded = '{text}') BEGIN SELECT"
    " RAISE(ABORT, 'aiopatterns: table {text} is part of a transaction in doubt'); END"
)
_VERBS: Final = ("INSERT", "UPDATE", "DELETE")
_INTENT: Final = "INSERT INTO aiopatterns_intents (gid, participant, work) VALUES (?, ?, ?)"
_LOCK: Final = "INSERT INTO aiopatterns_locks (guarded, gid, participant) VALUES (?, ?, ?)"
_MARK: Final = "INSERT INTO aiopatterns_marks (gid, participant) VALUES (?, ?)"
_WORK: Final = "SELECT work FROM aiopatterns_intents WHERE gid = ? AND participant = ?"
_UNLOCK: Final = "DELETE FROM aiopatterns_locks WHERE gid = ? AND participant = ?"
_DROP: Final = "DELETE FROM aiopatterns_intents WHERE gid = ? AND participant = ?"
_IS_MARKED: Final = "SELECT 1 FROM aiopatterns_marks WHERE gid = ? AND participant = ?"
_FORGET: Final = "DELETE FROM aiopatterns_marks WHERE gid = ? AND participant = ?"
_IN_DOUBT: Final = (
    "SELECT gid, (julianday('now') - at) * 86400.0 FROM aiopatterns_intents"
    " WHERE participant = ? ORDER BY at"
)
_IS_LOCKED: Final = "SELECT 1 FROM aiopatterns_locks LIMIT 1"
_OURS_OR_ITS: Final = ("aiopatterns_", "sqlite_")

_work_of = MSGPACK.decoder(list[tuple[str, Any]])


@final
class SqliteParticipant:
    """A file of SQLite.

    Its transactions take turns: from the first statement to the vote one at a time. Nothing is kept
    open between two calls.

    Args:
        name: Its name: up to 40 letters, digits, ``_`` and ``-``.
        path: The file; made if it is not there.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``name`` is none, or ``path`` is not that of a file.

    Complexity: three flushes of the disk for a transaction: work is done twice.

    Example::

        async with transfers.transaction() as tx:
            await tx[stock].execute("UPDATE parts SET held = held + 1 WHERE id = ?", (17,))
    """

    __slots__ = ("_branches", "_path", "_ready", "_turns", "name")

    def __init__(self, name: str, path: str | os.PathLike[str]) -> None:
        self.name: Final[str] = participant_name(name)
        self._path = text("path", os.fspath(path) if isinstance(path, os.PathLike) else path)
        if self._path == ":memory:":
            msg = "path must be that of a file, not ':memory:', which survives nothing"
            raise ValueError(msg)
        self._turns = SqliteTurns()
        self._branches: dict[str, SqliteBranch] = {}
        self._ready = False

    def __repr__(self) -> str:
        return f"SqliteParticipant({self.name!r}, {self._path!r})"

    def branch(self, gid: str) -> SqliteBranch:
        """Begin work under ``gid``; the file is opened by the first statement."""
        branch = SqliteBranch(self._path, self._turns, is_locked=self._is_locked)
        self._branches[gid] = branch
        return branch

    async def prepare(self, gid: str) -> Vote:
        """Promise the work of ``gid``.

        Raises:
            ConflictError: A table that it has read is part of a transaction in doubt.
            sqlite3.Error: A table cannot be guarded, or the disk is full.
        """
        branch = self._branches.pop(gid)
        work = MSGPACK.encode(branch.statements)
        return (
            await to_the_end(
                lambda: branch.finish(lambda at: self._promise(at, gid, work, branch.tables))
            )
            or Vote.READ_ONLY
        )

    async def commit(self, gid: str) -> bool:
        """Commit what was promised; False if there is no such promise."""
        done: bool = await self._write(self._commit, gid)
        return done

    async def commit_alone(self, gid: str) -> bool:
        """Commit in one phase."""
        branch = self._branches.pop(gid)
        await to_the_end(lambda: branch.finish(commit_work))
        return True

    async def rollback(self, gid: str) -> bool:
        """Undo the work, promised or not; False if there is none."""
        branch = self._branches.pop(gid, None)
        if branch is not None:
            await to_the_end(lambda: branch.finish(undo_work))
            return True
        dropped: bool = await self._write(self._roll_back, gid)
        return dropped

    async def in_doubt(self) -> Sequence[Prepared]:
        """Return what was promised in this file under this name, by whomever."""
        rows: list[tuple[str, float]] = await self._read(_IN_DOUBT, self.name)
        return [Prepared(*each) for each in rows]

    async def outcome(self, gid: str) -> Fate:
        """Return what is known of ``gid``."""
        if await self._read(_WORK, gid, self.name):
            return Fate.PREPARED
        marked = await self._read(_IS_MARKED, gid, self.name)
        return Fate.COMMITTED if marked else Fate.UNKNOWN

    async def forget(self, gids: Collection[str]) -> None:
        """Remove the marks of ``gids``."""

        def remove(at: sqlite3.Connection, _: str) -> None:
            at.executemany(_FORGET, [(gid, self.name) for gid in gids])

        await self._write(remove, "")

    # --------------------------------------------------------------------------- private core

    async def _write(self, fn: Callable[[sqlite3.Connection, str], Any], gid: str) -> Any:
        """Return what ``fn`` returns, in a transaction of its own."""

        def transact() -> Any:
            connection = self._opened()
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = fn(connection, gid)
                connection.execute("COMMIT")
                return result
            finally:
                connection.close()

        return await to_the_end(lambda: Errand(transact).run())

    async def _read(self, statement: str, *values: str) -> list[Any]:
        def read() -> list[Any]:
            connection = self._opened()
            try:
                return connection.execute(statement, values).fetchall()
            finally:
                connection.close()

        rows: list[Any] = await Errand(read).run()
        return rows

    # -- in a thread ----------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        connection = connect_durably(self._path)
        if not self._ready:
            for each in _CREATE:
                connection.execute(each)
            self._ready = True
        return connection

    def _is_locked(self, at: sqlite3.Connection) -> bool:
        for each in () if self._ready else _CREATE:
            at.execute(each)
        return at.execute(_IS_LOCKED).fetchone() is not None

    def _promise(self, at: sqlite3.Connection, gid: str, work: bytes, tables: set[str]) -> Vote:
        """Take the work back and write down what it was."""
        import sqlite3

        if not tables:
            return Vote.READ_ONLY
        at.execute("ROLLBACK TO work")
        for name in sorted(tables):
            if name.startswith(_OURS_OR_ITS):
                continue
            try:
                at.execute(_LOCK, (name, gid, self.name))
            except sqlite3.IntegrityError as error:
                raise ConflictError(f"table {name!r} is in doubt", key=name) from error
            for verb in _VERBS:
                at.execute(_GUARD.format(verb=verb, name=_in(name, '"'), text=_in(name, "'")))
        at.execute(_INTENT, (gid, self.name, work))
        at.execute("COMMIT")
        return Vote.YES

    def _commit(self, at: sqlite3.Connection, gid: str) -> bool:
        row = at.execute(_WORK, (gid, self.name)).fetchone()
        if row is None:
            return False
        at.execute(_UNLOCK, (gid, self.name))  # first, or the guards would keep us out
        for statement, values in _work_of(row[0]):
            at.execute(statement, values).fetchall()
        at.execute(_MARK, (gid, self.name))
        at.execute(_DROP, (gid, self.name))
        return True

    def _roll_back(self, at: sqlite3.Connection, gid: str) -> bool:
        at.execute(_UNLOCK, (gid, self.name))
        return at.execute(_DROP, (gid, self.name)).rowcount > 0


def _in(name: str, quote: str) -> str:
    """Return ``name`` for between two of ``quote``."""
    return name.replace(quote, quote * 2)
