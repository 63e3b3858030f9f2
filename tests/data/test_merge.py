"""Merging: both edits are kept, or both versions are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core import ConflictError
from aiopatterns.data import (
    Merge,
    PNCounter,
    Stamp,
    Versioned,
    VersionVector,
    merge_counters,
    merge_fields,
    merge_registers,
    reconcile,
    register,
    resolve,
    three_way,
)
from tests.data.histories import version

records = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2))


def joined(_base: Any, left: Any, right: Any) -> Any:
    return f"({left}{right})"


def test_the_value_is_made_of_both_the_earlier_first():
    left, right = version("l", time=2, node="a"), version("r", time=1, node="b")
    winner = resolve(left, right, strategy=Merge(joined)).settled()
    assert winner == Versioned(
        "k",
        "(rl)",
        left.stamp,
        right.stamp,
        VersionVector({"a": 1, "b": 1}),
        "a",
        False,
        (right, left),
    )
    edited = winner.next("new", stamp=Stamp(3, 0, "c"))
    assert edited.parts == ()


def test_a_third_version_is_merged_with_the_parts():
    versions = [version(name, time=at, node=name) for at, name in enumerate("abc", 1)]
    for order in (versions, versions[::-1], [versions[1], versions[2], versions[0]]):
        pair = resolve(order[0], order[1], strategy=Merge(joined)).settled()
        assert resolve(pair, order[2], strategy=Merge(joined)).settled().value == "((ab)c)"


def test_an_edit_outlives_a_deletion_that_did_not_know_of_it():
    first = version("old", a=1)
    edit = first.next("edit", stamp=Stamp(2, 0, "b"))
    gone = first.next(None, stamp=Stamp(3, 0, "c"), deleted=True)
    winner = resolve(edit, gone, strategy=Merge(joined)).settled()
    assert (winner.value, winner.deleted, winner.stamp) == ("edit", False, gone.stamp)
    also = first.next(None, stamp=Stamp(4, 0, "d"), deleted=True)
    assert resolve(also, gone, strategy=Merge(joined)).settled().deleted


def test_what_cannot_be_merged_stays():
    left, right, third = (version(each, time=each, node=f"n{each}") for each in (1, 2, 3))
    strategy = Merge(three_way)
    assert resolve(left, right, strategy=strategy).winner is None
    assert reconcile([left, right, third], strategy=strategy) == (third, right, left)


def test_a_base_that_one_of_several_parts_does_not_know_counts_as_none():
    seen: list[Any] = []

    def told(base: Any, left: Any, right: Any) -> Any:
        seen.append(base)
        return left + right

    base = version("0", a=1)
    left, right = (base.next(each, stamp=Stamp(at, 0, each)) for at, each in ((2, "b"), (3, "c")))
    strange = version("s", time=4, node="s")
    pair = resolve(left, right, strategy=Merge(told), base=base).settled()
    third = base.next("d", stamp=Stamp(5, 0, "d"))
    resolve(pair, third, strategy=Merge(told), base=base)
    assert seen == ["0", "0", "0"]
    resolve(pair, strange, strategy=Merge(told), base=base)
    assert seen[3:] == [None, None]
    resolve(left, right, strategy=Merge(told), base=replace(base, deleted=True))
    assert seen[5:] == [None]


def test_an_error_of_the_function_comes_through():
    with pytest.raises(ZeroDivisionError):
        resolve(version(1), version(0, node="b"), strategy=Merge(lambda _, a, b: a / b))


@given(records, records, records)
def test_three_ways(base, left, right):
    def changed(side: dict[str, int]) -> dict[str, Any]:
        names = base.keys() | side.keys()
        return {each: side.get(each) for each in names if side.get(each) != base.get(each)}

    ours, theirs = changed(left), changed(right)
    try:
        merged = three_way(base, left, right)
    except ConflictError:
        assert any(ours[each] != theirs[each] for each in ours.keys() & theirs.keys())
        with pytest.raises(ConflictError):
            three_way(base, right, left)
        return
    assert merged == three_way(base, right, left)
    for name in base.keys() | left.keys() | right.keys():
        options = [each[name] for each in (ours, theirs) if name in each] or [base.get(name)]
        assert merged.get(name) in options


def test_three_ways_without_a_base_and_at_any_depth():
    assert three_way(None, {"a": {"x": 1}}, {"a": {"y": 2}}) == {"a": {"x": 1, "y": 2}}
    assert three_way(5, {"a": 1}, {"b": 1}) == {"a": 1, "b": 1}
    assert three_way({"a": 1, "b": 1}, {"a": 1}, {"a": 2, "b": 1}) == {"a": 2}
    with pytest.raises(ConflictError, match="both have changed 1: to 2, and to 3"):
        three_way({"a": 1}, {"a": 2}, {"a": 3})


def test_each_field_in_its_own_way():
    merge = merge_fields({"n": merge_counters, "who": merge_registers})
    one, other = PNCounter().add("a", 3), PNCounter().add("b", -1)
    early, late = (register(each, Stamp(at, 0, each)) for at, each in ((1, "x"), (2, "w")))
    left = {"n": one.state, "who": late, "same": 1}
    right = {"n": other.state, "who": early, "same": 1}
    for pair in ((left, right), (right, left)):
        assert merge(None, *pair) == {"n": one.merge(other).state, "who": late, "same": 1}


def test_registers_of_one_stamp_are_told_apart_by_what_they_hold():
    one, other = (register(each, Stamp(1, 0, "a")) for each in "xy")
    assert merge_registers(None, one, other) == merge_registers(None, other, one) == other
    assert merge_registers(None, {**one, "stamp": (1, 0, "a")}, other) == other


def test_bad_input():
    async def wrong(_base: Any, _left: Any, _right: Any) -> Any:
        """Be no plain function."""

    bad: Any = 1
    for fn in (bad, wrong):
        with pytest.raises(TypeError, match="fn must be a"):
            Merge(fn)
        with pytest.raises(TypeError, match=r"fields\['x'\] must be a"):
            merge_fields({"x": fn})
        with pytest.raises(TypeError, match="other must be a"):
            merge_fields({}, other=fn)
    with pytest.raises(TypeError, match="fields must be a mapping"):
        merge_fields(bad)
    with pytest.raises(TypeError, match="value must be a mapping, for merge_fields"):
        merge_fields({})(None, {}, 1)
    with pytest.raises(TypeError, match="stamp must be a Stamp"):
        register(1, bad)
    for odd in (1, {"value": 1}):
        with pytest.raises(TypeError, match=r"value must be what register\(\) makes"):
            merge_registers(None, odd, odd)
