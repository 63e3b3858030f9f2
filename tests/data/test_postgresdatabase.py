"""A database of PostgreSQL: few connections, none used again that has failed, no password told."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import psycopg
import pytest

from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.data import postgresdatabase
from aiopatterns.data.postgresdatabase import PostgresDatabase

WHO = "SELECT pg_backend_pid()"


@pytest.mark.real
async def test_as_many_connections_as_allowed(postgres_dsn):
    seen: set[int] = set()
    async with PostgresDatabase(postgres_dsn, connections=2) as database:

        async def ask() -> None:
            seen.add((await database.run(WHO)).rows[0][0])

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)
    assert len(seen) == 2


@pytest.mark.real
async def test_a_connection_that_was_lost_is_made_anew(postgres_dsn):
    async with PostgresDatabase(postgres_dsn) as database:
        process = (await database.run(WHO)).rows[0][0]
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
        with pytest.raises(BackendUnavailableError):
            await database.run(WHO)
        assert (await database.run(WHO)).rows[0][0] != process


@pytest.mark.real
async def test_an_answer_that_takes_too_long_is_not_waited_for(postgres_dsn, monkeypatch):
    monkeypatch.setattr(postgresdatabase, "ANSWERED_WITHIN", 0.1)
    async with PostgresDatabase(postgres_dsn) as database:
        with pytest.raises(BackendUnavailableError, match="has not answered within"):
            await database.run("SELECT pg_sleep(2)")


@pytest.mark.real
async def test_a_transaction_of_a_host_that_is_gone_holds_its_locks_no_longer(postgres_dsn):
    async def work(link: Any) -> Any:
        return (await link.run("SHOW idle_in_transaction_session_timeout")).rows

    async with PostgresDatabase(postgres_dsn) as database:
        assert await database.transact(work) == [("10s",)]
        assert (await database.run("SHOW idle_in_transaction_session_timeout")).rows == [("0",)]


@pytest.mark.real
async def test_a_server_that_may_lose_commits_is_refused(postgres_dsn):
    dsn = f"{postgres_dsn}&options=-csynchronous_commit%3Doff"
    with pytest.raises(BackendError, match="synchronous_commit = off"):
        await PostgresDatabase(dsn).run(WHO)


@pytest.mark.real
async def test_a_statement_that_is_wrong_is_refused(postgres_dsn):
    async with PostgresDatabase(postgres_dsn) as database:
        with pytest.raises(BackendError, match="nothing_here"):
            await database.run("SELECT * FROM nothing_here")


@pytest.mark.real
async def test_a_server_that_is_not_there_is_unavailable(unused_tcp_port):
    dsn = f"postgresql://me@127.0.0.1:{unused_tcp_port}/none?connect_timeout=2"
    with pytest.raises(BackendUnavailableError):
        await PostgresDatabase(dsn).run(WHO)


@pytest.mark.real
async def test_one_who_is_cancelled_waits_for_what_has_begun(postgres_dsn):
    async with PostgresDatabase(postgres_dsn) as database:
        await database.run("CREATE TABLE notes (n int)")
        writing = asyncio.ensure_future(database.run("INSERT INTO notes VALUES (1)"))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert (await database.run("SELECT count(*) FROM notes")).rows == [(1,)]


def test_without_psycopg_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(postgresdatabase, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"aiopatterns\[postgres\]"):
        PostgresDatabase("postgresql://here/there")


def test_bad_input_is_refused():
    unfit: Any = 7
    with pytest.raises(ValueError, match="dsn"):
        PostgresDatabase("no dsn")
    with pytest.raises(TypeError, match="dsn"):
        PostgresDatabase(unfit)
    with pytest.raises(ValueError, match="connections"):
        PostgresDatabase("postgresql://here/there", connections=0)
