from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.core.clock import Home, sleep
from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.connection import Connection
from aiopatterns.gateway.pool import Pool
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate
from tests.gateway.test_connection import Wire

Dial = Callable[[Connection], Awaitable[None]]


async def dial(connection: Connection) -> None:
    await sleep(0.001)
    connection.connection_made(Wire())


def made(
    dialled: Dial = dial,
    *,
    limit: int = 2,
    keep_alive: float = 30.0,
    empty: Callable[[], object] = list,
) -> Pool:
    return Pool(
        "service:80",
        lambda pool: Connection(Home(), pool),
        dialled,
        limit=limit,
        keep_alive=keep_alive,
        empty=empty,
    )


async def test_a_pool_that_was_never_used_closes():
    pool = made()
    pool.close()
    assert pool.connections == set()


async def test_the_newest_idle_connection_is_taken():
    pool = made()
    assert pool.take() is None
    first, second = await pool.connect(1), await pool.connect(1)
    pool.give_back(first)
    pool.give_back(second)
    assert pool.take() is second
    assert pool.take() is first
    assert pool.take() is None
    assert pool.connections == {first, second}
    pool.close()
    assert pool.connections == set()


async def test_one_that_was_closed_meanwhile_is_not_taken():
    wires: list[Wire] = []

    async def noted(connection: Connection) -> None:
        wires.append(Wire())
        connection.connection_made(wires[-1])

    pool = made(noted)
    first, second = await pool.connect(1), await pool.connect(1)
    pool.give_back(first)
    pool.give_back(second)
    wires[1].closing = True
    assert pool.take() is first
    assert pool.connections == {first}
    pool.close()


async def test_at_the_bound_one_waits_for_one_that_comes_free():
    pool = made(limit=1)
    first = await pool.connect(1)
    got: list[Connection] = []

    async def ask(fresh: bool) -> None:
        got.append(await pool.connect(60, fresh=fresh))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, False)
        await wait_all_tasks_blocked()
        assert got == []
        pool.give_back(first)
    assert got == [first]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, True)
        await wait_all_tasks_blocked()
        pool.give_back(first)  # an idle one will not do: it makes room
    assert got[1] is not first
    assert not first.open
    pool.give_back(got[1])
    last = await pool.connect(60, fresh=True)
    assert pool.connections == {last}
    pool.close()


async def test_a_place_that_comes_free_is_dialled_again():
    pool = made(limit=1)
    first = await pool.connect(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.connect, 60)
        await wait_all_tasks_blocked()
        first.drop()
    (second,) = pool.connections
    assert second is not first
    pool.close()


def test_no_place_in_time_is_a_timeout_and_nothing_was_sent():
    async def scenario() -> None:
        pool = made(limit=1)
        await pool.connect(1)
        with pytest.raises(UpstreamError) as caught:
            await pool.connect(2)
        assert (caught.value.kind, caught.value.sent) == ("timeout", False)
        assert caught.value.name == "service:80"
        pool.close()

    simulate(scenario)


@pytest.mark.parametrize(("error", "why"), [(OSError("refused"), "refused"), (OSError(), "OSErr")])
async def test_a_service_that_cannot_be_reached_frees_its_place(error: OSError, why: str):
    async def fail(connection: Connection) -> None:
        raise error

    pool = made(fail)
    with pytest.raises(UpstreamError, match=why) as caught:
        await pool.connect(1)
    assert (caught.value.kind, caught.value.sent) == ("connect", False)
    assert caught.value.__cause__ is error
    assert pool.connections == set()
    pool.close()


async def test_a_service_that_closes_at_once_is_not_reached():
    async def dial_and_lose(connection: Connection) -> None:
        connection.connection_made(Wire())
        connection.connection_lost(None)

    pool = made(dial_and_lose)
    with pytest.raises(UpstreamError, match="closed the connection at once"):
        await pool.connect(1)
    assert pool.connections == set()
    pool.close()


def test_idle_connections_grow_old_and_an_empty_pool_says_so():
    async def scenario() -> None:
        emptied: list[float] = []
        pool = made(keep_alive=10, empty=lambda: emptied.append(anyio.current_time()))
        first, second = await pool.connect(1), await pool.connect(1)
        pool.give_back(first)
        await anyio.sleep(6)
        pool.give_back(second)
        await anyio.sleep(5)
        assert (first.open, second.open) == (False, True)
        await anyio.sleep(6)
        assert not second.open
        assert len(emptied) == 1
        busy = await pool.connect(1)
        pool.give_back(busy)
        assert pool.take() is busy
        await anyio.sleep(100)  # one in use grows no older
        assert busy.open
        assert len(emptied) == 1
        busy.drop()
        await anyio.sleep(20)
        assert len(emptied) == 2

    simulate(scenario)


def test_cancelled_anywhere_no_place_is_lost():
    def scenario() -> Trial:
        pool = made(limit=1)
        held: list[Connection] = []

        async def work() -> None:
            try:
                first = await pool.connect(60)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(free, first)
                    await pool.connect(60, fresh=True)
            finally:
                held.extend(pool.connections)
                pool.close()

        async def free(connection: Connection) -> None:
            await sleep(0.01)
            connection.drop()

        async def check() -> None:
            assert len(held) <= 1
            again = await pool.connect(1)  # the place is free again
            assert pool.connections == {again}
            pool.close()

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=2)


def test_the_bound_holds_at_every_instant():
    async def scenario() -> None:
        most = served = 0

        async def counted(connection: Connection) -> None:
            nonlocal most
            most = max(most, len(pool.connections))
            await dial(connection)

        pool = made(counted, limit=3)

        async def ask(number: int) -> None:
            nonlocal served
            connection = pool.take() or await pool.connect(60)
            await sleep(0.001 * (number % 3))
            served += 1
            if number % 4:
                pool.give_back(connection)
            else:
                connection.drop()

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, number)
        assert served == 20
        assert most <= 3
        pool.close()

    explore(scenario, range(50))
