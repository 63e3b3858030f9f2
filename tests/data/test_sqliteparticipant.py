"""A file of SQLite as a participant: intents, locks, guards and marks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from aiopatterns.core.errors import ConflictError
from aiopatterns.data import Fate, SqliteParticipant, Vote, sqlitebranch

SET = "UPDATE things SET value = ? WHERE id = 1"


@pytest.fixture
def path(tmp_path) -> str:
    path = str(tmp_path / "things.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, value TEXT)")
        connection.execute('CREATE TABLE "it\'s ""odd""" (id INTEGER PRIMARY KEY)')
        connection.execute("INSERT INTO things VALUES (1, 'old')")
    return path


@pytest.fixture
def a(path) -> SqliteParticipant:
    return SqliteParticipant("a", path)


def value(path: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT value FROM things").fetchone()[0]


async def test_a_promise_outlives_its_process(a, path):
    await a.branch("g").execute(SET, ("new",))
    assert await a.prepare("g") is Vote.YES
    assert value(path) == "old"
    other = SqliteParticipant("a", path)
    ((gid, age),) = await other.in_doubt()
    assert gid == "g"
    assert age > -1
    assert await SqliteParticipant("b", path).in_doubt() == []
    assert await other.outcome("g") is Fate.PREPARED
    assert await other.commit("g")
    assert value(path) == "new"
    assert not await other.commit("g")
    assert await other.outcome("g") is Fate.COMMITTED
    await other.forget(["g"])
    assert await other.outcome("g") is Fate.UNKNOWN


async def test_a_promise_is_rolled_back(a, path):
    await a.branch("g").execute(SET, ("new",))
    assert await a.prepare("g") is Vote.YES
    assert await a.rollback("g")
    assert not await a.rollback("g")
    assert await a.in_doubt() == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SET, ("free",))
    assert value(path) == "free"


async def test_work_without_a_promise_is_rolled_back_or_committed_alone(a, path):
    await a.branch("g").execute(SET, ("new",))
    assert await a.rollback("g")
    assert value(path) == "old"
    await a.branch("g").execute(SET, ("new",))
    assert await a.commit_alone("g")
    assert value(path) == "new"


async def test_reading_alone_is_no_promise(a):
    answer = await a.branch("g").execute("SELECT value FROM things")
    assert answer.rows == [("old",)]
    assert await a.prepare("g") is Vote.READ_ONLY
    a.branch("g")
    assert await a.prepare("g") is Vote.READ_ONLY


async def test_nobody_writes_a_table_in_doubt(a, path):
    await a.branch("g").execute(SET, ("new",))
    await a.prepare("g")
    with closing(sqlite3.connect(path)) as connection:
        for statement in (SET.replace("?", "1"), "INSERT INTO things VALUES (2, '')"):
            with pytest.raises(sqlite3.IntegrityError, match="part of a transaction in doubt"):
                connection.execute(statement)
        with pytest.raises(sqlite3.IntegrityError, match="in doubt"):
            connection.execute("DELETE FROM things")
        connection.rollback()
        connection.execute('INSERT INTO "it\'s ""odd""" VALUES (1)')
        connection.commit()
    assert await a.commit("g")
    assert value(path) == "new"


async def test_names_that_have_to_be_quoted(a, path):
    await a.branch("g").execute('INSERT INTO "it\'s ""odd""" VALUES (1)')
    assert await a.prepare("g") is Vote.YES
    assert await a.commit("g")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute('SELECT * FROM "it\'s ""odd"""').fetchall() == [(1,)]


async def test_two_in_doubt_about_one_table_cannot_be(a, path, monkeypatch):
    monkeypatch.setattr(sqlitebranch, "LOCKED_WITHIN", 0.02)
    await a.branch("g").execute('INSERT INTO "it\'s ""odd""" VALUES (1)')
    await a.prepare("g")
    other = SqliteParticipant("b", path)
    branch = other.branch("h")
    # It waits in vain, and then reads what is in doubt beside writing what is not.
    await branch.execute('INSERT INTO things SELECT 7, count(*) FROM "it\'s ""odd"""')
    with pytest.raises(ConflictError, match="is in doubt"):
        await other.prepare("h")
    assert await a.rollback("g")


async def test_tables_of_sqlite_itself_are_not_guarded(a, path):
    await a.branch("g").execute("INSERT INTO things SELECT 9, count(*) FROM sqlite_master")
    assert await a.prepare("g") is Vote.YES
    assert await a.commit("g")


async def test_a_file_of_others_is_made_ready_by_the_first_statement(a, path):
    await a.branch("g").execute(SET, ("new",))
    await a.commit_alone("g")
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'aiop%s'")
        assert {name for (name,) in found} == {
            "aiopatterns_intents",
            "aiopatterns_locks",
            "aiopatterns_marks",
        }


def test_bad_input_is_refused(tmp_path):
    unfit: Any = 7
    with pytest.raises(ValueError, match="survives nothing"):
        SqliteParticipant("a", ":memory:")
    with pytest.raises(ValueError, match="path"):
        SqliteParticipant("a", "")
    with pytest.raises(TypeError, match="path"):
        SqliteParticipant("a", unfit)
    with pytest.raises(ValueError, match="name"):
        SqliteParticipant("no name", tmp_path / "a.db")
    path = tmp_path / "a.db"
    assert repr(SqliteParticipant("a", path)) == f"SqliteParticipant('a', {str(path)!r})"
