"""Batches: one call for what is missing, seats in all loads that concern a caller."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiopatterns.cache import Cache, Ttl
from aiopatterns.core.clock import sleep
from aiopatterns.testing import Trial, cancel_everywhere, simulate


async def settled():
    """Let all run that can, on a loop of any kind."""
    for _ in range(10):
        await sleep(0)
    await sleep(0.001)


class Many:
    """A batch loader that counts its calls and waits until it is let go."""

    def __init__(self, go=True):
        self.asked = []
        self.cancels = 0
        self.go = asyncio.Event()
        if go:
            self.go.set()

    async def __call__(self, keys):
        self.asked.append(keys)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancels += 1
            raise
        return {key: f"{key}!" for key in keys}


@pytest.fixture
def cache() -> Cache[str, str]:
    return Cache("batch", ttl=60)


def simulated(test):
    def run(cache):
        simulate(lambda: test(cache))

    run.__name__ = test.__name__
    return run


async def test_nothing_asked_asks_nobody(cache):
    many = Many()
    assert await cache.get_or_load_many([], many) == {}
    assert await cache.get_or_load_many(iter("ab"), many) == {"a": "a!", "b": "b!"}
    assert await cache.get_or_load_many("ab", many) == {"a": "a!", "b": "b!"}
    assert many.asked == [["a", "b"]]
    figures = cache.statistics()
    assert (figures.hits, figures.misses, figures.loads) == (2, 2, 1)


async def test_overlapping_batches_load_each_key_once(cache):
    first, second = Many(go=False), Many(go=False)
    one = asyncio.create_task(cache.get_or_load_many("abc", first))
    await settled()
    two = asyncio.create_task(cache.get_or_load_many("bcd", second))
    await settled()
    second.go.set()
    await settled()
    assert not two.done()
    first.go.set()
    assert await one == {"a": "a!", "b": "b!", "c": "c!"}
    assert await two == {"b": "b!", "c": "c!", "d": "d!"}
    assert (first.asked, second.asked) == ([["a", "b", "c"]], [["d"]])
    assert cache.statistics().joins == 2


async def test_a_batch_keeps_its_seat_in_a_load_that_all_others_leave(cache):
    first, second = Many(go=False), Many(go=False)
    one = asyncio.create_task(cache.get_or_load_many("abc", first))
    await settled()
    two = asyncio.create_task(cache.get_or_load_many("bcd", second))
    await settled()
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert first.cancels == 0
    first.go.set()
    second.go.set()
    assert await two == {"b": "b!", "c": "c!", "d": "d!"}
    assert cache.get_nowait("a") == "a!"


async def test_a_cancelled_batch_ends_all_loads_that_are_its_alone(cache):
    first, second = Many(go=False), Many(go=False)
    one = asyncio.create_task(cache.get_or_load_many("abc", first))
    await settled()
    two = asyncio.create_task(cache.get_or_load_many("bcd", second))
    await settled()
    one.cancel()
    two.cancel()
    await asyncio.gather(one, two, return_exceptions=True)
    assert (first.cancels, second.cancels) == (1, 1)


async def test_a_cancelled_batch_waits_for_the_end_of_what_it_leaves(cache):
    ends = []

    async def slow(keys):
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await sleep(0.01)
            ends.append(keys)

    one = asyncio.create_task(cache.get_or_load_many("ab", slow))
    await settled()
    two = asyncio.create_task(cache.get_or_load_many("abc", slow))
    await settled()
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert ends == []
    two.cancel()
    await asyncio.gather(two, return_exceptions=True)
    assert sorted(ends) == [["a", "b"], ["c"]]


async def test_a_batch_that_is_closed_waits_for_nothing(cache):
    many = Many(go=False)
    coroutine = cache.get_or_load_many("ab", many)
    coroutine.send(None)
    coroutine.close()
    await settled()
    assert many.cancels == 0, "its task had not begun"
    assert many.asked == []


@simulated
async def test_its_own_error_is_raised_and_those_of_others_are_values(cache):
    async def fails(keys):
        await sleep(0.01)
        raise OSError("down")

    single = asyncio.create_task(cache.get_or_load("a", lambda key: fails([key])))
    await settled()
    many = Many()
    found = await cache.get_or_load_many("ab", many)
    assert isinstance(found["a"], OSError)
    assert found["b"] == "b!"
    with pytest.raises(OSError, match="down"):
        await single
    other = asyncio.create_task(cache.get_or_load_many("xy", fails))
    await settled()
    joined = asyncio.create_task(cache.get_or_load("x", lambda key: fails([key])))
    with pytest.raises(OSError, match="down"):
        await other
    with pytest.raises(OSError, match="down"):
        await joined
    assert cache.statistics().errors == 2


@simulated
async def test_an_error_for_one_key_concerns_only_that(cache):
    async def partly(keys):
        await sleep(0.01)
        return {key: ValueError(key) if key == "b" else key for key in keys}

    batch = asyncio.create_task(cache.get_or_load_many("abc", partly))
    await settled()
    singles = [asyncio.create_task(cache.get_or_load("b", Many())) for _ in range(2)]
    found = await batch
    errors = await asyncio.gather(*singles, return_exceptions=True)
    assert found["a"] == "a"
    assert [repr(each) for each in (found["b"], *errors)] == ["ValueError('b')"] * 3
    assert len({id(each) for each in (found["b"], *errors)}) == 3
    assert await cache.get_or_load_many("ac", Many()) == {"a": "a", "c": "c"}


@simulated
async def test_a_single_caller_loads_what_a_batch_has_left_out(cache):
    async def nothing(keys):
        await sleep(0.01)
        return {}

    async def one(key):
        return f"{key}?"

    batch = asyncio.create_task(cache.get_or_load_many("a", nothing))
    await settled()
    assert await cache.get_or_load("a", one) == "a?"
    assert await batch == {}
    assert await cache.get_or_load_many("b", nothing) == {}
    assert cache.statistics().size == 1, "without negative= nothing is remembered"


async def test_an_invalidated_key_of_a_batch_is_not_stored(cache):
    first = Many(go=False)
    one = asyncio.create_task(cache.get_or_load_many("ab", first))
    await settled()
    await cache.invalidate("a")
    second = Many()
    assert await cache.get_or_load_many("ab"[:1], second) == {"a": "a!"}
    first.go.set()
    assert await one == {"a": "a!", "b": "b!"}
    assert (first.asked, second.asked) == ([["a", "b"]], [["a"]])
    assert cache.statistics().rejected_fills == 1


def test_stale_keys_are_given_and_loaded_anew_together():
    async def scenario():
        cache: Cache[str, str] = Cache("batch", ttl=Ttl(10, stale=10))
        many = Many()
        await cache.get_or_load_many("abc", many)
        await sleep(5)
        await cache.get_or_load_many("abcd", many)
        await sleep(6)
        assert len(await cache.get_or_load_many("abcd", many)) == 4
        await sleep(0.1)
        assert many.asked == [["a", "b", "c"], ["d"], ["a", "b", "c"]]
        await cache.get_or_load_many("abcd", many)
        assert len(many.asked) == 3
        many.go.clear()
        await sleep(10)
        async with cache:
            await cache.get_or_load_many("ab", many)
            await cache.get_or_load_many("ab", many)
            await sleep(0.1)
            assert many.asked[3:] == [["a", "b"]], "what is being loaded is not loaded again"

    simulate(scenario)


@pytest.mark.promise("cache-cancel-everywhere")
def test_cancelled_anywhere_no_seat_is_left():
    def scenario() -> Trial:
        cache: Cache[str, str] = Cache("batch", ttl=60)

        async def slow(keys):
            await sleep(0.5)
            return dict.fromkeys(keys, "slow")

        async def quick(keys):
            await sleep(0.1)
            return dict.fromkeys(keys, "quick")

        async def work() -> None:
            async with anyio.create_task_group() as group:
                for keys in ("ab", "cd"):
                    group.start_soon(cache.get_or_load_many, keys, slow)
                await sleep(0.01)
                found = await cache.get_or_load_many("acx", quick)
                assert found == {"a": "slow", "c": "slow", "x": "quick"}
                group.cancel_scope.cancel()

        def check() -> None:
            assert not cache._loads._table

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=4)
