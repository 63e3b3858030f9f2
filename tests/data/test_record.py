"""Records: as columns and back, and two of them made one, in any order."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import CodecError
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import FirstWriteWins, LastWriteWins, Manual
from aiopatterns.data.merge import Merge, three_way
from aiopatterns.data.record import (
    BUCKETS,
    Record,
    covered,
    head,
    joined,
    packed,
    unpacked,
)
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def version(
    node: str, time: int, value: object = None, /, key: str = "k", **vector: int
) -> Versioned:
    stamp = Stamp(time, 0, node)
    made = VersionVector(vector or {node: time})
    return Versioned(key, value, stamp, Stamp(1, 0, "a"), made, node)


def record(*leaves: Versioned, base: Versioned | None = None) -> Record:
    bases = {} if base is None else {each.vector: base for each in leaves}
    return Record(leaves[0].key, 7, leaves, bases, shared=True, changed_at=1.5)


@given(PLAIN, st.text(min_size=1), st.booleans())
def test_a_row_is_the_record_again(value, key, deleted):
    leaf = version("a", 3, value, key=key)
    other = replace(version("b", 2, [value], key=key), deleted=deleted)
    merged = replace(leaf, parts=(leaf, other), vector=leaf.vector.merge(other.vector))
    for leaves in ((leaf,), (leaf, other), (merged,)):
        made = Record(key, 7, leaves, {leaf.vector: other}, shared=deleted, changed_at=1.5)
        row = packed(made)
        assert unpacked(row) == made
        assert row.head().vectors == made.vectors
        assert 0 <= row.bucket < BUCKETS
        assert row.deleted == made.deleted


def test_a_digest_is_of_the_vectors_in_any_order():
    left, right = version("a", 3, 1), version("b", 2, 2)
    assert packed(record(left, right)).digest == packed(record(right, left)).digest
    assert packed(record(left)).digest != packed(record(right)).digest
    other = version("a", 3, 1, key="l")
    assert packed(record(other)).digest != packed(record(left)).digest


def test_what_is_no_record_is_said_by_one_error():
    row = packed(record(version("a", 3, 1)))
    for body in (b"", b"\x00", b"words", packed(record(version("a", 3, 1))).vectors):
        with pytest.raises(CodecError):
            unpacked(row._replace(body=body))
    with pytest.raises(CodecError, match="no version"):
        unpacked(row._replace(body=b"\x92\x90\xc3"))  # no leaves, shared
    damaged = row.body.replace(b"a\x03", b"a\xff")  # a number below 0 in the vector
    assert damaged != row.body
    with pytest.raises(CodecError, match="cannot read what is kept of 'k'"):
        unpacked(row._replace(body=damaged))
    with pytest.raises(CodecError):
        head("k", 1, b"\xff")
    with pytest.raises(CodecError, match="vector"):
        head("k", 1, row.vectors.replace(b"a\x03", b"a\xff"))
    with pytest.raises(CodecError, match="cannot keep"):
        packed(record(version("a", 3, object())))


def test_fields_that_a_later_release_adds_are_left_out():
    row = packed(record(version("a", 3, 1)))
    assert row.body[0] == 0x92  # an array of two
    assert unpacked(row._replace(body=b"\x93" + row.body[1:] + b"\x07")) == unpacked(row)


def test_covered_is_known_to_one_of_ours():
    one, two = VersionVector({"a": 1}), VersionVector({"b": 1})
    assert covered([one], [one.merge(two)])
    assert covered([one, two], [two, one])
    assert covered([], [])
    assert not covered([one], [])
    assert not covered([one, two], [one])


def test_the_first_record_of_a_key_is_taken_as_it_is():
    theirs = record(version("a", 3, 1), version("b", 2, 2))
    found = joined(None, theirs, strategy=Manual())
    assert found.leaves == theirs.leaves
    assert found.conflicts == ()


def test_each_new_concurrent_pair_is_a_conflict_with_ours_on_the_left():
    ours, theirs = record(version("a", 3, 1)), record(version("b", 4, 2))
    found = joined(ours, theirs, strategy=LastWriteWins())
    ((pair),) = found.conflicts
    assert (pair.left.value, pair.right.value) == (1, 2)
    assert found.leaves[0].value == 2
    again = joined(replace(ours, leaves=found.leaves), theirs, strategy=LastWriteWins())
    assert again.conflicts == ()
    assert again.leaves == found.leaves


def test_a_merge_starts_from_the_latest_base_that_all_know():
    first = version("a", 1, {"x": 1, "y": 1}, a=1)
    second = version("b", 2, {"x": 2, "y": 1}, a=1, b=2)
    left = version("a", 5, {"x": 2, "y": 5}, a=5, b=2)
    right = version("b", 6, {"x": 6, "y": 1}, a=1, b=6)
    strategy = Merge(three_way)
    ours, theirs = record(left, base=second), record(right, base=first)
    found = joined(ours, theirs, strategy=strategy)
    assert found.leaves[0].value == {"x": 6, "y": 5}
    back = joined(theirs, ours, strategy=strategy)
    assert back.leaves == found.leaves
    assert back.bases == found.bases
    # From the older base both have changed x, as they have from none that one side does not know.
    for base in (first, left):
        assert len(joined(record(left, base=base), theirs, strategy=strategy).leaves) == 2


@pytest.mark.parametrize(
    "strategy",
    [LastWriteWins(), FirstWriteWins(), Manual(), Merge(three_way)],
    ids=["last", "first", "manual", "merge"],  # a repr of a function is another in each worker
)
def test_records_come_to_the_same_in_any_order(strategy):
    base = version("a", 1, {"x": 0, "y": 0}, a=1)
    versions = [
        version("a", 2, {"x": 1, "y": 0}, a=2),
        version("b", 3, {"x": 0, "y": 1}, a=1, b=3),
        version("c", 4, {"x": 0, "y": 0, "z": 1}, a=1, c=4),
        version("c", 5, {"x": 5, "y": 0}, a=1, b=3, c=5),
    ]
    ends = set()
    for order in permutations(versions):
        held = record(order[0], base=base)
        for each in order[1:]:
            found = joined(held, record(each, base=base), strategy=strategy)
            held = replace(held, leaves=found.leaves, bases=found.bases)
        digest = packed(held).digest
        ends.add((digest, repr([each.value for each in held.leaves])))
    assert len(ends) == 1
