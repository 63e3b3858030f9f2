"""The router as its users see it: it looks at the copies, and blocks go by that."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BulkheadFullError, ClosedError
from aiopatterns.data.position import Position
from aiopatterns.data.replica import ReplicaBack, ReplicaLost, ReplicaStatistics
from aiopatterns.data.replicas import ReplicaRouter, ReplicaRouterStatistics
from aiopatterns.resilience.bulkhead import Bulkhead
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, simulate
from tests.data.replicaplaces import Node, places


async def read(router: ReplicaRouter[Node], max_lag: float | None = None) -> str:
    async with router.read(max_lag=max_lag) as node:
        return node.name


async def test_it_has_looked_at_all_copies_when_it_opens():
    primary, nodes = places()
    nodes[1].down = True
    async with ReplicaRouter(primary, nodes) as router:
        assert {await read(router) for _ in range(4)} == {"copy0"}
        async with router.write() as node:
            assert node is primary
        assert router.statistics() == ReplicaRouterStatistics(
            (
                ReplicaStatistics("copy0", True, Position(), 0.0, 0),
                ReplicaStatistics("copy1", False, None, float("inf"), 0),
            ),
            writes=1,
            reads=4,
            fallbacks=0,
            waited=0,
        )


def test_it_loses_copies_and_takes_them_back():
    primary, nodes = places(1)

    async def life() -> list[str]:
        found: list[str] = []
        async with ReplicaRouter(primary, nodes, interval=0.5) as router:
            for down, late in ((False, 0.0), (True, 0.0), (False, 0.9), (False, 0.4)):
                nodes[0].down, nodes[0].late = down, late
                await sleep(0.6)
                found.append(await read(router))
        return found

    with capture_events() as events:
        assert simulate(life) == ["copy0", "primary", "primary", "copy0"]
    assert [type(each) for each in events] == [ReplicaLost, ReplicaBack]


def test_a_hung_copy_keeps_nobody_from_opening_or_reading():
    primary, nodes = places(2)
    nodes[0].slow = 3600.0

    async def life() -> list[str]:
        async with ReplicaRouter(primary, nodes, timeout=0.2) as router:
            return [await read(router) for _ in range(3)]

    assert simulate(life) == ["copy1"] * 3


def test_a_read_waits_while_its_copy_is_looked_at_often():
    primary, nodes = places(1)

    async def life() -> Any:
        async with (
            ReplicaRouter(primary, nodes, max_wait=1.0, interval=30.0) as router,
            router.session(),
            anyio.create_task_group() as group,
        ):
            async with router.write() as node:
                node.value = 7

            async def replicate() -> None:
                await sleep(0.04)
                nodes[0].value = 7

            group.start_soon(replicate)
            return await read(router), nodes[0].asked.count("position")

    place, asked = simulate(life)
    assert place == "copy0"
    assert 3 <= asked <= 12


@pytest.mark.promise("data-replica-fallback")
def test_copies_that_die_do_not_take_the_primary_with_them():
    primary, nodes = places(2)
    for each in nodes:
        each.down = True
    at_once = most = refused = 0

    async def life() -> Any:
        fallback = Bulkhead(3, max_queue=4, max_wait=10.0)
        async with (
            ReplicaRouter(primary, nodes, fallback=fallback) as router,
            anyio.create_task_group() as group,
        ):

            async def visit() -> None:
                nonlocal at_once, most, refused
                try:
                    async with router.read() as node:
                        assert node is primary
                        at_once += 1
                        most = max(most, at_once)
                        await sleep(0.1)
                        at_once -= 1
                except BulkheadFullError:
                    refused += 1

            for _ in range(20):
                group.start_soon(visit)

    simulate(life)
    assert (most, refused) == (3, 13)


async def test_a_session_goes_on_elsewhere_by_its_token():
    primary, nodes = places(1)
    async with ReplicaRouter(primary, nodes, max_wait=0.0) as here, here.session() as session:
        async with here.write() as node:
            node.value = 5
        token = await session.token()
    async with ReplicaRouter(primary, nodes, max_wait=0.0) as there:
        async with there.session(token):
            assert await read(there) == "primary"
        assert await read(there) == "copy0"


async def test_it_may_be_opened_again_and_is_closed_in_between():
    primary, nodes = places(1)
    router = ReplicaRouter(primary, nodes)
    for _ in range(2):
        with pytest.raises(ClosedError, match="async with"):
            await read(router)
        with pytest.raises(ClosedError, match="async with"):
            await router.write().__aenter__()
        async with router:
            assert await read(router) == "copy0"


def test_a_cancelled_router_leaves_nothing():
    def scenario() -> Trial:
        primary, nodes = places(1)
        nodes[0].slow = 0.01

        async def work() -> None:
            async with ReplicaRouter(primary, nodes) as router, router.session():
                async with router.write() as node:
                    node.value = 1
                await read(router)

        return Trial(work())

    cancel_everywhere(scenario, minimum=3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_lag": 0}, ValueError, "max_lag"),
        ({"max_lag": "1"}, TypeError, "max_lag"),
        ({"max_wait": -1}, ValueError, "max_wait"),
        ({"interval": 0}, ValueError, "interval"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"fallback": 3}, TypeError, "fallback"),
        ({"name": ""}, ValueError, "name"),
    ],
)
def test_options_are_checked(options, error, words):
    primary, nodes = places()
    with pytest.raises(error, match=words):
        ReplicaRouter(primary, nodes, **options)


def test_databases_are_checked():
    primary, nodes = places()
    with pytest.raises(ValueError, match="different names"):
        ReplicaRouter(primary, [*nodes, Node("copy0")])
    nobody: Any = object()
    with pytest.raises(TypeError, match="primary and replicas"):
        ReplicaRouter(primary, [nobody])


async def test_arguments_are_checked():
    primary, nodes = places()
    router = ReplicaRouter(primary, nodes)
    with pytest.raises(ValueError, match="max_lag"):
        router.read(max_lag=0)
    with pytest.raises(ValueError, match="token"):
        router.session("nonsense")
