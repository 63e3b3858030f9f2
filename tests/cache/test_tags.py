"""Tags: one step invalidates all that carry a name, and forgetting a tag does so too."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.cache.tags import Tags, checked


def test_a_stamp_is_current_until_one_of_its_tags_is_invalidated():
    tags = Tags(10)
    one, both, none = tags.stamp(["a"]), tags.stamp(["a", "b"]), tags.stamp([])
    assert tags.current(one)
    assert tags.current(both)
    tags.invalidate(["b", "unknown"])
    assert tags.current(one)
    assert not tags.current(both)
    assert tags.current(none), "what has no tags cannot be invalidated by one"
    assert tags.current(tags.stamp(["b"]))
    assert not tags.current(both), "a version is never used twice"


def test_too_many_tags_lose_the_one_that_was_used_longest_ago():
    tags = Tags(2)
    a, b = tags.stamp(["a"]), tags.stamp(["b"])
    assert tags.stamp(["a"]) == a
    tags.stamp(["c"])
    assert len(tags) == 2
    assert tags.current(a)
    assert not tags.current(b), "which is on the safe side"


@pytest.mark.promise("cache-bad-input")
def test_tags_are_several_texts():
    wrong: Any = [1]
    assert checked(["a", "b", "a"]) == ("a", "b")
    with pytest.raises(
        TypeError, match=r"tags must be several texts, such as \['abc'\], not 'abc'"
    ):
        checked("abc")
    with pytest.raises(TypeError, match="tag must be a non-empty string"):
        checked(wrong)
    with pytest.raises(ValueError, match="tag must be a non-empty string"):
        checked([""])
