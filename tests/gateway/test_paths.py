"""A path is taken only if every way to read it is the same."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.paths import after_segments, check_query, checked_path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/api/users/7", "/api/users/7"),
        (b"/api/users/", "/api/users/"),
        (b"/a~b/c!$&'()*+,=:@-_.x", "/a~b/c!$&'()*+,=:@-_.x"),
        (b"/.well-known/jwks.json", "/.well-known/jwks.json"),
        (b"/file.tar..gz", "/file.tar..gz"),
        (b"/...", "/..."),
        (b"/caf%C3%A9", "/café"),
        (b"/a%20b", "/a b"),
        (b"/100%25", "/100%"),
        (b"/group%2Fproject", "/group%2Fproject"),
        (b"/group%2fproject", "/group%2Fproject"),
        (b"/a;version=2/b", "/a;version=2/b"),
        (b"/%7Euser", "/~user"),
        (b"/a[1]", "/a[1]"),
    ],
)
def test_paths_that_are_taken(raw, path):
    assert checked_path(raw) == path


TRAVERSALS = [
    b"/..",
    b"/../etc/passwd",
    b"/a/../b",
    b"/a/..",
    b"/a/./b",
    b"/.",
    b"/a/%2e%2e/b",
    b"/a/%2E%2E/b",
    b"/a/.%2e/b",
    b"/a/%2e./b",
    b"/a/%2e/b",
    b"/a/..%2fb",
    b"/a/%2e%2e%2fb",
    b"/a/%2e%2e%5cb",
    b"/a/..%5cb",
    b"/a/..\\b",
    b"/a\\..\\b",
    b"/a/%252e%252e/b",
    b"/a/%252e%252e%252fb",
    b"/a/%25252e%25252e/b",
    b"/a/..;/b",
    b"/a/..;x=1/b",
    b"/a/%2e%2e;/b",
    b"/a/..%3b/b",
    b"/a/..%20/b",
    b"/a/%20../b",
    b"/a/%c0%ae%c0%ae/b",
    b"/a/%e0%80%ae%e0%80%ae/b",
    b"/a/%c0%2e%c0%2e/b",
    b"/a/%f0%80%80%ae/b",
    b"/a/%u002e%u002e/b",
    b"/a/..%00/b",
    b"/a/..%0d%0a/b",
    b"/a/..%09/b",
    b"/a/%2f%2e%2e/b",
    b"/a%2f..%2fb",
    b"//a/b",
    b"/a//b",
    b"/a/%2f/b",
    b"/a%2f%2fb",
]


@pytest.mark.promise("gateway-traversal")
@pytest.mark.parametrize("raw", TRAVERSALS)
def test_traversal_in_every_encoding_is_refused(raw):
    with pytest.raises(RequestRefusedError) as caught:
        checked_path(raw)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"a/b",
        b"http://x/y",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a b",
        b"/a\x00",
        b"/a%00b",
        b"/a%0d%0ab",
        b"/a\r\nb",
        b"/a%7f",
        b"/a%5cb",
        b"/a%255cb",
        b"/a%2500",
        b"/%ff",
        b"/a%c3",
        b"/caf\xe9",
        b"/" + b"%25" * 3 + b"2525252525252541",
    ],
)
def test_what_two_servers_may_read_in_two_ways_is_refused(raw):
    with pytest.raises(RequestRefusedError) as caught:
        checked_path(raw)
    assert caught.value.status == 400


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.booleans())
def test_what_is_taken_reads_the_same_at_every_depth(text, encoded):
    raw = b"/" + (quote(text, safe="/").encode() if encoded else text.encode())
    try:
        path = checked_path(raw)
    except RequestRefusedError:
        return
    for _ in range(6):
        assert not {".", ".."} & {part.partition(";")[0].strip() for part in path[1:].split("/")}
        assert "//" not in path
        assert "\\" not in path
        assert path.isprintable() or not any(ord(c) < 32 or ord(c) == 127 for c in path)
        path = unquote(path)


@given(st.lists(st.text("abc%/.", min_size=1, max_size=6), max_size=6))
def test_a_path_has_as_many_segments_as_it_had_when_it_was_sent(parts):
    raw = "/" + "/".join(quote(part, safe="") for part in parts)
    try:
        path = checked_path(raw.encode())
    except RequestRefusedError:
        return
    assert path.count("/") == raw.count("/")


def test_queries():
    for good in (b"", b"a=b&c=%20", b"q=[1]{2}|'\"", b"x=\xc3\xa9"):
        check_query(good)
    for bad in (b"a b", b"a\r\nHost: x", b"a\x00", b"a#b", b"\x7f"):
        with pytest.raises(RequestRefusedError) as caught:
            check_query(bad)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "segments", "left"),
    [
        (b"/api/users/7", 1, b"/users/7"),
        (b"/api/users/7", 2, b"/7"),
        (b"/api/users", 2, b"/"),
        (b"/api/users/", 2, b"/"),
        (b"/api%2Fx/y", 1, b"/y"),
        (b"/api", 0, b"/api"),
    ],
)
def test_what_follows_so_many_segments(raw, segments, left):
    assert after_segments(raw, segments) == left
