"""Bytes that somebody might send: valid ones, changed in the ways in which decoders break.

Two kinds of change. Those of bytes know nothing of a format: a bit, a length that promises what does
not come, a piece twice, the end missing, a thousand brackets. Those of shapes take a valid value
apart and put one odd thing into it, so that what comes out is well formed and wrong: a number where
a text is expected, one beyond 64 bits, NaN, half a character, nesting.

All of it follows from a seed, so that what was found once is found again.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

__all__ = ["BOMBS", "Shape", "mutants"]

DEEP = 3_000
LONGEST = 1 << 17
# Types and lengths of msgpack, borders of numbers, and what means something in text.
BYTES = bytes((0, 1, 0x20, 0x7F, 0x80, 0x90, 0x91, 0xA1, 0xC0, 0xC4, 0xC6, 0xC7, 0xCB, 0xCF, 0xD3,
               0xD9, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFE, 0xFF))  # fmt: skip
PIECES = (
    b"\x00\x00", b"\xff\xff\xff\xff", b"\x7f" + b"\xff" * 7, b"\xff" * 8, b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6), b"\xd6\xff" + b"\xff" * 4, b"\xc1",
    b"NaN", b"Infinity", b"1e999", b"-1", b"9" * 400, b"9" * 5_000, b"null", b'"\\ud800"', b"\\u0000",
    b'"', b"'", b"%00", b"%ff", b"%2e%2e%2f", b"../", b"\r\n", b"\r\n\r\n", b": ", b";", b",", b"=",
    b"://", b"@", b"[", b"]", b"{", b"}", b"#", b"?", b"\xc2\xb2", b"\xd9\xa3", b"\xe2\x80\xa8", b"*" * 64,
)  # fmt: skip

#: What promises or nests more than it is worth; every decoder gets each, with its memory watched.
BOMBS = (
    b"",
    b"\x00" * 64,
    b"\xff" * 64,
    b"\x91" * DEEP,
    b"\x81\xa1a" * DEEP,
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b"\xdd\x7f\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff" + b"x" * 32,
    b"\xdb\x7f\xff\xff\xff" + b"x" * 32,
    b"9" * 100_000,
    b"1" + b"0" * 5_000,
    b"a" * 100_000,
    b"\x80" * 100_000,
    b'"' + b"\\ud800" * 2_000 + b'"',
    b"*a" * 5_000,
    b"=;," * 30_000,
    b"%25" * 30_000,
    b"a.b" * 10_000,
    b"\r\n" * 30_000,
)


@dataclass(frozen=True)
class Shape:
    """A valid value, to be made odd before it is written.

    Attributes:
        value: Plain data.
        wrap: Puts what was written where the decoder expects it.
        codec: How it is written.
    """

    value: Any
    wrap: Callable[[bytes], bytes] = bytes
    codec: Literal["msgpack", "json"] = "msgpack"

    def write(self, value: Any) -> bytes:
        """Return bytes that decode to ``value`` in this place."""
        if self.codec == "json":
            return self.wrap(json.dumps(value, default=list).encode())
        return self.wrap(msgspec.msgpack.encode(value))


def mutants(rng: Random, samples: Sequence[bytes], shapes: Sequence[Shape] = ()) -> Iterator[bytes]:
    """Give changed samples and values, without end."""
    every = [*samples, *(shape.write(shape.value) for shape in shapes)]
    yield from every
    while True:
        if shapes and rng.random() < 0.5:
            shape = rng.choice(shapes)
            try:
                data = shape.write(oddened(rng, shape.value))
            except (ValueError, TypeError, OverflowError, RecursionError):
                continue  # this format has no such thing
        else:
            data = rng.choice(every)
        for _ in range(
            rng.choice((0, 1, 1, 1, 2, 4, 8)) if shapes else rng.choice((1, 1, 1, 2, 4, 8))
        ):
            data = changed(rng, data, every)[:LONGEST]
        yield data


# -------------------------------------------------------------------------------------- of bytes


def changed(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return ``data`` with one change."""
    at = rng.randint(0, len(data))
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 64)))
    how = rng.randrange(9)
    if how == 0 and at < len(data):
        return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
    if how == 1:
        return data[:at] + bytes((rng.choice(BYTES),)) + data[at + 1 :]
    if how == 2:
        return data[:at] + rng.choice(PIECES) + data[rng.choice((at, end)) :]
    if how == 3:
        return data[:at] + data[end:]
    if how == 4:
        return rng.choice((data[:at], data[at:]))
    if how == 5:
        other = rng.choice(others)
        return data[:at] + other[rng.randint(0, len(other)) :]
    if how == 6:
        return data[:at] + data[at:end] * rng.choice((2, 3, 50, 1_000)) + data[end:]
    if how == 7:
        return data[:at] + rng.randbytes(rng.choice((1, 2, 8))) + data[end:]
    return data[:at] + rng.choice((b"\x91", b"[", b'{"a":')) * DEEP + data[at:]


# ------------------------------------------------------------------------------------- of shapes


def oddened(rng: Random, value: Any) -> Any:
    """Return a copy of ``value`` with one odd thing in it, or one missing, or twice."""
    inner = [*value.items()] if isinstance(value, dict) else None
    if inner and rng.random() < 0.85:
        return dict(_some(rng, inner, pairs=True))
    if isinstance(value, list | tuple) and value and rng.random() < 0.85:
        return _some(rng, list(value), pairs=False)
    return rng.choice(_ODD) if rng.random() < 0.7 else _near(rng, value)


def _some(rng: Random, found: list[Any], *, pairs: bool) -> list[Any]:
    at = rng.randrange(len(found))
    how = rng.randrange(10)
    if how == 0:
        del found[at]
    elif how == 1:
        found.insert(at, found[at] if not pairs else (rng.choice(("", "x", "\x00")), found[at][1]))
    elif how == 2:
        other = rng.randrange(len(found))
        found[at], found[other] = found[other], found[at]
    elif how == 3:
        return found[:at]
    elif pairs:
        name, value = found[at]
        found[at] = (name, oddened(rng, value)) if how < 9 else (oddened(rng, name), value)
    else:
        found[at] = oddened(rng, found[at])
    return found


def _near(rng: Random, value: Any) -> Any:
    """Return something of the same type that may be out of its range."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return rng.choice(
            (-1, 0, value + 1, -value, 1 << 31, 1 << 53, (1 << 53) + 1, (1 << 63) - 1)
        )
    if isinstance(value, float):
        return rng.choice((-1.0, 0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324))
    if isinstance(value, str):
        return rng.choice(
            ("", " ", value * 2, value + "\x00", value.upper(), "\r\n", "é" * 300, ":")
        )
    if isinstance(value, bytes):
        return rng.choice((b"", value * 2, value[:-1], value + b"\x00", b"\xff" * 40))
    return type(value)()


def _deep(many: int) -> Any:
    found: Any = []
    for _ in range(many):
        found = [found]
    return found


_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    300,
    1 << 63,
    (1 << 64) - 1,
    -(1 << 63),
    1 << 70,  # in JSON alone
    10**400,
    math.nan,
    math.inf,
    1e308,
    0.5,
    "",
    "\ud800",
    "\x00",
    "x" * 70_000,
    "1" * 5_000,
    b"",
    b"\xff\xfe",
    [],
    [[]],
    {},
    {"": None},
    {1: 2},
    _deep(60),
    _deep(700),
    [None] * 20_000,
    msgspec.msgpack.Ext(5, b"x"),
    {"__class__": "os.system"},
)
