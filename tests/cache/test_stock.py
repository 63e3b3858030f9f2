"""Stock: what may be done with an entry, and what the figures say."""

from __future__ import annotations

import math

import pytest

from aiopatterns.cache.fetched import Fetched, Seen
from aiopatterns.cache.stock import NO_TAGS, Stock
from aiopatterns.cache.terms import MISSING, Bounds, Life, Ttl
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import simulate


def stock_of(ttl, *, copy=None, **bounds):
    return Stock[str, object](Bounds(**bounds), Ttl.of(ttl), copy)


def put(stock, key, value=1, *, tags=(), cost=0.0):
    stamp = stock.tags.stamp(tags) if tags else NO_TAGS
    stock.put(key, value, stock.ttl.life(value, monotonic()), cost=cost, stamp=stamp)


def simulated(test):
    async def scenario():
        return await test()

    def run():
        simulate(scenario)

    run.__name__ = test.__name__
    return run


@simulated
async def test_calm_is_only_what_needs_no_second_look():
    stock = stock_of(Ttl(10, stale=10, negative=5))
    put(stock, "plain")
    put(stock, "none", None)
    put(stock, "tagged", tags=["t"])
    put(stock, "absent", MISSING)
    calm = [key for key in ("plain", "none", "tagged", "absent", "nowhere") if stock.calm(key)]
    assert calm == ["plain", "none", "tagged"]
    stock.drop_tags(["t"])
    assert stock.calm("tagged") is None
    assert stock.answer("absent") is None
    assert stock.answer("absent", absent=True).value is MISSING
    assert stock.answer("nowhere") is None
    await sleep(10)
    assert stock.calm("plain") is None
    assert stock.answer("plain").value == 1
    assert stock.look("none") is None
    await sleep(10)
    assert stock.look("plain") is None
    figures = stock.statistics()
    assert (figures.hits, figures.stale) == (5, 1)


@simulated
async def test_a_sliding_life_is_never_calm_and_negative_ones_do_not_slide():
    stock = stock_of(Ttl(10, negative=10, sliding=True))
    put(stock, "k")
    put(stock, "none", None)
    assert stock.calm("k") is None
    await sleep(9)
    assert stock.answer("k") is not None
    assert stock.look("k").fresh_until == 19
    stock.cap = lambda life: Life(monotonic() + 1, monotonic() + 1)
    stock.answer("k")
    assert stock.look("k").fresh_until == 10


@simulated
async def test_due_when_stale_or_by_chance_before_but_not_right_after_a_failure():
    stock = stock_of(Ttl(10, stale=10, early=1))
    put(stock, "slow", cost=1.0)
    put(stock, "quick", cost=0.0)
    assert stock.calm("slow") is None, "ten seconds are not far away for a load of one"
    assert stock.calm("quick") is not None
    await sleep(9)
    chance = sum(stock.due(stock.look("slow")) for _ in range(2_000)) / 2_000
    assert abs(chance - math.exp(-1)) < 0.05, "e ** -(time left / cost)"
    assert not stock.due(stock.look("quick"))
    await sleep(1)
    assert stock.due(stock.look("quick"))
    stock.failed(["quick", "nowhere"])
    assert not stock.due(stock.look("quick"))
    await sleep(1)
    assert stock.due(stock.look("quick"))


@simulated
async def test_what_is_over_or_whose_tags_are_gone_is_not_stored():
    stock = stock_of(10)
    stamp = stock.tags.stamp(["t"])
    put(stock, "k")
    stock.drop_tags(["t"])
    stock.put("k", 2, Life(20, 20), stamp=stamp)
    assert stock.look("k") is None, "what it held is older"
    put(stock, "k")
    stock.put("k", 2, None, stamp=NO_TAGS)
    assert stock.look("k") is None
    stock.cap = lambda life: Life(1, 1)
    put(stock, "k")
    assert stock.look("k").stale_until == 1


def fetched(tags=()):
    return Fetched(Seen(None, 0.0, None), True, "far", Life(10.0, 10.0), 0.5, tags)


@simulated
async def test_what_another_tier_had_is_stored_unless_its_tags_may_be_gone():
    stock = stock_of(10)
    epoch = stock.epoch
    stock.adopt("plain", fetched(), epoch=epoch)
    stock.adopt("tagged", fetched(["t"]), epoch=epoch)
    assert [stock.look(key).value for key in ("plain", "tagged")] == ["far", "far"]
    stock.drop_tags(["t"])
    assert stock.look("tagged") is None
    stock.adopt("plain", fetched(), epoch=epoch)
    stock.adopt("tagged", fetched(["t"]), epoch=epoch)
    assert stock.look("plain").cost == 0.5
    assert stock.look("tagged") is None


async def test_what_is_too_heavy_is_not_stored():
    stock = stock_of(10, weight=5, weigh=lambda key, value: value)
    put(stock, "light", 2)
    put(stock, "heavy", 9)
    assert stock.all_keys() == ["light"]
    stock.clear()
    assert stock.all_keys() == []
    assert stock.statistics().size == 0


@pytest.mark.parametrize(("copy", "same"), [(None, True), (list, False)])
def test_what_callers_get(copy, same):
    value = [1]
    assert (stock_of(10, copy=copy).given(value) is value) is same


def test_a_value_may_have_more_tags_than_a_small_cache_has_entries():
    stock = stock_of(60, count=1)
    put(stock, "k", tags=[f"tag:{number}" for number in range(100)])
    assert stock.look("k") is not None
    stock.drop_tags(["tag:99"])
    assert stock.look("k") is None


@simulated
async def test_a_sweep_takes_away_what_is_over():
    stock = stock_of(10)
    for key in "abc":
        put(stock, key)
    await sleep(10)
    assert stock.sweep(10) == 3
    assert stock.all_keys() == []
