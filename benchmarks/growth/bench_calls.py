"""How the cost of calls grows: keys of a cache and of limiters, and circuits by name."""

from __future__ import annotations

from aiopatterns.backends import open_backend
from aiopatterns.cache import Cache
from aiopatterns.resilience import CircuitBreaker, PolicyRegistry, Rate, SlidingWindow, TokenBucket
from benchmarks.backends.field import server
from benchmarks.growing import Growth, Meter
from benchmarks.growth.field import server_memory

CALLS = 20_000
LIFE = 3_600.0
PLENTY = Rate(1e9)
VALUE = {"id": 17, "name": "x" * 100}

FAR = "the processor's caches no longer hold them all: compare the bare dict"

growth = Growth("growth/calls")


def place(number: int, load: int) -> int:
    """Return which one is used next: all over the load, in no order that a processor foresees."""
    return number * 7_919 % load


async def echo(key: int) -> int:
    return key


async def load_many(keys: list[str]) -> dict[str, dict[str, object]]:
    return dict.fromkeys(keys, VALUE)


@growth.pattern(
    "a bare dict of lists, to compare",
    load="keys",
    once=1_000,
    operation="look-up",
    because="the processor's caches no longer hold them all",
)
async def bare(load: int, meter: Meter) -> None:
    table = {key: [key] for key in range(load)}
    with meter.over(CALLS):
        for number in range(CALLS):
            assert table[place(number, load)][0] < load


@growth.pattern("Cache in memory, hits", load="keys", once=1_000, operation="call", because=FAR)
async def near(load: int, meter: Meter) -> None:
    cache: Cache[int, int] = Cache("bench", ttl=LIFE, max_size=load)
    for key in range(load):
        await cache.set(key, key)
    with meter.over(CALLS):
        for number in range(CALLS):
            key = place(number, load)
            assert await cache.get_or_load(key, echo) == key


@growth.pattern("Cache in memory, evicting", load="keys", once=1_000, operation="call", because=FAR)
async def evicting(load: int, meter: Meter) -> None:
    cache: Cache[int, int] = Cache("bench", ttl=LIFE, max_size=load)
    for key in range(load):
        await cache.set(key, key)
    with meter.over(CALLS):
        for key in range(load, load + CALLS):
            await cache.set(key, key)


@growth.pattern("Cache over Redis, not near", load="keys", once=200, operation="call", clock="wall")
async def tiers(load: int, meter: Meter) -> None:
    server().command("FLUSHALL")
    keys = [f"key-{number}" for number in range(load)]
    before = server_memory()
    cache: Cache[str, dict[str, object]]
    async with Cache("bench", ttl=LIFE, backend=open_backend(server().url)) as cache:
        for first in range(0, load, 1_000):
            await cache.get_or_load_many(keys[first : first + 1_000], load_many)
    meter.server_holds(server_memory() - before)
    loads = 0

    async def load_one(key: str) -> dict[str, object]:
        nonlocal loads
        loads += 1
        return VALUE

    async with Cache("bench", ttl=LIFE, backend=open_backend(server().url)) as cache:
        with meter.over(200):
            for key in keys[-200:]:
                assert await cache.get_or_load(key, load_one) == VALUE
    assert loads <= 2, loads  # a call that waits too long for a busy machine goes on without Redis


async def limited(limiter: TokenBucket | SlidingWindow, load: int, meter: Meter) -> None:
    call = limiter(echo)
    for key in range(load):
        await call(key)
    with meter.over(CALLS):
        for number in range(CALLS):
            await call(place(number, load))


@growth.pattern("TokenBucket", load="keys", once=1_000, operation="call", because=FAR)
async def tokens(load: int, meter: Meter) -> None:
    await limited(TokenBucket(Rate(1, per=LIFE), burst=1_000, key=lambda key: key), load, meter)


@growth.pattern("SlidingWindow", load="keys", once=1_000, operation="call", because=FAR)
async def window(load: int, meter: Meter) -> None:
    await limited(SlidingWindow(Rate(1_000, per=LIFE), key=lambda key: key), load, meter)


@growth.pattern("CircuitBreaker by name", load="circuits", once=100, operation="call", because=FAR)
async def circuits(load: int, meter: Meter) -> None:
    policies = PolicyRegistry()
    calls = [policies.define(str(each), CircuitBreaker(str(each)))(echo) for each in range(load)]
    with meter.over(CALLS):
        for number in range(CALLS):
            assert await calls[place(number, load)](number) == number


if __name__ == "__main__":
    growth.main()
