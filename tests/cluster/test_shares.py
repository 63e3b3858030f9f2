"""Weights as small whole numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster.shares import MOST, rounded, shares


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ([1], [1]),
        ([0.37], [1]),
        ([7, 7, 7], [1, 1, 1]),
        ([2, 4, 6], [1, 2, 3]),
        ([1.0, 0.5], [2, 1]),
        ([0.1, 0.3], [1, 3]),
        ([0.1 * 3, 1.0], [3, 10]),
        ([100, 300, 50], [2, 6, 1]),
        ([1023, 1], [1023, 1]),
        ([1024, 1], None),
        ([1, 777.3], None),
        ([1, 2**0.5], None),
        ([5e-324, 1.7e308], None),
        ([1] * 5000, [1] * 5000),
    ],
)
def test_the_smallest_whole_numbers(weights, whole):
    assert shares(weights) == whole


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_the_ratios_are_exact(weights):
    counted = shares(weights)
    assert counted is not None
    assert sum(counted) <= MOST
    for one, other in zip(weights, counted, strict=True):
        assert one * counted[0] == other * weights[0]


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_rounded_ones_are_always_there(weights):
    counted = rounded(weights)
    assert len(counted) == len(weights)
    assert all(each >= 1 for each in counted)
    assert sum(counted) <= MOST + 2 * len(weights)


def test_rounded_ones_are_about_right():
    assert rounded([1, 777.3]) == [1, 1023]
    assert rounded([2, 1]) == [2, 1]
    heavy, light = rounded([2**0.5, 1])
    assert heavy / light == pytest.approx(2**0.5, rel=0.01)
