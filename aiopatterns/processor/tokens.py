r"""From bytes to tokens: words of any text, names and prose of Python sources.

Everything here is chosen so that the interpreter's C code does the inner loop. The words of an
ASCII line need no regular expression: one ``bytes.translate`` lowers the letters and turns all
else into blanks, one ``split`` cuts. Only lines that hold other characters take the slow way,
decoded and searched for runs of letters; in most corpora these are a few in a thousand. Python
sources are taken apart by one regular expression without backtracking, whose odd pieces are
comments and strings.

Guarantees: a *word* is a maximal run of letters, lower-cased, where a letter is what
``[^\W\d_]`` matches. Bytes that are no UTF-8 count as one character that is no letter. Tokens
are UTF-8 bytes and hold no blank, so that a vocabulary travels as one blank-separated text.

Non-guarantees: :func:`take_apart` is a lexer of Python's strings and comments, not a parser. In
a source with a syntax error it gives some division into code and prose, and never fails.
"""

from __future__ import annotations

import keyword
import re
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Bag", "Parts", "blocks", "names", "pack", "take_apart", "tidy", "unpack", "words"]

BLOCK: Final = 4 << 20
"""Bytes read at once. Larger files are cut at the ends of lines, which bounds a worker's memory."""

_LOWER: Final = bytes(
    byte | 0x20 if chr(byte).isalpha() and byte < 0x80 else 0x20 for byte in range(256)
)
_NAME_BYTES: Final = bytes(
    byte if byte < 0x80 and (chr(byte).isalnum() or byte == ord("_")) else 0x20
    for byte in range(256)
)
_IN_WORDS: Final = bytes(byte for byte in range(256) if _LOWER[byte] != 0x20 or byte >= 0x80)
_WORD_RUNS: Final = re.compile(r"[^\W\d_]+")
_NAME_RUNS: Final = re.compile(r"\w+")

# Comments, and strings in all four kinds of quotes. Possessive repeats never give back what they
# took, so that neither time nor memory explodes on a source that ends inside a string. Every branch
# begins with a literal, which lets the engine skip what lies between at a byte a step.
_PROSE: Final = re.compile(
    r"""(
      \#[^\n]*+
    | \"\"\" [^"\\]*+ (?: (?: \\. | "(?!"") ) [^"\\]*+ )*+ \"\"\"
    | \'\'\' [^'\\]*+ (?: (?: \\. | '(?!'') ) [^'\\]*+ )*+ \'\'\'
    | "     [^"\\\n]*+ (?: \\. [^"\\\n]*+ )*+ "
    | '     [^'\\\n]*+ (?: \\. [^'\\\n]*+ )*+ '
    )""",
    re.VERBOSE | re.DOTALL,
)
# What is left of r"..." and its siblings once the string is gone.
_PREFIXES: Final = frozenset({b"rb", b"br", b"Rb", b"bR", b"rB", b"Br", b"RB", b"BR"}) | frozenset(
    {b"rf", b"fr", b"Rf", b"fR", b"rF", b"Fr", b"RF", b"FR"}
)
_NO_NAMES: Final = _PREFIXES | frozenset(each.encode() for each in keyword.kwlist)


class Parts(NamedTuple):
    """A Python source in two texts, and how many characters each kind has.

    Args:
        code: All but comments and strings.
        code_size: Characters of code.
        comments_size: Characters of comments.
        strings_size: Characters of strings, docstrings among them.
    """

    code: str
    code_size: int
    comments_size: int
    strings_size: int


class Bag(NamedTuple):
    """A vocabulary with counts, packed for the way between processes.

    Args:
        terms: Terms as UTF-8, with a blank between each two.
        counts: Their counts, an ``array("Q")`` as bytes.
    """

    terms: bytes
    counts: bytes


def blocks(path: str) -> Iterator[bytes]:
    """Read a file in blocks that end with a line, or at least not inside a word.

    Args:
        path: A regular file.

    Yields:
        Non-empty blocks; one for a file below 4 MiB. A run of letters longer than that stays
        whole, at the price of its memory.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        rest = b""
        while len(data := file.read(BLOCK)) == BLOCK:
            data = rest + data
            end = data.rfind(b"\n") + 1 or len(data.rstrip(_IN_WORDS))
            rest = data[end:]
            if end:
                yield data[:end]
        if last := rest + data:
            yield last


def words(data: bytes) -> list[bytes]:
    """Return the words of a text, in no particular order.

    Args:
        data: UTF-8, more or less.
    """
    if data.isascii():
        return data.translate(_LOWER).split()
    plain: list[bytes] = []
    rich: list[bytes] = []
    for line in data.split(b"\n"):
        (plain if line.isascii() else rich).append(line)
    found = b"\n".join(plain).translate(_LOWER).split()
    text = b"\n".join(rich).decode("utf-8", "replace")
    found += [run.lower().encode() for run in _WORD_RUNS.findall(text)]
    return found


def take_apart(text: str) -> Parts:
    """Divide a Python source into code and prose (comments and strings)."""
    pieces = _PROSE.split(text)
    code, prose = pieces[0::2], pieces[1::2]
    comments = sum(len(each) for each in prose if each[0] == "#")
    code_size = sum(map(len, code))
    return Parts(" ".join(code), code_size, comments, len(text) - code_size - comments)


def names(code: str) -> list[bytes]:
    """Return the runs of name characters in code; :func:`tidy` makes names of their counts."""
    if code.isascii():
        return code.encode().translate(_NAME_BYTES).split()
    return [run.encode() for run in _NAME_RUNS.findall(code)]


def tidy(counts: Mapping[bytes, int]) -> dict[bytes, int]:
    """Leave names of two characters and more: no numbers, keywords or prefixes of strings.

    Cleaning a vocabulary of thousands instead of a text of millions makes it free.
    """
    return {
        name: count
        for name, count in counts.items()
        if len(name) > 1 and not name[:1].isdigit() and name not in _NO_NAMES
    }


def pack(counts: Mapping[bytes, int]) -> Bag:
    """Pack a vocabulary: two flat strings pickle 20 times faster than a dict of objects."""
    return Bag(b" ".join(counts), array("Q", counts.values()).tobytes())


def unpack(bag: Bag) -> dict[str, int]:
    """Return the vocabulary that :func:`pack` packed."""
    counts = array("Q")
    counts.frombytes(bag.counts)
    return dict(zip(bag.terms.decode().split(), counts, strict=True))
