"""What worker processes do with a chunk of files: one function for each stage.

Each function takes a chunk (paths), reads the files itself and returns something small, so that
data crosses the border between processes once, as counts::

    stage       function    for each file                              comes back for a chunk
    ingestion   ingest      read, decode, hash, measure the lines      a few facts for each file
    processing  process     take code and prose apart, find names      one vocabulary of names
    analysis    count       find words, count them                     a vocabulary for each package

Reading a file three times from the system's cache costs a fiftieth of what is done with it, and
buys stages that fail, retry and are timed by themselves.

Guarantees: an error of one file is kept as a fact about that file and never ends the chunk. The
functions have no state, so a chunk whose process died can be given to another.

Non-guarantees: a file that changes between two stages is counted in the state each stage saw.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from threading import get_native_id
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, TypeVar

from aiopatterns.core.clock import monotonic
from aiopatterns.processor import tokens
from aiopatterns.processor.corpus import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aiopatterns.processor.corpus import Chunk
    from aiopatterns.processor.tokens import Bag

__all__ = [
    "Counted",
    "Facts",
    "Kind",
    "Processed",
    "Timed",
    "Volume",
    "count",
    "examine",
    "ingest",
    "process",
    "timed",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Kind = Literal["text", "undecodable", "binary", "unreadable"]
"""What a file turned out to be. Undecodable: not UTF-8, read with replacement characters."""

_PROBE: Final = 8192
_SOURCES: Final = (".py", ".pyi", ".pyw")


class Facts(NamedTuple):
    """What ingestion found out about one file.

    Attributes:
        path: Below the root.
        package: The package the file was listed in.
        kind: What it is; only texts and undecodable files have the fields below.
        size: In bytes, as read.
        lines: Number of lines, a last one without line feed included.
        longest: Bytes of the longest line.
        digest: SHA-256 of the content.
        reason: Why it is unreadable, in the system's words.
    """

    path: str = ""
    package: str = ""
    kind: Kind = "text"
    size: int = 0
    lines: int = 0
    longest: int = 0
    digest: bytes = b""
    reason: str = ""


class Volume(NamedTuple):
    """Characters of the corpus by kind.

    Attributes:
        code: Python code.
        comments: Comments in it.
        strings: Strings in it, docstrings among them.
        prose: All other files.
    """

    code: int = 0
    comments: int = 0
    strings: int = 0
    prose: int = 0


class Processed(NamedTuple):
    """What :func:`process` returns: the names in code, the volume, and what could not be read."""

    names: Bag
    volume: Volume
    troubles: tuple[Trouble, ...]


class Counted(NamedTuple):
    """What :func:`count` returns: the words of each package, and what could not be read."""

    words: tuple[tuple[str, Bag], ...]
    troubles: tuple[Trouble, ...]


class Timed(NamedTuple, Generic[T_co]):
    """A value, and who made it when.

    Args:
        value: What the function returned.
        task: Number of the chunk.
        process: Id of the process it ran in.
        thread: Id of the thread there, as the system counts.
        start: Begin on the monotonic clock, which all processes of a machine share.
        end: End on the same clock.
    """

    value: T_co
    task: int
    process: int
    thread: int
    start: float
    end: float


def timed(fn: Callable[[Chunk], T], chunk: Chunk) -> Timed[T]:
    """Run a stage's function on a chunk, and note who did it when."""
    start = monotonic()
    value = fn(chunk)
    return Timed(value, chunk.number, os.getpid(), get_native_id(), start, monotonic())


def ingest(chunk: Chunk) -> tuple[Facts, ...]:
    """Read, decode, hash and measure the files of a chunk; the facts come in its order."""
    found: list[Facts] = []
    for path, packages in chunk.entries:
        try:
            facts = examine(tokens.blocks(f"{chunk.root}/{path}"))
        except OSError as error:
            facts = Facts(kind="unreadable", reason=error.strerror or str(error))
        found.append(facts._replace(path=path, package=packages[0]))
    return tuple(found)


def examine(blocks: Iterable[bytes]) -> Facts:
    """Read one file to its end, or to the first sign that it is no text."""
    digest = hashlib.sha256()
    kind: Kind = "text"
    size = lines = longest = begun = 0
    for block in blocks:
        if size < _PROBE and b"\0" in block[: _PROBE - size]:
            return Facts(kind="binary")
        size += len(block)
        digest.update(block)
        if kind == "text" and not _is_utf8(block):
            kind = "undecodable"
        lengths = [*map(len, block.split(b"\n"))]
        lengths[0] += begun
        begun = lengths[-1]
        longest = max(longest, *lengths)
        lines += len(lengths) - 1
    return Facts("", "", kind, size, lines + bool(begun), longest, digest.digest())


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def process(chunk: Chunk) -> Processed:
    """Take code and prose apart and count the names in code."""
    counts: Counter[bytes] = Counter()
    sizes = [0, 0, 0, 0]
    troubles: list[Trouble] = []
    for path, packages in chunk.entries:
        text = b"".join(_read(chunk.root, path, troubles)).decode("utf-8", "replace")
        copies = len(packages)
        if not path.endswith(_SOURCES):
            sizes[3] += copies * len(text)
            continue
        parts = tokens.take_apart(text)
        for position, size in enumerate(parts[1:]):
            sizes[position] += copies * size
        for _ in range(copies):
            counts.update(tokens.names(parts.code))
    return Processed(tokens.pack(tokens.tidy(counts)), Volume(*sizes), tuple(troubles))


def count(chunk: Chunk) -> Counted:
    """Count the words of a chunk, package by package."""
    counts: dict[str, Counter[bytes]] = {}
    troubles: list[Trouble] = []
    for path, packages in chunk.entries:
        for block in _read(chunk.root, path, troubles):
            found = tokens.words(block)
            for package in packages:
                counts.setdefault(package, Counter()).update(found)
    packed = tuple((package, tokens.pack(each)) for package, each in counts.items())
    return Counted(packed, tuple(troubles))


def _read(root: str, path: str, troubles: list[Trouble]) -> Iterator[bytes]:
    """Read a file that could be read before; if that has changed, keep the error."""
    try:
        yield from tokens.blocks(f"{root}/{path}")
    except OSError as error:
        troubles.append(Trouble(path, error.strerror or str(error)))
