"""Records in a database: its tables, its names, and several who share it.

The suite of all stores is test_syncstore.py.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import anyio
import psycopg
import pytest

from aiopatterns.core.errors import BackendError, BackendUnavailableError, CodecError
from aiopatterns.data.sqlstore import RECORDS_TABLE, SqlSyncStore
from aiopatterns.testing import Trial, cancel_everywhere
from tests.data.recordplaces import keys_of, value_of


def lite(tmp_path: Any, **more: Any) -> SqlSyncStore:
    return SqlSyncStore(f"sqlite:///{tmp_path}/records.db", name="a", **more)


async def write_from_many(stores: list[SqlSyncStore]) -> None:
    async def write(store: SqlSyncStore, number: int) -> None:
        for turn in range(3):
            await store.put(f"{number} {turn}", number)

    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(write, store, number)
    heads = await stores[0].changes(0, 100)
    assert [each.seq for each in heads] == list(range(1, 3 * len(stores) + 1))
    assert len({(await each.state()).epoch for each in stores}) == 1
    for each in stores:
        await each.aclose()


@pytest.mark.real
async def test_several_share_a_file_and_create_its_tables_at_once(tmp_path):
    await write_from_many([lite(tmp_path) for _ in range(4)])


@pytest.mark.real
async def test_several_share_a_postgresql_and_create_its_tables_at_once(postgres_dsn):
    await write_from_many([SqlSyncStore(postgres_dsn, name="a") for _ in range(4)])


@pytest.mark.real
@pytest.mark.promise("data-log-order")
async def test_a_number_is_seen_only_when_all_before_it_are(postgres_dsn):
    """A reader, and three processes' worth of writers: what is read is never overtaken."""
    stores = [SqlSyncStore(postgres_dsn, name="a") for _ in range(3)]
    done, read, since = 0, list[int](), 0

    async def write(store: SqlSyncStore, number: int) -> None:
        nonlocal done
        for turn in range(8):
            await store.put(f"{number} {turn}", turn)
        done += 1

    async with anyio.create_task_group() as group, SqlSyncStore(postgres_dsn, name="a") as reader:
        for number, store in enumerate(stores):
            group.start_soon(write, store, number)
        while done < len(stores) or since < 24:
            heads = await reader.changes(since, 100)
            read += [each.seq for each in heads]
            since = read[-1] if read else 0
    assert read == list(range(1, 25))
    for each in stores:
        await each.aclose()


async def test_a_store_that_was_closed_is_opened_again(tmp_path):
    store = lite(tmp_path)
    async with store, store:
        await store.put("k", 1)
    assert await value_of(store, "k") == 1
    await store.aclose()
    await store.aclose()


async def test_tables_may_have_another_name(tmp_path):
    async with lite(tmp_path, table="notes") as store, lite(tmp_path) as other:
        await store.put("k", 1)
        assert await other.get("k") is None
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert {"notes", "notes_notes", "notes_quarantine", "notes_seq", RECORDS_TABLE} <= names


@pytest.mark.real
async def test_tables_may_be_in_a_schema(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA travel")
    async with SqlSyncStore(postgres_dsn, name="a", table="travel.notes") as store:
        await store.put("k", 1)
        assert await keys_of(store) == ["k"]


async def test_another_name_than_the_first_one_is_refused(tmp_path):
    await lite(tmp_path).put("k", 1)
    other = SqlSyncStore(f"sqlite:///{tmp_path}/records.db", name="b")
    with pytest.raises(ValueError, match="name must be 'a'"):
        await other.get("k")


async def test_a_state_that_is_gone_is_said_and_made_anew_at_the_next_start(tmp_path):
    store = lite(tmp_path)
    await store.put("k", 1)
    epoch = (await store.state()).epoch
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        connection.execute(f"DELETE FROM {RECORDS_TABLE}_notes")
        connection.commit()
    with pytest.raises(BackendError, match="the state in aiopatterns_records_notes is gone"):
        await store.put("k", 2)
    await store.aclose()
    store = lite(tmp_path)
    state = await store.state()
    assert (state.seq, state.horizon, state.epoch == epoch) == (1, 1, False)
    await store.put("l", 2)
    assert [each.seq for each in await store.changes(0, 10)] == [1, 2]


async def test_a_damaged_record_harms_no_other(tmp_path):
    store = lite(tmp_path)
    await store.put("a", 1)
    await store.put("b", 2)
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        connection.execute(f"UPDATE {RECORDS_TABLE} SET body = x'00ff' WHERE key = 'a'")
        connection.commit()
    with pytest.raises(CodecError):
        await store.get("a")
    assert await value_of(store, "b") == 2
    assert list(await store.fetch(["a", "b"])) == ["a", "b"]


async def test_a_damaged_record_can_be_written_anew_or_deleted(tmp_path):
    store = lite(tmp_path)
    for key in "ab":
        await store.put(key, 1)
    before = await store.heads(["a", "b"])
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        connection.execute(f"UPDATE {RECORDS_TABLE} SET body = x'00ff'")
        connection.commit()
    written, deleted = await store.put("a", 2), await store.delete("b")
    assert deleted is not None
    assert written.vector.dominates(before["a"].vectors[0])
    assert deleted.vector.dominates(before["b"].vectors[0])
    assert await value_of(store, "a") == 2
    assert await store.get("b") is None


async def test_a_store_that_was_restored_starts_anew(tmp_path):
    store = lite(tmp_path)
    await store.put("k", 1)
    before = await store.state()
    await store.renew()
    after = await store.state()
    assert after.epoch != before.epoch
    assert after.expired(before.seq)
    assert after.seen.dominates(before.seen)
    assert (await store.put("k", 2)).vector.dominates(before.seen)


@pytest.mark.real
async def test_a_database_that_is_away_is_unavailable(unused_tcp_port, tmp_path):
    dsn = f"postgresql://me@127.0.0.1:{unused_tcp_port}/none?connect_timeout=2"
    with pytest.raises(BackendUnavailableError):
        await SqlSyncStore(dsn, name="a").put("k", 1)
    with pytest.raises(BackendUnavailableError):
        await SqlSyncStore(f"sqlite:///{tmp_path}/none/a.db", name="a").get("k")


@pytest.mark.real
async def test_a_connection_that_was_lost_is_made_anew(postgres_dsn):
    async with SqlSyncStore(postgres_dsn, name="a") as store:
        await store.put("k", 1)
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(BackendUnavailableError):
            await store.put("k", 2)
        assert (await store.put("k", 3)).value == 3


def test_cancelled_anywhere_a_write_has_happened_or_not(tmp_path):
    written = [0]  # by the runs before

    def scenario() -> Trial:
        store = lite(tmp_path)

        async def work() -> None:
            await store.put("k", written[0] + 1)

        async def check() -> None:
            found = await store.get("k")
            seq = (await store.state()).seq
            assert seq == (0 if found is None else found.value)
            assert seq - written[0] in {0, store.writes}  # whoever waits for changes was told
            written[0] = seq
            await store.aclose()

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=3, kinds=("native", "scope"))
    assert written[0] > 0


def test_bad_input_is_refused():
    unfit: Any = 7
    for url in ("sqlite://", "sqlite:///", "mysql://x/y", "records.db", "memory://"):
        with pytest.raises(ValueError, match="url must be sqlite:///path or postgresql://"):
            SqlSyncStore(url, name="a")
    with pytest.raises(TypeError, match="url"):
        SqlSyncStore(unfit, name="a")
    with pytest.raises(ValueError, match="table"):
        SqlSyncStore("sqlite:///a.db", name="a", table="x" * 60)
    with pytest.raises(ValueError, match="name"):
        SqlSyncStore("sqlite:///a.db", name="")
    assert "secret" not in repr(SqlSyncStore("postgresql://me:secret@here/there", name="a"))
    with pytest.raises(ValueError, match="url"):
        SqlSyncStore("mysql://me:secret@here/there", name="a")
