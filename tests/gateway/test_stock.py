from __future__ import annotations

from aiopatterns.gateway.stock import Stock


def test_the_same_text_gives_the_same_object_now_and_later():
    first = Stock({})
    limit = first.take("a", {"x": 1}, object)
    assert first.take("a", {"x": 1}, object) is limit
    assert first.take("b", {"x": 1}, object) is not limit
    second = Stock(first.made)
    assert second.take("a", {"x": 1}, object) is limit
    assert second.text("a", {"x": 2}) == {"x": 1}
    assert set(second.made) == {"a"}


def test_another_text_gives_another_object():
    first = Stock({})
    limit = first.take("a", 1, object)
    second = Stock(first.made)
    assert second.take("a", 2, object) is not limit
    assert second.text("a", 3) == 1
    assert second.text("c", 3) == 3


def test_what_cannot_be_made_is_not_kept():
    stock = Stock({})
    assert stock.take("a", 1, lambda: None) is None
    assert stock.made == {}
