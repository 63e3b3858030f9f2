"""PostgreSQL as a router sees it: a real primary, and real standbys that stop, lag and die."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import psycopg
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.data.position import Position
from aiopatterns.data.postgresnode import PostgresNode
from aiopatterns.data.replicas import ReplicaRouter
from aiopatterns.testing.postgres import PostgresServer
from tests.jobs.fleet import on_one_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.real

WITHIN = 30.0


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        do(server, "CREATE TABLE notes (n int)")
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    with PostgresServer(standby_of=primary) as server:
        yield server


def do(server: PostgresServer, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)


async def until(true: Callable[[], bool]) -> None:
    end = monotonic() + WITHIN
    while not true():
        assert monotonic() < end
        await sleep(0.01)


async def write(router: ReplicaRouter[PostgresNode], value: int) -> None:
    async with router.write() as node, node.borrow() as connection:
        await connection.execute("INSERT INTO notes VALUES (%s)", (value,))


async def read(router: ReplicaRouter[PostgresNode], value: int) -> tuple[str, bool]:
    """Return where was read, and whether the value is there."""
    async with router.read() as node, node.borrow() as connection:
        cursor = await connection.execute("SELECT FROM notes WHERE n = %s", (value,))
        return node.name, await cursor.fetchone() is not None


def nodes(primary: PostgresServer, standby: PostgresServer) -> tuple[PostgresNode, PostgresNode]:
    return PostgresNode("primary", primary.dsn), PostgresNode("standby", standby.dsn)


@pytest.mark.promise("data-replica-postgresql")
async def test_a_session_reads_its_writes_at_the_standby_or_the_primary(primary, standby):
    left, right = nodes(primary, standby)
    places: set[str] = set()
    async with ReplicaRouter(left, [right], max_lag=60.0, max_wait=2.0) as router:
        for value in range(30):
            async with router.session() as session:
                await write(router, value)
                place, found = await read(router, value)
                assert found
                assert Position.parse(await session.token()) > Position()
                places.add(place)
    assert "standby" in places
    await left.aclose()
    await right.aclose()


async def test_a_standby_that_pauses_is_not_believed(primary, standby):
    left, right = nodes(primary, standby)
    async with ReplicaRouter(left, [right], max_lag=60.0, max_wait=0.05) as router:
        do(standby, "SELECT pg_wal_replay_pause()")
        try:
            async with router.session() as session:
                await write(router, 1001)
                assert await read(router, 1001) == ("primary", True)
                token = await session.token()
            assert (await read(router, 1001))[0] == "standby"  # outside of a session
        finally:
            do(standby, "SELECT pg_wal_replay_resume()")
        behind = Position.parse(token)
        end = monotonic() + WITHIN
        while await right.position() < behind:
            assert monotonic() < end
            await sleep(0.01)
        async with router.session(token):
            await until(lambda: (router.statistics().replicas[0].position or Position()) >= behind)
            assert await read(router, 1001) == ("standby", True)
    await left.aclose()
    await right.aclose()


async def test_a_standby_that_lags_by_its_settings_is_lost_and_comes_back(primary, standby):
    left, right = nodes(primary, standby)
    async with ReplicaRouter(left, [right], max_lag=0.5, interval=0.05, max_wait=0.0) as router:
        set_delay(standby, "1h")
        try:
            await write(router, 2001)
            await until(lambda: not router.statistics().replicas[0].usable)
            assert await read(router, 2001) == ("primary", True)
        finally:
            set_delay(standby, "0")
        await until(lambda: router.statistics().replicas[0].usable)
        assert (await read(router, 2001))[0] == "standby"
    await left.aclose()
    await right.aclose()


@on_one_loop
async def test_a_standby_that_has_replayed_no_commit_yet_is_late(primary):
    with PostgresServer(standby_of=primary) as standby:
        set_delay(standby, "1h")
        left, right = nodes(primary, standby)
        with anyio.fail_after(WITHIN):
            while await right.lag() < 1:
                do(primary, "INSERT INTO notes VALUES (2500)")
                await sleep(0.05)
        await left.aclose()
        await right.aclose()


def set_delay(standby: PostgresServer, delay: str) -> None:
    do(standby, f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")
    do(standby, "SELECT pg_reload_conf()")


async def test_a_standby_that_is_killed_is_lost_and_one_that_is_promoted_too(primary):
    with PostgresServer(standby_of=primary) as standby:
        left, right = nodes(primary, standby)
        async with (
            ReplicaRouter(left, [right], max_lag=60.0, interval=0.05) as router,
            router.session(),
        ):
            assert (await read(router, 0))[0] == "standby"
            standby.kill()
            await until(lambda: not router.statistics().replicas[0].usable)
            await write(router, 3001)
            assert await read(router, 3001) == ("primary", True)
            standby.restart()
            await until(lambda: router.statistics().replicas[0].usable)
            do(standby, "SELECT pg_promote()")
            await until(lambda: not router.statistics().replicas[0].usable)
            assert await read(router, 3001) == ("primary", True)
            assert await right.lag() == float("inf")
        standby.stop()
        with pytest.raises(BackendUnavailableError):
            await right.position()
        await left.aclose()


async def test_a_connection_that_is_cut_while_it_asks(primary):
    node = PostgresNode("primary", primary.dsn)
    async with node.borrow() as connection:
        process = connection.info.backend_pid
    await node.position()

    async def cut() -> None:
        await sleep(0.2)
        do(primary, f"SELECT pg_terminate_backend({process})")

    async with anyio.create_task_group() as group:
        group.start_soon(cut)
        with pytest.raises(BackendUnavailableError, match="primary"):
            await node._ask("SELECT pg_sleep(60)")
    await node.aclose()


def test_its_name_and_its_checks():
    node = PostgresNode("left", "postgresql://nobody@nowhere/")
    assert node.name == "left"
    assert repr(node) == "PostgresNode('left')"
    with pytest.raises(ValueError, match="name"):
        PostgresNode("", "postgresql:///")
    with pytest.raises(ValueError, match="dsn"):
        PostgresNode("left", "")
