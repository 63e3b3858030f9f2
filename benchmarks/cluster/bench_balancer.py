"""The pick of a load balancer: who of ten endpoints gets the next call.

A contender picks CALLS times and asserts that what it picked is spread as it should be. ``choose``
is the pick alone; ``async with pick()`` measures the call and reports how it went, which no peer
does. uhashring and the balancer have the same ten nodes, and keys that do not repeat. The limit is
a bare ``itertools.cycle``: round robin that knows nothing of endpoints that come, go and fail.
"""

from __future__ import annotations

from collections import Counter
from itertools import cycle

from aiopatterns.cluster import (
    ConsistentHash,
    LeastLoaded,
    LoadBalancer,
    PowerOfTwo,
    Random,
    RoundRobin,
    ServiceInstance,
    Strategy,
    WeightedRoundRobin,
)
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 100_000
NODES = 10
NAMES = [f"node-{number}" for number in range(NODES)]
ENDPOINTS = [
    ServiceInstance("users", "10.0.0.1", 8000 + at, id=name, weight=1 + at % 3)
    for at, name in enumerate(NAMES)
]
EQUALS = [ServiceInstance("users", "10.0.0.1", 8000 + at, id=n) for at, n in enumerate(NAMES)]
KEYS = [f"user:{number}" for number in range(CALLS)]

bench = Bench("cluster/balancer", versions=("uhashring",))
plain = bench.case("round robin", clock="cpu", unit="us/pick")
weighted = bench.case("weighted round robin", clock="cpu", unit="us/pick")
two = bench.case("power of two", clock="cpu", unit="us/pick")
others = bench.case("other strategies without a key", clock="cpu", unit="us/pick")
hashed = bench.case("consistent hash", clock="cpu", unit="us/pick")
reported = bench.case("a call that is reported", clock="cpu", unit="us/call")


async def choose(
    strategy: Strategy, endpoints: list[ServiceInstance], *, warm: bool = False
) -> int:
    """Choose CALLS times; with ``warm``, after calls by which latencies are known."""
    async with LoadBalancer(endpoints, strategy=strategy) as balancer:
        for _ in range(10 * NODES if warm else 0):
            async with balancer.pick():
                pass
        choose = balancer.choose
        for _ in range(CALLS):
            choose()
        spread = Counter(choose().id for _ in range(1_000))
    assert len(spread) == NODES
    return CALLS


@plain.ours("RoundRobin")
async def round_robin() -> int:
    return await choose(RoundRobin(), EQUALS)


@plain.limit("itertools.cycle")
async def bare_cycle() -> int:
    following = cycle(EQUALS).__next__
    for _ in range(CALLS):
        following()
    assert len({following().id for _ in range(NODES)}) == NODES
    return CALLS


@weighted.ours("WeightedRoundRobin")
async def weighted_round_robin() -> int:
    return await choose(WeightedRoundRobin(), ENDPOINTS)


@weighted.limit("itertools.cycle")
async def bare_weighted_cycle() -> int:
    return await bare_cycle()


@two.ours("PowerOfTwo, latencies known")
async def power_of_two() -> int:
    return await choose(PowerOfTwo(), EQUALS, warm=True)


@two.ours("PowerOfTwo, idle")
async def power_of_two_idle() -> int:
    return await choose(PowerOfTwo(), EQUALS)


@two.limit("itertools.cycle")
async def bare_cycle_again() -> int:
    return await bare_cycle()


@others.ours("Random")
async def random() -> int:
    return await choose(Random(), ENDPOINTS)


@others.ours("LeastLoaded")
async def least_loaded() -> int:
    return await choose(LeastLoaded(), ENDPOINTS)


@hashed.ours("ConsistentHash, bounded loads")
async def consistent_hash() -> int:
    async with LoadBalancer(EQUALS, strategy=ConsistentHash()) as balancer:
        choose = balancer.choose
        for key in KEYS:
            choose(key)
        assert len({choose(key).id for key in KEYS[:1_000]}) == NODES
    return CALLS


if (uhashring := peer("uhashring")) is not None:

    @hashed.peer("uhashring.HashRing", follows="its README, Basic usage: get_node")
    async def with_uhashring() -> int:
        get_node = uhashring.HashRing(nodes=NAMES).get_node
        for key in KEYS:
            get_node(key)
        assert len({get_node(key) for key in KEYS[:1_000]}) == NODES
        return CALLS


async def call(strategy: Strategy) -> int:
    async with LoadBalancer(EQUALS, strategy=strategy) as balancer:
        for _ in range(CALLS):
            async with balancer.pick():
                pass
        found = balancer.statistics()
    assert (found.successes, found.in_flight) == (CALLS, 0)
    return CALLS


@reported.ours("async with pick(), PowerOfTwo")
async def call_power_of_two() -> int:
    return await call(PowerOfTwo())


@reported.ours("async with pick(), RoundRobin")
async def call_round_robin() -> int:
    return await call(RoundRobin())


plain.under(0.1)
weighted.under(0.1)
two.under(0.4)
two.under(0.4, ours="PowerOfTwo, idle")
hashed.under(0.5)

if __name__ == "__main__":
    bench.main()
