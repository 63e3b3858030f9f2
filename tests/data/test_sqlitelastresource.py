"""A file whose own commit is the decision: the crash points of a last resource."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core.errors import TwoPhaseError
from aiopatterns.data import (
    Decision,
    Enlisted,
    Fate,
    MemoryLog,
    Proposal,
    RecoveryReport,
    SqliteLastResource,
    TwoPhaseCommit,
    Vote,
    sqlitelastresource,
)
from tests.data.twophaseplaces import NEW, OLD, Died, LastPlace, Life, MemoryPlace, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UPDATE = "UPDATE things SET value = ? WHERE id = 1"


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    place = LastPlace(str(tmp_path / "decisions.db"))
    yield World(place, MemoryPlace("other"), "")
    await place.log.aclose()


@pytest.fixture
async def last(world) -> SqliteLastResource:
    await world.log().identity()
    return world.place.open()


def proposed(gid: str, decision: Decision = Decision.COMMIT) -> Proposal:
    return Proposal(gid, decision, (Enlisted("other", "Memory"),))


async def test_work_and_decision_are_one_transaction(world):
    await world.run()
    assert await world.values() == (NEW, NEW)
    await world.log().flush()
    record = await world.log().read(world.gid)
    assert record.decision is Decision.COMMIT
    assert [each.name for each in record.participants] == ["other"], "it need not be told"
    assert record.ended_at is not None
    await world.assert_at_rest()


@pytest.mark.promise("data-2pc-crash-table")
@pytest.mark.parametrize(
    ("verb", "when", "value"),
    [
        ("prepare", "before", OLD),
        ("prepare", "after", OLD),
        ("commit", "before", NEW),
        ("commit", "after", NEW),
    ],
)
async def test_a_crash_at_every_point_of_the_others(world, verb, when, value):
    life = Life((verb, "other", when))
    try:
        await world.run(life)
    except (Died, TwoPhaseError):
        assert value is OLD
    assert life.dead
    await world.recover()
    assert await world.values() == (value, value)
    await world.assert_at_rest()


@pytest.mark.promise("data-2pc-crash-table")
async def test_it_fails_before_its_commit(world, monkeypatch):
    def failing(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(sqlitelastresource, "_decide", failing)
    with pytest.raises(TwoPhaseError, match="has aborted it"):
        await world.run()
    assert await world.values() == (OLD, OLD)
    monkeypatch.undo()
    await world.assert_at_rest()


@pytest.mark.promise("data-2pc-crash-table")
async def test_the_answer_of_its_commit_is_lost(world, monkeypatch):
    commit_with = SqliteLastResource.commit_with

    async def lost(self: SqliteLastResource, gid: str, proposal: Proposal) -> Any:
        await commit_with(self, gid, proposal)
        raise sqlite3.OperationalError("the answer is lost")

    monkeypatch.setattr(SqliteLastResource, "commit_with", lost)
    await world.run()
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


@pytest.mark.promise("data-2pc-fencing")
async def test_recovery_has_aborted_before_its_commit(world, monkeypatch):
    commit_with = SqliteLastResource.commit_with

    async def late(self: SqliteLastResource, gid: str, proposal: Proposal) -> Any:
        branch = self._branches[gid]
        assert branch._connection is not None
        branch._connection.execute("ROLLBACK TO work")  # as if it had not begun to write
        branch._connection.execute("COMMIT")
        assert (await world.recover()).aborted == (gid,)
        branch._connection.execute("BEGIN IMMEDIATE")
        branch._connection.set_authorizer(None)
        branch._connection.execute(UPDATE, (NEW,))
        return await commit_with(self, gid, proposal)

    monkeypatch.setattr(SqliteLastResource, "commit_with", late)
    with pytest.raises(TwoPhaseError, match="recovery"):
        await world.run()
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


async def test_nothing_is_promised(last):
    branch = last.branch("g")
    await branch.execute("SELECT * FROM things")
    assert await last.prepare("g") is Vote.READ_ONLY
    assert not await last.rollback("g")
    await last.branch("g").execute(UPDATE, (NEW,))
    assert await last.prepare("g") is Vote.YES
    assert await last.in_doubt() == ()
    assert not await last.commit("g")
    record = await last.commit_with("g", proposed("g"))
    assert record.decision is Decision.COMMIT
    assert await last.outcome("g") is Fate.COMMITTED
    await last.forget(["g"])
    assert await last.outcome("other") is Fate.UNKNOWN


async def test_a_decision_that_is_there_is_obeyed(last, world):
    await world.log().decide(proposed("g", Decision.ABORT))
    await last.branch("g").execute(UPDATE, (NEW,))
    assert (await last.commit_with("g", proposed("g"))).decision is Decision.ABORT
    assert await last.outcome("g") is Fate.UNKNOWN
    assert await world.place.read() == OLD


async def test_alone_it_needs_no_decision(last, world):
    transfers = TwoPhaseCommit(world.log(), [last])
    async with transfers.transaction() as tx:
        await tx[last].execute(UPDATE, (NEW,))
    assert await transfers.outcome(tx.gid) is None
    assert await world.place.read() == NEW
    with pytest.raises(LookupError):
        async with transfers.transaction() as tx:
            await tx[last].execute(UPDATE, (OLD,))
            raise LookupError
    assert await world.place.read() == NEW
    assert await transfers.recover_once() == RecoveryReport()


async def test_the_file_is_free_when_it_is_over(last, world):
    await last.branch("g").execute(UPDATE, (NEW,))
    await last.rollback("g")
    with closing(sqlite3.connect(world.place.path, timeout=0)) as connection, connection:
        assert connection.execute(UPDATE, (NEW,)).rowcount == 1


def test_bad_input_is_refused(tmp_path):
    log: Any = MemoryLog()
    place = LastPlace(str(tmp_path / "a.db"))
    with pytest.raises(TypeError, match="a SqliteLog"):
        SqliteLastResource("a", log)
    with pytest.raises(ValueError, match="name"):
        SqliteLastResource("no name", place.log)
    assert repr(place.open()).startswith("SqliteLastResource('last', SqliteLog(")
