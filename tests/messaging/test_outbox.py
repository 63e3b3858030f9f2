"""The outbox: what is committed is passed on, what is rolled back never is."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from aiopatterns.backends.sql import link
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import bind_correlation, correlation_id
from aiopatterns.core.errors import CodecError, RejectedError, TimeoutExceededError
from aiopatterns.messaging import Backlog, Envelopes, Message, Outbox, OutboxRefused
from aiopatterns.messaging import outbox as module
from aiopatterns.messaging.serving import MAX_HOPS, origin, serve
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, fail_everywhere
from tests.backends.databases import KINDS, Database, commit, database_of, rollback

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = "SELECT count(*) FROM aiopatterns_outbox"


@pytest.fixture(params=KINDS)
def database(request) -> Database:
    return database_of(request, request.param)


class Sink:
    """Keeps what it is given, and fails when told to."""

    def __init__(self, *, fail_at: int = -1) -> None:
        self.got: list[Message] = []
        self.calls = 0
        self.fail_at = fail_at

    async def __call__(self, message: Message) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(f"down at {self.calls}")
        self.got.append(message)

    @property
    def payloads(self) -> list[Any]:
        return [each.payload for each in self.got]


async def filled(database: Database, *payloads: object) -> None:
    async with database.connect() as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        for each in payloads:
            await outbox.add("thing.made", each)
        await commit(connection)


async def relayed(database: Database, sink: Any, limit: int = 100) -> int:
    async with database.connect() as connection:
        return await Outbox(connection).relay(sink, limit)


async def left(database: Database) -> int:
    async with database.connect() as connection:
        (row,) = (await link(connection).run(COUNT)).rows
        return int(row[0])


@pytest.mark.real
@pytest.mark.promise("messaging-outbox-transaction")
async def test_what_is_committed_is_passed_on_and_what_is_rolled_back_never_is(database):
    sink = Sink()
    async with database.connect() as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        assert await outbox.relay(sink) == 0
        await outbox.add("thing.made", 1)
        await rollback(connection)
        assert await outbox.relay(sink) == 0
        message_id = await outbox.add(
            "thing.made", {"n": 2}, key="k", headers={"a": "b"}, version=3
        )
        await commit(connection)
        backlog = await outbox.backlog()
        assert (backlog.waiting, backlog.refused) == (1, 0)
        assert 0.0 <= backlog.oldest < 60.0
        assert await outbox.relay(sink) == 1
        assert await outbox.relay(sink) == 0
    (got,) = sink.got
    assert (got.id, got.topic, got.type, got.version) == (message_id, "thing.made", "thing.made", 3)
    assert (got.payload, got.key, dict(got.headers)) == ({"n": 2}, "k", {"a": "b"})
    assert (got.kind, got.attempt, got.hops, got.deadline) == ("event", 1, 0, None)
    assert await left(database) == 0


@pytest.mark.real
async def test_order_and_limit(database):
    sink = Sink()
    await filled(database, *range(25))
    assert [await relayed(database, sink, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert sink.payloads == list(range(25))


@pytest.mark.real
@pytest.mark.promise("messaging-outbox-sink-fails")
async def test_a_sink_that_fails_stops_the_relay_and_what_went_before_is_marked(database):
    await filled(database, *range(5))
    sink = Sink(fail_at=3)
    with pytest.raises(OSError, match="down at 3"):
        await relayed(database, sink)
    assert sink.payloads == [0, 1]
    assert await left(database) == 3
    assert await relayed(database, sink) == 3
    assert sink.payloads == [0, 1, 2, 3, 4]
    assert [each.attempt for each in sink.got] == [1, 1, 2, 1, 1]


@pytest.mark.real
async def test_the_connection_is_of_use_after_a_failure(database):
    await filled(database, 1)
    async with database.connect() as connection:
        outbox = Outbox(connection)
        with pytest.raises(OSError, match="down"):
            await outbox.relay(Sink(fail_at=1))
        sink = Sink()
        assert await outbox.relay(sink) == 1
        assert [each.attempt for each in sink.got] == [2]


@pytest.mark.real
async def test_a_transaction_that_has_written_may_not_relay(database):
    await filled(database, 1)
    sink = Sink()
    async with database.connect() as connection:
        outbox = Outbox(connection)
        await outbox.add("thing.made", 2)
        with pytest.raises(RuntimeError, match="commit first"):
            await outbox.relay(sink)
        await rollback(connection)
        assert await outbox.relay(sink) == 1
    assert sink.payloads == [1]


@pytest.mark.real
async def test_in_an_open_transaction_the_caller_marks(database):
    if database.kind.startswith("sqlite3"):
        return  # opens none before it writes
    await filled(database, 1, 2)
    sink = Sink()
    for end in (rollback, commit):
        async with database.connect() as connection:
            await link(connection).run("SELECT 1")
            outbox = Outbox(connection)
            assert await outbox.relay(sink) == 2
            await end(connection)
    await filled(database, 3)
    async with database.connect() as connection:
        await link(connection).run("SELECT 1")
        with pytest.raises(OSError, match="down"):
            await Outbox(connection).relay(Sink(fail_at=1))
        await commit(connection)  # of how often it failed
    last = Sink()
    assert await relayed(database, last) == 1
    assert [each.attempt for each in last.got] == [2]
    assert sink.payloads == [1, 2, 1, 2]
    assert await left(database) == 0


@pytest.mark.real
async def test_begin_blocks_of_sqlalchemy(database):
    if not database.kind.startswith("alchemy"):
        return
    sink = Sink()
    async with database.connect() as connection:
        async with connection.begin():
            await Outbox(connection).create_tables()
            await Outbox(connection).add("thing.made", 1)
        with pytest.raises(ZeroDivisionError):
            async with connection.begin():
                await Outbox(connection).add("thing.made", 2)
                1 / 0
        async with connection.begin():
            assert await Outbox(connection).relay(sink) == 1
    assert sink.payloads == [1]
    assert await left(database) == 0


@pytest.mark.real
@pytest.mark.promise("messaging-outbox-relays")
async def test_several_relays_at_once_lose_nothing_and_send_nothing_twice(database):
    await filled(database, *range(60))
    sink = Sink()
    together = 0
    most = 0

    async def slow(message: Message) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await anyio.sleep(0.001)
        await sink(message)
        together -= 1

    async def relay() -> None:
        async with database.connect() as connection:
            outbox = Outbox(connection)
            while (await outbox.backlog()).waiting:
                if not await outbox.relay(slow, 5):
                    await anyio.sleep(0.002)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(relay)
    assert sorted(sink.payloads) == list(range(60))
    assert len({each.id for each in sink.got}) == 60
    assert (most > 1) is database.is_postgres


@pytest.mark.real
async def test_adding_goes_on_while_a_sink_is_slow(database):
    await filled(database, 1)

    async def sink(message: Message) -> None:
        async with database.connect() as connection:
            await Outbox(connection).add("thing.made", 2)
            await commit(connection)

    assert await relayed(database, sink) == 1
    assert await left(database) == 1


@pytest.mark.real
async def test_cancelled_in_the_sink(database):
    import asyncio

    await filled(database, 1, 2, 3)
    for give_up in ("scope", "native"):
        sink = Sink()
        inside = anyio.Event()

        async def stuck(message: Message, sink=sink, inside=inside) -> None:
            if sink.got:
                inside.set()
                await anyio.sleep_forever()
            await sink(message)

        if give_up == "scope":
            async with anyio.create_task_group() as group:
                group.start_soon(relayed, database, stuck)
                await inside.wait()
                group.cancel_scope.cancel()
        else:
            task = asyncio.create_task(relayed(database, stuck))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(sink.got) == 1
    last = Sink()
    assert await relayed(database, last) == 1
    assert [(each.payload, each.attempt) for each in last.got] == [(3, 1)]


@pytest.mark.real
@pytest.mark.promise("messaging-outbox-cancel")
@pytest.mark.parametrize("give_up", ["native", "scope"])
async def test_cancelled_at_any_time_loses_nothing_and_sends_nothing_twice(database, give_up):
    import asyncio

    total = 20
    await filled(database, *range(total))
    sink = Sink()

    async def quick(message: Message) -> None:
        await anyio.sleep(0)
        await sink(message)

    async with database.connect() as connection:
        outbox = Outbox(connection)
        for turns in range(total):
            if give_up == "native":
                task = asyncio.create_task(outbox.relay(quick, 3))
                await anyio.sleep(turns * 0.0008)
                task.cancel()
                await asyncio.wait([task])
            else:
                with anyio.move_on_after(turns * 0.0008):
                    await outbox.relay(quick, 3)
            assert not link(connection).in_transaction()
        while (await outbox.backlog()).waiting:
            assert await outbox.relay(quick)
    assert sorted(sink.payloads) == list(range(total))


RELAY = """
import asyncio, sys
from aiopatterns.messaging.outbox import Outbox

async def sink(message):
    print(message.payload, flush=True)
    if message.payload == 2:
        await asyncio.sleep(60)

async def main():
    if sys.argv[1] == "psycopg":
        import psycopg
        connection = await psycopg.AsyncConnection.connect(sys.argv[2])
    else:
        import sqlite3
        connection = sqlite3.connect(sys.argv[2], check_same_thread=False)
    await Outbox(connection).relay(sink)

asyncio.run(main())
"""


@pytest.mark.real
@pytest.mark.promise("messaging-outbox-crash")
@pytest.mark.parametrize("kind", ["sqlite3", "psycopg"])
def test_a_relay_killed_between_sink_and_mark_loses_nothing(request, kind):
    database = database_of(request, kind)

    async def killed() -> None:
        await filled(database, *range(5))
        command = [sys.executable, "-c", RELAY, kind, database.place]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
            assert relay.stdout is not None
            told = [relay.stdout.readline() for _ in range(3)]
            assert told == ["0\n", "1\n", "2\n"]
            meanwhile = Sink()
            assert await relayed(database, meanwhile) == 0  # all of them are in hand
            relay.kill()
        sink = Sink()
        with anyio.fail_after(10):
            while not await relayed(database, sink):  # the server needs a moment to see it go
                await anyio.sleep(0.005)
        assert sink.payloads == [0, 1, 2, 3, 4]
        assert await left(database) == 0

    anyio.run(killed)


@pytest.mark.real
@pytest.mark.promise("messaging-outbox-malformed")
async def test_what_is_no_message_is_set_aside_and_the_rest_goes_on(database):
    await filled(database, 1)
    newer = b"\xff" + Envelopes().encode(Message(type="t"))[1:]
    async with database.connect() as connection:
        way = link(connection)
        for data in (b"", b"no envelope", newer, Envelopes().encode(Message(type="t"))[:-1]):
            await way.run(
                "INSERT INTO aiopatterns_outbox (topic, envelope) VALUES ('t', :data)", data=data
            )
        await Outbox(connection).add("thing.made", 2)
        await commit(connection)
    sink = Sink()
    with capture_events() as events:
        assert await relayed(database, sink) == 2
        assert await relayed(database, sink) == 0
    assert sink.payloads == [1, 2]
    refused = [each for each in events if isinstance(each, OutboxRefused)]
    assert [(each.table, each.row) for each in refused] == [
        ("aiopatterns_outbox", row) for row in (2, 3, 4, 5)
    ]
    assert "UnknownVersionError" in refused[2].reason
    async with database.connect() as connection:
        outbox = Outbox(connection)
        assert await outbox.backlog() == Backlog(0, 4, 0.0)
        assert await outbox.retry_refused() == 4
        await commit(connection)
        assert (await outbox.backlog()).waiting == 4
        assert await outbox.relay(sink) == 0
        assert await outbox.backlog() == Backlog(0, 4, 0.0)


async def test_sqlite_lets_a_column_hold_anything():
    with closing(sqlite3.connect(":memory:")) as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        for data in ("text", 17, 1.5):
            connection.execute(
                "INSERT INTO aiopatterns_outbox (topic, envelope) VALUES ('t', ?)", (data,)
            )
        connection.commit()
        sink = Sink()
        assert await outbox.relay(sink) == 0
        assert await outbox.backlog() == Backlog(0, 3, 0.0)


@pytest.mark.real
async def test_psycopg_that_commits_each_statement(postgres_dsn):
    sink = Sink()
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        outbox = Outbox(connection, table="public.letters")
        await outbox.create_tables()
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await outbox.add("thing.made", 1)
                1 / 0
        await outbox.add("thing.made", 2)

        async def check(message: Message) -> None:
            # Rows in hand are locked, so another relay does not see them.
            async with await psycopg.AsyncConnection.connect(postgres_dsn) as other:
                assert await Outbox(other, table="public.letters").relay(sink) == 0
            await sink(message)

        assert await outbox.relay(check) == 1
        assert not link(connection).in_transaction()
    assert sink.payloads == [2]


@pytest.mark.real
async def test_a_server_that_dies_in_the_sink_leaves_all_to_be_passed_on_again(postgres_dsn):
    database = Database("psycopg", postgres_dsn)
    await filled(database, 1, 2)
    sink = Sink()

    async def cut(message: Message) -> None:
        await sink(message)
        async with database.connect() as other:
            await link(other).run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        raise OSError("gone")

    with pytest.raises(OSError, match="gone") as caught:
        await relayed(database, cut)
    (note,) = caught.value.__notes__
    assert note.startswith("what was passed on could not be marked: AdminShutdown")
    sink.got.clear()
    assert await relayed(database, sink) == 2
    assert sink.payloads == [1, 2]


async def test_two_relays_of_one_connection_are_refused():
    with closing(sqlite3.connect(":memory:")) as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        await outbox.add("thing.made", 1)
        connection.commit()

        async def sink(message: Message) -> None:
            with pytest.raises(RuntimeError, match="relays already"):
                await outbox.relay(sink)

        assert await outbox.relay(sink) == 1


async def test_a_message_says_where_it_comes_from():
    with closing(sqlite3.connect(":memory:")) as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        with bind_correlation("c1"):
            await outbox.add("thing.made", 1)
        connection.commit()
        seen: list[Any] = []

        async def sink(message: Message) -> None:
            seen.append((correlation_id(), origin("next"), message))

        await outbox.relay(sink)
        ((correlation, next_one, message),) = seen
        assert correlation == message.correlation_id == "c1"
        assert next_one == ("c1", message.id, 1)
        assert correlation_id() is None
        await _served(outbox, Message(type="t", hops=MAX_HOPS))


async def _served(outbox: Outbox, message: Message) -> None:
    from contextvars import copy_context

    from aiopatterns.core.context import run_in

    async def add() -> None:
        serve(message)
        with pytest.raises(RejectedError, match="circle"):
            await outbox.add("thing.made", 1)

    await run_in(copy_context(), add())


async def test_streams_are_sinks_and_codecs_may_change():
    with closing(sqlite3.connect(":memory:")) as connection:
        await Outbox(connection).create_tables()
        await Outbox(connection, codec=MSGPACK).add("thing.made", b"\x00")
        await Outbox(connection).add("thing.made", 2, kind="command", type="make")
        connection.commit()
        send, receive = anyio.create_memory_object_stream[Message](10)
        with send, receive:
            assert await Outbox(connection).relay(send) == 2
            assert (await receive.receive()).payload == b"\x00"
            second = await receive.receive()
            assert (second.kind, second.type) == ("command", "make")


@pytest.mark.promise("messaging-bad-input")
async def test_bad_input():
    with closing(sqlite3.connect(":memory:")) as connection:
        wrong: Any = 17
        with pytest.raises(TypeError, match=r"^connection must be"):
            Outbox(wrong)
        with pytest.raises(ValueError, match=r"^table must be"):
            Outbox(connection, table="a; drop")
        with pytest.raises(ValueError, match=r"^max_bytes must be"):
            Outbox(connection, max_bytes=0)
        with pytest.raises(TypeError):
            Outbox(connection, codec=wrong)
        outbox = Outbox(connection, max_bytes=300)
        await outbox.create_tables()
        for topic in ("", "a b", "a.*", "a.>", ".a"):
            with pytest.raises(ValueError, match=r"^topic must be"):
                await outbox.add(topic)
        with pytest.raises(TypeError, match=r"^topic must be"):
            await outbox.add(wrong)
        with pytest.raises(CodecError, match="max_bytes=300"):
            await outbox.add("a", "x" * 300)
        with pytest.raises(CodecError):
            await outbox.add("a", object())
        with pytest.raises(ValueError, match="version"):
            await outbox.add("a", version=0)
        with pytest.raises(ValueError, match="kind"):
            await outbox.add("a", kind=_any("order"))
        with pytest.raises(TypeError, match="headers"):
            await outbox.add("a", headers=_any({"a": 1}))
        with pytest.raises(ValueError, match=r"^limit must be"):
            await outbox.relay(Sink(), 0)
        for sink in (None, print_it):
            with pytest.raises(TypeError, match=r"^sink must be"):
                await outbox.relay(_any(sink))
        assert not connection.in_transaction
        assert await outbox.relay(Sink()) == 0


def _any(value: object) -> Any:
    return value


def print_it(message: Message) -> None: ...


class Hung:
    """Stands before a link, and never answers what is to be deleted."""

    def __init__(self, way: Any) -> None:
        self.way = way

    def __getattr__(self, name: str) -> Any:
        return getattr(self.way, name)

    async def run(self, statement: str, **values: object) -> Any:
        if statement.startswith("DELETE"):
            await anyio.sleep_forever()
        return await self.way.run(statement, **values)


@pytest.mark.parametrize("fail_at", [-1, 2])
async def test_a_database_that_does_not_answer_holds_nobody_up_for_ever(monkeypatch, fail_at):
    monkeypatch.setattr(module, "ANSWERED_WITHIN", 0.05)
    with closing(sqlite3.connect(":memory:")) as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        for each in (1, 2):
            await outbox.add("thing.made", each)
        connection.commit()
        outbox._link = _any(Hung(outbox._link))
        error = TimeoutExceededError if fail_at < 0 else OSError
        with pytest.raises(error) as caught:
            await outbox.relay(Sink(fail_at=fail_at))
        told = str(caught.value) if fail_at < 0 else caught.value.__notes__[0]
        assert "the database has not answered the outbox within 0.05 s" in told
        sink = Sink()
        assert await Outbox(connection).relay(sink) == 2
        assert sink.payloads == [1, 2]


def test_without_tables_the_driver_says_so():
    with closing(sqlite3.connect(":memory:")) as connection:

        async def work() -> None:
            with pytest.raises(sqlite3.OperationalError, match="no such table"):
                await Outbox(connection).relay(Sink())

        anyio.run(work)


@pytest.mark.real
async def test_tables_are_created_in_the_callers_transaction(tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'data.db'}")
    async with engine.begin() as connection:
        await Outbox(connection).create_tables()
        await Outbox(connection).add("thing.made", 1)
    async with engine.connect() as connection:
        assert await Outbox(connection).relay(Sink()) == 1
    await engine.dispose()


def scenario_of(sink_of: Callable[[list[Any]], Any]) -> Trial:
    """A relay of five, and then: nobody is lost, nothing is locked, at most one came twice."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    got: list[Any] = []
    sink = sink_of(got)

    async def work() -> None:
        outbox = Outbox(connection)
        await outbox.create_tables()
        for each in range(5):
            await outbox.add("thing.made", each)
        connection.commit()
        await outbox.relay(sink, 3)
        await outbox.relay(sink)

    async def check() -> None:
        committed = bool(got) or not connection.in_transaction
        connection.rollback()
        outbox = Outbox(connection)
        await outbox.create_tables()
        (rows,) = connection.execute(COUNT).fetchone()
        rest = Sink()
        await outbox.relay(rest)
        assert await outbox.backlog() == Backlog(0, 0, 0.0)
        connection.close()
        times = Counter([*got, *rest.payloads])
        if got or (rows and committed):
            assert sorted(times) == list(range(5))
        assert all(each == 1 for each in times.values())

    return Trial(work(), check)


@pytest.mark.promise("messaging-outbox-cancel")
def test_cancellation_anywhere_loses_nothing_and_sends_nothing_twice():
    def sink_of(got: list[Any]) -> Any:
        async def sink(message: Message) -> None:
            await anyio.sleep(0.01)
            got.append(message.payload)

        return sink

    visited = cancel_everywhere(
        lambda: scenario_of(sink_of),
        kinds=("scope", "timeout", "native", "native-twice"),
        minimum=20,
    )
    assert visited.positions >= 20


@pytest.mark.promise("messaging-outbox-fail-everywhere")
def test_a_sink_that_fails_at_any_call_loses_nothing_and_sends_nothing_twice():
    def scenario(fault: Callable[[], None]) -> Trial:
        def sink_of(got: list[Any]) -> Any:
            async def sink(message: Message) -> None:
                fault()
                got.append(message.payload)

            return sink

        return scenario_of(sink_of)

    fail_everywhere(scenario, minimum=5)
