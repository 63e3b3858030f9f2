"""Watches: the newest only, one look for all, outages, the end; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.cluster import ServiceInstance, ServiceRegistry, Snapshot
from aiopatterns.cluster.contact import RegistryInterrupted, RegistryResumed
from aiopatterns.cluster.record import written
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError, ClosedError
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate
from tests.cluster.weather import Server, way_to

TTL = 15.0


def who(name: str) -> ServiceInstance:
    return ServiceInstance("users", "localhost", 80, id=name)


async def put(server: Server, name: str, state: Any = "ready", *, ttl: float = TTL) -> None:
    """Do what a registration does, without renewing."""
    directory = server.memory.directory("svc:users")
    await directory.put(name, written(who(name), state, epoch=1), ttl=ttl, fence=1)


@asynccontextmanager
async def reading(**options: Any):
    """A server, one process's way to it, and its registry."""
    async with Server() as server:
        way = way_to(server)
        async with ServiceRegistry(way, **{"ttl": TTL} | options) as registry:
            yield server, way, registry


def ids(snapshot: Snapshot) -> str:
    return "".join(each.id for each in snapshot.instances)


def stale(snapshot: Snapshot) -> str:
    return "".join(each.id for each in snapshot.stale)


def test_the_first_comes_at_once_and_then_each_change():
    async def main():
        async with reading() as (server, _, registry):
            async with registry.watch("users") as snapshots:
                assert ids(await anext(snapshots)) == ""
                await put(server, "b")
                assert ids(await anext(snapshots)) == "b"
                await put(server, "a")
                assert ids(await anext(snapshots)) == "ab"
                await put(server, "b", "draining")
                snapshot = await anext(snapshots)
                assert ids(snapshot) == "a"
                assert {name: each.value for name, each in snapshot.states.items()} == {
                    "a": "ready",
                    "b": "draining",
                }
                await put(server, "a", "left")
                assert ids(await anext(snapshots)) == ""

    explore(main, range(50))


def test_a_slow_watcher_gets_the_newest_only():
    async def main():
        async with reading() as (server, _, registry):
            async with registry.watch("users") as snapshots:
                await anext(snapshots)
                for name in "abc":
                    await put(server, name)
                    await sleep(0.001)
                assert ids(await anext(snapshots)) == "abc"
                with anyio.move_on_after(TTL - 1) as scope:
                    await anext(snapshots)
                assert scope.cancelled_caught

    explore(main, range(20))


def test_answers_that_overtake_each_other_take_nobody_back():
    async def main():
        async with reading() as (server, way, registry):
            way.delay = 0.3

            async def ask() -> None:
                while True:
                    await registry.instances("users")
                    await sleep(0.1 * rng().random())

            async with registry.watch("users") as snapshots:
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(ask)
                    for at in range(20):
                        await put(server, "abc"[at % 3], rng().choice(["ready", "left"]))
                        await sleep(0.3 * rng().random())
                    tasks.cancel_scope.cancel()
                await sleep(5)
                newest = await server.memory.directory("svc:users").snapshot()
                assert (await anext(snapshots)).revision == newest.revision

    explore(main, range(100))


def test_what_callers_do_not_see_is_not_told():
    async def main():
        async with reading() as (server, _, registry):
            async with registry.watch("users") as snapshots:
                await anext(snapshots)
                await put(server, "a", "left", ttl=1)
                with anyio.move_on_after(5) as scope:
                    await anext(snapshots)
                assert scope.cancelled_caught
                await put(server, "b")
                assert ids(await anext(snapshots)) == "b"

    simulate(main)


@pytest.mark.promise("cluster-lapse")
def test_who_does_not_renew_is_gone_one_interval_after_its_ttl():
    async def main():
        async with reading() as (server, _, registry):
            await put(server, "z", ttl=100)
            async with registry.watch("users") as snapshots:
                await anext(snapshots)
                await put(server, "a")
                died = monotonic()
                assert ids(await anext(snapshots)) == "az"
                snapshot = await anext(snapshots)
                assert (ids(snapshot), stale(snapshot)) == ("z", "")
                assert died + TTL <= monotonic() <= died + TTL + 1

    explore(main, range(50))


def test_all_watches_of_a_service_share_one():
    async def main():
        async with reading() as (server, way, registry):
            opened, real = [], way.directory

            def directory(name):
                opened.append(name)
                return real(name)

            way.directory = directory
            async with registry.watch("users") as first, registry.watch("users") as second:
                await anext(first)
                await anext(second)
                async with registry.watch("orders") as others:
                    await anext(others)
                    assert registry.statistics().watched == 2
                assert registry.statistics().watched == 1
                await put(server, "a")
                assert ids(await anext(first)) == ids(await anext(second)) == "a"
                async with registry.watch("users") as third:  # what is known comes at once
                    begun = monotonic()
                    assert ids(await anext(third)) == "a"
                    assert monotonic() == begun
            assert opened == ["svc:users", "svc:orders"]
            assert registry.statistics().watched == 0
            async with registry.watch("users") as again:
                assert ids(await anext(again)) == "a"
                await sleep(0.001)
                assert opened[2:] == ["svc:users"]

    explore(main, range(20))


def test_the_age_is_that_of_the_last_look():
    async def main():
        async with reading() as (server, way, registry):
            await put(server, "a", ttl=1000)
            async with registry.watch("users") as first:
                assert (await anext(first)).age == 0
                await sleep(100.5)
                async with registry.watch("users") as second:
                    assert (await anext(second)).age <= 1
                way.away = True
                await sleep(10)
                async with registry.watch("users") as third:
                    assert 10 <= (await anext(third)).age <= 11.5

    simulate(main)


def test_an_outage_is_silence_and_two_events():
    async def main():
        async with reading(name="mine") as (server, way, registry):
            await put(server, "a", ttl=1000)
            async with registry.watch("users") as snapshots:
                await anext(snapshots)
                assert registry.statistics().connected
                with capture_events() as events:
                    way.away = True
                    await sleep(10)
                    assert not registry.statistics().connected
                    assert registry.statistics().interruptions == 1
                    await put(server, "b")
                    way.away = False
                    assert ids(await anext(snapshots)) == "ab"
                    await sleep(1)
                assert registry.statistics().connected
                interrupted, resumed = events
                assert interrupted == RegistryInterrupted("mine", "reading", "nobody answers")
                assert isinstance(resumed, RegistryResumed)
                assert 6 < resumed.seconds < 11

    explore(main, range(50))


def test_a_watch_begun_in_an_outage_waits_for_its_end():
    async def main():
        async with reading() as (server, way, registry):
            await put(server, "a", ttl=100)
            way.away = True
            async with registry.watch("users") as snapshots:
                with anyio.move_on_after(10) as scope:
                    await anext(snapshots)
                assert scope.cancelled_caught
                way.away = False
                with anyio.fail_after(1.1):
                    assert ids(await anext(snapshots)) == "a"

    explore(main, range(50))


@pytest.mark.parametrize("fault", ["away", "hangs", "none"])
def test_the_first_is_what_was_known_only_if_the_backend_is_away(fault):
    async def main():
        async with reading() as (server, way, registry):
            await put(server, "a", ttl=100)
            await registry.instances("users")
            await put(server, "b", ttl=100)
            await sleep(10)
            setattr(way, fault, True)
            async with registry.watch("users") as snapshots:
                with anyio.fail_after(1.1):
                    first = await anext(snapshots)
                if fault == "none":
                    assert (ids(first), first.age) == ("ab", 0)
                    return
                assert ids(first) == "a"
                assert 10 <= first.age <= 11.1
                setattr(way, fault, False)
                with anyio.fail_after(1.1):
                    assert ids(await anext(snapshots)) == "ab"

    explore(main, range(20))


def test_a_watch_that_is_refused_or_ends_is_begun_anew():
    async def main():
        async with reading() as (server, way, registry):
            async with registry.watch("users") as snapshots:
                await anext(snapshots)
                way.refuses = BackendError("LOADING")
                await put(server, "a", ttl=100)
                await sleep(5)
                way.refuses = None
                with anyio.fail_after(1.1):
                    assert ids(await anext(snapshots)) == "a"
                way.ends = True
                await sleep(5)
                await put(server, "b", ttl=100)
                await put(server, "c", ttl=100)
                way.ends = False
                with anyio.fail_after(1.1):
                    assert ids(await anext(snapshots)) == "abc"

    simulate(main)


@pytest.mark.promise("cluster-preserved")
def test_a_mass_lapse_is_kept_as_stale_and_let_go_by_time():
    async def main():
        async with reading() as (server, _, registry):
            for name in "abcd":
                await put(server, name, ttl=1000 if name in "ab" else TTL)
            async with registry.watch("users") as snapshots:
                assert ids(await anext(snapshots)) == "abcd"
                snapshot = await anext(snapshots)
                assert (ids(snapshot), stale(snapshot)) == ("ab", "cd")
                lapsed = monotonic()
                assert registry.statistics().stale == 2
                snapshot = await anext(snapshots)
                assert (ids(snapshot), stale(snapshot)) == ("ab", "")
                assert monotonic() == pytest.approx(lapsed + 10 * TTL, abs=0.01)

    explore(main, range(20))


@pytest.mark.promise("cluster-preserved")
def test_a_server_that_lost_its_data_empties_no_service():
    async def main():
        async with reading(propagation=0) as (server, _, registry):
            writer = ServiceRegistry(way_to(server), ttl=TTL, propagation=0)
            async with writer, writer.register(who("a")), registry.watch("users") as snapshots:
                assert ids(await anext(snapshots)) == "a"
                await sleep(1)
                seen = asyncio.create_task(states(snapshots))
                await sleep(0)
                await server.lose_all()
                assert await seen <= {("", "a"), ("a", "")}

    async def states(snapshots):
        found = set()
        with anyio.move_on_after(2):
            async for snapshot in snapshots:
                found.add((ids(snapshot), stale(snapshot)))
        return found

    explore(main, range(50))


def test_a_gap_keeps_who_was_not_seen_again():
    async def main():
        async with reading() as (server, way, registry):
            for name in "abc":
                await put(server, name, ttl=1000)
            async with registry.watch("users") as snapshots:
                assert ids(await anext(snapshots)) == "abc"
                await server.memory.directory("svc:users").remove("c")
                snapshot = await anext(snapshots)
                assert (ids(snapshot), stale(snapshot)) == ("ab", "")
                way.reconnect()
                snapshot = await anext(snapshots)
                assert (ids(snapshot), stale(snapshot)) == ("ab", "c")
                snapshot = await anext(snapshots)
                assert (ids(snapshot), stale(snapshot)) == ("ab", "")
                assert monotonic() == pytest.approx(TTL, abs=1)

    simulate(main)


def test_a_gap_is_heeded_by_who_only_asks():
    async def main():
        async with reading() as (server, way, registry):
            for name in "abc":
                await put(server, name, ttl=1000)
            assert ids(await registry.instances("users")) == "abc"
            way.reconnect()
            await server.memory.directory("svc:users").remove("c")
            snapshot = await registry.instances("users")
            assert (ids(snapshot), stale(snapshot)) == ("ab", "c")

    simulate(main)


def test_leaving_the_registry_ends_every_watch():
    async def main():
        async with Server() as server:
            registry = ServiceRegistry(way_to(server), ttl=TTL)
            seen: list[Snapshot] = []

            async def follow() -> None:
                async with registry.watch("users") as snapshots:
                    async for snapshot in snapshots:
                        seen.append(snapshot)

            async with registry:
                task = asyncio.create_task(follow())
                await sleep(1)
            await task
            assert len(seen) == 1

    explore(main, range(20))


def test_wrong_order():
    async def main():
        async with reading() as (_, _, registry):
            watch = registry.watch("users")
            async with watch:
                with pytest.raises(ClosedError, match="this watch is not open; use it inside"):
                    async for _ in registry.watch("users"):
                        raise AssertionError
                with pytest.raises(RuntimeError, match="this watch is open already"):
                    await watch.__aenter__()
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            async with watch as snapshots:  # it may be entered again
                await anext(snapshots)
        with pytest.raises(ClosedError, match="is not open"):
            await watch.__aenter__()

    simulate(main)


@pytest.mark.promise("cluster-cancel-everywhere")
def test_cancelled_anywhere_a_watch_loses_nothing():
    def scenario() -> Trial:
        server = Server()
        registry = ServiceRegistry(way_to(server, delay=0.01), ttl=TTL)

        async def work() -> None:
            async with server, registry, registry.watch("users") as snapshots:
                await anext(snapshots)
                await put(server, "a")
                assert ids(await anext(snapshots)) == "a"
                assert ids(await anext(snapshots)) == ""

        def check() -> None:
            assert registry.statistics().watched == 0

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)
