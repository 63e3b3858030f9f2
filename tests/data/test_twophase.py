"""A coordinator: what it takes, what it counts, and what it says about a transaction."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import TwoPhaseError
from aiopatterns.data import (
    Decision,
    MemoryLog,
    MemoryParticipant,
    RecoveryReport,
    SqliteLastResource,
    SqliteLog,
    TwoPhaseCommit,
    TwoPhaseStatistics,
)


async def test_all_commit_and_the_decision_can_be_asked_for():
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = TwoPhaseCommit(MemoryLog(), [a, b])
    async with transfers.transaction() as tx:
        await tx[a].execute("x", 1)
        await tx[b].execute("x", 2)
        assert transfers.statistics().active == 1
        assert await transfers.outcome(tx.gid) is None
    assert (a.get("x"), b.get("x")) == (1, 2)
    assert await transfers.outcome(tx.gid) is Decision.COMMIT
    assert transfers.statistics() == TwoPhaseStatistics(0, 1, 0, 0, 0)
    assert await transfers.recover_once() == RecoveryReport()
    await transfers.resolve(tx.gid)  # nothing to mend, and harmless


async def test_none_commits_when_the_block_raises():
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = TwoPhaseCommit(MemoryLog(), [a, b])
    with pytest.raises(LookupError):
        async with transfers.transaction() as tx:
            await tx[a].execute("x", 1)
            await tx[b].execute("x", 2)
            raise LookupError
    assert (a.get("x"), b.get("x")) == (None, None)
    assert await transfers.outcome(tx.gid) is None, "presumed: nothing is written"
    assert transfers.statistics() == TwoPhaseStatistics(0, 0, 1, 0, 0)


async def test_none_commits_when_one_votes_no():
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = TwoPhaseCommit(MemoryLog(), [a, b])
    with pytest.raises(TwoPhaseError, match="aborted by 'b'") as caught:
        async with transfers.transaction() as tx:
            await tx[a].execute("x", 1)
            await tx[b].execute("x", 2)
            b._locks["x"] = "another"
    assert caught.value.gid == tx.gid
    assert (a.get("x"), b.get("x")) == (None, None)


def test_it_can_be_made_at_module_level():
    transfers = TwoPhaseCommit(MemoryLog(), [MemoryParticipant("a")], timeout=5, name="transfers")
    assert repr(transfers) == "TwoPhaseCommit('transfers', participants=['a'])"
    assert transfers.timeout == 5


def test_bad_input_is_refused(tmp_path):
    log, a = MemoryLog(), MemoryParticipant("a")
    unfit: Any = 7
    with pytest.raises(ValueError, match="at least one"):
        TwoPhaseCommit(log, [])
    with pytest.raises(ValueError, match="names of their own"):
        TwoPhaseCommit(log, [a, MemoryParticipant("a")])
    with pytest.raises(TypeError, match="has no branch, prepare"):
        TwoPhaseCommit(log, [unfit])
    with pytest.raises(ValueError, match="log must be the one"):
        TwoPhaseCommit(log, [SqliteLastResource("last", SqliteLog(tmp_path / "log.db"))])
    with pytest.raises(ValueError, match="timeout"):
        TwoPhaseCommit(log, [a], timeout=0)
    with pytest.raises(TypeError, match="name"):
        TwoPhaseCommit(log, [a], name=unfit)
    with pytest.raises(ValueError, match="lease must be above interval"):
        TwoPhaseCommit(log, [a]).recovery(interval=5, lease=5)
    with pytest.raises(ValueError, match="interval"):
        TwoPhaseCommit(log, [a]).recovery(interval=0)


async def test_questions_about_no_transaction_are_refused():
    transfers = TwoPhaseCommit(MemoryLog(), [MemoryParticipant("a")])
    unfit: Any = 7
    with pytest.raises(ValueError, match="gid"):
        await transfers.outcome("")
    with pytest.raises(TypeError, match="gid"):
        await transfers.resolve(unfit)
