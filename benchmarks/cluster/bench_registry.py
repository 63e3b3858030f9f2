"""A registry on Redis: what a renewal sends, and how long a snapshot of 1,000 instances takes.

The first snapshot reads every record; a later one only those that have changed, here one of them,
or none. The limit is the bare look at the directory, without reading a record. Wall time; the
server runs on the same machine. A renewal is counted in commands.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import Backend
from aiopatterns.cluster import ServiceInstance, ServiceRegistry
from aiopatterns.cluster.record import written
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

INSTANCES = 1_000
SNAPSHOTS = 20
RENEWALS = 50

bench = Bench("cluster/registry", versions=("msgspec", "hiredis"))
first = bench.case("first snapshot of 1,000 instances", clock="wall", unit="ms/snapshot")
changed = bench.case("snapshot, one has changed", clock="wall", unit="ms/snapshot")
calls = bench.case("calls, renewal", clock="count", unit="calls/renewal")


async def fill(backend: Backend, version: str = "1.4.2", instances: int = INSTANCES) -> None:
    """Put so many records, as their processes would."""
    directory = backend.directory("svc:users")

    async def put(number: int) -> bool:
        instance = ServiceInstance(
            "users",
            f"10.0.{number // 256}.{number % 256}",
            8000,
            id=f"users-{number}",
            version=version,
            zone="eu-1",
            metadata={"rack": str(number % 40), "commit": "0123456789abcdef"},
        )
        data = written(instance, "ready", epoch=1)
        return await directory.put(instance.id, data, ttl=600, fence=1)

    assert all(await asyncio.gather(*map(put, range(instances))))


async def first_snapshots(backend: Backend) -> Figure:
    async with backend, AsyncExitStack() as stack:
        await fill(backend)
        registries = [ServiceRegistry(backend) for _ in range(SNAPSHOTS)]
        for registry in registries:
            await stack.enter_async_context(registry)

        async def work() -> None:
            for registry in registries:
                assert len((await registry.instances("users")).instances) == INSTANCES

        return await timed(work, SNAPSHOTS, scale=1e3)


async def looks() -> Figure:
    async with open_backend(server().url) as backend:
        await fill(backend)
        directory = backend.directory("svc:users")

        async def work() -> None:
            for _ in range(SNAPSHOTS):
                assert len((await directory.snapshot()).members) == INSTANCES

        return await timed(work, SNAPSHOTS, scale=1e3)


@first.ours("aiopatterns, Redis")
async def redis_first() -> Figure:
    return await first_snapshots(open_backend(server().url))


@first.ours("aiopatterns, memory")
async def memory_first() -> Figure:
    return await first_snapshots(open_backend("memory://"))


@changed.ours("aiopatterns, Redis")
async def redis_changed() -> Figure:
    backend = open_backend(server().url)
    async with backend, ServiceRegistry(backend) as registry:
        await fill(backend)
        await registry.instances("users")

        async def work() -> None:
            for number in range(SNAPSHOTS):
                await fill(backend, version=f"2.{number}", instances=1)
                found = await registry.instances("users")
                assert f"2.{number}" in {each.version for each in found.instances}

        return await timed(work, SNAPSHOTS, scale=1e3)


@calls.ours("aiopatterns, Redis")
async def redis_calls() -> Figure:
    backend = open_backend(server().url)
    async with (
        backend,
        ServiceRegistry(backend, ttl=0.06, propagation=0) as registry,
        registry.register(ServiceInstance("bench", "localhost", 80)) as registration,
    ):
        sent, begun = backend.statistics().commands, registration.statistics().renewals
        while registration.statistics().renewals < begun + RENEWALS:
            await asyncio.sleep(0.01)
        renewals = registration.statistics().renewals - begun
        return Figure((backend.statistics().commands - sent) / renewals)


first.limit("the directory alone")(looks)
changed.limit("the directory alone")(looks)
first.under(20)
calls.under(1)

if __name__ == "__main__":
    bench.main()
