"""Cache: cancellation in every way, faults in every function, 200 seeds, and what it refuses."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import anyio
import pytest

from aiopatterns.cache import MISSING, Bounds, Cache, LoadTimeouts, Ttl, cached
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    explore,
    fail_everywhere,
    simulate,
)


async def settled():
    """Let all run that can, on a loop of any kind."""
    for _ in range(10):
        await sleep(0)
    await sleep(0.001)


class Source:
    def __init__(self, delay=0.01):
        self.delay = delay
        self.loads = self.cancels = self.running = 0
        self.go = asyncio.Event()

    async def __call__(self, key):
        self.loads += 1
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancels += 1
            raise
        finally:
            self.running -= 1
        return f"value of {key}"

    async def many(self, keys):
        value = await self(keys[0])
        return dict.fromkeys(keys, value)


def asked(cache, source, way):
    """The coroutine of one caller."""
    if way == "single":
        return cache.get_or_load("k", source)
    if way == "batch":
        return cache.get_or_load_many(["k"], source.many)

    @cached(cache, key="{name}")
    async def load(name):
        return await source(name)

    return load("k")


async def caller(coroutine, scope):
    with scope:
        return await coroutine
    return "cancelled"


async def strike(tasks, scopes, which, how):
    for each in which:
        if how == "scope":
            scopes[each].cancel()
        else:
            tasks[each].cancel()
        if how == "native-twice":
            await settled()
            tasks[each].cancel()


def outcome(result):
    if isinstance(result, asyncio.CancelledError):
        return "cancelled"
    return result.get("k") if isinstance(result, dict) else result


@pytest.mark.promise("cache-cancel-matrix")
@pytest.mark.parametrize("how", ["native", "native-twice", "scope"])
@pytest.mark.parametrize("way", ["single", "batch", "decorated"])
@pytest.mark.parametrize("who", [(0,), (2,), (0, 1, 3, 4), (0, 1, 2, 3, 4)])
async def test_the_cancellation_matrix(who, way, how):
    cache: Cache[str, str] = Cache("matrix", ttl=60)
    source = Source()
    scopes = [anyio.CancelScope() for _ in range(5)]
    tasks = [asyncio.create_task(caller(asked(cache, source, way), scope)) for scope in scopes]
    await settled()
    assert source.loads == 1
    await strike(tasks, scopes, who, how)
    await settled()
    source.go.set()
    results = [outcome(each) for each in await asyncio.gather(*tasks, return_exceptions=True)]
    assert results == ["cancelled" if at in who else "value of k" for at in range(5)]
    assert (source.cancels, source.running) == (int(len(who) == 5), 0)
    fresh = await asyncio.gather(asked(cache, source, way), return_exceptions=True)
    assert outcome(fresh[0]) == "value of k"
    assert source.loads == (2 if len(who) == 5 else 1)


async def test_single_and_batch_callers_share_and_leave_in_any_order():
    for who in [(0, 1), (2, 3), (0, 2), (0, 1, 2, 3)]:
        cache: Cache[str, str] = Cache("mixed", ttl=60)
        source = Source()
        ways = ["batch", "single", "batch", "single"]
        tasks = [asyncio.create_task(asked(cache, source, way)) for way in ways]
        await settled()
        await strike(tasks, [], who, "native")
        source.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome(each) for each in results] == [
            "cancelled" if at in who else "value of k" for at in range(4)
        ]
        assert source.loads == 1


@pytest.mark.promise("cache-cancel-everywhere")
def test_cancelled_anywhere_a_cache_leaves_nothing_behind():
    def scenario() -> Trial:
        cache: Cache[int, int] = Cache(
            "everywhere",
            ttl=Ttl(10, stale=10),
            load=LoadTimeouts(soft=1, hard=30),
        )

        async def one(key):
            await sleep(0.1)
            return key

        async def many(keys):
            await sleep(0.1)
            return {key: key for key in keys}

        async def work() -> None:
            async with cache:
                assert await cache.get_or_load(1, one) == 1
                assert await cache.get_or_load_many([1, 2, 3], many) == {1: 1, 2: 2, 3: 3}
                assert await cache.get_or_load(1, one, fresh=True) == 1
                await sleep(15)
                assert await cache.get_or_load(1, one) == 1  # a refresh begins
                await sleep(0.01)
                async with anyio.create_task_group() as group:
                    group.start_soon(cache.get_or_load_many, [1, 4, 5], many)
                    await cache.get_or_load_many([4, 6], many)
                await cache.invalidate(1, 2)
                await cache.get_or_load(1, one)

        def check() -> None:
            assert cache.state is OwnerState.STOPPED
            assert all(cache.get_nowait(key, key) == key for key in range(7))

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=8)


@pytest.mark.promise("cache-fail-everywhere")
def test_whatever_fails_breaks_nothing():
    def scenario(fault) -> Trial:
        def copied(value):
            fault()
            return value

        cache: Cache[int, int] = Cache("faults", ttl=Ttl(10, stale=10), copy=copied)

        async def one(key):
            fault()
            await sleep(0.1)
            fault()
            return key

        async def many(keys):
            fault()
            await sleep(0.1)
            return {key: key for key in keys}

        def told(*keys):
            fault()

        async def work() -> None:
            cache.on_invalidate(told)
            async with cache:
                await cache.set(0, 0)
                await cache.get_or_load(1, one)
                await cache.get_or_load_many([1, 2, 3], many)
                await sleep(15)
                await cache.get_or_load(1, one)
                await cache.get_or_load_many([2, 3], many)
                await sleep(1)
                await cache.invalidate(1)
                await cache.clear()
                await cache.get_or_load(1, one)

        async def check() -> None:
            assert cache.get_nowait(9) is MISSING

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=12)


@pytest.mark.promise("cache-seeds")
def test_one_load_a_key_and_nothing_old_after_an_invalidation_under_200_seeds():
    async def scenario() -> None:
        cache: Cache[int, int] = Cache("seeds", ttl=Ttl(2, stale=2, negative=1), max_size=6)
        source = dict.fromkeys(range(8), 0)
        told = dict.fromkeys(range(8), 0)
        running = dict.fromkeys(range(8), 0)

        async def one(key):
            running[key] += 1
            value = source[key]
            await sleep(rng().random() / 10)
            running[key] -= 1
            return value

        async def many(keys):
            values = {key: source[key] for key in keys if key != 7}
            await sleep(rng().random() / 10)
            return values

        async def reader():
            for _ in range(12):
                key = rng().randrange(7)
                least = told[key]
                with anyio.move_on_after(0.12 if rng().random() < 0.3 else 60):
                    if rng().random() < 0.5:
                        assert await cache.get_or_load(key, one, tags=[f"t{key % 2}"]) >= least
                    else:
                        keys = [key, (key + 1) % 8, 7]
                        found = await cache.get_or_load_many(keys, many, tags=["batch"])
                        assert 7 not in found
                        value = found[key]
                        assert isinstance(value, int)
                        assert value >= least
                await sleep(rng().random() / 5)

        async def writer():
            for _ in range(12):
                key = rng().randrange(8)
                source[key] += 1
                await cache.invalidate(key)
                told[key] = source[key]
                await sleep(rng().random() / 5)

        async with cache, anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(reader)
            group.start_soon(writer)
        figures = cache.statistics()
        assert figures.size <= 6
        assert figures.errors == 0
        assert len(cache._loads._table) == len(cache._loads._kept) == 0

    explore(scenario, range(200))


async def test_callbacks_are_told_what_is_gone(caplog):
    cache: Cache[str, int] = Cache("told", ttl=60)
    told = []

    def fails(*keys):
        raise OSError("callback")

    failing = cache.on_invalidate(fails)
    subscription = cache.on_invalidate(lambda *keys: told.append((keys, cache.get_nowait("a", 0))))
    await cache.set("a", 1)
    assert told == [], "a set is no invalidation here"
    await cache.invalidate("a", "b")
    await cache.set("a", 1)
    await cache.invalidate_tags("t")
    await cache.invalidate_matching("b*")
    await cache.clear()
    assert told == [(("a", "b"), 0), ((), 1), ((), 1), ((), 0)]
    assert caplog.text.count("a callback on invalidations of the cache 'told' failed") == 4
    failing.close()
    subscription.close()
    await cache.invalidate("a")
    assert len(told) == 4


async def test_patterns_forget_keys_as_text():
    cache: Cache[object, int] = Cache("patterns", ttl=60)
    for key in ("user:1", "user:2", "org:1", 17):
        await cache.set(key, 1)
    await cache.invalidate_matching("user:*")
    await cache.invalidate_matching("1?")
    assert [cache.get_nowait(key, 0) for key in ("user:1", "user:2", "org:1", 17)] == [0, 0, 1, 0]


async def test_tags_forget_what_carries_them_and_what_is_set_too():
    cache: Cache[str, int] = Cache("tags", ttl=60)

    async def loader(key):
        return 1

    async def many(keys):
        return dict.fromkeys(keys, 1)

    await cache.get_or_load("a", loader, tags=["x", "y"])
    await cache.get_or_load_many(["b", "c"], many, tags=["y"])
    await cache.set("d", 1, tags=["x"])
    await cache.set("e", 1)
    assert await cache.get_or_load("a", loader) == 1
    await cache.invalidate_tags("x")
    assert [cache.get_nowait(key, 0) for key in "abcde"] == [0, 1, 1, 0, 1]
    await cache.invalidate_tags("y", "z")
    assert [cache.get_nowait(key, 0) for key in "abcde"] == [0, 0, 0, 0, 1]


def test_a_set_value_may_have_a_life_of_its_own():
    async def scenario():
        cache: Cache[str, int] = Cache("set", ttl=60)
        await cache.set("a", 1, ttl=5)
        await cache.set("b", 1, ttl=None)
        await cache.set("c", 1, ttl=Ttl(5, stale=5))
        await cache.set("d", 1)
        await cache.set("d", 2, ttl=0)
        assert cache.get_nowait("d") is MISSING, "what it held is older"
        await sleep(7)
        assert [cache.get_nowait(key, 0) for key in "abc"] == [0, 1, 1]
        assert cache.statistics().stale == 1
        await sleep(1e6)
        assert [cache.get_nowait(key, 0) for key in "abc"] == [0, 1, 0]

    simulate(scenario)


def test_early_refresh_spares_everybody_the_wait():
    async def scenario():
        cache: Cache[str, int] = Cache("early", ttl=Ttl(10, early=1))
        loads = []

        async def loader(key):
            loads.append(monotonic())
            await sleep(0.5)
            return len(loads)

        await cache.get_or_load("k", loader)
        slowest = 0.0
        for _ in range(2_000):
            await sleep(0.05)
            began = monotonic()
            await cache.get_or_load("k", loader)
            slowest = max(slowest, monotonic() - began)
        assert slowest < 0.5, "once in a while somebody may have come too late for a whole load"
        gaps = [b - a for a, b in itertools.pairwise(loads)]
        assert 10 <= len(gaps) <= 13
        assert min(gaps) > 4
        assert cache.statistics().hit_ratio > 0.99

    simulate(scenario)


def test_background_loads_are_bounded():
    async def scenario():
        cache: Cache[int, int] = Cache("bounded", ttl=Ttl(1, stale=100))
        running = most = 0

        async def loader(key):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await sleep(5)
            running -= 1
            return key

        for key in range(150):
            await cache.set(key, key)
        await sleep(2)
        async with cache:
            for key in range(150):
                assert await cache.get_or_load(key, loader) == key
            await sleep(1)
            assert most == 100
            for key in range(150):
                await cache.get_or_load(key, loader)
            await sleep(1)
            assert most == 100
        assert running == 50 + 50 - 100 + 100 or most == 100

    simulate(scenario)


async def test_a_closed_cache_without_a_backend_works_and_an_open_one_ends_its_loads():
    cache: Cache[str, str] = Cache("owner", ttl=Ttl(60, stale=60))
    source = Source()
    async with cache:
        assert cache.state is OwnerState.RUNNING
        with pytest.raises(RuntimeError, match="open already"):
            await cache.__aenter__()
        waiter = asyncio.create_task(cache.get_or_load("k", source))
        await settled()
    source.go.set()
    assert await waiter == "value of k", "who waits keeps the load"
    assert await cache.get_or_load("k", source) == "value of k"
    assert repr(cache) == "Cache('owner', 1 entries)"


def test_leaving_ends_what_runs_in_the_background():
    async def scenario():
        cache: Cache[str, str] = Cache("owner", ttl=Ttl(1, stale=60))
        source = Source()
        async with cache:
            await cache.set("k", "old")
            await sleep(2)
            assert await cache.get_or_load("k", source) == "old"
            await sleep(0.1)
            assert source.running == 1
        assert (source.running, source.cancels) == (0, 1)

    simulate(scenario)


def test_weights_bound_a_cache_too():
    cache: Cache[str, str] = Cache(
        "weights",
        ttl=60,
        max_size=Bounds(100, weight=30, weigh=lambda key, value: len(value), eviction="lru"),
    )

    async def scenario():
        for number in range(10):
            await cache.set(str(number), "x" * 10)
        await cache.set("huge", "x" * 31)
        figures = cache.statistics()
        assert figures.size == 3
        assert figures.evictions >= 7
        assert cache.get_nowait("huge") is MISSING

    simulate(scenario)


untyped: Any = Cache


@pytest.mark.promise("cache-bad-input")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: untyped("", ttl=1), ValueError, "name must be a non-empty string"),
        (lambda: untyped("c", ttl=-1), ValueError, "ttl must be"),
        (lambda: untyped("c", ttl=True), TypeError, "ttl must be"),
        (lambda: untyped("c", ttl=1, max_size=0), ValueError, "max_size must be"),
        (lambda: untyped("c", ttl=1, max_size="9"), TypeError, "max_size must be"),
        (lambda: untyped("c", ttl=1, load=5), TypeError, "load must be LoadTimeouts, not 5"),
        (lambda: untyped("c", ttl=1, copy=5), TypeError, "copy must be a function"),
        (lambda: untyped("c", ttl=1, codec=3), TypeError, "codec must be a codec .*, not 3"),
        (lambda: untyped("c", ttl=1, backend="nowhere://"), ValueError, "nowhere"),
        (lambda: untyped("c", ttl=1).on_invalidate(5), TypeError, "callback must be a function"),
        (lambda: untyped("c", ttl=1).on_invalidate(Source().many), TypeError, "plain function"),
    ],
    ids=range(11),
)
def test_what_makes_no_sense_is_refused_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.promise("cache-bad-input")
async def test_calls_refuse_what_they_cannot_use():
    cache = untyped("refusals", ttl=60)

    async def loader(key):
        return key

    def plain(key):
        return key

    async def no_mapping(keys):
        return [*keys]

    refused = [
        (lambda: cache.get_or_load("k", plain), TypeError, "loader must be an async function"),
        (lambda: cache.get_or_load("k", None), TypeError, "loader must be a function"),
        (lambda: cache.get_or_load([], loader), TypeError, "unhashable"),
        (lambda: cache.get_or_load("k", loader, tags="ab"), TypeError, "tags must be several"),
        (lambda: cache.get_or_load_many(["k"], plain), TypeError, "loader must be an async"),
        (lambda: cache.get_or_load_many(["k"], no_mapping), TypeError, "must return a mapping"),
        (lambda: cache.get_or_load_many(["k"], loader, tags=[""]), ValueError, "tag must be"),
        (lambda: cache.set("k", 1, ttl=-1), ValueError, "ttl must be"),
        (lambda: cache.set("k", 1, tags="t"), TypeError, "tags must be several"),
        (lambda: cache.invalidate_tags(""), ValueError, "tag must be"),
        (lambda: cache.invalidate_matching(""), ValueError, "pattern must be"),
    ]
    for call, error, message in refused:
        with pytest.raises(error, match=message):
            await call()
    assert cache.statistics().size == 0
