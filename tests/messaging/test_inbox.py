"""The inbox: one of all that ask for an id is told that it is the first, and commits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import anyio
import pytest

from aiopatterns.backends.sql import link
from aiopatterns.messaging import Inbox, Message, Outbox
from aiopatterns.testing import Trial, cancel_everywhere
from tests.backends.databases import KINDS, Database, commit, database_of, rollback


@pytest.fixture(params=KINDS)
def database(request) -> Database:
    return database_of(request, request.param)


@pytest.mark.real
@pytest.mark.promise("messaging-inbox-first")
async def test_an_id_is_new_once(database):
    async with database.connect() as connection:
        inbox = Inbox(connection)
        await inbox.create_tables()
        await inbox.create_tables()
        assert await inbox.first("m1")
        assert not await inbox.first("m1")
        await commit(connection)
        assert not await inbox.first("m1")
        assert await inbox.first("m2")
        await rollback(connection)
        assert await inbox.first("m2")
        await commit(connection)
    async with database.connect() as connection:
        assert not await Inbox(connection).first("m1")
        assert not await Inbox(connection).first("m2")


@pytest.mark.real
async def test_consumers_do_not_know_of_each_other(database):
    async with database.connect() as connection:
        mail, stock = Inbox(connection, consumer="mail"), Inbox(connection, consumer="stock")
        await mail.create_tables()
        assert await mail.first("m1")
        assert await stock.first("m1")
        assert not await stock.first("m1")
        assert await mail.purge(older_than=0) == 1
        assert await mail.first("m1")
        assert not await stock.first("m1")
        await commit(connection)


@pytest.mark.real
async def test_purging_spares_what_is_young_and_is_the_callers_to_commit(database):
    async with database.connect() as connection:
        inbox = Inbox(connection)
        await inbox.create_tables()
        for each in range(3):
            await inbox.first(f"m{each}")
        await link(connection).run(
            "UPDATE aiopatterns_inbox SET seen_at = seen_at - 1000 WHERE message_id = 'm1'"
        )
        await commit(connection)
        assert await inbox.purge(older_than=2000) == 0
        assert await inbox.purge(older_than=900) == 1
        await rollback(connection)
        assert await inbox.purge(older_than=900) == 1
        assert await inbox.first("m1")
        assert not await inbox.first("m2")
        await commit(connection)


@pytest.mark.real
@pytest.mark.promise("messaging-inbox-first")
@pytest.mark.parametrize("commits", [True, False])
async def test_two_at_once_are_told_one_after_the_other(postgres_dsn, commits):
    database = Database("psycopg", postgres_dsn)
    async with database.connect() as one, database.connect() as other:
        await Inbox(one).create_tables()
        assert await Inbox(one).first("m1")
        told: list[bool] = []

        async def ask() -> None:
            told.append(await Inbox(other).first("m1"))
            await commit(other)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.sleep(0.05)
            assert told == []  # it waits for what becomes of the first
            await (commit if commits else rollback)(one)
        assert told == [not commits]


@pytest.mark.real
@pytest.mark.promise("messaging-inbox-first")
async def test_from_outbox_to_inbox_each_change_is_made_once(database):
    """A relay that fails after every send delivers everything several times."""
    async with database.connect() as connection:
        outbox, inbox, way = Outbox(connection), Inbox(connection), link(connection)
        await outbox.create_tables()
        await inbox.create_tables()
        await way.create("CREATE TABLE IF NOT EXISTS account (total INTEGER)")
        await way.run("INSERT INTO account (total) VALUES (0)")
        for _ in range(5):
            await outbox.add("paid", 10)
        await commit(connection)

    deliveries: list[str] = []

    async def handle(message: Message) -> None:
        deliveries.append(message.id)
        async with database.connect() as own:
            if await Inbox(own).first(message.id):
                await link(own).run(f"UPDATE account SET total = total + {message.payload}")
            await commit(own)
        if message.attempt < 3:
            raise OSError("the answer was lost")

    async with database.connect() as connection:
        while (await Outbox(connection).backlog()).waiting:
            try:
                await Outbox(connection).relay(handle)
            except OSError:
                continue
    async with database.connect() as connection:
        assert (await link(connection).run("SELECT total FROM account")).rows == [(50,)]
    assert len(deliveries) == 15


@pytest.mark.promise("messaging-inbox-cancel")
def test_cancellation_anywhere_leaves_an_id_as_the_transaction_ends():
    def scenario() -> Trial:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        committed: list[str] = []

        async def work() -> None:
            inbox = Inbox(connection)
            await inbox.create_tables()
            for each in ("m1", "m2"):
                assert await inbox.first(each)
                connection.commit()
                committed.append(each)
            await inbox.purge(older_than=1000)
            connection.commit()

        async def check() -> None:
            connection.rollback()
            inbox = Inbox(connection)
            await inbox.create_tables()
            assert [await inbox.first(each) for each in ("m1", "m2")] == [
                each not in committed for each in ("m1", "m2")
            ]
            connection.close()

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


@pytest.mark.promise("messaging-bad-input")
async def test_bad_input():
    wrong: Any = None
    with closing(sqlite3.connect(":memory:")) as connection:
        with pytest.raises(TypeError, match=r"^connection must be"):
            Inbox(wrong)
        for consumer in ("", None, 3):
            with pytest.raises((TypeError, ValueError), match=r"^consumer must be"):
                Inbox(connection, consumer=_any(consumer))
        with pytest.raises(ValueError, match=r"^table must be"):
            Inbox(connection, table="a b")
        inbox = Inbox(connection, table="seen")
        await inbox.create_tables()
        for id_ in ("", None, 3):
            with pytest.raises((TypeError, ValueError), match=r"^message_id must be"):
                await inbox.first(_any(id_))
        for older in (-1, float("nan"), float("inf"), "x", None):
            with pytest.raises((TypeError, ValueError), match=r"^older_than must be"):
                await inbox.purge(older_than=_any(older))
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM seen").fetchone() == (0,)


def _any(value: object) -> Any:
    return value
