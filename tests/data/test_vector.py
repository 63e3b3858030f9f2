"""Version vectors against what they mean: sets of changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.data import VersionVector

vectors = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)).map(VersionVector)


def changes(vector: VersionVector) -> set[tuple[str, int]]:
    return {(node, each) for node, number in vector.items() for each in range(number)}


@given(vectors, vectors)
def test_it_is_the_set_of_its_changes(left, right):
    ours, theirs = changes(left), changes(right)
    assert (left == right) == (ours == theirs)
    assert changes(left.merge(right)) == ours | theirs
    assert left.dominates(right) == (ours >= theirs)
    relation = left.relation(right)
    assert (relation == "equal") == (ours == theirs)
    assert (relation == "after") == (ours > theirs)
    assert (relation == "before") == (ours < theirs)
    assert hash(left.merge(right)) == hash(right.merge(left))


@given(vectors, vectors, vectors)
def test_merging_is_commutative_associative_and_idempotent(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a


def test_changes_are_added_and_the_old_vector_stays():
    vector = VersionVector({"b": 2, "a": 0})
    assert vector.increment("b") == VersionVector({"b": 3})
    assert vector.increment("a") == VersionVector({"a": 1, "b": 2})
    assert vector.raised("b", 1) == vector
    assert vector.raised("b", 9) == VersionVector({"b": 9})
    assert (dict(vector), len(vector), vector["z"], "a" in vector) == ({"b": 2}, 1, 0, False)
    assert repr(vector.increment("a")) == "VersionVector({'a': 1, 'b': 2})"
    assert vector != {"b": 2}


def test_bad_input():
    bad: Any = ["a"]
    with pytest.raises(TypeError, match="counts must be a mapping"):
        VersionVector(bad)
    with pytest.raises(ValueError, match="node must be a non-empty string"):
        VersionVector({"": 1})
    with pytest.raises(ValueError, match="count of 'a' must be a whole number >= 0, not -1"):
        VersionVector({"a": -1})
    with pytest.raises(TypeError, match="count of 'a' must be a whole number"):
        VersionVector({"a": True})
    other: Any = {"a": 1}
    for call in (VersionVector().merge, VersionVector().dominates, VersionVector().relation):
        with pytest.raises(TypeError, match="other must be a VersionVector"):
            call(other)
