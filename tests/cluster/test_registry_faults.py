"""What may happen to processes and to Redis: killed, stopped, replaced, restarted, cut off."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.cluster import ServiceInstance, ServiceRegistry, Snapshot
from aiopatterns.cluster.contact import RegistryInterrupted, RegistryResumed
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import capture_events
from tests.cluster.processes import PATIENCE, TTL, on_one_loop, process

pytestmark = pytest.mark.real


def who(name: str) -> ServiceInstance:
    return ServiceInstance("users", "127.0.0.1", 8000, id=name)


def ids(snapshot: Snapshot) -> str:
    return "".join(each.id for each in snapshot.instances)


async def until(snapshots, wanted) -> Snapshot:
    with anyio.fail_after(PATIENCE):
        async for snapshot in snapshots:
            if wanted(snapshot):
                return snapshot
    raise AssertionError


@pytest.mark.promise("cluster-lapse")
@on_one_loop
async def test_a_killed_process_is_gone_within_ttl_and_a_second(redis_url):
    async with (
        ServiceRegistry(redis_url, ttl=TTL, propagation=0) as registry,
        registry.register(who("z")),
        registry.watch("users") as snapshots,
        process(redis_url, "a") as serving,
    ):
        assert (await serving.says()).startswith("registered")
        await until(snapshots, lambda snapshot: ids(snapshot) == "az")
        serving.signal(signal.SIGKILL)
        killed = monotonic()
        snapshot = await until(snapshots, lambda snapshot: ids(snapshot) == "z")
        assert monotonic() - killed < TTL + 1
        assert snapshot.stale == ()


@pytest.mark.promise("cluster-fenced")
@on_one_loop
async def test_a_process_that_was_stopped_takes_nothing_from_its_successor(redis_url):
    async with (
        ServiceRegistry(redis_url, ttl=TTL, propagation=0) as registry,
        registry.watch("users") as snapshots,
        process(redis_url, "a", version="1") as old,
    ):
        before = int((await old.says()).split()[1])
        old.signal(signal.SIGSTOP)
        async with process(redis_url, "a", version="2") as new:
            after = int((await new.says()).split()[1])
            assert after > before
            await until(
                snapshots, lambda found: [each.version for each in found.instances] == ["2"]
            )
            old.signal(signal.SIGCONT)
            assert await old.says() == "lost"
            for _ in range(5):
                await sleep(TTL / 5)
                (found,) = (await registry.instances("users")).instances
                assert found.version == "2"


@pytest.mark.promise("cluster-comes-back")
@on_one_loop
async def test_a_stopped_process_without_a_successor_comes_back(redis_url):
    async with (
        ServiceRegistry(redis_url, ttl=TTL, propagation=0) as registry,
        registry.register(who("z")),
        registry.watch("users") as snapshots,
        process(redis_url, "a") as serving,
    ):
        await serving.says()
        await until(snapshots, lambda snapshot: ids(snapshot) == "az")
        serving.signal(signal.SIGSTOP)
        await until(snapshots, lambda snapshot: ids(snapshot) == "z")
        serving.signal(signal.SIGCONT)
        await until(snapshots, lambda snapshot: ids(snapshot) == "az")


@pytest.mark.promise("cluster-comes-back")
@on_one_loop
async def test_registrations_come_back_after_a_restart_that_lost_all():
    with RedisServer(private=True) as server:
        backend = open_backend(server.url, timeout=1)
        # With a lease that long, only a put that is not a renewal in time brings them back.
        here, there = ServiceRegistry(backend, ttl=60), ServiceRegistry(server.url, ttl=60)
        async with here, there, there.watch("users") as snapshots, AsyncExitStack() as stack:
            for name in "abc":
                await stack.enter_async_context(here.register(who(name)))
            await until(snapshots, lambda snapshot: ids(snapshot) == "abc")
            server.kill()
            assert ids(await there.instances("users")) == "abc"
            await anyio.to_thread.run_sync(server.restart)
            directory = backend.directory("svc:users")
            with anyio.fail_after(PATIENCE):
                while len((await directory.snapshot()).members) < 3:
                    await sleep(0.05)
            # Also before they were back, nobody who looked was left without anybody.
            known = await there.instances("users")
            assert {each.id for each in known.instances + known.stale} == {*"abc"}
            here._desk.propagation = 0
            await stack.aclose()


@pytest.mark.promise("cluster-comes-back")
@on_one_loop
async def test_cut_off_from_redis_and_back(fault_proxy):
    async with fault_proxy as proxy:
        backend = open_backend(proxy.url, timeout=0.3)
        registry = ServiceRegistry(backend, ttl=TTL, interval=0.2, propagation=0)
        async with (
            registry,
            registry.register(who("a")) as registration,
            registry.watch("users") as snapshots,
        ):
            assert ids(await anext(snapshots)) == "a"
            with capture_events() as events:
                proxy.refuse()
                proxy.cut()
                with anyio.fail_after(PATIENCE):
                    while registry.statistics().interruptions < 2:  # of reading and of writing
                        await sleep(0.05)
                    while registration.statistics().registered:
                        await sleep(0.05)
                found = await registry.instances("users")
                assert ids(found) == "a"
                assert found.age > 0.2
                proxy.accept()
                with anyio.fail_after(PATIENCE):
                    while not (
                        registration.statistics().registered and registry.statistics().connected
                    ):
                        await sleep(0.05)
            kinds = [
                (type(each), each.doing)
                for each in events
                if isinstance(each, (RegistryInterrupted, RegistryResumed))
            ]
            for doing in ("reading", "writing"):
                assert [kind for kind, what in kinds if what == doing] == [
                    RegistryInterrupted,
                    RegistryResumed,
                ]
            found = await registry.instances("users")
            assert (ids(found), found.age) == ("a", 0.0)


@on_one_loop
async def test_a_renewal_is_one_call_and_a_quiet_watch_one_look(redis_url):
    async with (
        ServiceRegistry(redis_url, ttl=0.6, propagation=0) as registry,
        registry.register(who("a")) as registration,
    ):
        begun, calls = registration.statistics().renewals, commands(registry)
        while registration.statistics().renewals < begun + 5:
            await sleep(0.01)
        await sleep(0.02)
        assert commands(registry) - calls == registration.statistics().renewals - begun


def commands(registry: ServiceRegistry) -> int:
    return registry._backend.statistics().commands


@pytest.mark.promise("cluster-clock-skew")
@on_one_loop
async def test_the_clocks_of_hosts_change_nothing(redis_url, monkeypatch):
    # Every process has its own idea of the time of day; none of them is asked.
    from aiopatterns.core import clock

    source = clock._source
    skewed = clock.ClockSource(source.monotonic, lambda: source.wall() - 86_400, source.random)
    async with process(redis_url, "a", ttl=60, version="1") as old:
        before = int((await old.says()).split()[1])
        clock.set_source(skewed)
        try:
            async with ServiceRegistry(redis_url, ttl=60, propagation=0) as registry:
                assert ids(await registry.instances("users")) == "a"
                async with registry.register(who("a")) as registration:
                    assert registration.statistics().epoch > before
                    assert ids(await registry.instances("users")) == "a"
                assert ids(await registry.instances("users")) == ""
        finally:
            clock.set_source(source)
