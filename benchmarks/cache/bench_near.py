"""The memory of a cache: what a hit and a miss cost, and how long its longest step is.

In the first cases 10,000 entries are full and contenders find keys that are there, or ask for new
ones and store them, which throws out others. Ours has a life for each entry and counts uses. In the
last ones there are a million entries, and the figure is the longest single call by the clock of the
thread, so that what other processes do does not count; the collector of garbage is on. While
entries come in it looks at all objects from time to time, which no cache can help.
"""

from __future__ import annotations

import gc
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count

import cachetools
import theine

from aiopatterns.cache import ShardedCache
from aiopatterns.cache.memory import Near
from aiopatterns.core.clock import ClockSource, monotonic, seeded, set_source
from benchmarks.harness import Bench, Figure

HELD = 10_000
CALLS = 50_000
MILLION = 1_000_000
STEPS = 200_000
LONGEST = 5.0  # ms

bench = Bench("cache/near", versions=("cachetools", "theine"), loops=("asyncio",))
hit = bench.case("find a key that is there", clock="cpu", unit="ns/call")
miss = bench.case("ask for a new key, store it, throw out another", clock="cpu", unit="ns/key")
nowait = bench.case("get_nowait of a sharded cache", clock="cpu", unit="ns/call")
filling = bench.case("longest put, 1M entries come in", clock="count", unit="ms", warm=False)
evicting = bench.case("longest put, 1M entries, evicting", clock="count", unit="ms", warm=False)
expiring = bench.case("longest put, 1M expire at once", clock="count", unit="ms", warm=False)
clearing = bench.case("longest call, 1M are cleared", clock="count", unit="ms", warm=False)

numbers = count()


def fresh_keys(many: int) -> list[str]:
    keys = [f"key:{next(numbers)}" for _ in range(many)]
    for key in keys:
        hash(key)  # a string remembers its hash
    return keys


def filled(size: int, eviction: str = "s3fifo") -> tuple[Near, list[str]]:
    near: Near[str, int] = Near(max_size=size, eviction=eviction)
    keys = fresh_keys(size)
    until = monotonic() + 1e9
    for key in keys:
        near.put(key, 1, fresh_until=until, stale_until=until)
    return near, keys


def around(keys: list[str]) -> Iterator[str]:
    return (key for _ in range(CALLS // len(keys)) for key in keys)


# ------------------------------------------------------------------------------------- one call


def finding(eviction: str) -> Callable[[], object]:
    near, keys = filled(HELD, eviction=eviction)

    async def run() -> int:
        find, now = near.find, monotonic()
        for key in around(keys):
            find(key, now)
        assert find(keys[0], now) is not None
        return CALLS

    return run


def storing(eviction: str) -> Callable[[], object]:
    near, _ = filled(HELD, eviction=eviction)

    async def run() -> int:
        keys = fresh_keys(CALLS)
        find, put, now = near.find, near.put, monotonic()
        until = now + 1e9
        for key in keys:
            if find(key, now) is None:
                put(key, 1, fresh_until=until, stale_until=until)
        assert len(near) == HELD
        return CALLS

    return run


hit.ours("aiopatterns, S3-FIFO")(finding("s3fifo"))
hit.ours("aiopatterns, LRU")(finding("lru"))
miss.ours("aiopatterns, S3-FIFO")(storing("s3fifo"))
miss.ours("aiopatterns, LRU")(storing("lru"))


def cachetools_tables() -> dict[str, cachetools.Cache]:
    return {
        "cachetools LRUCache": cachetools.LRUCache(HELD),
        "cachetools TTLCache": cachetools.TTLCache(HELD, ttl=1e9),
    }


def of_cachetools(name: str, table: cachetools.Cache) -> None:
    held = fresh_keys(HELD)

    @hit.peer(name, follows="README")
    async def find() -> int:
        for key in held:
            table[key] = 1
        for key in around(held):
            table.get(key)
        assert table.get(held[0]) == 1
        return CALLS

    @miss.peer(name, follows="README")
    async def store() -> int:
        for key in fresh_keys(CALLS):
            if table.get(key) is None:
                table[key] = 1
        assert len(table) == HELD
        return CALLS


for each, table in cachetools_tables().items():
    of_cachetools(each, table)


@hit.peer("theine", follows="README: Cache(size)")
async def theine_find() -> int:
    table, held = theine.Cache(HELD), fresh_keys(HELD // 2)
    for key in held:
        table.set(key, 1)
    for key in around(held):
        table.get(key)
    assert table.get(held[0]) == (1, True)
    table.close()
    return CALLS


@hit.limit("dict.get")
async def dict_find() -> int:
    held = dict.fromkeys(fresh_keys(HELD), 1)
    get = held.get
    for key in around(list(held)):
        get(key)
    return CALLS


@miss.limit("OrderedDict: get, store, popitem")
async def ordered_store() -> int:
    held: OrderedDict[str, int] = OrderedDict.fromkeys(fresh_keys(HELD), 1)
    for key in fresh_keys(CALLS):
        if held.get(key) is None:
            held[key] = 1
            held.popitem(last=False)
    assert len(held) == HELD
    return CALLS


def sharded(shards: int | list[str]) -> Callable[[], object]:
    async def run() -> int:
        async with ShardedCache[str, int](shards, ttl=3600) as cache:
            keys = fresh_keys(HELD // 10)
            for key in keys:
                await cache.set(key, 1)
            get = cache.get_nowait
            for key in around(keys):
                get(key)
            assert get(keys[0]) == 1
        return CALLS

    return run


nowait.ours("aiopatterns.ShardedCache, 4 in this process")(sharded(4))
nowait.ours("aiopatterns.ShardedCache, 4 backends")(sharded(["memory://"] * 4))
nowait.ours("aiopatterns.ShardedCache, 1 shard")(sharded(1))

# -------------------------------------------------------------------------------- longest steps


def longest(calls: Iterable[Callable[[], object]], *, collecting: bool = True) -> float:
    """The longest of these calls, in ms of this thread, with what the collector does in between."""
    gc.collect()
    if collecting:
        gc.enable()
    worst, clock = 0.0, time.thread_time
    before = clock()
    for call in calls:
        call()
        after = clock()
        worst = max(worst, after - before)
        before = after
    return worst * 1e3


def puts(near: Near[str, int], many: int) -> Iterator[Callable[[], object]]:
    keys, never = fresh_keys(many), math.inf
    return (lambda key=key: near.put(key, 1, fresh_until=never, stale_until=never) for key in keys)


def fill(*, collecting: bool) -> Callable[[], object]:
    async def run() -> Figure:
        near: Near[str, int] = Near(max_size=MILLION)
        found = longest(puts(near, MILLION), collecting=collecting)
        assert len(near) == MILLION
        return Figure(found)

    return run


filling.ours("aiopatterns, S3-FIFO, without the collector")(fill(collecting=False))
filling.ours("aiopatterns, S3-FIFO")(fill(collecting=True))


@filling.limit("dict, without the collector")
async def fill_dict() -> Figure:
    held: dict[str, int] = {}
    calls = ((lambda key=key: held.__setitem__(key, 1)) for key in fresh_keys(MILLION))
    return Figure(longest(calls, collecting=False))


def evict(eviction: str) -> Callable[[], object]:
    async def run() -> Figure:
        near, _ = filled(MILLION, eviction=eviction)
        before = near.evictions
        found = longest(puts(near, STEPS))
        assert near.evictions - before == STEPS
        return Figure(found)

    return run


evicting.ours("aiopatterns, S3-FIFO")(evict("s3fifo"))
evicting.ours("aiopatterns, LRU")(evict("lru"))


@evicting.ours("aiopatterns, S3-FIFO, all in use")
async def evict_used() -> Figure:
    near, keys = filled(MILLION)
    for key in keys:
        near.find(key, 0.0)
        near.find(key, 0.0)
    found = longest(puts(near, STEPS // 10))
    assert near.evictions >= STEPS // 10
    return Figure(found)


@evicting.limit("OrderedDict")
async def evict_ordered() -> Figure:
    held: OrderedDict[str, int] = OrderedDict.fromkeys(fresh_keys(MILLION), 1)

    def store(key: str) -> None:
        held[key] = 1
        held.popitem(last=False)

    return Figure(longest((lambda key=key: store(key)) for key in fresh_keys(STEPS)))


@expiring.ours("aiopatterns, S3-FIFO")
async def expire() -> Figure:
    near, _ = filled(MILLION)
    later = ClockSource(lambda: time.monotonic() + 1e10, time.time, seeded(1))
    previous = set_source(later)
    try:
        found = longest(puts(near, STEPS // 4))
    finally:
        set_source(previous)
    assert near.expired > 0.99 * MILLION
    assert near.expired + near.evictions == MILLION
    return Figure(found)


@clearing.ours("aiopatterns, S3-FIFO")
async def clear() -> Figure:
    near, _ = filled(MILLION)
    found = longest(chain([near.clear], puts(near, STEPS // 4)))
    assert len(near) == STEPS // 4
    return Figure(found)


@clearing.limit("dict.clear")
async def clear_dict() -> Figure:
    held = {key: [key] for key in fresh_keys(MILLION)}
    return Figure(longest([held.clear]))


for each in (filling, evicting, expiring, clearing):
    each.under(LONGEST)

if __name__ == "__main__":
    bench.main()
