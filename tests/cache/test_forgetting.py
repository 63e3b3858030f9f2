"""Forgetting: entries, loads and callbacks in one step."""

from __future__ import annotations

import pytest

from aiopatterns.cache.forgetting import Forgetting
from aiopatterns.cache.loads import Loads
from aiopatterns.cache.stock import Stock
from aiopatterns.cache.terms import Bounds, LoadTimeouts, Ttl
from aiopatterns.core.clock import monotonic


@pytest.fixture
def parts():
    stock = Stock[str, int](Bounds(10), Ttl(60), None)
    forgetting = Forgetting[str, int]("test", stock)
    forgetting.loads = Loads("test", stock, LoadTimeouts(), None)
    for key in ("a", "b"):
        stock.put(key, 1, Ttl(60).life(1, monotonic()), stamp=stock.tags.stamp([key]))
    return stock, forgetting


@pytest.mark.parametrize(
    ("forget", "told", "left"),
    [
        (lambda f: f.forget(["a"]), ("a",), ["b"]),
        (lambda f: f.forget_tags(["a"]), (), ["b"]),
        (lambda f: f.forget_matching("[a]"), (), ["b"]),
        (lambda f: f.forget_all(), (), []),
    ],
    ids=["keys", "tags", "matching", "all"],
)
async def test_each_way_forgets_and_tells(parts, forget, told, left):
    stock, forgetting = parts
    calls = []
    subscription = forgetting.subscribe(lambda *keys: calls.append((keys, stock.look("a"))))
    epoch = stock.epoch
    forget(forgetting)
    assert stock.epoch > epoch
    assert calls == [(told, None)]
    assert [key for key in ("a", "b") if stock.look(key) is not None] == left
    subscription.close()
    forget(forgetting)
    forgetting.drop_all()
    assert len(calls) == 1
    assert stock.all_keys() == []


def test_a_callback_that_is_subscribed_twice_is_removed_once_at_a_time(parts):
    _, forgetting = parts
    calls: list[object] = []
    first = forgetting.subscribe(calls.append)
    second = forgetting.subscribe(calls.append)
    forgetting.forget(["a"])
    first.close()
    first.close()
    forgetting.forget(["a"])
    second.close()
    forgetting.forget(["a"])
    assert calls == ["a"] * 3
