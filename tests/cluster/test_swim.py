"""The settings of the failure detector."""

from __future__ import annotations

import math

import pytest

from aiopatterns.cluster import Swim


@pytest.mark.parametrize(
    ("members", "low"), [(1, 1.875), (5, 1.875), (31, 1.875), (100, 2.5), (1_000, 3.75)]
)
def test_patience_grows_with_the_logarithm_of_the_cluster(members, low):
    assert Swim().patience(members) == pytest.approx((low, 2 * low))


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"probe": 0}, "probe"),
        ({"probe": math.nan}, "probe"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 0.5}, "timeout must be below probe"),
        ({"gossip": -1}, "gossip"),
        ({"suspicion": 0.9}, "suspicion"),
        ({"sync": 0}, "sync"),
        ({"indirect": -1}, "indirect"),
        ({"fanout": 0}, "fanout"),
    ],
)
def test_wrong_values_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        Swim(**change)
