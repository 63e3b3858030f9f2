"""Loads: the table, what is stored of a load, and what runs in the background."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from aiopatterns.cache.load import ANY, NEW
from aiopatterns.cache.loads import Loads
from aiopatterns.cache.stock import Stock
from aiopatterns.cache.terms import MISSING, Bounds, LoadTimeouts, Ttl
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import LoadAbortedError, TimeoutExceededError
from aiopatterns.testing import simulate


async def settled():
    """Let all run that can, on a loop of any kind."""
    for _ in range(10):
        await sleep(0)
    await sleep(0.001)


class Parts:
    """Loads over a near tier, with a loader that waits until it is let go."""

    def __init__(self, ttl=60, **timeouts):
        self.stock: Any = Stock[str, str](Bounds(10), Ttl.of(ttl), None)
        self.loads: Loads[str, str] = Loads("test", self.stock, LoadTimeouts(**timeouts), None)
        self.go = asyncio.Event()
        self.begun = self.cancels = 0

    async def loader(self, key):
        self.begun += 1
        mine = self.begun
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancels += 1
            raise
        return f"{key}#{mine}"

    def begin(self, key="k", **options):
        return self.loads.begin((key,), self.loads.one(key, self.loader), **options)

    def obtain(self, key="k", **options):
        return asyncio.create_task(self.loads.obtain(key, self.loader, **options))


async def test_a_key_is_in_one_load_at_most():
    parts = Parts()
    first: Any = parts.begin()
    seat = first.flight.board()
    await settled()
    found: Any = parts.loads.find("k")
    assert found is first
    second: Any = parts.begin()
    found = parts.loads.find("k")
    assert found is second
    assert (list(first.live), list(second.live)) == ([], ["k"])
    parts.go.set()
    assert await second.flight.join() == {"k": "k#2"}
    assert await first.flight.ride(seat) == {"k": "k#1"}
    assert parts.stock.look("k").value == "k#2", "what was replaced stores nothing"
    assert parts.loads.find("k") is None
    assert parts.stock.rejected == 1


async def test_a_load_that_is_left_stores_nothing_even_if_it_will_not_stop():
    parts = Parts()

    async def stubborn(key):
        try:
            await parts.go.wait()
        except asyncio.CancelledError:
            return "too late"

    task = asyncio.create_task(parts.loads.obtain("k", stubborn))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parts.stock.look("k") is None


async def test_detaching_by_tag_pattern_and_all():
    parts = Parts()
    tasks = [parts.obtain(key, tags=[tag]) for key, tag in (("a", "x"), ("b", "x"), ("c", "y"))]
    await settled()
    parts.loads.detach_tags(["y", "z"])
    assert [parts.loads.find(key) is None for key in "abc"] == [False, False, True]
    parts.loads.detach_matching(lambda key: key == "a")
    assert [parts.loads.find(key) is None for key in "abc"] == [True, False, True]
    parts.loads.detach_all()
    assert parts.loads.find("b") is None
    parts.go.set()
    assert [each[0] for each in await asyncio.gather(*tasks)] == ["a", "b", "c"]
    assert [parts.stock.look(key) for key in "abc"] == [None] * 3


async def test_without_another_tier_fresh_joins_what_is_under_way():
    parts = Parts()
    tasks = [parts.obtain(floor=ANY), parts.obtain(floor=NEW)]
    await settled()
    parts.go.set()
    assert await asyncio.gather(*tasks) == ["k#1", "k#1"]
    assert parts.stock.joins == 1


async def test_while_it_closes_nothing_begins_in_the_background():
    parts = Parts(abandoned="finish")
    task = parts.obtain()
    await settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert parts.cancels == 0
    await parts.loads.dismiss()
    assert parts.cancels == 1
    parts.stock.put("k", "old", Ttl(60).life("old", monotonic()), stamp=frozenset())
    parts.loads.refresh([parts.stock.look("k")], parts.loads.one("k", parts.loader), ())
    assert parts.loads.find("k") is None
    late = parts.obtain("late")
    await settled()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert parts.cancels == 2, "nobody would answer for it"
    parts.loads.reopen()
    parts.loads.refresh([parts.stock.look("k")], parts.loads.one("k", parts.loader), ())
    parts.go.set()
    await settled()
    assert parts.stock.look("k").value == "k#3"


def test_after_the_soft_time_an_absent_value_is_none_at_hand():
    async def scenario():
        parts = Parts(ttl=Ttl(60, negative=60), soft=1, hard=3)
        life = Ttl(60).life("x", monotonic())
        parts.stock.put("k", MISSING, life, stamp=frozenset())
        with pytest.raises(TimeoutExceededError):
            await parts.loads.obtain("k", parts.loader, floor=NEW)
        assert monotonic() == 3

    simulate(scenario)


def test_what_is_set_meanwhile_stands_in_for_a_load_that_is_late():
    async def scenario():
        parts = Parts(soft=1)
        task = parts.obtain()
        await sleep(0.5)
        parts.stock.put("k", "set", Ttl(60).life("set", monotonic()), stamp=frozenset())
        assert await task == "set"
        assert monotonic() == 1
        await parts.loads.dismiss()
        assert parts.cancels == 1

    simulate(scenario)


async def test_a_loader_that_times_out_by_itself_is_no_hard_time():
    parts = Parts(hard=60)

    async def loader(key):
        raise TimeoutError("its own")

    async def cancels(key):
        raise asyncio.CancelledError

    with pytest.raises(TimeoutError, match="its own"):
        await parts.loads.obtain("k", loader)
    with pytest.raises(LoadAbortedError, match="the load of 'k' cancelled itself"):
        await parts.loads.obtain("k", cancels)
    assert parts.stock.errors == 2


async def test_a_loader_that_cancels_its_own_task_cancels_no_caller():
    parts = Parts()

    async def loader(key):
        task: Any = asyncio.current_task()
        task.cancel()
        await asyncio.sleep(0)

    async def many(keys):
        await loader(keys[0])

    tasks = [asyncio.create_task(parts.loads.obtain("k", loader)) for _ in range(3)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(each) for each in results] == ["the load of 'k' cancelled itself"] * 3
    assert {type(each) for each in results} == {LoadAbortedError}
    batch = parts.loads.begin(["a", "b"], parts.loads.many(["a", "b"], many))
    with pytest.raises(LoadAbortedError, match="the load of 'a' cancelled itself"):
        await batch.flight.join()


async def test_closing_leaves_a_kept_load_to_those_who_wait_for_it():
    parts = Parts(abandoned="finish")
    stays, leaves = parts.obtain(), parts.obtain("left")
    await settled()
    await parts.loads.dismiss()
    assert parts.cancels == 0
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    assert parts.cancels == 1, "the last one out cancels it again"
    parts.go.set()
    assert await stays == "k#1"
    assert parts.stock.look("k") is None, "nobody keeps it true"


@pytest.mark.real
async def test_a_load_that_ends_as_its_soft_time_does_is_not_kept_for_ever():
    """Else a hundred of them would stop all loads in the background."""

    def weigh(key, value):
        time.sleep(0.003)  # the soft time is over when the load lands, before its caller wakes up
        return 1

    stock: Any = Stock[str, str](Bounds(200, weight=200, weigh=weigh), Ttl.of(60), None)
    loads: Loads[str, str] = Loads("test", stock, LoadTimeouts(soft=0.001), None)
    begun = []

    async def loader(key):
        begun.append(key)
        return key

    for number in range(101):
        assert await loads.obtain(str(number), loader) == str(number)
    loads.refresh([stock.look("7")], loads.one("7", loader), ())
    await settled()
    assert begun[-1] == "7"


async def test_a_loader_that_returns_missing_is_told_so_instead_of_asked_for_ever():
    parts = Parts(ttl=Ttl(60, negative=60))

    async def loader(key):
        parts.begun += 1
        return MISSING

    with pytest.raises(TypeError, match=r"a loader must return a value, or None .* not MISSING"):
        await parts.loads.obtain("k", loader)
    assert parts.begun == 1
