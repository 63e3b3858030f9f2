"""Databases: statements and transactions, by the same words in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.core.errors import BackendError
from aiopatterns.data.postgresdatabase import PostgresDatabase
from aiopatterns.data.sqlitedatabase import SqliteDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.backends.sql import SqlLink

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


async def count(database: Any) -> int:
    return (await database.run("SELECT count(*) FROM notes")).rows[0][0]


async def test_a_transaction_happens_as_a_whole(database):
    async def work(link: SqlLink) -> int:
        await link.run(WRITE, id=1, words="a")
        await link.run_many(WRITE, [{"id": 2, "words": "b"}, {"id": 3, "words": "c"}])
        return (await link.run("SELECT count(*) FROM notes")).rows[0][0]

    assert await database.transact(work) == 3
    assert await count(database) == 3


async def test_a_transaction_that_fails_leaves_nothing(database):
    async def refused(link: SqlLink) -> None:
        await link.run(WRITE, id=1, words="a")
        await link.run_many(WRITE, [{"id": 2, "words": "b"}, {"id": 1, "words": "c"}])

    async def failing(link: SqlLink) -> None:
        await link.run(WRITE, id=1, words="a")
        raise LookupError("no")

    with pytest.raises(BackendError):
        await database.transact(refused)
    with pytest.raises(LookupError):
        await database.transact(failing)
    assert await count(database) == 0
    await database.run(WRITE, id=1, words="a")


async def test_transactions_and_statements_take_turns(database):
    async def add(link: SqlLink) -> None:
        found = (await link.run("SELECT count(*) FROM notes")).rows[0][0]
        await link.run(WRITE, id=100 + found, words="x")

    async def transact() -> None:
        await database.transact(add)

    async def write(number: int) -> None:
        await database.run(WRITE, id=number, words="y")

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(write, number)
            if database.dialect.name == "sqlite":
                group.start_soon(transact)
    assert await count(database) in {4, 8}


async def test_who_is_cancelled_waits_for_the_end_of_a_transaction(database):
    async def work(link: SqlLink) -> None:
        await link.run(WRITE, id=1, words="a")
        await link.run(WRITE, id=2, words="b")

    with anyio.CancelScope() as scope:
        scope.cancel()
        await database.transact(work)
    assert await count(database) in {0, 2}
