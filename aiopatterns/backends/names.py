"""What names, values and lives may be: one wording for both implementations.

The checks of every public call stand here, so that memory refuses exactly what Redis refuses,
before anything is asked, with one line that names the parameter, the value and what is allowed.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from aiopatterns.backends.records import Anything, Delete
from aiopatterns.core.validate import count, non_negative, positive, text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiopatterns.backends.records import Change, Notice

__all__ = [
    "MAX_FENCE",
    "MAX_NAME_BYTES",
    "MAX_NUMBER",
    "MAX_SCAN",
    "MIN_NUMBER",
    "check_change",
    "check_data",
    "check_fence",
    "check_name",
    "check_names",
    "check_notices",
    "check_number",
    "check_payloads",
    "check_scan",
    "check_ttl",
    "escaped",
    "milliseconds",
    "parse_id",
]

#: UTF-8 bytes in a name or key at most.
MAX_NAME_BYTES: Final = 1_024

#: What ``incr`` counts in: a signed whole number of 64 bits, as Redis has it.
MAX_NUMBER: Final = 2**63 - 1
MIN_NUMBER: Final = -(2**63)

#: Keys that one page of a scan looks at, at most.
MAX_SCAN: Final = 10_000

#: The highest fence: whole numbers up to it are exact everywhere, also in Lua.
MAX_FENCE: Final = 2**53

# A life of 31,000 years is as good as any longer one, and safe in 64 bits beside a timestamp.
_LONGEST: Final = 10**15
_SHOWN: Final = 40
_ID: Final = re.compile("[0-9]{1,20}(-[0-9]{1,20})?")
_MAX_ID: Final = 2**64 - 1


def check_name(parameter: str, value: str) -> str:
    """Return ``value`` if it is text of 1 to :data:`MAX_NAME_BYTES` bytes in UTF-8."""
    text(parameter, value)
    if len(value) <= MAX_NAME_BYTES and value.isascii():
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        msg = (
            f"{parameter} must be text that UTF-8 can hold, not {value[:_SHOWN]!r}: {error.reason}"
        )
        raise ValueError(msg) from None
    if size > MAX_NAME_BYTES:
        msg = (
            f"{parameter} must be at most {MAX_NAME_BYTES} bytes of UTF-8, not {size}:"
            f" {value[:_SHOWN]!r}..."
        )
        raise ValueError(msg)
    return value


def check_names(parameter: str, values: Collection[str]) -> None:
    """Refuse ``values`` unless it is a collection of names; one string is none."""
    if isinstance(values, str):
        msg = f"{parameter} must be a collection of strings, not the string {values[:_SHOWN]!r}"
        raise TypeError(msg)
    if not _are_usual(values):
        for value in values:
            check_name(parameter, value)


def _are_usual(values: Collection[str]) -> bool:
    """Whether all are text of ASCII and of a size that is allowed: a fifth of the cost of looking."""
    try:
        sizes = (*map(len, values),)
        return not sizes or (
            min(sizes) > 0 and max(sizes) <= MAX_NAME_BYTES and "".join(values).isascii()
        )
    except TypeError:
        return False


def check_data(parameter: str, value: bytes) -> bytes:
    """Return ``value`` if it is bytes."""
    if not isinstance(value, bytes):
        msg = f"{parameter} must be bytes, not {type(value).__name__}"
        raise TypeError(msg)
    return value


def check_change(change: Change) -> None:
    """Refuse a change of a key of which a part is not what it may be."""
    check_name("key", change.key)
    if not isinstance(change.expected, Anything) and change.expected is not None:
        check_data("expected", change.expected)
    if not isinstance(change.value, Delete):
        check_data("value", change.value)
    check_ttl(change.ttl)
    if change.notify is not None:
        check_name("notify", change.notify)
    if change.notice is not None:
        check_data("notice", change.notice)
    if change.before is not None:
        non_negative("before", change.before)


def check_notices(notices: Sequence[Notice]) -> None:
    """Refuse ``notices`` unless each is a channel and bytes."""
    for channel, data in notices:
        check_name("channel", channel)
        check_data("data", data)


def check_ttl(value: float | None) -> float | None:
    """Return ``value`` if it is None, or seconds above 0, as the protocols keep it: whole ms."""
    return None if value is None else milliseconds("ttl", value) / 1_000


def check_number(parameter: str, value: int) -> int:
    """Return ``value`` if it is a whole number of at most 64 bits."""
    count(parameter, value, minimum=MIN_NUMBER)
    if value > MAX_NUMBER:
        msg = f"{parameter} must be a whole number of at most 64 bits, not {value!r}"
        raise ValueError(msg)
    return value


def check_scan(prefix: str, cursor: str | None, limit: int) -> None:
    """Refuse what cannot be the question for a page of a scan."""
    check_name("prefix", prefix)
    if cursor is not None:
        text("cursor", cursor)
    if count("limit", limit) > MAX_SCAN:
        msg = f"limit must be a whole number <= {MAX_SCAN}, not {limit!r}"
        raise ValueError(msg)


def check_payloads(payloads: Sequence[bytes]) -> list[bytes]:
    """Return ``payloads`` as a list if it is a sequence of bytes; bytes themselves are none."""
    if isinstance(payloads, (bytes, str)):
        msg = f"payloads must be a sequence of bytes, not {type(payloads).__name__}"
        raise TypeError(msg)
    return [check_data("payloads", each) for each in payloads]


def parse_id(parameter: str, value: str) -> tuple[int, int]:
    """Return an entry id as numbers: ``"7"`` and ``"7-0"`` are ``(7, 0)``."""
    if _ID.fullmatch(text(parameter, value)):
        first, _, second = value.partition("-")
        numbers = int(first), int(second or 0)
        if max(numbers) <= _MAX_ID:
            return numbers
    msg = f"{parameter} must be an id such as '0' or '1700000000000-1', not {value[:_SHOWN]!r}"
    raise ValueError(msg)


def check_fence(value: int) -> int:
    """Return ``value`` if it is a whole number from 0 to :data:`MAX_FENCE`."""
    if count("fence", value, minimum=0) > MAX_FENCE:
        msg = f"fence must be a whole number <= {MAX_FENCE}, not {value!r}"
        raise ValueError(msg)
    return value


def escaped(name: str, reserved: str) -> str:
    """Return ``name`` without ``reserved``, a character that parts names; distinct stay distinct."""
    if reserved not in name and "%" not in name:
        return name
    return name.replace("%", "%25").replace(reserved, f"%{ord(reserved):02X}")


def milliseconds(parameter: str, value: float) -> int:
    """Return ``value``, seconds above 0, in whole milliseconds: rounded up, at least 1."""
    # Rounded first, for 0.07 s are 70.00000000000001 ms in binary.
    scaled = min(positive(parameter, value) * 1_000, _LONGEST)
    return max(1, math.ceil(round(scaled, 6)))
