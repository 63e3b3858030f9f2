"""A file of SQLite whose statements share their way to the disk.

Each commit waits for the disk, and while one waits, others arrive. They become one transaction,
so that the wait is paid once for all of them (group commit)::

    tasks    a  b  c              d  e
             |  '--'--- batch 2 --'--'
    thread   [a: BEGIN run COMMIT]  [b c d e: BEGIN run run run run COMMIT]

A transaction of several statements takes a turn of its own, between two batches.

Within a batch each statement stands alone: one that fails is taken back and says so to its own
task, and the others go on. A commit that fails is a failure of all.

The journal is a write-ahead log and every commit is synced (``synchronous=FULL``): less than that
may lose the last commits when the machine loses its power. Several processes may use one file;
they wait for each other, :data:`BUSY_WITHIN` at most.

Source: DeWitt et al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984
(group commit); SQLite's documentation of ``synchronous`` and of WAL.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from aiopatterns.backends.dialects import SQLITE
from aiopatterns.backends.errand import Errand
from aiopatterns.backends.sql import Answer, link
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.core.flight import Flight
from aiopatterns.core.validate import text
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.database import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiopatterns.backends.sql import SqlLink

__all__ = ["BUSY_WITHIN", "SqliteDatabase"]

T = TypeVar("T")

#: Seconds that a statement waits for other processes that write.
BUSY_WITHIN: Final = 5.0
_LOGGED: Final = "PRAGMA journal_mode = WAL"
_SYNCED: Final = "PRAGMA synchronous = FULL"
# Others that may open a new file at the same time, each of whom is waited for.
_RIVALS: Final = 100
# What passes: others write, or the file cannot be opened just now.
_PASSING: Final = frozenset(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN"))
# What a value that SQLite cannot hold raises: a number of more than 64 bits, half a character.
_UNFIT: Final = (OverflowError, UnicodeError)


class _Order(NamedTuple):
    statement: str
    values: Mapping[str, object]


@final
class _Batch:
    """Statements that go to the disk together."""

    __slots__ = ("flight", "orders", "results")

    def __init__(self, flight: Flight[None]) -> None:
        self.flight = flight
        self.orders: list[_Order] = []
        self.results: list[Answer | BackendError] = []


@final
class SqliteDatabase(Database):
    """A file of SQLite.

    Args:
        path: The file; made if it is not there.

    Raises:
        TypeError: ``path`` is neither text nor a path.
        ValueError: It names no file.

    Complexity: a statement costs a call in a thread and a share of one sync of the disk.
    """

    __slots__ = ("_batch", "_busy", "_held", "_turns")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = text("path", os.fspath(path) if isinstance(path, os.PathLike) else path)
        if name == ":memory:":
            msg = "path must be that of a file, not ':memory:', which survives nothing"
            raise ValueError(msg)
        super().__init__(SQLITE, name)
        self._batch: _Batch | None = None  # the one that is gathered
        self._busy = False  # whether a thread is at work
        self._turns = Waiters()
        self._held: list[sqlite3.Connection] = []  # one, or none yet
        weakref.finalize(self, _close, self._held)

    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement; it goes to the disk together with those of others."""
        batch = self._batch
        if batch is None or not batch.flight.open:
            batch = self._batch = _Batch(Flight(self._flush))
            batch.flight.keep()
        place = len(batch.orders)
        batch.orders.append(_Order(statement, values))
        seat = batch.flight.board()
        if (cancelled := await batch.flight.end()) is not None:
            batch.flight.leave(seat)
            raise cancelled
        await batch.flight.ride(seat)
        result = batch.results[place]
        if isinstance(result, BackendError):
            raise result
        return result

    async def transact(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        """Run several statements as one transaction; it has the file to itself."""
        return await to_the_end(lambda: self._transaction(work))

    async def aclose(self) -> None:
        """Close the file, when what has begun has ended."""
        await self._turn()
        try:
            await Errand(_close, self._held).run()
        finally:
            self._pass_on()

    # --------------------------------------------------------------------------- private core

    async def _flush(self) -> None:
        """Wait for the thread, then take all that was gathered meanwhile."""
        await self._turn()
        try:
            batch, self._batch = self._batch, None
            assert batch is not None
            batch.results = await Errand(self._write, batch.orders).run()
        finally:
            self._pass_on()

    async def _transaction(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        import sqlite3

        await self._turn()
        try:
            held = link(await Errand(self._open).run())
            await held.run("BEGIN IMMEDIATE")
            try:
                result = await work(held)
                await held.commit()
            except BaseException:
                await held.abandon()
                raise
        except sqlite3.Error as error:
            await Errand(_close, self._held).run()
            raise self._translated(error) from error
        else:
            return result
        finally:
            self._pass_on()

    async def _turn(self) -> None:
        while self._busy:
            await self._turns.wait()
        self._busy = True

    def _pass_on(self) -> None:
        self._busy = False
        self._turns.wake()

    # -- in the thread -------------------------------------------------------------------------

    def _write(self, orders: Sequence[_Order]) -> list[Answer | BackendError]:
        import sqlite3

        try:
            connection = self._open()
            if len(orders) == 1:
                return [_run(connection, orders[0])]
            return self._write_together(connection, orders)
        except (sqlite3.Error, *_UNFIT) as error:
            _close(self._held)  # with whatever it has open
            raise self._translated(error) from error

    def _write_together(
        self, connection: sqlite3.Connection, orders: Sequence[_Order]
    ) -> list[Answer | BackendError]:
        import sqlite3

        results: list[Answer | BackendError] = []
        connection.execute("BEGIN IMMEDIATE")
        for each in orders:
            connection.execute("SAVEPOINT one")
            try:
                results.append(_run(connection, each))
            except (sqlite3.Error, *_UNFIT) as error:
                if not connection.in_transaction:  # it was bad enough to end that of all
                    raise
                connection.execute("ROLLBACK TO one")
                results.append(self._translated(error))
            connection.execute("RELEASE one")
        connection.execute("COMMIT")
        return results

    def _open(self) -> sqlite3.Connection:
        if not self._held:
            import sqlite3

            connection = sqlite3.connect(
                self.place, timeout=BUSY_WITHIN, isolation_level=None, check_same_thread=False
            )
            self._held.append(connection)
            _use_log(connection)
            connection.execute(_SYNCED)
        return self._held[0]

    def _translated(self, error: Exception) -> BackendError:
        msg = f"SQLite at {self.place!r}: {error}"
        # One that the module itself raises has no code.
        name = getattr(error, "sqlite_errorname", "")
        return BackendUnavailableError(msg) if name in _PASSING else BackendError(msg)


def _use_log(connection: sqlite3.Connection) -> None:
    """Write ahead; a change of the mode waits for nobody by itself, but a transaction does."""
    import sqlite3

    for _ in range(_RIVALS):
        try:
            connection.execute(_LOGGED)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        else:
            return
    connection.execute(_LOGGED)


def _run(connection: sqlite3.Connection, order: _Order) -> Answer:
    cursor = connection.execute(order.statement, order.values)
    try:
        return Answer(cursor.fetchall(), cursor.rowcount)
    finally:
        cursor.close()


def _close(held: list[sqlite3.Connection]) -> None:
    while held:
        held.pop().close()
