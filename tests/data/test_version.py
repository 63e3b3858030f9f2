"""Versions: what a writer hands on, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aiopatterns.data import Stamp, Versioned, VersionVector


def test_a_record_goes_from_version_to_version():
    first = Versioned.first("k", 1, stamp=Stamp(5, 0, "a"))
    assert first == Versioned(
        "k", 1, Stamp(5, 0, "a"), Stamp(5, 0, "a"), VersionVector({"a": 1}), "a"
    )
    second = first.next(2, stamp=Stamp(6, 0, "b"))
    assert (second.created, second.origin) == (first.stamp, "b")
    assert second.vector == VersionVector({"a": 1, "b": 1})
    gone = second.next(None, stamp=Stamp(7, 0, "b"), deleted=True)
    assert gone.deleted
    assert gone.created == first.stamp
    assert gone.vector == VersionVector({"a": 1, "b": 2})


def test_a_version_may_replace_several():
    one = Versioned.first("k", 1, stamp=Stamp(5, 0, "a"))
    other = Versioned.first("k", 2, stamp=Stamp(4, 0, "b"))
    both = Versioned.replacing(iter([one, other]), 3, stamp=Stamp(6, 0, "a"))
    assert both.created == other.created
    assert both.vector == VersionVector({"a": 2, "b": 1})
    assert both.parts == ()


def test_a_stamp_that_is_not_later_is_refused():
    one = Versioned.first("k", 1, stamp=Stamp(5, 0, "a"))
    for stamp in (one.stamp, Stamp(4, 9, "z")):
        with pytest.raises(ValueError, match="stamp must be later than"):
            one.next(2, stamp=stamp)


def test_bad_input():
    one = Versioned.first("k", 1, stamp=Stamp(5, 0, "a"))
    bad: Any = object()
    for field in ("key", "stamp", "created", "vector", "origin", "deleted", "parts"):
        with pytest.raises(TypeError, match=f"{field} must be"):
            replace(one, **{field: bad})
    with pytest.raises(TypeError, match="a part must be a Versioned"):
        replace(one, parts=(bad,))
    with pytest.raises(ValueError, match="key must be a non-empty string"):
        replace(one, key="")
    with pytest.raises(ValueError, match="origin must be a non-empty string"):
        replace(one, origin="")
    with pytest.raises(TypeError, match="stamp must be a Stamp"):
        Versioned.first("k", 1, stamp=bad)
    with pytest.raises(TypeError, match="stamp must be a Stamp"):
        one.next(1, stamp=bad)
    later = Stamp(9, 0, "a")
    with pytest.raises(ValueError, match="at least one"):
        Versioned.replacing([], 1, stamp=later)
    with pytest.raises(TypeError, match="a version must be a Versioned"):
        Versioned.replacing([bad], 1, stamp=later)
    with pytest.raises(ValueError, match="of one record, not of 'k' and 'other'"):
        Versioned.replacing([one, replace(one, key="other")], 1, stamp=later)
