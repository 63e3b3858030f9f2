"""Cache-Control, dates and entity tags: what they say, and that no bytes break their readers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.gateway.cachecontrol import (
    FOREVER,
    directives,
    entity_tag,
    fields_of,
    http_date,
    matches,
    seconds,
)

LINE = st.binary(max_size=80) | st.lists(
    st.sampled_from([b'"', b"\\", b",", b"=", b" ", b"max-age", b"no-store", b"60", b"a"]),
    max_size=24,
).map(b"".join)


def test_repeated_fields_are_joined():
    assert fields_of([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1, 3", b"b": b"2"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, {}),
        (b"", {}),
        (b" , ,", {}),
        (b"max-age=60", {b"max-age": 60}),
        (b"Public, MAX-AGE = 60 ,no-cache", {b"public": 0, b"max-age": 60, b"no-cache": 0}),
        (b'max-age="60"', {b"max-age": 60}),
        (b"max-age=60, max-age=600", {b"max-age": 60}),
        (b"max-age=600, max-age=60", {b"max-age": 60}),
        (b"max-age=1h", {b"max-age": 0}),
        (b"max-age=-1", {b"max-age": 0}),
        (b"max-age", {b"max-age": 0}),
        (b"max-age=1.5", {b"max-age": 0}),
        (b"max-age=99999999999999999999", {b"max-age": FOREVER}),
        (b"max-stale", {b"max-stale": FOREVER}),
        (b"max-stale=5", {b"max-stale": 5}),
        (b"max-stale=", {b"max-stale": 0}),
        (b'no-cache="set-cookie, x"', {b"no-cache": 0}),
        (b'private="a, no-store"', {b"private": 0}),
        (b'ext="a, b", no-store', {b"ext": 0, b"no-store": 0}),
        (b'foo="a, no-store', {b"foo": 0, b"no-store": 0}),
        (b'foo="\\", no-store', {b"foo": 0, b"no-store": 0}),
    ],
)
def test_what_a_cache_control_says(value, said):
    assert directives(value) == said


@given(LINE)
def test_no_bytes_break_the_readers_and_no_plain_no_store_is_lost(value):
    directives(value)
    http_date(value)
    entity_tag(value)
    matches(value, b'"a"')
    assert 0 <= seconds(value) <= FOREVER
    if b'"' not in value:
        assert b"no-store" in directives(value + b", no-store")


def test_reading_takes_linear_time():
    # Quadratic readers need minutes for these.
    for part in (b'"', b'\\"', b'"a', b"W/", b'",', b"a="):
        value = part * (200_000 // len(part))
        directives(value)
        matches(value, b'"a"')


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        (b"Sun Nov  6 08:49:37 1994", 784111777.0),
        (b"Sun, 06 Nov 1994 08:49:37 +0500", 784111777.0),
        (b"0", None),
        (b"-1", None),
        (b"", None),
        (None, None),
        (b"Sun, 99 Nov 1994 08:49:37 GMT", None),
        (b"\xff", None),
        (b"Sun, 06 Nov 1994 08:49:37 GMT" + b" " * 64, None),
    ],
)
def test_dates(value, at):
    assert http_date(value) == at


def test_entity_tags():
    assert entity_tag(b'W/"a"') == entity_tag(b' "a" ') == b'"a"'
    assert (
        entity_tag(b"a") is entity_tag(b'"a", "b"') is entity_tag(b"*") is entity_tag(None) is None
    )
    assert matches(b'"x", W/"a"', b'"a"')
    assert matches(b'"a"', b'W/"a"')
    assert matches(b" * ", None)
    assert not matches(b'"x"', b'"a"')
    assert not matches(b'"a"', None)
    assert not matches(b"a", b"a")
