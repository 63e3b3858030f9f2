"""Cache-Control, HTTP dates and entity tags: what a cache reads, and never trusts.

What stands in these fields comes from strangers, on both sides. So nothing here raises, and what
can be read in two ways is read in the way that keeps less::

    max-age=60, max-age=600          60          the shorter of the two
    max-age=1h                        0          no number: over at once
    foo="a, no-store                  no-store   a quote that never ends hides nothing
    Expires: 0                       -inf        no date: over long ago

Complexity: O(length) for each.

Source: RFC 9111 (HTTP caching) sections 4.2.1 and 5.2, RFC 5861 (stale content), RFC 9110 (HTTP
semantics) sections 5.6.7, 8.8.3 and 13.1.
"""

from __future__ import annotations

import re
from calendar import timegm
from email.utils import parsedate_tz
from operator import gt
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "FOREVER",
    "Directives",
    "Fields",
    "directives",
    "entity_tag",
    "fields_of",
    "http_date",
    "matches",
    "seconds",
]

Fields: TypeAlias = "dict[bytes, bytes]"
"""Header fields by name; the values of one that came several times are joined by a comma."""

Directives: TypeAlias = "Mapping[bytes, int]"
"""What a Cache-Control says: the seconds of each directive that has some, 0 for the others."""

#: The longest time that is told apart, 68 years (RFC 9111, section 1.2.2).
FOREVER: Final = 1 << 31
_DIGITS: Final = 10
_TIMES: Final = frozenset(
    {
        b"max-age",
        b"max-stale",
        b"min-fresh",
        b"s-maxage",
        b"stale-if-error",
        b"stale-while-revalidate",
    }
)
# An element of a list whose quotes come in pairs; the alternatives never overlap, so it is linear.
_ELEMENT: Final = re.compile(rb'(?:[^,"]+|"[^"]*")+')
_TAG: Final = re.compile(rb'(?:W/)?("[^"]*")')
# The longest date has 33 characters.
_DATE: Final = 64
# Month, day, hour, minute and second at most; nobody looks at them before.
_MOST: Final = (12, 31, 23, 59, 60)


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Put header fields into a dict; repeated ones are joined, as a list may be."""
    fields: Fields = {}
    for name, value in headers:
        before = fields.get(name)
        fields[name] = value if before is None else b"%b, %b" % (before, value)
    return fields


def directives(value: bytes | None) -> Directives:
    """Read a Cache-Control.

    Args:
        value: The field's value, or None if there is none.

    Returns:
        Its directives, names in lower case. A time that is no number is 0, of two the shorter
        counts, and ``max-stale`` without one is :data:`FOREVER`. An argument of any other
        directive is left away: ``no-cache="set-cookie"`` is ``no-cache``, which keeps less.
    """
    found: dict[bytes, int] = {}
    if value is None:
        return found
    for element in _elements(value):
        name, equals, argument = element.partition(b"=")
        name = name.strip().lower()
        if name not in _TIMES:
            found[name] = 0
            continue
        unbounded = name == b"max-stale" and not equals
        given = FOREVER if unbounded else seconds(argument.strip().strip(b'"'))
        found[name] = min(given, found.get(name, FOREVER))
    found.pop(b"", None)
    return found


def _elements(value: bytes) -> list[bytes]:
    """Split a list; a comma in a quoted string does not count, if it is clear where that ends."""
    if b'"' not in value or b"\\" in value or value.count(b'"') % 2:
        return value.split(b",")
    return _ELEMENT.findall(value)


def seconds(value: bytes) -> int:
    """Read a number of seconds: 0 if it is none, and at most :data:`FOREVER`."""
    if not value.isdigit():
        return 0
    return FOREVER if len(value) > _DIGITS else min(int(value), FOREVER)


def http_date(value: bytes | None) -> float | None:
    """Read a date in any of the three forms of HTTP.

    Returns:
        Seconds since 1970-01-01 UTC, or None if it is no date.
    """
    if value is None or len(value) > _DATE:
        return None
    try:
        parts = parsedate_tz(value.decode("ascii"))
        if parts is None or any(map(gt, parts[1:6], _MOST)):
            return None
        # A form without a zone, or with any other than GMT, is read as GMT all the same.
        return float(timegm(parts[:9]))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def entity_tag(value: bytes | None) -> bytes | None:
    """Return what identifies an entity tag, weak or not; None if it is no tag."""
    found = None if value is None else _TAG.fullmatch(value.strip())
    return None if found is None else found[1]


def matches(tags: bytes, tag: bytes | None) -> bool:
    """Whether an entity tag is in the list of an If-None-Match; weak ones count as well.

    Args:
        tags: The field's value.
        tag: The tag of what is there, or None if it has none.
    """
    if tags.strip() == b"*":
        return True
    own = entity_tag(tag)
    return own is not None and own in _TAG.findall(tags)
