"""A pool that asks its registry when it is used."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.cluster import RoundRobin, ServiceRegistry
from aiopatterns.cluster.asking import INTERVAL, PATIENCE, Asking
from aiopatterns.cluster.pool import Rules
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.testing import simulate
from tests.cluster.endpoints import who
from tests.cluster.weather import Server, Weather

RULES = Rules("users", RoundRobin())


def ids(asking: Asking) -> str:
    return "".join(each.id for each in asking.usable)


async def call(asking: Asking) -> str:
    await asking.refresh()
    async with asking.pick(None, ()) as endpoint:
        return endpoint.id


def questions(way: Weather) -> int:
    return way.calls.count("snapshot")


def test_all_who_come_first_share_one_question_and_then_one_in_a_second_asks():
    async def live() -> None:
        async with Server() as server:
            way: Any = Weather(server, delay=0.01)
            registry = ServiceRegistry(way, propagation=0)
            async with registry, registry.register(who("a")):
                asking = Asking(registry, RULES)
                before = questions(way)
                async with anyio.create_task_group() as group:
                    for _ in range(100):
                        group.start_soon(call, asking)
                assert questions(way) == before + 1
                async with registry.register(who("b")):
                    before = questions(way)
                    await call(asking)
                    assert (questions(way), ids(asking)) == (before, "a")
                    await sleep(INTERVAL)
                    async with anyio.create_task_group() as group:
                        for _ in range(100):
                            group.start_soon(call, asking)
                    assert (questions(way), ids(asking)) == (before + 1, "ab")
                    assert asking.statistics().calls == 201
                    await sleep(100 * INTERVAL)
                    assert questions(way) == before + 1

    simulate(live)


@pytest.mark.promise("cluster-balancer-outage")
@pytest.mark.parametrize("how", ["away", "hangs"])
def test_an_outage_costs_one_call_a_second_some_patience(how):
    async def live() -> None:
        async with Server() as server:
            way: Any = Weather(server)
            registry = ServiceRegistry(way, propagation=0)
            async with registry, registry.register(who("a")):
                asking = Asking(registry, RULES)
                await call(asking)
                setattr(way, how, True)
                for _ in range(50):
                    began = monotonic()
                    assert await call(asking) == "a"
                    assert monotonic() - began <= PATIENCE + 1e-9
                    began = monotonic()
                    assert await call(asking) == "a"
                    assert monotonic() == began
                    await sleep(INTERVAL)
                setattr(way, how, False)
                async with registry.register(who("b")):
                    await sleep(2 * INTERVAL)
                    await call(asking)
                    assert ids(asking) == "ab"

    simulate(live)


@pytest.mark.promise("cluster-balancer-outage")
def test_what_is_too_old_for_the_registry_is_not_used():
    async def live() -> None:
        async with Server() as server:
            way: Any = Weather(server)
            registry = ServiceRegistry(way, propagation=0, max_stale=30.0)
            async with registry, registry.register(who("a")):
                asking = Asking(registry, RULES)
                await call(asking)
                way.away = True
                await sleep(10)
                assert await call(asking) == "a"
                await sleep(30)
                for _ in range(2):
                    with pytest.raises(BackendUnavailableError):
                        await call(asking)
                way.away = False
                await sleep(5)
                assert await call(asking) == "a"

    simulate(live)


@pytest.mark.promise("cluster-bad-input")
async def test_the_registry_has_to_be_open():
    asking = Asking(ServiceRegistry("memory://"), RULES)
    with pytest.raises(ClosedError, match="ServiceRegistry"):
        await asking.refresh()


@pytest.mark.promise("cluster-bad-input")
async def test_of_a_registry_that_was_closed_nothing_is_known_any_more():
    registry = ServiceRegistry("memory://", propagation=0)
    asking = Asking(registry, RULES)
    for name in "ab":
        async with registry, registry.register(who(name)):
            assert await call(asking) == name
        for _ in range(2):
            with pytest.raises(ClosedError, match="ServiceRegistry"):
                await call(asking)


def test_another_simulation_is_another_time():
    registry = ServiceRegistry("memory://", propagation=0)
    asking = Asking(registry, RULES)

    async def live() -> None:
        async with registry, registry.register(who("a")):
            assert await call(asking) == "a"
            await sleep(100)
            assert await call(asking) == "a"

    simulate(live)
    simulate(live)
    assert asking.statistics().calls == 2
