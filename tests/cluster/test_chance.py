"""Random: by weight, within what dice allow."""

from __future__ import annotations

from collections import Counter

import pytest

from aiopatterns.cluster import Random
from aiopatterns.cluster.chance import drawn_from
from aiopatterns.cluster.endpoint import Traffic
from aiopatterns.testing import explore
from tests.cluster.endpoints import endpoints


@pytest.mark.promise("cluster-balancer-distribution")
@pytest.mark.parametrize("weights", [[1] * 10, [1, 2, 3], [1, 777.3], [0.3, 2**0.5, 1]])
def test_counts_are_those_of_dice(weights):
    calls = 4_000

    async def draw() -> None:
        picker = Random().picker(endpoints(weights), Traffic())
        counts = Counter(picker.pick(None).id for _ in range(calls))
        for at, weight in enumerate(weights):
            share = weight / sum(weights)
            spread = (calls * share * (1 - share)) ** 0.5
            assert abs(counts[chr(ord("a") + at)] - calls * share) <= 6 * spread + 8

    explore(draw, range(20))


def test_each_stands_as_often_as_it_weighs():
    assert [each.id for each in drawn_from(endpoints([2, 1]))] == ["a", "a", "b"]
