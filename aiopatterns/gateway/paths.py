"""Paths: decoded once for routing, forwarded as they came, and refused if two servers may differ.

A gateway that reads ``/public/..%2fadmin`` in one way and the service behind it in another lets
requests through to where they must not go. So a path is taken only if every way to read it is the
same: it is decoded again and again until nothing changes, and at every step it must hold

* no segment ``.`` or ``..``, also with parameters (``..;x``), spaces or a backslash about it;
* no empty segment, no backslash, no control character, no NUL;
* no percent sign without two hex digits, at the first step; nothing that is not UTF-8, which refuses
  overlong encodings.

What routes see is decoded once, but ``%2F`` stays as it is: it is part of a segment, never its end.

Complexity: O(length); a path of letters, digits and plain signs costs one match.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from aiopatterns.core.errors import RequestRefusedError

__all__ = ["after_segments", "check_query", "checked_path"]

# Segments of what needs no decoding, none of which begins with a dot.
_PLAIN: Final = re.compile(rb"(?:/[\w~!$&'()*+,=:@-][\w.~!$&'()*+,=:@-]*)*/?")
_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASH: Final = re.compile(rb"%2[Ff]")
_FORBIDDEN: Final = re.compile(rb"[\x00-\x20\x7f\\]")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f\\]")
_QUERY: Final = re.compile(rb"[\x00-\x20\x7f#]")
# So often a path may be encoded; nobody means more.
_DEPTH: Final = 4


def checked_path(raw: bytes) -> str:
    """Return the path, decoded once.

    Raises:
        RequestRefusedError: It can be read in more than one way (400).
    """
    if raw and _PLAIN.fullmatch(raw):
        return raw.decode("ascii")
    if not raw.startswith(b"/"):
        raise _refused("must begin with a slash")
    if _FORBIDDEN.search(raw):
        raise _refused("holds a character that has to be encoded")
    if _BROKEN.search(raw):
        raise _refused("has a percent sign without two hex digits")
    _check(raw)
    try:
        return unquote_to_bytes(_SLASH.sub(b"%252F", raw)).decode()
    except UnicodeDecodeError:
        raise _refused("is not UTF-8") from None


def check_query(raw: bytes) -> None:
    """Refuse a query that may not be forwarded.

    Raises:
        RequestRefusedError: It holds a character that has to be encoded (400).
    """
    if _QUERY.search(raw):
        raise RequestRefusedError("the query holds a character that has to be encoded", status=400)


def after_segments(raw: bytes, segments: int) -> bytes:
    """Return what follows so many segments of a path; at least a slash."""
    at = 0
    for _ in range(segments):
        at = raw.find(b"/", at + 1)
        if at < 0:
            return b"/"
    return raw[at:]


def _check(raw: bytes) -> None:
    """Refuse what is a dot segment, or holds what no path may, at any depth of encoding."""
    level = raw
    for _ in range(_DEPTH):
        for segment in level[1:].split(b"/"):
            _check_segment(segment)
        if b"//" in level:
            raise _refused("has an empty segment")
        inner = unquote_to_bytes(level)
        if inner == level:
            return
        level = inner
        if _CONTROL.search(level):
            raise _refused("holds an encoded control character or backslash")
    raise _refused("is encoded too often")


def _check_segment(segment: bytes) -> None:
    if segment.partition(b";")[0].strip() in {b".", b".."}:
        raise _refused("has a dot segment")


def _refused(why: str) -> RequestRefusedError:
    return RequestRefusedError(f"the path {why}", status=400)
