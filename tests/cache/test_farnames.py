"""Names of shared keys: distinct, short enough, and refused where they cannot be told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.names import check_name
from aiopatterns.cache.farnames import FarNames
from aiopatterns.cache.rules import shown

NAMES = FarNames("n")
TEXTS = st.text(max_size=700).filter(lambda text: text.isprintable())
ANY_KEY = TEXTS | st.binary(max_size=700) | st.integers(-(2**63) + 1, 2**63 - 1)


@given(st.lists(ANY_KEY, unique_by=lambda key: (type(key), key)))
def test_different_keys_have_different_names(keys):
    names = {NAMES.key(key) for key in keys}
    assert len(names) == len(keys)
    for name in names:
        check_name("key", name)


def test_names_can_be_read():
    assert NAMES.key("user:1") == "cache:n:k:suser:1"
    assert NAMES.key(17) == "cache:n:k:i17"
    assert NAMES.key(b"\x01z") == "cache:n:k:b017a"
    assert NAMES.key(True) == NAMES.key(1)  # they are one key of a dict as well
    assert NAMES.version("org:7") == "cache:n:v:org:7"
    assert NAMES.version("") == "cache:n:v:"
    assert NAMES.key("x" * 600).startswith("cache:n:k:#")
    assert NAMES.version("x" * 600).startswith("cache:n:v:#")


def test_different_caches_have_different_names():
    """Also if one is called as the other calls its keys."""
    other = FarNames("n:k:sx")
    assert not other.keys.startswith(NAMES.keys)
    assert other.key("1") != NAMES.key("x:k:s1")
    assert FarNames("n:v:t").version("u") != NAMES.version("t:v:u")
    assert FarNames("n:l:sk:").channel != NAMES.turn("k", None)
    assert FarNames("a%3Ab").channel != FarNames("a:b").channel
    longest = FarNames("::" * 64)
    for name in (longest.key("x" * 511), longest.turn("x" * 511, b"1"), longest.version("x" * 512)):
        check_name("key", name)


@pytest.mark.parametrize("key", ["", "user:1", "#1", 17, -1, b"\xff"])
def test_names_tell_their_keys(key):
    assert NAMES.shown(NAMES.key(key)) == shown(key)
    assert NAMES.shown(NAMES.key("x" * 600)) is None
    for other in ("", "bxy", "?"):
        assert NAMES.shown(f"cache:n:k:{other}") is None


def test_each_writing_has_a_turn_of_its_own():
    assert NAMES.turn("k", None) == "cache:n:l:sk:"
    turns = {NAMES.turn("k", raw) for raw in (None, b"", b"1", b"2")}
    assert len(turns) == 4
    for turn in turns:
        check_name("key", turn)


@pytest.mark.promise("cache-bad-input")
@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (1.5, TypeError, "str, bytes or int, not 1.5"),
        (None, TypeError, "str, bytes or int, not None"),
        (("a", 1), TypeError, "str, bytes or int"),
        (2**63, ValueError, "at most 64 bits"),
        ("\ud800", ValueError, "UTF-8 cannot hold|text that UTF-8 can hold"),
    ],
)
def test_bad_keys_are_refused(key, error, says):
    with pytest.raises(error, match=says):
        NAMES.key(key)


@pytest.mark.promise("cache-bad-input")
def test_bad_names_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        FarNames("")
    with pytest.raises(ValueError, match="at most 128 bytes"):
        FarNames("x" * 129)
