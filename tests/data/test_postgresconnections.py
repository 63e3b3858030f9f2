"""Connections of PostgreSQL: kept, used again, and never one that has failed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.data import postgresconnections
from aiopatterns.data.postgresconnections import PostgresConnections

pytestmark = pytest.mark.real


@pytest.fixture
def kept(postgres_dsn) -> PostgresConnections:
    return PostgresConnections(postgres_dsn)


async def test_one_that_is_given_back_is_used_again(kept):
    async with kept.borrow() as first:
        assert kept.idle == 0
    assert kept.idle == 1
    async with kept.borrow() as second:
        assert second is first
    kept.close()
    assert kept.idle == 0
    assert first.closed


async def test_one_whose_block_has_failed_is_closed(kept):
    with pytest.raises(LookupError):
        async with kept.borrow() as connection:
            raise LookupError
    assert connection.closed
    assert kept.idle == 0


async def test_one_in_the_middle_of_something_is_closed(kept):
    connection = await kept.take()
    await connection.execute("BEGIN")
    kept.give(connection)
    assert connection.closed
    assert kept.idle == 0


async def test_only_so_many_are_kept(kept, monkeypatch):
    monkeypatch.setattr(postgresconnections, "MAX_IDLE", 1)
    one, two = await kept.take(), await kept.take()
    kept.give(one)
    kept.give(two)
    assert two.closed
    assert kept.idle == 1
    kept.close()


async def test_one_that_the_server_has_closed_is_not_given_out(kept, postgres_dsn):
    async with kept.borrow() as first:
        pid = first.info.backend_pid
    with psycopg.connect(postgres_dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    async with kept.borrow() as second:
        assert second is not first
    second.pgconn.finish()  # closed here, and seen before it is given out
    async with kept.borrow() as third:
        assert third is not second
    kept.close()


async def test_nobody_is_there(unused_tcp_port):
    away = PostgresConnections(f"postgresql://me@127.0.0.1:{unused_tcp_port}/none")
    with pytest.raises(BackendUnavailableError, match="cannot be reached"):
        await away.take()


async def test_nobody_answers(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(postgresconnections, "CONNECT_WITHIN", 0.0)
    with pytest.raises(BackendUnavailableError, match="no answer within 0 s"):
        await kept.take()


def test_bad_input_is_refused(monkeypatch):
    unfit: Any = 7
    with pytest.raises(TypeError, match="dsn"):
        PostgresConnections(unfit)
    with pytest.raises(ValueError, match="dsn"):
        PostgresConnections("")
    monkeypatch.setattr(postgresconnections, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"aiopatterns\[postgres\]"):
        PostgresConnections("host=here")
