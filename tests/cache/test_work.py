"""The way of a load through both tiers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.cache import MISSING, Bounds, Cache, Ttl
from aiopatterns.cache.forgetting import Forgetting
from aiopatterns.cache.gate import Gate
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate


async def settled():
    """Let all run that can, on a loop of any kind."""
    for _ in range(10):
        await sleep(0)
    await sleep(0.001)


class Source:
    """Loaders, single and batch, that count."""

    def __init__(self, delay=0.01):
        self.delay = delay
        self.loads = []
        self.version = 1

    async def __call__(self, key):
        self.loads.append(key)
        version = self.version
        await sleep(self.delay)
        return f"{key}#{version}"

    async def many(self, keys):
        self.loads.append(tuple(keys))
        version = self.version
        await sleep(self.delay)
        return {
            key: KeyError(key) if key == "error" else f"{key}#{version}"
            for key in keys
            if key != "absent"
        }


@asynccontextmanager
async def caches(count=2, *, ttl=60, **options):
    """Caches of one name in several processes, as far as they know."""
    backend = MemoryBackend()
    made = [Cache[str, str]("shared", ttl=ttl, backend=backend, **options) for _ in range(count)]
    async with backend:
        opened = []
        try:
            for cache in made:
                opened.append(await cache.__aenter__())
            yield opened
        finally:
            for cache in reversed(opened):
                await cache.__aexit__(None, None, None)


def simulated(test):
    def run():
        simulate(test)

    run.__name__ = test.__name__
    return run


@simulated
async def test_what_one_process_has_loaded_the_others_have():
    source = Source()
    async with caches() as (a, b):
        assert await a.get_or_load("k", source, tags=["t"]) == "k#1"
        assert await b.get_or_load("k", source) == "k#1"
        assert await b.get("k") == "k#1"
        assert source.loads == ["k"]
        assert b.statistics().misses == 1
        await a.invalidate_tags("t")
        await sleep(0.1)
        assert b.get_nowait("k") is MISSING, "tags that came with the value"
        assert await b.get("k") is MISSING


@simulated
async def test_one_load_in_the_fleet():
    source = Source(delay=1)
    async with caches(3) as fleet:
        calls = [cache.get_or_load("k", source) for cache in fleet for _ in range(10)]
        assert await asyncio.gather(*calls) == ["k#1"] * 30
    assert source.loads == ["k"]


@simulated
async def test_a_look_without_a_loader_keeps_what_it_finds():
    source = Source()
    async with caches() as (a, b):
        assert await b.get("k") is MISSING
        await a.get_or_load("k", source)
        assert b.get_nowait("k") is MISSING
        assert await b.get("k", "default") == "k#1"
        assert b.get_nowait("k") == "k#1"
        looks = [b.get("m"), a.set("m", "set")]
        await asyncio.gather(*looks)
        assert await b.get("m") == "set"


@simulated
async def test_set_reaches_all_and_a_life_of_zero_takes_away():
    async with caches() as (a, b):
        await a.set("k", "1")
        assert await b.get("k") == "1"
        await b.set("k", "2", tags=["t"])
        await sleep(0.1)
        assert [await a.get("k"), await b.get("k")] == ["2", "2"]
        await a.set("k", "3", ttl=0)
        await sleep(0.1)
        assert [await a.get("k", None), await b.get("k", None)] == [None, None]


@pytest.mark.parametrize(
    "forget",
    [
        lambda cache: cache.invalidate("k", strict=True),
        lambda cache: cache.invalidate_tags("t"),
        lambda cache: cache.invalidate_matching("k*"),
        lambda cache: cache.clear(),
    ],
    ids=["key", "tag", "pattern", "all"],
)
def test_an_invalidation_reaches_all_and_what_was_being_loaded_is_not_stored(forget):
    async def scenario():
        source = Source(delay=1)
        told = []
        async with caches() as (a, b):
            b.on_invalidate(lambda *keys: told.append(keys))
            await asyncio.gather(*(each.get_or_load("k", source, tags=["t"]) for each in (a, b)))
            source.version = 2
            await forget(a)
            await sleep(0.1)
            assert [await a.get("k"), await b.get("k")] == [MISSING, MISSING]
            assert told
            late = asyncio.create_task(b.get_or_load("k", source, tags=["t"]))
            await sleep(0.5)
            source.version = 3
            await forget(a)
            assert await late == "k#2"
            assert await b.get("k") is MISSING
            assert await b.get_or_load("k", source) == "k#3"
            assert b.statistics().rejected_fills == 1

    simulate(scenario)


def test_a_fill_that_the_far_tier_refuses_is_not_stored_near(monkeypatch):
    forget = Forgetting.forget
    deaf = []

    def hear(self, keys, **options):
        if self not in deaf:
            forget(self, keys, **options)

    async def scenario():
        source = Source(delay=1)
        async with caches() as (a, b):
            deaf.append(b._forgetting)  # only the fill can tell
            late = asyncio.create_task(b.get_or_load("k", source))
            batch = asyncio.create_task(b.get_or_load_many(["m", "n"], source.many))
            await sleep(0.5)
            await a.invalidate("k", "m")
            assert await late == "k#1"
            assert await batch == {"m": "m#1", "n": "n#1"}
            assert [b.get_nowait(key, None) for key in "kmn"] == [None, None, "n#1"]
            assert b.statistics().rejected_fills == 2

    monkeypatch.setattr(Forgetting, "forget", hear)
    simulate(scenario)


@simulated
async def test_fresh_asks_the_loader_whatever_others_have():
    source = Source()
    async with caches() as (a, b):
        await a.get_or_load("k", source)
        source.version = 2
        assert await b.get_or_load("k", source, fresh=True) == "k#2"
        assert await b.get("k") == "k#2"
        source.delay = 1
        slow = asyncio.create_task(b.get_or_load("other", source))
        await settled()
        source.version = 3
        newer = asyncio.create_task(b.get_or_load("other", source, fresh=True))
        assert [await slow, await newer] == ["other#2", "other#3"]
        assert await b.get("other") in {"other#2", "other#3"}


@simulated
async def test_a_stale_value_from_the_far_tier_is_given_and_loaded_anew():
    source = Source()
    async with caches(ttl=Ttl(10, stale=100)) as (a, b):
        await a.get_or_load("k", source)
        await a.get_or_load_many(["m", "n"], source.many)
        source.version = 2
        await sleep(20)
        assert await b.get_or_load("k", source) == "k#1"
        assert await b.get_or_load_many(["m", "n"], source.many) == {"m": "m#1", "n": "n#1"}
        await sleep(1)
        assert await b.get_or_load("k", source) == "k#2"
        assert source.loads == ["k", ("m", "n"), "k", ("m", "n")]
        assert await a.get_or_load("k", source) == "k#1", "stale near"
        await sleep(1)
        assert await a.get_or_load("k", source) == "k#2"
        assert source.loads == ["k", ("m", "n"), "k", ("m", "n")], "taken from b, not loaded"


@simulated
async def test_a_batch_takes_what_the_far_tier_has_and_loads_the_rest():
    source = Source()
    async with caches(ttl=Ttl(60, negative=5)) as (a, b):
        await a.get_or_load_many(["k", "m", "absent", "error"], source.many)
        found = await b.get_or_load_many(["k", "absent", "n", "error"], source.many)
        assert list(found) == ["k", "n", "error"]
        assert isinstance(found["error"], KeyError)
        assert source.loads == [("k", "m", "absent", "error"), ("n", "error")]
        assert await b.get_or_load_many(["k", "n", "absent"], source.many) == {
            "k": "k#1",
            "n": "n#1",
        }
        assert len(source.loads) == 2
        began = monotonic()
        assert await a.get_or_load("absent", source) == "absent#1"
        assert monotonic() - began < 0.1, "a single loader is asked at once"
        assert await b.get_or_load_many(["m"], source.many) == {"m": "m#1"}
        assert b.get_nowait("absent") is MISSING, "b still remembers that there was none"
        assert await b.get("absent") == b.get_nowait("absent") == "absent#1"


@simulated
async def test_a_life_of_zero_fills_nothing():
    source = Source()
    async with caches(ttl=0) as (a, b):
        assert await a.get_or_load("k", source) == "k#1"
        assert await a.get_or_load_many(["k"], source.many) == {"k": "k#1"}
        assert await b.get("k") is MISSING


@simulated
async def test_a_cache_with_a_backend_is_open_or_refuses():
    source = Source()
    cache = Cache[str, str]("closed", ttl=60, backend="memory://")
    refused = [
        lambda: cache.get("k"),
        lambda: cache.get_or_load("k", source),
        lambda: cache.get_or_load_many(["k"], source.many),
        lambda: cache.set("k", "v"),
        lambda: cache.invalidate("k"),
        lambda: cache.invalidate_tags("t"),
        lambda: cache.invalidate_matching("k"),
        cache.clear,
    ]
    for _ in range(2):
        for call in refused:
            with pytest.raises(ClosedError, match="Cache 'closed' is not open"):
                await call()
        assert cache.get_nowait("k") is MISSING
        async with cache:
            await cache.set("k", "v")
            assert await cache.get_or_load("k", source) == "v"
    assert source.loads == []


@simulated
async def test_lives_near_are_short_where_messages_may_be_lost():
    source = Source()
    async with caches(ttl=None) as (a, _):
        await a.get_or_load("k", source)
        entry = a.stock.look("k")
        assert entry.fresh_until <= monotonic() + 60
        await sleep(61)
        assert a.get_nowait("k") is MISSING
        assert await a.get_or_load("k", source) == "k#1"
        assert source.loads == ["k"]


def test_what_is_invalidated_while_the_far_tier_is_read_is_not_stored_near(monkeypatch):
    call = Gate.call

    async def slow(self, work):
        found = await call(self, work)
        await sleep(1)
        return found

    async def scenario():
        source = Source()
        async with caches() as (a, b):
            for key in "klmn":
                await a.get_or_load(key, source)
            monkeypatch.setattr(Gate, "call", slow)
            late = [
                asyncio.create_task(each)
                for each in (b.get_or_load("k", source), b.get("l"), b.get("m"))
            ]
            await sleep(0.5)
            b._forgetting.forget(["k", "l"])
            b.stock.put("m", "new", Ttl(60).life("new", monotonic()), stamp=frozenset())
            assert await asyncio.gather(*late) == ["k#1", "l#1", "m#1"]
            assert [b.get_nowait(key, None) for key in "klm"] == [None, None, "new"]
            alone = asyncio.create_task(b.get("n"))
            await sleep(0.5)
            b.stock.put("n", "new", Ttl(60).life("new", monotonic()), stamp=frozenset())
            assert await alone == "n#1"
            assert b.get_nowait("n") == "new", "what came meanwhile is newer"
            monkeypatch.setattr(Gate, "call", call)

    simulate(scenario)


@pytest.mark.promise("cache-seeds")
def test_two_processes_under_200_seeds():
    async def scenario():
        source = dict.fromkeys("abc", 0)
        told = dict.fromkeys("abc", 0)
        running = dict.fromkeys("abc", 0)

        async def one(key):
            running[key] += 1
            value = source[key]
            await sleep(rng().random() / 10)
            running[key] -= 1
            return f"{value}"

        async def many(keys):
            values = {key: f"{source[key]}" for key in keys}
            await sleep(rng().random() / 10)
            return values

        async def reader(cache, *, own):
            for _ in range(10):
                key = rng().choice("abc")
                least = told[key] if own else 0
                with anyio.move_on_after(0.1 if rng().random() < 0.2 else 60):
                    if rng().random() < 0.7:
                        found = await cache.get_or_load(key, one, tags=["t"])
                    else:
                        found = (await cache.get_or_load_many("abc", many, tags=["t"]))[key]
                    assert int(found) >= least
                await sleep(rng().random() / 5)

        async def writer(cache):
            for _ in range(8):
                key = rng().choice("abc")
                source[key] += 1
                if rng().random() < 0.7:
                    await cache.invalidate(key)
                else:
                    await cache.invalidate_tags("t")
                told[key] = source[key]
                await sleep(rng().random() / 5)

        async with caches(ttl=Ttl(2, stale=2)) as (a, b):
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(partial(reader, a, own=True))
                    group.start_soon(partial(reader, b, own=False))
                group.start_soon(writer, a)
            await sleep(1)  # the last message has arrived
            for key in "abc":
                for cache in (a, b):
                    assert int(await cache.get_or_load(key, one)) == source[key]
            assert a.statistics().errors == b.statistics().errors == 0

    explore(scenario, range(200))


@pytest.mark.promise("cache-cancel-everywhere")
def test_cancelled_anywhere_both_tiers_are_left_whole():
    def scenario() -> Trial:
        backend = MemoryBackend()
        source = Source()
        cache = Cache[str, str]("trial", ttl=60, backend=backend)

        async def work() -> None:
            async with backend, cache:
                await cache.get_or_load("k", source, tags=["t"])
                await cache.get_or_load_many(["k", "m"], source.many)
                await cache.set("s", "set")
                await cache.invalidate("k")
                await cache.get_or_load("k", source, fresh=True)
                await cache.invalidate_tags("t")
                await cache.get("m")
                await cache.clear()

        async def check() -> None:
            async with backend, cache:
                assert await cache.get_or_load("fresh", source) == "fresh#1"
                assert not cache._loads._table

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=6)


@pytest.mark.real
async def test_two_processes_over_redis(redis_url):
    source = Source(delay=0.05)
    a, b = (Cache[str, str]("shared", ttl=Ttl(60, negative=5), backend=redis_url) for _ in range(2))

    async def forgotten(cache, key):
        with anyio.fail_after(5):
            while cache.get_nowait(key) is not MISSING:
                await sleep(0.005)

    async with a, b:
        calls = [cache.get_or_load("k", source, tags=["t"]) for cache in (a, b) for _ in range(10)]
        assert await asyncio.gather(*calls) == ["k#1"] * 20
        assert source.loads == ["k"]
        found = await b.get_or_load_many(["k", "m", "absent", "error"], source.many, tags=["t"])
        assert list(found) == ["k", "m", "error"]
        assert await a.get_or_load_many(["m", "absent"], source.many) == {"m": "m#1"}
        assert source.loads == ["k", ("m", "absent", "error")]
        source.version = 2
        await a.invalidate("k")
        await forgotten(b, "k")
        assert await b.get_or_load("k", source, tags=["t"]) == "k#2"
        assert await a.get("k") == "k#2"
        await b.invalidate_tags("t")
        await forgotten(a, "k")
        await a.set("k", "set")
        assert await b.get("k") == "set"
        await b.clear()
        await forgotten(a, "k")
        assert await a.get("k") is MISSING
        assert a.statistics().errors == b.statistics().errors == 0


@pytest.mark.parametrize(
    ("value", "terms"),
    [("new", {"ttl": 0}), (None, {}), ("heavy!", {})],
    ids=["ttl", "none", "big"],
)
async def test_a_get_under_way_stores_nothing_older_than_a_set_that_stored_nothing(value, terms):
    bounds = Bounds(10, weight=5, weigh=lambda key, value: len(value))
    cache: Cache[str, str | None] = Cache(
        "n", ttl=Ttl(60, negative=0), max_size=bounds, backend="memory://"
    )
    async with cache:
        far: Any = cache._far
        await cache.set("k", "old")
        cache.stock.clear()
        has_read, go = asyncio.Event(), asyncio.Event()

        class Slow:
            async def read(self, keys):
                fetched = await far.read(keys)
                has_read.set()
                await go.wait()
                return fetched

        slow: Any = Slow()
        peek = asyncio.create_task(cache._loads.work.peek(slow, "k"))
        await has_read.wait()
        await cache.set("k", value, **terms)
        go.set()
        assert await peek == "old", "it asked before"
        assert cache.get_nowait("k") is MISSING
