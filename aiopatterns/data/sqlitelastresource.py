"""SqliteLastResource: a file of SQLite whose own commit is the decision.

Where the log of decisions and the business tables are in one file, no promise is needed there. When
all others have promised, the work and the decision are committed in one transaction: either both
are on the disk, or neither::

    others     promised
    here       BEGIN IMMEDIATE; work ...; INSERT decision; COMMIT     <- the point of no return
    others     commit

This is exact, and costs one flush of the disk in all for this file and for the log. Only one
participant of a transaction can be the last one.

The file is locked for other writers from the first statement here to the decision, for the log as
well; so do this work last.

Source: the last resource commit optimization of transaction managers (X/Open XA), made exact by
keeping the log in the resource.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.completion import to_the_end
from aiopatterns.core.validate import instance
from aiopatterns.data.decisions import Decision
from aiopatterns.data.participants import Fate, Vote, participant_name
from aiopatterns.data.sqlitebranch import SqliteBranch, SqliteTurns, commit_work, undo_work
from aiopatterns.data.sqllogs import SqliteLog

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

    from aiopatterns.data.decisions import DecisionRecord, Proposal
    from aiopatterns.data.participants import Prepared

__all__ = ["SqliteLastResource"]


@final
class SqliteLastResource:
    """The file of a ``SqliteLog``, as a participant.

    Args:
        name: Its name: up to 40 letters, digits, ``_`` and ``-``.
        log: The log, which is the coordinator's.

    Raises:
        TypeError: ``log`` is another kind of log, or ``name`` is no text.
        ValueError: ``name`` is none.

    Example::

        log = SqliteLog("shop.db")
        shop = SqliteLastResource("shop", log)
        transfers = TwoPhaseCommit(log, participants=[bank, shop])
    """

    __slots__ = ("_branches", "_turns", "log", "name")

    def __init__(self, name: str, log: SqliteLog) -> None:
        self.name: Final[str] = participant_name(name)
        self.log: Final[SqliteLog] = instance("log", log, SqliteLog, "a SqliteLog")
        self._turns = SqliteTurns()
        self._branches: dict[str, SqliteBranch] = {}

    def __repr__(self) -> str:
        return f"SqliteLastResource({self.name!r}, {self.log!r})"

    def branch(self, gid: str) -> SqliteBranch:
        """Begin work under ``gid``; the file is opened by the first statement."""
        branch = SqliteBranch(self.log.path, self._turns, is_locked=_never)
        self._branches[gid] = branch
        return branch

    async def prepare(self, gid: str) -> Vote:
        """Say whether there is anything to commit; nothing is promised."""
        if self._branches[gid].statements:
            return Vote.YES
        await self.rollback(gid)
        return Vote.READ_ONLY

    async def commit_with(self, gid: str, proposal: Proposal) -> DecisionRecord:
        """Commit the work and the decision in one transaction, unless there is a decision.

        Raises:
            sqlite3.Error: SQLite refuses.
            BackendError: The decision cannot be read.
        """
        await self._end(gid, lambda at: _decide(at, *self.log.insertion(proposal)))
        record = await self.log.read(gid)
        assert record is not None, "just inserted, or there before"
        return record

    async def commit_alone(self, gid: str) -> bool:
        """Commit in one phase, without a decision."""
        await self._end(gid, commit_work)
        return True

    async def commit(self, gid: str) -> bool:
        """Return False: what was decided is committed already."""
        del gid
        return False

    async def rollback(self, gid: str) -> bool:
        """Undo the work; False if there is none."""
        if gid not in self._branches:
            return False
        await self._end(gid, undo_work)
        return True

    async def in_doubt(self) -> Sequence[Prepared]:
        """Return nothing: there are no promises."""
        return ()

    async def outcome(self, gid: str) -> Fate:
        """Return COMMITTED if that was decided."""
        record = await self.log.read(gid)
        committed = record is not None and record.decision is Decision.COMMIT
        return Fate.COMMITTED if committed else Fate.UNKNOWN

    async def forget(self, gids: Collection[str]) -> None:
        """Nothing is remembered here but in the log."""

    async def _end(self, gid: str, last: Callable[[sqlite3.Connection], Any]) -> None:
        branch = self._branches.pop(gid)
        await to_the_end(lambda: branch.finish(last))


def _never(_: sqlite3.Connection) -> bool:
    """There are no promises here, so none is in the way."""
    return False


def _decide(at: sqlite3.Connection, statement: str, values: dict[str, object]) -> None:
    """Commit with the decision, or leave it to be rolled back if there is one."""
    if at.execute(statement, values).rowcount > 0:
        at.execute("COMMIT")
