"""A file of SQLite: durable, shared, and clear about what is wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.data import sqlitedatabase
from aiopatterns.data.sqlitedatabase import SqliteDatabase

TABLE = "CREATE TABLE notes (id INTEGER PRIMARY KEY)"


async def test_every_commit_is_synced(tmp_path):
    async with SqliteDatabase(tmp_path / "a.db") as database:
        assert (await database.run("PRAGMA synchronous")).rows == [(2,)]
        assert (await database.run("PRAGMA journal_mode")).rows == [("wal",)]


async def test_many_write_at_once(tmp_path):
    async with SqliteDatabase(tmp_path / "a.db") as database:
        await database.run(TABLE)

        async def write(number: int) -> None:
            await database.run("INSERT INTO notes VALUES (:n)", n=number)

        async with anyio.create_task_group() as group:
            for number in range(32):
                group.start_soon(write, number)
        assert (await database.run("SELECT count(*) FROM notes")).rows == [(32,)]


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path):
    database = SqliteDatabase(tmp_path / "none" / "a.db")
    with pytest.raises(BackendUnavailableError, match="unable to open"):
        await database.run("SELECT 1")


async def test_a_file_that_is_none_of_sqlite_is_refused(tmp_path):
    path = tmp_path / "a.db"
    path.write_text("words " * 1_000)
    with pytest.raises(BackendError, match="not a database"):
        await SqliteDatabase(path).run("SELECT 1")


async def test_a_value_that_sqlite_cannot_hold_harms_no_other_statement(tmp_path):
    path = tmp_path / "a.db"
    async with SqliteDatabase(path) as database:
        await database.run(TABLE)
        ends: dict[int, str] = {}

        async def write(number: int) -> None:
            try:
                await database.run("INSERT INTO notes VALUES (:n)", n=number)
            except BackendError as error:
                ends[number] = str(error)

        with pytest.raises(BackendError, match="too large"):
            await database.run("INSERT INTO notes VALUES (:n)", n=2**70)
        async with anyio.create_task_group() as group:
            for number in (1, 2, 2**70, 3):
                group.start_soon(write, number)
        await database.run("INSERT INTO notes VALUES (4)")
        other = sqlite3.connect(path)
        assert other.execute("SELECT id FROM notes ORDER BY id").fetchall() == [
            (1,),
            (2,),
            (3,),
            (4,),
        ]
        other.close()
    assert list(ends) == [2**70]


async def test_a_statement_that_ends_the_transaction_of_all_fails_them_all(tmp_path):
    async with SqliteDatabase(tmp_path / "a.db") as database:
        await database.run(TABLE)
        failed: list[str] = []

        async def run(statement: str) -> None:
            try:
                await database.run(statement)
            except BackendError as error:
                failed.append(str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(run, "SELECT 1")  # keeps the thread, so that the others are gathered
            group.start_soon(run, "INSERT INTO notes VALUES (1)")
            group.start_soon(run, "INSERT OR ROLLBACK INTO notes VALUES (1)")
        assert len(failed) in {1, 2, 3}
        await database.run("INSERT INTO notes VALUES (5)")


@pytest.mark.real
async def test_one_that_is_locked_for_too_long_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlitedatabase, "BUSY_WITHIN", 0.05)
    path = tmp_path / "a.db"
    async with SqliteDatabase(path) as database:
        await database.run(TABLE)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailableError, match="locked"):
            await database.run("INSERT INTO notes VALUES (1)")
        other.close()
        await database.run("INSERT INTO notes VALUES (1)")


@pytest.mark.real
async def test_a_file_that_another_one_is_writing_is_opened_when_that_has_ended(tmp_path):
    path = tmp_path / "a.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute(TABLE)
    other.execute("BEGIN EXCLUSIVE")

    async def end() -> None:
        await sleep(0.1)
        other.execute("COMMIT")
        other.close()

    async with SqliteDatabase(path) as database, anyio.create_task_group() as group:
        group.start_soon(end)
        await database.run("INSERT INTO notes VALUES (1)")
        assert (await database.run("PRAGMA journal_mode")).rows == [("wal",)]


def test_a_file_that_nobody_may_write_is_no_place_for_a_log(tmp_path):
    sqlite3.connect(tmp_path / "a.db").executescript(TABLE).connection.close()
    reader = sqlite3.connect(f"file:{tmp_path / 'a.db'}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        sqlitedatabase._use_log(reader)
    reader.close()


async def test_the_mode_is_asked_for_once_more_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlitedatabase, "_RIVALS", 0)
    async with SqliteDatabase(tmp_path / "a.db") as database:
        assert (await database.run("PRAGMA journal_mode")).rows == [("wal",)]


@pytest.mark.real
async def test_one_who_is_cancelled_waits_for_what_has_begun(tmp_path):
    path = tmp_path / "a.db"
    async with SqliteDatabase(path) as database:
        await database.run(TABLE)
        writing = asyncio.ensure_future(database.run("INSERT INTO notes VALUES (1)"))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert (await database.run("SELECT count(*) FROM notes")).rows == [(1,)]


def test_bad_input_is_refused():
    unfit: Any = 7
    with pytest.raises(ValueError, match="survives nothing"):
        SqliteDatabase(":memory:")
    with pytest.raises(ValueError, match="path"):
        SqliteDatabase("")
    with pytest.raises(TypeError, match="path"):
        SqliteDatabase(unfit)


@pytest.mark.real  # who waits for the file waits in a thread
async def test_a_transaction_has_the_file_to_itself(tmp_path):
    database, other = SqliteDatabase(tmp_path / "a.db"), SqliteDatabase(tmp_path / "a.db")
    await database.run(TABLE)

    async def add(link: Any) -> None:
        found = (await link.run("SELECT count(*) FROM notes")).rows[0][0]
        await link.run("INSERT INTO notes VALUES (:n)", n=found)

    async with anyio.create_task_group() as group:
        for each in (database, other, database, other):
            group.start_soon(each.transact, add)
    assert (await database.run("SELECT id FROM notes ORDER BY id")).rows == [(0,), (1,), (2,), (3,)]
    await database.aclose()
    await other.aclose()


async def test_a_transaction_on_a_file_that_cannot_be_opened_is_unavailable(tmp_path):
    async def work(link: Any) -> None:
        raise AssertionError(link)

    database = SqliteDatabase(tmp_path / "none" / "a.db")
    with pytest.raises(BackendUnavailableError, match="unable to open"):
        await database.transact(work)
