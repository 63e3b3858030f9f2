"""How the cost of a cluster grows: instances of a service, endpoints, peers."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiopatterns.backends import open_backend
from aiopatterns.cluster import (
    ConsistentHash,
    LeastLoaded,
    LoadBalancer,
    MemoryNetwork,
    MemoryTransport,
    PeerNode,
    PowerOfTwo,
    RoundRobin,
    ServiceInstance,
    ServiceRegistry,
    Strategy,
)
from aiopatterns.core.clock import sleep
from benchmarks.cluster.bench_registry import fill
from benchmarks.growing import Growth, Meter

PICKS = 20_000
KNOWN, SECONDS = 3, 2  # until all know each other, and what is timed

growth = Growth("growth/cluster")


@growth.pattern("ServiceRegistry, first snapshot", load="instances", once=10, operation="instance")
async def first_snapshot(load: int, meter: Meter) -> None:
    backend = open_backend("memory://")
    async with backend, ServiceRegistry(backend) as registry:
        await fill(backend, instances=load)
        with meter.over(load):
            assert len((await registry.instances("users")).instances) == load


@growth.pattern(
    "ServiceRegistry, one has changed",
    load="instances",
    once=10,
    operation="snapshot",
    because="a snapshot holds all instances: what has not changed is copied, not read",
)
async def changed_snapshot(load: int, meter: Meter) -> None:
    backend = open_backend("memory://")
    async with backend, ServiceRegistry(backend) as registry:
        await fill(backend, instances=load)
        await registry.instances("users")
        with meter.over(20):
            for number in range(20):
                await fill(backend, version=f"2.{number}", instances=1)
                assert len((await registry.instances("users")).instances) == load


def instances(count: int) -> list[ServiceInstance]:
    return [ServiceInstance("users", "10.0.0.1", 8000, id=f"node-{at}") for at in range(count)]


async def pick(strategy: Strategy, load: int, meter: Meter, keys: bool = False) -> None:
    async with LoadBalancer(instances(load), strategy=strategy) as balancer:
        with meter.over(PICKS):
            for number in range(PICKS):
                async with balancer.pick(f"user:{number}" if keys else None):
                    pass


@growth.pattern("LoadBalancer, round robin", load="endpoints", once=10, operation="call")
async def round_robin(load: int, meter: Meter) -> None:
    await pick(RoundRobin(), load, meter)


@growth.pattern("LoadBalancer, power of two", load="endpoints", once=10, operation="call")
async def power_of_two(load: int, meter: Meter) -> None:
    await pick(PowerOfTwo(), load, meter)


@growth.pattern(
    "LoadBalancer, least loaded",
    load="endpoints",
    once=10,
    operation="call",
    because="it looks at every endpoint at each call; power of two is made for many",
)
async def least_loaded(load: int, meter: Meter) -> None:
    await pick(LeastLoaded(), load, meter)


@growth.pattern(
    "LoadBalancer, consistent hash",
    load="endpoints",
    once=10,
    operation="call",
    because="it searches a ring of 100 points for each endpoint, by halves",
)
async def consistent_hash(load: int, meter: Meter) -> None:
    await pick(ConsistentHash(), load, meter, keys=True)


@growth.pattern(
    "PeerNode, simulated, all know each other",
    load="peers",
    once=2,
    operation="peer and second",
    loop="simulated",
    because="each of them keeps what it knows of every other",
    runs=(3, 2, 1),
)
async def peers(load: int, meter: Meter) -> None:
    network = MemoryNetwork(delay=0.002)
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(load):
            transport = MemoryTransport(network)
            node = PeerNode(f"n{number}", transport=transport, seeds=["n0"])
            nodes.append(await stack.enter_async_context(node))
        await sleep(KNOWN)
        with meter.over(load * SECONDS):
            await sleep(SECONDS)
        assert all(len(node.members) == load for node in nodes)


if __name__ == "__main__":
    growth.main()
