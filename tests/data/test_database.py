"""Databases: single statements, by the same words in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.core.errors import BackendError
from aiopatterns.data.postgresdatabase import PostgresDatabase
from aiopatterns.data.sqlitedatabase import SqliteDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TABLE = "CREATE TABLE IF NOT EXISTS notes (id BIGINT PRIMARY KEY, words TEXT)"
WRITE = "INSERT INTO notes (id, words) VALUES (:id, :words)"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.real)])
async def database(request, tmp_path) -> AsyncIterator[Any]:
    made: Any
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "notes.db")
    else:
        made = PostgresDatabase(request.getfixturevalue("postgres_dsn"))
    async with made as found:
        await found.create(TABLE, "CREATE INDEX IF NOT EXISTS by_words ON notes (words)")
        yield found


async def test_a_statement_gives_rows_and_how_many_it_changed(database):
    assert (await database.run(WRITE, id=1, words="a")).changed == 1
    assert [*(await database.run("SELECT id, words FROM notes")).rows] == [(1, "a")]


async def test_creating_twice_is_no_error(database):
    await database.create(TABLE)


async def test_one_that_fails_leaves_the_others(database):
    errors: list[BackendError] = []

    async def write(number: int) -> None:
        try:
            await database.run(WRITE, id=number % 8, words="x")
        except BackendError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(write, number)
    assert len(errors) == 2
    assert (await database.run("SELECT count(*) FROM notes")).rows[0][0] == 8


async def test_it_is_opened_again_after_it_was_closed(database):
    await database.run(WRITE, id=1, words="a")
    await database.aclose()
    await database.aclose()
    assert len((await database.run("SELECT id FROM notes")).rows) == 1


async def test_who_is_cancelled_waits_for_the_answer(database):
    with anyio.CancelScope() as scope:
        scope.cancel()
        await database.run(WRITE, id=1, words="a")
    rows = (await database.run("SELECT id FROM notes")).rows
    assert len(rows) in {0, 1}
    assert type(database).__name__ in repr(database)
