from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import Any

import anyio
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import create_async_engine

from aiopatterns.backends.sql import link
from aiopatterns.testing import Trial, cancel_everywhere
from tests.backends.databases import KINDS, Database, commit, database_of, rollback

CREATE = "CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY, name TEXT)"
ADD = "INSERT INTO things (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING"
ALL = "SELECT id, name FROM things ORDER BY id"


@pytest.fixture(params=KINDS)
def database(request) -> Database:
    return database_of(request, request.param)


async def rows(database: Database) -> list[Any]:
    async with database.connect() as connection:
        return list((await link(connection).run(ALL)).rows)


@pytest.mark.real
async def test_rows_and_counts(database):
    async with database.connect() as connection:
        way = link(connection)
        await way.create(CREATE)
        assert (await way.run(ADD, id=1, name="one: 100 % {sure} 'quoted'")).changed == 1
        assert (await way.run(ADD, id=1, name="again")).changed == 0
        assert (await way.run(ADD, id=2, name="two")).changed == 1
        answer = await way.run(ALL)
        assert list(answer.rows) == [(1, "one: 100 % {sure} 'quoted'"), (2, "two")]
        assert all(type(each) is tuple for each in answer.rows)
        ids = way.dialect.worded("DELETE FROM things WHERE id {among}", "things")
        assert (await way.run(ids, many=way.dialect.many([1, 2, 3]))).changed == 2
        assert (await way.run(ALL)).rows == []


@pytest.mark.real
async def test_one_statement_with_many_values(database):
    async with database.connect() as connection:
        way = link(connection)
        await way.create(CREATE)
        await way.run_many(ADD, [{"id": number, "name": f"{number} %"} for number in (3, 1, 2)])
        assert way.in_transaction()
        await commit(connection)
    assert await rows(database) == [(1, "1 %"), (2, "2 %"), (3, "3 %")]


@pytest.mark.real
async def test_transactions_are_the_callers(database):
    async with database.connect() as connection:
        way = link(connection)
        assert not way.in_transaction()
        await way.create(CREATE)
        assert not way.in_transaction()
        await way.run(ADD, id=1, name="one")
        assert way.in_transaction()
        assert await way.has_written()
        await rollback(connection)
        assert not way.in_transaction()
        await way.run(ADD, id=2, name="two")
        await commit(connection)
        assert not way.in_transaction()
        await way.run(ADD, id=3, name="three")
        await way.commit()
        await way.run(ADD, id=4, name="four")
        await way.rollback()
        await way.commit()  # nothing is open: nothing happens
        await way.rollback()
    assert await rows(database) == [(2, "two"), (3, "three")]


@pytest.mark.real
async def test_creating_in_the_callers_transaction(database):
    async with database.connect() as connection:
        way = link(connection)
        await way.create(CREATE)
        await way.run(ADD, id=1, name="one")
        await way.create("CREATE TABLE IF NOT EXISTS others (id INTEGER)")
        assert way.in_transaction()
        await rollback(connection)
        assert (await way.run(ALL)).rows == []
        await rollback(connection)
        names = "SELECT count(*) FROM others"
        with pytest.raises(Exception, match="others"):
            await way.run(names)


@pytest.mark.real
async def test_creating_that_fails_leaves_the_connection_usable(database):
    async with database.connect() as connection:
        way = link(connection)
        await way.create(CREATE)
        with pytest.raises(Exception, match="nonsense"):
            await way.create("CREATE nonsense")
        assert not way.in_transaction()
        await way.run(ADD, id=1, name="one")
        await commit(connection)
    assert await rows(database) == [(1, "one")]


@pytest.mark.real
async def test_many_create_at_once(database):
    async def create() -> None:
        async with database.connect() as connection:
            await link(connection).create(CREATE)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(create)
    assert await rows(database) == []


@pytest.mark.real
async def test_a_read_is_no_write(database):
    async with database.connect() as connection:
        way = link(connection)
        await way.create(CREATE)
        await way.run(ALL)
        if way.in_transaction():
            assert not await way.has_written()


@pytest.mark.real
async def test_psycopg_that_commits_each_statement(postgres_dsn):
    connect = psycopg.AsyncConnection.connect
    async with await connect(postgres_dsn, autocommit=True, row_factory=dict_row) as connection:
        way = link(connection)
        await way.create(CREATE)
        await way.run(ADD, id=1, name="one")
        assert not way.in_transaction()
        await way.begin()
        assert way.in_transaction()
        assert not await way.has_written()
        await way.run(ADD, id=2, name="two")
        assert await way.has_written()
        await way.rollback()
        async with connection.transaction():
            await way.run(ADD, id=3, name="three")
        assert (await way.run(ALL)).rows == [(1, "one"), (3, "three")]
        assert connection.row_factory is dict_row


@pytest.mark.real
async def test_sqlalchemy_that_commits_each_statement(postgres_dsn):
    url = postgres_dsn.replace("postgresql:", "postgresql+psycopg:")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        way = link(connection)
        await way.create(CREATE)
        with pytest.raises(ValueError, match=r"^connection must have transactions"):
            await way.begin()
    await engine.dispose()


async def test_rows_of_sqlite_are_plain_whatever_the_connection_makes_of_them():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        assert (await link(connection).run("SELECT 1, 'a'")).rows == [(1, "a")]
        assert type(connection.execute("SELECT 1").fetchone()) is sqlite3.Row


@pytest.mark.real
async def test_sqlite_works_in_a_thread_where_it_may():
    places = set()

    def here() -> int:
        places.add(threading.current_thread())
        return 1

    for bound in (True, False):
        with closing(sqlite3.connect(":memory:", check_same_thread=bound)) as connection:
            connection.create_function("here", 0, here)
            assert (await link(connection).run("SELECT here()")).rows == [(1,)]
            assert (threading.current_thread() in places) is bound
            places.clear()


async def test_errors_of_the_driver_leave_as_they_are():
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await link(connection).run(ALL)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await link(connection).run(ALL)


@pytest.mark.real
async def test_a_statement_whose_task_is_cancelled_is_over_when_the_task_is():
    """Nothing may be written when the caller has rolled back already."""
    import asyncio

    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        started, go = threading.Event(), threading.Event()

        def wait() -> int:
            started.set()
            assert go.wait(10)
            return 1

        connection.create_function("wait", 0, wait)
        connection.execute("CREATE TABLE things (id INTEGER, name TEXT)")
        way = link(connection)
        await way.run("SELECT 1")
        task = asyncio.create_task(way.run("INSERT INTO things VALUES (wait(), 'x')"))
        while not started.is_set():
            await asyncio.sleep(0.001)
        threading.Timer(0.1, go.set).start()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert go.is_set()
        connection.rollback()
        assert connection.execute(ALL).fetchall() == []
        assert not connection.in_transaction


@pytest.mark.parametrize("bound", [True, False])
def test_cancellation_anywhere_runs_a_statement_whole_or_not_at_all(bound):
    def scenario() -> Trial:
        connection = sqlite3.connect(":memory:", check_same_thread=bound)
        done: list[int] = []

        async def work() -> None:
            way = link(connection)
            await way.create(CREATE)
            for each in range(3):
                await way.run(ADD, id=each, name="x")
                done.append(each)
            await way.commit()

        def check() -> None:
            connection.execute(CREATE)
            (stored,) = connection.execute("SELECT count(*) FROM things").fetchone()
            assert len(done) <= stored <= len(done) + 1
            connection.close()

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=1)


@pytest.mark.real
async def test_a_rollback_that_fails_hides_nothing(postgres_dsn):
    connection = await psycopg.AsyncConnection.connect(postgres_dsn)
    way = link(connection)
    await connection.close()
    with pytest.raises(psycopg.OperationalError, match="closed"):
        await way.create(CREATE)
    await way.abandon()


async def test_what_is_no_connection_is_refused():
    with closing(sqlite3.connect(":memory:")) as connection:
        wrong: Any
        for wrong in (None, "sqlite://", object(), connection.cursor()):
            with pytest.raises(TypeError, match=r"^connection must be an AsyncConnection or"):
                link(wrong)


async def test_other_databases_are_refused(tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'data.db'}")
    engine.dialect.name = "mysql"
    with pytest.raises(ValueError, match=r"^connection must be one to .* not to 'mysql'"):
        link(engine.connect())
