"""A database of PostgreSQL as a participant: promises, marks, and a server that is away."""

from __future__ import annotations

from typing import Any

import anyio
import psycopg
import pytest
from anyio.lowlevel import checkpoint

from aiopatterns.core.errors import BackendError, BackendUnavailableError, HeuristicOutcomeError
from aiopatterns.data import (
    Fate,
    HeuristicFound,
    MemoryParticipant,
    PostgresParticipant,
    SqliteLog,
    TwoPhaseCommit,
    Vote,
    postgresparticipant,
)
from aiopatterns.testing import PostgresServer, capture_events
from tests.data.twophaseplaces import NEW, OLD, place_of

pytestmark = pytest.mark.real

UPDATE = "UPDATE things SET value = %s WHERE id = 1"


@pytest.fixture
def place(request) -> Any:
    return place_of(request, "postgres")


async def test_a_promise_belongs_to_nobody(place):
    async with place.open() as a, place.open() as other:
        await a.branch("g").execute(UPDATE, (NEW,))
        assert await a.prepare("g") is Vote.YES
        assert await place.read() == OLD
        ((gid, age),) = await other.in_doubt()
        assert gid == "g"
        assert age >= 0
        assert await other.outcome("g") is Fate.PREPARED
        assert await other.commit("g")
        assert not await a.commit("g")
        assert await a.outcome("g") is Fate.COMMITTED
        await other.forget(["g"])
        assert await a.outcome("g") is Fate.UNKNOWN
    assert await place.read() == NEW


async def test_a_promise_is_rolled_back(place):
    async with place.open() as a:
        await a.branch("g").execute(UPDATE, (NEW,))
        assert await a.prepare("g") is Vote.YES
        assert await a.rollback("g")
        assert not await a.rollback("g")
        assert await a.in_doubt() == []
        a.branch("h")
        assert await a.rollback("h"), "nothing was done"
    assert await place.read() == OLD


async def test_promises_of_other_names_are_not_ours(place):
    async with place.open() as a, PostgresParticipant("another", place.dsn) as another:
        await a.branch("g").execute(UPDATE, (NEW,))
        await a.prepare("g")
        assert await another.in_doubt() == []
        assert await another.outcome("g") is Fate.UNKNOWN
        assert not await another.commit("g")
        assert await a.rollback("g")


@pytest.mark.promise("data-2pc-heuristic")
async def test_a_promise_rolled_back_by_a_hand_in_psql_is_reported(place, tmp_path):
    other = MemoryParticipant("other")
    log = SqliteLog(tmp_path / "log.db")
    async with log, place.open() as a:

        class ByHand:
            """The hand is quicker than the coordinator, behind the last vote."""

            def __getattr__(self, verb: str) -> Any:
                return getattr(log, verb)

            async def decide(self, proposal: Any) -> Any:
                record = await log.decide(proposal)
                await place.lose(proposal.gid)
                return record

        transfers = TwoPhaseCommit(_as_any(ByHand()), [a, other])
        with capture_events() as events:
            with pytest.raises(HeuristicOutcomeError, match="rolled back by") as caught:
                async with transfers.transaction() as tx:
                    await tx[a].execute(UPDATE, (NEW,))
                    await tx[other].execute("x", NEW)
        assert caught.value.gid == tx.gid
        assert HeuristicFound(tx.gid, "commit", (place.name,)) in events
        recoverer = TwoPhaseCommit(log, [a, other])
        assert (await recoverer.recover_once()).heuristic == (tx.gid,)
        assert (await recoverer.recover_once()).heuristic == (tx.gid,), "until it is mended"
        with psycopg.connect(place.dsn, autocommit=True) as person:
            person.execute(UPDATE, (NEW,))
        await recoverer.resolve(tx.gid)
        assert (await recoverer.recover_once()).heuristic == ()
    assert await place.read() == other.get("x") == NEW


def _as_any(value: object) -> Any:
    return value


def test_a_server_that_allows_no_promises_is_refused():
    async def refused(dsn: str) -> None:
        async with PostgresParticipant("a", dsn) as a:
            await a.branch("g").execute("CREATE TABLE t (id INT)")
            with pytest.raises(BackendError, match="max_prepared_transactions"):
                await a.prepare("g")
            await a.rollback("g")

    with PostgresServer(config={"max_prepared_transactions": "0"}) as server:
        anyio.run(refused, server.dsn)


async def test_tables_may_be_made_by_hand(place):
    async with place.open() as a:
        await a.create_tables()
        await a.create_tables()
        with psycopg.connect(place.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT count(*) FROM aiopatterns_marks").fetchone()
    assert row == (0,)


async def test_tables_are_made_once_where_many_begin(place):
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(place.open().create_tables)


async def test_a_server_that_does_not_answer_is_unavailable(place, monkeypatch):
    monkeypatch.setattr(postgresparticipant, "ANSWERED_WITHIN", 0.05)
    async with place.open() as a:
        blocked = a.branch("g")
        await blocked.execute(UPDATE, (NEW,))

        async def never(*_: Any) -> Any:
            await anyio.sleep(60)

        with monkeypatch.context() as patch:
            patch.setattr(PostgresParticipant, "_in_doubt", never)
            with pytest.raises(BackendUnavailableError, match="has not answered within"):
                await a.in_doubt()
        assert await a.rollback("g")


async def test_a_caller_that_is_cancelled_leaves_no_promise_of_its_own_by_halves(place):
    async with place.open() as a:
        await a.branch("g").execute(UPDATE, (NEW,))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await a.prepare("g")
            await checkpoint()
        assert scope.cancelled_caught
        assert [each.gid for each in await a.in_doubt()] == ["g"], "it has ended, in full"
        assert await a.rollback("g")


def test_bad_input_is_refused():
    unfit: Any = 7
    with pytest.raises(ValueError, match="name"):
        PostgresParticipant("no name", "host=here")
    with pytest.raises(TypeError, match="dsn"):
        PostgresParticipant("a", unfit)
    assert repr(PostgresParticipant("a", "host=here password=secret")) == "PostgresParticipant('a')"
