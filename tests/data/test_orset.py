"""Sets: an addition outlives a removal that did not know of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.data import ORSet, merge_sets

steps = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["add", "remove", "talk"]), st.sampled_from("xyz")
    ),
    max_size=25,
)


class Model:
    """A set that remembers every addition and every removal for ever."""

    def __init__(self) -> None:
        self.added: set[tuple[str, int]] = set()
        self.removed: set[tuple[str, int]] = set()

    @property
    def elements(self) -> set[str]:
        return {element for element, _ in self.added - self.removed}


def play(script: list[tuple[str, str, str]]) -> tuple[list[ORSet], list[Model]]:
    sets, models = {each: ORSet() for each in "abc"}, {each: Model() for each in "abc"}
    for number, (node, verb, element) in enumerate(script):
        model = models[node]
        if verb == "add":
            sets[node] = sets[node].add(node, element)
            model.removed |= {each for each in model.added if each[0] == element}
            model.added.add((element, number))
        elif verb == "remove":
            sets[node] = sets[node].remove(element)
            model.removed |= {each for each in model.added if each[0] == element}
        else:
            other = "abc"["xyz".index(element)]
            sets[node] = sets[node].merge(sets[other])
            model.added |= models[other].added
            model.removed |= models[other].removed
    return list(sets.values()), list(models.values())


@given(steps)
def test_it_is_what_a_set_that_forgets_nothing_is(script):
    for ours, model in zip(*play(script), strict=True):
        assert set(ours) == model.elements
        assert len(ours) == len(model.elements)


@given(steps)
def test_merging_is_commutative_associative_and_idempotent(script):
    (a, b, c), _ = play(script)
    assert a.merge(b).state == b.merge(a).state
    assert a.merge(b).merge(c).state == a.merge(b.merge(c)).state
    assert a.merge(a).state == a.state
    assert merge_sets(None, a.state, b.state) == a.merge(b).state
    assert ORSet(a.state).state == a.state


def test_an_addition_that_was_not_seen_outlives_a_removal():
    shared = ORSet().add("a", "x", "y")
    removed, again = shared.remove("x", "unknown"), shared.add("b", "x")
    assert set(removed.merge(again)) == {"x", "y"}
    assert set(removed.merge(shared)) == {"y"}
    assert removed.remove("y").state == {"seen": {"a": 2}, "elements": {}}
    assert "x" in shared
    assert repr(shared) == "ORSet(['x', 'y'])"
    assert shared & {"x", "z"} == {"x"}


def test_additions_of_two_nodes_go_together():
    both = ORSet().add("a", "x").merge(ORSet().add("b", "x"))
    assert both.state == {"seen": {"a": 1, "b": 1}, "elements": {"x": {"a": 1, "b": 1}}}
    assert set(both.remove("x").merge(both)) == set()


def test_bad_input():
    bad: Any = ["x"]
    with pytest.raises(TypeError, match="state must be a mapping"):
        ORSet(bad)
    with pytest.raises(TypeError, match=r"state\['elements'\] must be a mapping"):
        ORSet({"elements": bad})
    with pytest.raises(ValueError, match="element must be a non-empty string"):
        ORSet({"seen": {"a": 1}, "elements": {"": {"a": 1}}})
    dots: tuple[dict[str, int], ...] = ({"a": 2}, {})
    for each in dots:
        with pytest.raises(ValueError, match="state must have seen the additions of 'x'"):
            ORSet({"seen": {"a": 1}, "elements": {"x": each}})
    with pytest.raises(ValueError, match="element must be a non-empty string"):
        ORSet().add("a", "")
    with pytest.raises(ValueError, match="node must be a non-empty string"):
        ORSet().add("", "x")
    with pytest.raises(TypeError, match="other must be an ORSet"):
        ORSet().merge(bad)
