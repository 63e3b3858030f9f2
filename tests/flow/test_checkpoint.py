"""Fingerprints: equal for equal arguments, different for different ones, refused for objects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import DagError
from aiopatterns.flow.checkpoint import ResultStore, result_key
from aiopatterns.flow.task import Given, Live, Results

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Store:
    async def get(self, key, default):
        return default

    async def set(self, key, value):
        return None


def test_what_a_store_is():
    assert isinstance(Store(), ResultStore)
    assert not isinstance({}, ResultStore)


@given(st.dictionaries(st.text(min_size=1), PLAIN, max_size=4), PLAIN)
def test_equal_arguments_have_equal_keys(arguments, other):
    key = result_key("etl", "load", {k: Given(v) for k, v in arguments.items()}, {})
    again = {k: Given(arguments[k]) for k in reversed(list(arguments))}
    assert result_key("etl", "load", again, {}) == key
    assert key.startswith("etl:load:")
    assert result_key("etl", "load", {**again, "": Given(other)}, {}) != key


def test_a_result_stands_for_the_key_of_its_task():
    def key(of, *, several=False):
        return result_key("d", "t", {"x": Results(("a",), several=several)}, {"a": of})

    assert key("d:a:1") == key("d:a:1")
    assert key("d:a:1") != key("d:a:2")
    assert result_key("d", "t", {"x": Given(["d:a:1"])}, {}) != key("d:a:1")
    assert result_key("d", "t", {"x": Live()}, {}) != result_key("d", "t", {"x": Given(None)}, {})


def test_names_that_look_alike_side_by_side_have_keys_of_their_own():
    assert result_key("a:b", "c", {}, {}) != result_key("a", "b:c", {}, {})


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize("value", [object(), 2**200, lambda: 1, ENDLESS])
def test_objects_have_no_fingerprint(value):
    with pytest.raises(DagError, match="argument 'x' of task 't' has no fingerprint"):
        result_key("d", "t", {"x": Given(value)}, {})
