"""Counters: nothing counted twice, nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.data import PNCounter, merge_counters

pairs = st.lists(st.integers(0, 5), min_size=2, max_size=2)
counters = st.dictionaries(st.sampled_from("abc"), pairs).map(PNCounter)


@given(counters, counters, counters)
def test_merging_is_commutative_associative_and_idempotent(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert merge_counters(None, a.state, b.state) == a.merge(b).state
    assert hash(a.merge(b)) == hash(b.merge(a))
    assert PNCounter(a.state) == a


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-5, 5), st.booleans())))
def test_the_sum_is_that_of_all_counts(steps):
    counters, total = {"a": PNCounter(), "b": PNCounter()}, 0
    for node, amount, talks in steps:
        counters[node] = counters[node].add(node, amount)
        total += amount
        if talks:
            both = counters["a"].merge(counters["b"])
            counters = {"a": both, "b": both}
    assert counters["a"].merge(counters["b"]).value == total


def test_a_node_that_counts_nothing_leaves_nothing():
    assert PNCounter().add("a", 0) == PNCounter()
    assert PNCounter({"a": (0, 0)}).state == {}
    assert repr(PNCounter().add("a", 2).add("a", -1)) == "PNCounter({'a': [2, 1]})"
    assert PNCounter() != {}


def test_bad_input():
    bad: Any = [1]
    with pytest.raises(TypeError, match="state must be a mapping"):
        PNCounter(bad)
    for pair in (1, [1], [1, 2, 3], "ab"):
        odd: Any = {"a": pair}
        with pytest.raises(TypeError, match=r"state\['a'\] must be \[added, taken\]"):
            PNCounter(odd)
    with pytest.raises(ValueError, match="added must be a whole number >= 0"):
        PNCounter({"a": [-1, 0]})
    with pytest.raises(ValueError, match="node must be a non-empty string"):
        PNCounter({"": [1, 0]})
    with pytest.raises(ValueError, match="node must be a non-empty string"):
        PNCounter().add("")
    for amount in (True, 1.5, "1"):
        value: Any = amount
        with pytest.raises(TypeError, match="amount must be a whole number"):
            PNCounter().add("a", value)
    with pytest.raises(TypeError, match="other must be a PNCounter"):
        PNCounter().merge(bad)
