"""Sagas in a database: its table, its name, and several who share it."""

from __future__ import annotations

import sqlite3
from typing import Any

import anyio
import psycopg
import pytest

from aiopatterns.data.sagasql import SAGA_TABLE, PostgresSagaStore, SqliteSagaStore
from tests.data.sagaplaces import filed


@pytest.mark.real
async def test_several_stores_share_a_file_and_create_its_table_at_once(tmp_path):
    stores = [SqliteSagaStore(tmp_path / "sagas.db") for _ in range(4)]
    made: list[bool] = []

    async def create(store: Any, owner: str) -> None:
        made.append(await store.create(filed(owner=owner), lease=10))

    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(create, store, str(number))
    assert sorted(made) == [False, False, False, True]
    for store in stores:
        await store.aclose()


@pytest.mark.real
async def test_several_stores_share_a_postgresql_and_create_its_table_at_once(postgres_dsn):
    stores = [PostgresSagaStore(postgres_dsn) for _ in range(4)]
    made: list[bool] = []

    async def create(store: Any, owner: str) -> None:
        async with store:
            made.append(await store.create(filed(owner=owner), lease=10))

    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(create, store, str(number))
    assert sorted(made) == [False, False, False, True]


async def test_a_table_may_have_another_name(tmp_path):
    path = tmp_path / "sagas.db"
    async with SqliteSagaStore(path, table="trips") as store:
        await store.create(filed(), lease=10)
    with sqlite3.connect(path) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert {"trips", "trips_due"} <= names
    assert SAGA_TABLE not in names


@pytest.mark.real
async def test_a_table_may_be_in_a_schema(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA travel")
    async with PostgresSagaStore(postgres_dsn, table="travel.trips") as store:
        assert await store.create(filed(), lease=10)
        assert await store.read("trip", "1") == filed()


async def test_what_was_closed_is_opened_again(tmp_path):
    store = SqliteSagaStore(tmp_path / "sagas.db")
    async with store:
        await store.create(filed(), lease=10)
    assert await store.read("trip", "1") == filed()
    await store.aclose()


def test_it_shows_where_it_is_and_refuses_bad_input(tmp_path):
    assert repr(SqliteSagaStore("a.db")) == "SqliteSagaStore('a.db')"
    store = PostgresSagaStore("postgresql://me:secret@here/there")
    assert "secret" not in repr(store)
    with pytest.raises(ValueError, match="table"):
        SqliteSagaStore("a.db", table="a b")
    with pytest.raises(ValueError, match="keep"):
        SqliteSagaStore("a.db", keep=0)
    with pytest.raises(ValueError, match="dsn"):
        PostgresSagaStore("no dsn")
