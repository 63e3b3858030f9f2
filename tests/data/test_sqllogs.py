"""Logs in SQL: one flush for many, damage is seen, a disk that has failed stops everything."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import anyio
import psycopg
import pytest

from aiopatterns.core.errors import BackendError
from aiopatterns.data import Decision, PostgresLog, Proposal, SqliteLog, sqllogs
from aiopatterns.data.sqlitedatabase import SqliteDatabase


def commit(gid: str) -> Proposal:
    return Proposal(gid, Decision.COMMIT)


def rows(path: Any, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def change(path: Any, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


async def test_decisions_of_the_same_moment_share_a_flush(tmp_path, monkeypatch):
    flushes: list[int] = []
    write = SqliteDatabase._write

    def counted(self: Any, orders: Any) -> Any:
        flushes.append(len(orders))
        return write(self, orders)

    monkeypatch.setattr(SqliteDatabase, "_write", counted)
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.identity()
        flushes.clear()
        async with anyio.create_task_group() as group:
            for number in range(32):
                group.start_soon(log.decide, commit(str(number)))
        assert sum(flushes) == 32
        assert len(flushes) <= 8


async def test_decisions_outlive_their_process(tmp_path):
    path = tmp_path / "log.db"
    async with SqliteLog(path) as log:
        identity = await log.identity()
        record = await log.decide(commit("g"))
        assert log.path == str(path)
        assert repr(log) == f"SqliteLog({str(path)!r})"
    async with SqliteLog(path) as another:
        assert await another.identity() == identity
        assert await another.read("g") == record


async def test_ends_are_gathered_and_written_when_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(sqllogs, "MAX_ENDS", 3)
    path = tmp_path / "log.db"
    ended = "SELECT count(*) FROM aiopatterns_decisions WHERE ended_at IS NOT NULL"
    async with SqliteLog(path) as log:
        for gid in "abcd":
            await log.decide(commit(gid))
        await log.end("a")
        await log.end("b")
        assert rows(path, ended) == [(0,)]
        await log.end("c")
        assert rows(path, ended) == [(3,)]
        await log.end("d")
    assert rows(path, ended) == [(4,)], "closing writes what was gathered"


async def test_ends_that_could_not_be_written_are_kept(tmp_path):
    path = tmp_path / "log.db"
    async with SqliteLog(path) as log:
        await log.decide(commit("a"))
        await log.end("a")
        change(path, "ALTER TABLE aiopatterns_decisions RENAME TO elsewhere")
        with pytest.raises(BackendError, match="no such table"):
            await log.flush()
        change(path, "ALTER TABLE elsewhere RENAME TO aiopatterns_decisions")
        assert await log.settled() == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        "decision = 'abort'",
        "body = substr(body, 1, 5)",
        "checked = checked + 1",
        "acked = 'no json'",
        "acked = '[]'",
    ],
)
async def test_a_record_that_is_damaged_is_no_decision(tmp_path, damage):
    path = tmp_path / "log.db"
    async with SqliteLog(path) as log:
        await log.decide(commit("g"))
        change(path, f"UPDATE aiopatterns_decisions SET {damage}")
        with pytest.raises(BackendError, match="the decision about g is damaged"):
            await log.read("g")


async def test_a_disk_that_has_failed_stops_it_for_good(tmp_path, monkeypatch):
    log = SqliteLog(tmp_path / "log.db")
    await log.identity()

    async def failing(*_: Any, **__: Any) -> Any:
        cause = sqlite3.OperationalError("disk I/O error")
        cause.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise BackendError("disk I/O error") from cause

    with monkeypatch.context() as patch:
        patch.setattr(SqliteDatabase, "run", failing)
        with pytest.raises(BackendError, match="disk I/O error"):
            await log.decide(commit("g"))
    with pytest.raises(BackendError, match="nobody knows what is on it"):
        await log.read("g")
    await log.aclose()


async def test_a_table_of_another_name(tmp_path):
    path = tmp_path / "log.db"
    async with SqliteLog(path, table="mine") as log:
        await log.decide(commit("g"))
    tables = rows(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    assert tables == [("mine",), ("mine_names",)]


async def test_an_insertion_for_a_transaction_of_somebody_else(tmp_path):
    path = tmp_path / "log.db"
    async with SqliteLog(path) as log:
        await log.identity()
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute(*log.insertion(commit("g"))).rowcount == 1
            assert connection.execute(*log.insertion(commit("g"))).rowcount == 0
        record = await log.read("g")
        assert record is not None
        assert record.decision is Decision.COMMIT


@pytest.mark.real
async def test_coordinators_on_several_machines_share_a_table(postgres_dsn):
    async with PostgresLog(postgres_dsn) as one, PostgresLog(postgres_dsn) as two:
        identities: set[str] = set()

        async def identify(log: PostgresLog) -> None:
            identities.add(await log.identity())

        async with anyio.create_task_group() as group:
            group.start_soon(identify, one)
            group.start_soon(identify, two)
        assert len(identities) == 1
        decided = [
            (await log.decide(Proposal("g", decision))).decision
            for log, decision in ((one, Decision.ABORT), (two, Decision.COMMIT))
        ]
        assert decided == [Decision.ABORT, Decision.ABORT]


@pytest.mark.real
async def test_it_may_be_in_a_schema(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
    async with PostgresLog(postgres_dsn, table="other.decisions") as log:
        await log.decide(commit("g"))
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM other.decisions_names").fetchone()
    assert row == (1,)


def test_bad_input_is_refused(tmp_path):
    unfit: Any = 7
    with pytest.raises(TypeError, match="table"):
        SqliteLog(tmp_path / "a.db", table=unfit)
    with pytest.raises(ValueError, match="table"):
        SqliteLog(tmp_path / "a.db", table="no name")
    with pytest.raises(ValueError, match="table"):
        SqliteLog(tmp_path / "a.db", table="")
    with pytest.raises(ValueError, match="path"):
        SqliteLog(":memory:")
    with pytest.raises(TypeError, match="dsn"):
        PostgresLog(unfit)
