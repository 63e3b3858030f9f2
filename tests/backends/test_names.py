from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.names import (
    MAX_FENCE,
    MAX_NAME_BYTES,
    MAX_NUMBER,
    MIN_NUMBER,
    check_change,
    check_data,
    check_fence,
    check_name,
    check_names,
    check_notices,
    check_number,
    check_payloads,
    check_ttl,
    escaped,
    milliseconds,
    parse_id,
)
from aiopatterns.backends.records import DELETE, Change, Notice


@pytest.mark.parametrize("name", ["a", "é", "a b:c{}*\n", "x" * MAX_NAME_BYTES, "é" * 512, "\0"])
def test_names_are_any_text_of_so_many_bytes(name):
    assert check_name("key", name) == name


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", ValueError, "key must be a non-empty string, not ''"),
        (b"a", TypeError, "key must be a non-empty string, not b'a'"),
        (None, TypeError, "key must be a non-empty string, not None"),
        ("x" * 1025, ValueError, "key must be at most 1024 bytes of UTF-8, not 1025: 'xxxx"),
        ("é" * 513, ValueError, "key must be at most 1024 bytes of UTF-8, not 1026: 'éééé"),
        ("a\ud800", ValueError, "key must be text that UTF-8 can hold, not 'a.ud800': surrogates"),
    ],
)
def test_other_names_are_refused(name, error, message):
    with pytest.raises(error, match=message):
        check_name("key", name)


def test_a_string_is_no_collection_of_names():
    check_names("keys", ["a", "b"])
    check_names("keys", {"a": 1})
    with pytest.raises(
        TypeError, match="keys must be a collection of strings, not the string 'ab'"
    ):
        check_names("keys", "ab")
    with pytest.raises(ValueError, match="keys must be a non-empty string"):
        check_names("keys", ["a", ""])


@pytest.mark.parametrize("value", ["a", bytearray(b"a"), None, 1])
def test_data_is_bytes(value):
    assert check_data("value", b"") == b""
    with pytest.raises(TypeError, match="value must be bytes, not "):
        check_data("value", value)


def test_payloads_are_a_sequence_of_bytes():
    assert check_payloads((b"a", b"")) == [b"a", b""]
    mixed: Any = [b"a", "b"]
    text: Any = b"ab"
    with pytest.raises(TypeError, match="payloads must be a sequence of bytes, not bytes"):
        check_payloads(text)
    with pytest.raises(TypeError, match="payloads must be bytes, not str"):
        check_payloads(mixed)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [(1, 1000), (0.07, 70), (0.0011, 2), (1e-9, 1), (1.0005, 1001), (1e300, 10**15), (0.29, 290)],
)
def test_lives_are_whole_milliseconds_rounded_up(seconds, found):
    assert milliseconds("ttl", seconds) == found
    assert check_ttl(seconds) == found / 1000


@pytest.mark.parametrize("ttl", [0, -1, math.inf, math.nan, "1", True])
def test_other_lives_are_refused(ttl):
    with pytest.raises((ValueError, TypeError), match="ttl must be a finite number > 0, not "):
        check_ttl(ttl)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_life_is_never_shortened_by_more_than_rounding(seconds):
    assert milliseconds("ttl", seconds) >= seconds * 1000 * (1 - 1e-12) - 1e-6
    assert milliseconds("ttl", seconds) <= seconds * 1000 + 1.001


def test_no_life_is_for_ever():
    assert check_ttl(None) is None


def test_numbers_have_64_bits():
    assert check_number("by", MAX_NUMBER) == MAX_NUMBER
    assert check_number("by", MIN_NUMBER) == MIN_NUMBER
    for bad in (MAX_NUMBER + 1, MIN_NUMBER - 1):
        with pytest.raises(ValueError, match="by must be a whole number"):
            check_number("by", bad)
    odd: Any
    for odd in (1.0, True, "1"):
        with pytest.raises(TypeError, match="by must be a whole number"):
            check_number("by", odd)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("key", "", "key must be a non-empty string"),
        ("value", None, "value must be bytes, not NoneType"),
        ("expected", "x", "expected must be bytes, not str"),
        ("ttl", 0, "ttl must be a finite number > 0"),
        ("notify", "", "notify must be a non-empty string"),
        ("notice", "x", "notice must be bytes, not str"),
        ("before", -1, "before must be a finite number >= 0"),
    ],
)
def test_a_change_is_checked_in_every_part(field, value, message):
    good: dict[str, Any] = {"key": "a", "value": b""}
    check_change(Change(**good))
    check_change(Change("a", DELETE, None, 1.0, "c", b"", 5.0))
    with pytest.raises((ValueError, TypeError), match=message):
        check_change(Change(**(good | {field: value})))


def test_fences_are_exact_everywhere():
    assert check_fence(0) == 0
    assert check_fence(MAX_FENCE) == MAX_FENCE
    for bad in (-1, MAX_FENCE + 1):
        with pytest.raises(ValueError, match="fence must be a whole number"):
            check_fence(bad)


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("0", (0, 0)),
        ("7", (7, 0)),
        ("17-3", (17, 3)),
        (f"{2**64 - 1}-{2**64 - 1}", (2**64 - 1,) * 2),
    ],
)
def test_ids_are_read(written, numbers):
    assert parse_id("after", written) == numbers


@pytest.mark.parametrize(
    "bad", ["", "$", "-1", "1-", "1-2-3", "x", " 1", "1\n", str(2**64), "\u0661"]
)
def test_other_ids_are_refused(bad):
    with pytest.raises(ValueError, match="after must be a"):
        parse_id("after", bad)


@given(st.text(alphabet="ab%:2573AD"), st.text(alphabet="ab%:2573AD"))
def test_escaping_keeps_names_apart(one, other):
    assert ":" not in escaped(one, ":")
    assert (escaped(one, ":") == escaped(other, ":")) == (one == other)
    assert escaped("plain name", ":") == "plain name"


def test_notices_are_channels_and_bytes():
    text: Any = "text"
    check_notices([])
    check_notices([Notice("a", b""), Notice("b", b"data")])
    with pytest.raises(ValueError, match="channel"):
        check_notices([Notice("a", b""), Notice("", b"")])
    with pytest.raises(TypeError, match="data"):
        check_notices([Notice("a", text)])
