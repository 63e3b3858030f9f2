"""What strategies have in common, and one of one's own."""

from __future__ import annotations

from collections import Counter

import pytest

from aiopatterns.cluster import LoadBalancer, Picker, Strategy
from aiopatterns.cluster.strategy import least_loaded
from tests.cluster.endpoints import endpoints, instances


class First(Strategy):
    def picker(self, endpoints, traffic):
        return FirstPicker(endpoints)


class FirstPicker(Picker):
    def pick(self, key):
        return self.endpoints[0]


async def test_a_strategy_of_ones_own():
    async with LoadBalancer(instances("ba"), strategy=First()) as balancer:
        assert balancer.choose().id == "a"
        async with balancer.pick() as endpoint:
            assert endpoint.id == "a"
        async with balancer.pick(exclude=["a"]) as endpoint:
            assert endpoint.id == "b"


async def test_a_strategy_that_raises_is_asked_again():
    class Moody(Strategy):
        def picker(self, endpoints, traffic):
            if moods.pop():
                raise LookupError
            return FirstPicker(endpoints)

    moods = [False, True, False]
    async with LoadBalancer(instances("a"), strategy=Moody()) as balancer:
        with pytest.raises(LookupError):
            balancer.update(instances("b"))
        balancer.refresh()
        assert balancer.choose().id == "b"


def test_the_least_loaded_is_any_of_equals():
    a, b, c = endpoints([1, 1, 1])
    a.begin("call", 0.0)
    found = Counter(least_loaded([a, b, c]).id for _ in range(600))
    assert found["a"] == 0
    assert min(found["b"], found["c"]) > 150


def test_beside_is_none_if_all_are_excluded():
    picker = FirstPicker(endpoints([1, 1]))
    assert picker.turn is None
    assert picker.beside(None, {"a", "b"}) is None
    assert picker.beside(None, {"a"}) is picker.endpoints[1]
