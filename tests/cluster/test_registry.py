"""The registry: one contract in memory and on Redis; questions, outages, bad input."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

import aiopatterns
from aiopatterns.backends import open_backend
from aiopatterns.cluster import (
    InstanceState,
    RegistryStatistics,
    ServiceInstance,
    ServiceRegistry,
    Snapshot,
)
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.testing import explore, simulate
from tests.cluster.weather import Server, way_to

TTL = 15.0


def who(name: str, **fields: Any) -> ServiceInstance:
    return ServiceInstance("users", "localhost", 80, id=name, **fields)


def ids(snapshot: Snapshot) -> str:
    return "".join(each.id for each in snapshot.instances)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def registries(request):
    """Return a function that makes registries as of several processes."""
    if request.param == "memory":
        backend = open_backend("memory://")
        return lambda **options: ServiceRegistry(backend, **{"propagation": 0} | options)
    url = request.getfixturevalue("redis_url")
    return lambda **options: ServiceRegistry(url, **{"propagation": 0} | options)


async def test_registered_found_drained_and_gone(registries):
    here, there = registries(propagation=0.01), registries()
    me = who("a", version="1.2", weight=2, zone="eu", metadata={"rack": "7"})
    async with here, there, there.watch("users") as snapshots:
        assert await there.instances("users") == Snapshot(
            revision=(await there.instances("users")).revision
        )
        assert (await anext(snapshots)).instances == ()
        async with here.register(me, state="starting") as registration:
            found = await there.instances("users")
            assert found.instances == ()
            assert found.states == {"a": InstanceState.STARTING}
            assert (await anext(snapshots)).states == found.states
            await registration.set_state("ready")
            found = await there.instances("users")
            assert found.instances == (me,)
            assert (found.stale, found.age) == ((), 0.0)
            assert (await anext(snapshots)).instances == (me,)
        assert (await there.instances("users")).states == {}
        while (await anext(snapshots)).states:
            pass
        assert there.statistics() == RegistryStatistics(
            connected=True, registrations=0, watched=1, stale=0, malformed=0, interruptions=0
        )


async def test_several_instances_services_and_registries(registries):
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(registries()) for _ in range(3)]
        for number, registry in enumerate(processes):
            await stack.enter_async_context(registry.register(who(f"{number}")))
            other = ServiceInstance("orders", "::1", 80 + number, id=f"{number}")
            await stack.enter_async_context(registry.register(other))
        for registry in processes:
            assert ids(await registry.instances("users")) == "012"
            addresses = [each.address for each in (await registry.instances("orders")).instances]
            assert addresses == ["[::1]:80", "[::1]:81", "[::1]:82"]
            assert registry.statistics().registrations == 2
            assert (await registry.instances("nobody")).instances == ()


@pytest.mark.promise("cluster-fenced")
async def test_the_newest_of_one_id_is_listed(registries):
    old, new = registries(ttl=0.9), registries(ttl=0.9)
    async with old, new, old.register(who("a", version="1")) as before:
        async with new.register(who("a", version="2")) as after:
            with anyio.fail_after(10):
                await before.wait_lost()
            with pytest.raises(ClosedError):
                await before.set_state("draining")
            (found,) = (await old.instances("users")).instances
            assert found.version == "2"
            assert after.statistics().epoch > before.statistics().epoch
            assert not after.lost


async def test_the_services_of_a_process_have_names(registries):
    async with registries() as here:
        assert here.services == frozenset()
        async with here.register(who("a")), here.watch("orders"):
            assert here.services == {"users", "orders"}
        assert here.services == frozenset()


async def test_who_left_is_not_kept(registries):
    here, there = registries(ttl=600), registries(ttl=600)
    async with there:
        async with here, AsyncExitStack() as stack:
            for name in "abcd":
                await stack.enter_async_context(here.register(who(name)))
            assert ids(await there.instances("users")) == "abcd"
        found = await there.instances("users")
        assert (found.instances, found.stale, found.states) == ((), (), {})


async def test_it_is_entered_again(registries):
    registry = registries()
    for _ in range(2):
        assert registry.state is not OwnerState.RUNNING
        async with registry, registry.register(who("a")), registry.watch("users") as snapshots:
            assert ids(await anext(snapshots)) == "a"
            assert registry.statistics().connected
        assert not registry.statistics().connected


@pytest.mark.promise("cluster-records")
async def test_records_of_strangers_are_skipped(registries):
    registry = registries()
    async with registry, registry.register(who("a")):
        directory = registry._backend.directory("svc:users")
        await directory.put("x", b"\xff\xfe", ttl=60)
        await directory.put("y", b'{"format":9}', ttl=60)
        for _ in range(2):
            assert ids(await registry.instances("users")) == "a"
        assert registry.statistics().malformed == 2
    assert registry.statistics().malformed == 2


def test_the_contract_of_names():
    assert aiopatterns.ServiceRegistry is ServiceRegistry


def test_an_outage_answers_with_what_was_known():
    async def main():
        async with Server() as server:
            way = way_to(server)
            async with (
                ServiceRegistry(way_to(server), ttl=TTL) as other,
                other.register(who("a")),
                ServiceRegistry(way, ttl=TTL) as registry,
            ):
                assert ids(await registry.instances("users")) == "a"
                way.away = True
                await sleep(100)
                found = await registry.instances("users")
                assert (ids(found), found.age) == ("a", 100)
                with pytest.raises(BackendUnavailableError):
                    await registry.instances("orders")
                way.away, way.hangs = False, True
                begun = monotonic()
                found = await registry.instances("users")
                assert (ids(found), found.age, monotonic()) == ("a", 101, begun + 1)
                way.hangs, way.refuses = False, BackendError("LOADING")
                assert (await registry.instances("users")).age == 101
                with pytest.raises(BackendError, match="LOADING"):
                    await registry.instances("orders")
                way.refuses = None
                assert (await registry.instances("users")).age == 0
                assert (await registry.instances("orders")).age == 0

    simulate(main)


def test_max_stale_bounds_what_is_good_enough():
    async def main():
        async with Server() as server:
            way = way_to(server)
            async with (
                ServiceRegistry(way_to(server), ttl=TTL) as other,
                other.register(who("a")),
                ServiceRegistry(way, ttl=TTL, max_stale=30) as registry,
            ):
                await registry.instances("users")
                way.away = True
                await sleep(30)
                assert (await registry.instances("users")).age == 30
                await sleep(0.5)
                with pytest.raises(BackendUnavailableError):
                    await registry.instances("users")
                way.away = False
                async with registry.watch("users") as snapshots:
                    await anext(snapshots)
                    await sleep(100)  # a watch keeps it fresh though nothing changes
                    way.away = True
                    assert (await registry.instances("users")).age <= 1
                    await sleep(28.5)
                    way.away, way.hangs = False, True
                    # Good enough when it was asked, and so it is when the question was given up.
                    assert 28.5 <= (await registry.instances("users")).age <= 31
                    way.hangs = False

    simulate(main)


def test_a_question_updates_those_who_watch():
    async def main():
        async with Server() as server:
            way = way_to(server)
            async with (
                ServiceRegistry(way_to(server), ttl=TTL) as other,
                ServiceRegistry(way, ttl=TTL, interval=60) as registry,
                registry.watch("users") as snapshots,
            ):
                await anext(snapshots)
                way.deaf = True  # the live message of the change will be lost
                await sleep(61)
                async with other.register(who("a")):
                    task = asyncio.create_task(anext(snapshots))
                    await sleep(1)
                    assert not task.done()
                    assert ids(await registry.instances("users")) == "a"
                    assert ids(await task) == "a"
                    await registry.instances("users")
                    with anyio.move_on_after(5) as scope:
                        await anext(snapshots)
                    assert scope.cancelled_caught

    simulate(main)


def test_services_that_nobody_serves_fill_no_memory():
    async def main():
        async with Server() as server, ServiceRegistry(way_to(server)) as registry:
            for number in range(100):
                await registry.instances(f"s{number}")
                async with registry.watch(f"w{number}") as snapshots:
                    await anext(snapshots)
            assert registry._books == {}
            async with registry.register(who("a")):
                await registry.instances("users")
                async with registry.watch("users") as snapshots:
                    await anext(snapshots)
                assert [*registry._books] == ["users"]

    simulate(main)


def test_the_subscription_for_gaps_is_begun_anew():
    async def main():
        async with Server() as server:
            way = way_to(server)
            way.refuses = BackendError("NOPERM")
            with pytest.raises(BackendError, match="NOPERM"):
                async with ServiceRegistry(way):
                    raise AssertionError
            way.refuses = None
            real, tries = way.subscribe, []

            def subscribe(*args, **options):
                tries.append(monotonic())
                way.away = len(tries) < 4
                return real(*args, **options)

            way.subscribe = subscribe
            async with ServiceRegistry(way):
                await sleep(2.5)
                assert way.gaps == []
                await sleep(1)
                assert len(way.gaps) == 1
                assert len(tries) == 4

    simulate(main)


def test_the_backend_is_closed_last():
    async def main():
        async with Server() as server:
            way = way_to(server, delay=0.1)
            async with ServiceRegistry(way, propagation=0) as registry:
                assert way.entered == 1
                await registry.register(who("a")).__aenter__()
            assert way.entered == 0
            assert b'"left"' in (await server.members())["a"]

    explore(main, range(50))


def test_nothing_is_begun_while_it_closes():
    async def main():
        async with Server() as server:
            way = way_to(server)
            registry = ServiceRegistry(way, propagation=0)
            async with registry:
                await registry.register(who("a")).__aenter__()
                way.hangs = True
                asyncio.get_running_loop().call_later(0.5, lambda: tasks.append(late(registry)))
                tasks: list[Any] = []
            (task,) = tasks
            await task

    def late(registry):
        return asyncio.ensure_future(begin(registry))

    async def begin(registry):
        with pytest.raises(ClosedError, match="the registry is closing"):
            await registry.watch("users").__aenter__()
        with pytest.raises(ClosedError, match="the registry is closing"):
            await registry.register(who("b")).__aenter__()

    simulate(main)


def test_an_error_of_a_background_task_leaves_bare():
    async def main():
        async with Server() as server:
            way = way_to(server)
            with pytest.raises(ZeroDivisionError):
                async with ServiceRegistry(way) as registry, registry.watch("users"):

                    def broken(name):
                        return 1 / 0

                    way.directory = broken
                    await sleep(1)

    simulate(main)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"ttl": 0}, ValueError, "ttl must be a finite number > 0"),
        ({"ttl": "15"}, TypeError, "ttl must be"),
        ({"interval": -1}, ValueError, "interval must be"),
        ({"propagation": -1}, ValueError, "propagation must be"),
        ({"max_stale": 0}, ValueError, "max_stale must be"),
        ({"preservation": 1.5}, ValueError, "preservation must be between 0.0 and 1.0"),
        ({"name": ""}, ValueError, "name must be"),
        ({"backend": 7}, TypeError, "backend must be"),
        ({"backend": "http://x"}, ValueError, "http"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_of_the_constructor(change, error, text):
    with pytest.raises(error, match=text):
        ServiceRegistry(**{"backend": "memory://"} | change)


@pytest.mark.promise("cluster-bad-input")
def test_bad_input_of_calls():
    async def main():
        registry = ServiceRegistry("memory://")
        with pytest.raises(ClosedError, match="is not open"):
            await registry.instances("users")
        async with registry:
            refused: list[tuple[Any, type[Exception]]] = [
                ("", ValueError),
                ("a b", ValueError),
                (7, TypeError),
            ]
            for bad, error in refused:
                with pytest.raises(error, match="service must be"):
                    await registry.instances(bad)
                with pytest.raises(error, match="service must be"):
                    registry.watch(bad)
            with pytest.raises(RuntimeError, match="open already"):
                await registry.__aenter__()

    simulate(main)
