"""Peers that come and go, a registry over a bad network, and a balancer whose targets fail."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.cluster import (
    ConsistentHash,
    Ejection,
    LeastLoaded,
    LoadBalancer,
    MemoryNetwork,
    PowerOfTwo,
    Random,
    RoundRobin,
    ServiceInstance,
    ServiceRegistry,
    WeightedRoundRobin,
)
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from tests.cluster.crowd import Crowd, until
from tests.cluster.weather import Server, way_to
from tests.sweep.run import FOREVER

if TYPE_CHECKING:
    from tests.sweep.run import Run

__all__ = ["cluster"]

NODES = "abcde"
TTL = 3.0
PROPAGATION = 0.2
STRATEGIES = (ConsistentHash, LeastLoaded, PowerOfTwo, Random, RoundRobin, WeightedRoundRobin)


async def cluster(run: Run) -> None:
    """All three at once, while the wall clock jumps."""
    async with create_task_group() as tasks:
        for part in (among_peers, in_a_registry, over_a_balancer):
            tasks.start_soon(part, run)
        for _ in range(3):
            await sleep(run.dice.random() * 2)
            run.step_clock(run.dice.choice([-3_600.0, 3_600.0]))


async def among_peers(run: Run) -> None:
    """Whoever crashes, leaves or is cut off for a while: in the end all see who is there."""
    network = MemoryNetwork(seed=run.dice.getrandbits(32), loss=0.05, delay=0.002)
    async with create_task_group() as tasks:
        crowd = Crowd(network, tasks)
        for name in NODES:
            await crowd.open(name)
        for _ in range(5):
            await sleep(run.dice.random())
            await disturb(run, crowd)
        network.heal()
        await until(crowd.agree)
        tasks.cancel_scope.cancel()


async def disturb(run: Run, crowd: Crowd) -> None:
    """One of the things that happen to a node; the first, whom all ask first, stays."""
    name = run.dice.choice(NODES[1:])
    match run.dice.randrange(5):
        case 0 if name in crowd.nodes:
            await crowd.crash(name)
        case 1 if name in crowd.nodes:
            await crowd.leave(name)
        case 2 if name not in crowd.nodes:
            await crowd.open(name)
        case 3:
            crowd.network.isolate(name)
            await sleep(run.dice.random())
            crowd.network.heal()
        case _:
            crowd.network.pause(name, run.dice.random() * 0.5)


async def in_a_registry(run: Run) -> None:
    """Who is registered is found all the while; who has gone is not, a second after its ttl."""
    here: dict[str, float] = {}  # since when
    gone: dict[str, float] = {}
    async with Server() as server:
        ways = [way_to(server, delay=0.02, faults=run.dice.choice([0.0, 0.05])) for _ in range(3)]

        async def process(name: str, way: Any) -> None:
            for _ in range(2):
                await sleep(run.dice.random())
                gone.pop(name, None)
                # It ends by itself, or is given up; where nobody answers it does not begin.
                with (
                    suppress(BackendUnavailableError),
                    move_on_after(run.dice.choice([1.5, FOREVER])),
                ):
                    async with (
                        ServiceRegistry(way, ttl=TTL, propagation=PROPAGATION) as registry,
                        registry.register(instance(name)),
                    ):
                        here[name] = monotonic()
                        try:
                            await sleep(run.dice.random() * 6)
                        finally:
                            del here[name]
                gone[name] = monotonic()

        async def outages() -> None:
            for _ in range(4):
                await sleep(run.dice.random() * 2)
                way = run.dice.choice(ways)
                way.away = True
                await sleep(run.dice.random() * TTL / 4)
                way.away = False

        async def watch() -> None:
            clear: Any = way_to(server)
            async with ServiceRegistry(clear, ttl=TTL, interval=0.2) as registry:
                while True:
                    found = {each.id for each in (await registry.instances("users")).instances}
                    now = monotonic()
                    for name, since in here.items():
                        assert name in found or now - since < 1.0
                    for name, since in gone.items():
                        assert name not in found or now - since < TTL + 1
                    await sleep(0.1)

        async with create_task_group() as tasks:
            tasks.start_soon(watch)
            async with create_task_group() as work:
                for name, way in zip("xyz", ways, strict=True):
                    work.start_soon(process, name, way)
                work.start_soon(outages)
            await sleep(TTL + 2)
            tasks.cancel_scope.cancel()


def instance(name: str) -> ServiceInstance:
    return ServiceInstance("users", "127.0.0.1", 8000, id=name)


async def over_a_balancer(run: Run) -> None:
    """Every call gets an endpoint while there is one, and is counted once at every instant."""
    strategy = run.dice.choice(STRATEGIES)()
    balancer = LoadBalancer(several("abc"), strategy=strategy, eject=Ejection(consecutive=1))
    calls = 0

    def check() -> None:
        if balancer.is_open:
            found = balancer.statistics()
            ended = found.successes + found.failures + found.ignored
            assert found.calls == ended + found.in_flight

    run.always(check)

    async def call() -> None:
        nonlocal calls
        for number in range(8):
            with move_on_after(run.dice.choice([0.1, FOREVER])), suppress(OSError):
                async with balancer.pick(f"key {number}"):
                    calls += 1
                    await sleep(run.dice.random() * 0.5)
                    if run.chance(0.4):
                        raise OSError

    async def change() -> None:
        for _ in range(6):
            await sleep(run.dice.random())
            balancer.update(several(run.dice.sample("abcdef", run.dice.randint(1, 6))))

    async with balancer:
        async with create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(call)
            tasks.start_soon(change)
        found = balancer.statistics()
    assert (found.calls, found.in_flight) == (calls, 0)


def several(names: Any) -> list[ServiceInstance]:
    return [instance(name) for name in sorted(names)]
