"""Work in PostgreSQL up to its promise; above all, that a YES is one."""

from __future__ import annotations

from typing import Any

import anyio
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from aiopatterns.core.errors import BackendError, OutcomeUnknownError, TwoPhaseError
from aiopatterns.data import Fate, MemoryLog, MemoryParticipant, TwoPhaseCommit, Vote
from aiopatterns.data.postgresbranch import PostgresBranch, quoted
from tests.data.twophaseplaces import NEW, OLD, PostgresPlace, place_of

pytestmark = pytest.mark.real

UPDATE = "UPDATE things SET value = %s WHERE id = 1"


@pytest.fixture
def place(request) -> Any:
    return place_of(request, "postgres")


def connection_of(branch: PostgresBranch) -> psycopg.AsyncConnection[Any]:
    assert branch._connection is not None
    return branch._connection


def killed(place: PostgresPlace, branch: PostgresBranch) -> None:
    """End the branch's process at the server."""
    pid = connection_of(branch).info.backend_pid
    with psycopg.connect(place.dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


async def test_statements_have_answers(place):
    async with place.open() as a:
        branch = a.branch("g")
        assert (await branch.execute(UPDATE, (NEW,))).changed == 1
        answer = await branch.execute("SELECT value FROM things WHERE id = %(id)s", {"id": 1})
        assert answer.rows == [(NEW,)]
        assert await a.rollback("g")
    assert await place.read() == OLD


@pytest.mark.promise("data-2pc-false-yes")
async def test_a_statement_that_has_failed_is_a_no(place):
    async with place.open() as a:
        branch = a.branch("g")
        await branch.execute(UPDATE, (NEW,))
        with pytest.raises(psycopg.Error, match="nothing_here"):
            await branch.execute("SELECT * FROM nothing_here")
        with pytest.raises(BackendError, match="INERROR"):
            await a.prepare("g")
        with pytest.raises(BackendError, match="INERROR"):
            await a.commit_alone("g")
        await a.rollback("g")


@pytest.mark.promise("data-2pc-false-yes")
async def test_a_prepare_that_is_answered_by_rollback_is_a_no(place, monkeypatch):
    """The trap: PREPARE in a failed transaction is no error, and drivers take it for success."""
    other = MemoryParticipant("other")
    async with place.open() as a:
        transfers = TwoPhaseCommit(MemoryLog(), [a, other])
        run = psycopg.AsyncConnection.execute
        tags: list[str | None] = []

        async def spoilt(self: Any, query: Any, *args: Any, **more: Any) -> Any:
            prepares = isinstance(query, bytes) and query.startswith(b"PREPARE")
            if prepares:  # what the guards before it have not seen
                with pytest.raises(psycopg.Error):
                    await run(self, "SELECT * FROM nothing_here")
                assert self.info.transaction_status == TransactionStatus.INERROR
            done = await run(self, query, *args, **more)
            if prepares:
                tags.append(done.statusmessage)
            return done

        monkeypatch.setattr(psycopg.AsyncConnection, "execute", spoilt)
        with pytest.raises(TwoPhaseError, match="has rolled back instead: ROLLBACK"):
            async with transfers.transaction() as tx:
                await tx[a].execute(UPDATE, (NEW,))
                await tx[other].execute("x", NEW)
        assert tags == ["ROLLBACK"], "no error was raised by the server"
    assert await place.read() == OLD
    assert other.get("x") is None


@pytest.mark.promise("data-2pc-false-yes")
async def test_a_statement_that_ends_the_transaction_is_a_no(place):
    async with place.open() as a:
        await a.branch("g").execute("ROLLBACK")
        with pytest.raises(BackendError, match="is IDLE"):
            await a.prepare("g")
        await a.rollback("g")


async def test_what_cannot_be_promised_is_a_no(place):
    async with place.open() as a:
        await a.branch("g").execute("CREATE TEMP TABLE mine (id INT)")
        with pytest.raises(psycopg.NotSupportedError):
            await a.prepare("g")
        assert not await a.rollback("g")


async def test_a_deferred_constraint_is_a_vote(place):
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE late (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED, n SERIAL)"
        )
    async with place.open() as a:
        for gid in "gh":
            branch = a.branch(gid)
            await branch.execute("INSERT INTO late (id) VALUES (1), (1)")
        with pytest.raises(psycopg.IntegrityError):
            await a.prepare("g")
        await a.rollback("g")
        with pytest.raises(psycopg.IntegrityError):
            await a.commit_alone("h")
        await a.rollback("h")


async def test_what_has_changed_nothing_is_not_promised(place):
    async with place.open() as a:
        await a.branch("g").execute("SELECT 1")
        assert await a.prepare("g") is Vote.READ_ONLY
        a.branch("h")
        assert await a.prepare("h") is Vote.READ_ONLY
        a.branch("i")
        assert await a.commit_alone("i")


async def test_alone_it_commits_in_one_phase(place):
    async with place.open() as a:
        await a.branch("g").execute(UPDATE, (NEW,))
        assert await a.commit_alone("g")
        assert await a.outcome("g") is Fate.UNKNOWN, "there is no mark"
    assert await place.read() == NEW


@pytest.mark.parametrize("committed", [False, True])
async def test_the_server_is_asked_when_the_answer_of_a_commit_is_lost(
    place, committed, monkeypatch
):
    async with place.open() as a:
        branch = a.branch("g")
        await branch.execute(UPDATE, (NEW,))
        run = psycopg.AsyncConnection.execute

        async def lost(self: Any, query: Any, *args: Any, **more: Any) -> Any:
            if query == "COMMIT":
                monkeypatch.undo()
                if committed:
                    await run(self, query)
                killed(place, branch)
                query = "SELECT 1"
            return await run(self, query, *args, **more)

        monkeypatch.setattr(psycopg.AsyncConnection, "execute", lost)
        assert await a.commit_alone("g") is committed
    assert await place.read() == (NEW if committed else OLD)


async def test_nothing_written_is_nothing_lost(place, monkeypatch):
    async with place.open() as a:
        branch = a.branch("g")
        await branch.execute("SELECT 1")
        _lose_commit(place, branch, monkeypatch)
        assert await a.commit_alone("g")


async def test_nobody_can_be_asked(place, monkeypatch):
    async with place.open() as a:
        branch = a.branch("g")
        await branch.execute(UPDATE, (NEW,))
        _lose_commit(place, branch, monkeypatch)

        async def nobody(_: Any) -> Any:
            raise BackendError("nobody is there")

        monkeypatch.setattr(type(branch._connections), "take", nobody)
        with pytest.raises(OutcomeUnknownError, match="nobody knows whether") as caught:
            await a.commit_alone("g")
        assert caught.value.gid == "g"
        assert caught.value.__cause__ is not None
        assert "nobody is there" in str(caught.value.__cause__.__notes__)


def _lose_commit(place: PostgresPlace, branch: PostgresBranch, monkeypatch: Any) -> None:
    run = psycopg.AsyncConnection.execute

    async def lost(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        if query == "COMMIT":
            killed(place, branch)
        return await run(self, query, *args, **more)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", lost)


async def test_a_connection_that_is_lost_is_closed(place):
    async with place.open() as a:
        branch = a.branch("g")
        await branch.execute(UPDATE, (NEW,))
        connection = connection_of(branch)
        killed(place, branch)
        assert await a.rollback("g")
        assert connection.closed


async def test_a_statement_that_is_cancelled_spoils_only_its_transaction(place):
    async with place.open() as a:
        branch = a.branch("g")
        await branch.execute(UPDATE, (NEW,))
        connection = connection_of(branch)
        with anyio.move_on_after(0.05) as scope:
            await branch.execute("SELECT pg_sleep(5)")
        assert scope.cancelled_caught
        with pytest.raises(BackendError, match="INERROR"):
            await a.prepare("g")
        await a.rollback("g")
        assert not connection.closed, "it is used again"
    assert await place.read() == OLD


def test_names_are_quoted():
    assert quoted("a.b-c") == "'a.b-c'"
    with pytest.raises(AssertionError):
        quoted("a'b")
