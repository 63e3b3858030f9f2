"""Which files the main job reads, and in which portions worker processes get them.

A corpus is a folder (or one file) and a rule that says which files in it count. Walking it reads
names and sizes only, so it is done in the parent; what crosses to a worker process afterwards is
a *chunk*, a list of paths, never what the files hold::

    Corpus.walk()          plan()                 a worker process
    folder ----> Document, Document, ... ----> Chunk (some 1.5 MB of files) ----> opens the paths

Guarantees: the order of documents depends on their paths alone, so two runs over one tree make
the same chunks; symbolic links are never followed below the root; what cannot be entered is kept
as a :class:`Trouble` and does not end the walk.

Non-guarantees: a tree that changes while it is walked gives some state between before and after.
"""

from __future__ import annotations

import os
import stat
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from aiopatterns.core import validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "CHUNK_BYTES",
    "Chunk",
    "Corpus",
    "Document",
    "Entry",
    "Listing",
    "Trouble",
    "cut",
    "plan",
]

CHUNK_BYTES: Final = 3 << 19
"""Bytes of files in one chunk. Measured: smaller chunks have more of their vocabularies in common,
which is work for the one who adds them up; larger ones keep one worker longer at a stage's end."""

_NOT_OURS: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})


class Document(NamedTuple):
    """One file of the corpus.

    Attributes:
        path: Below the corpus' root, with ``/``.
        package: The folder directly below the root; for a file there, its name without suffix.
        size: In bytes, when it was listed.
    """

    path: str
    package: str
    size: int


class Trouble(NamedTuple):
    """A file or folder that could not be read, and the system's words for why."""

    path: str
    reason: str


class Entry(NamedTuple):
    """A file in a chunk, and the packages that hold a copy of it (once for each copy)."""

    path: str
    packages: tuple[str, ...]


class Chunk(NamedTuple):
    """What one call in a worker process is about.

    Args:
        number: Position among the chunks of its stage, from 0.
        root: Folder that the paths are below.
        entries: The files.
        size: Bytes of the files together.
    """

    number: int
    root: str
    entries: tuple[Entry, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What a walk found.

    Args:
        documents: Sorted by path.
        skipped: Number of entries that are no regular files (links, sockets, devices).
        troubles: Folders that could not be entered.
    """

    documents: tuple[Document, ...]
    skipped: int
    troubles: tuple[Trouble, ...]

    @property
    def size(self) -> int:
        """Bytes of all documents together."""
        return sum(each.size for each in self.documents)


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder, or one file of it, and the rule that says what counts.

    Args:
        root: The folder.
        title: How reports call it.
        only: Name of the one file that counts; None for all.
        suffix: End of the names that count; None for any.
        without: Names of folders that are not entered.

    Made by :meth:`standard_library` or :meth:`at`.
    """

    root: Path
    title: str
    only: str | None = None
    suffix: str | None = None
    without: frozenset[str] = frozenset()

    @classmethod
    def standard_library(cls) -> Corpus:
        """Return the ``*.py`` files of this interpreter's library, its tests among them.

        About 1,790 files and 31 MB with CPython 3.11. What was installed besides is left out.
        """
        root = Path(sysconfig.get_path("stdlib"))
        return cls(root, "Python's standard library", suffix=".py", without=_NOT_OURS)

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Corpus:
        """Return every regular file below ``path``, or the one file that it names.

        Args:
            path: A folder or a file. A link is followed here, and nowhere below. Workers may stand
                in another folder, so it is made absolute.

        Raises:
            OSError: Nothing is there, or it must not be read; says which.
            ValueError: It is neither a folder nor a regular file.
        """
        validate.instance("path", path, (str, os.PathLike), "a path")
        found = Path(path)
        mode = found.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(found).close()
            return cls(found.absolute(), str(found))
        if not stat.S_ISREG(mode):
            msg = f"path must be a folder or a regular file, not {os.fspath(path)!r}"
            raise ValueError(msg)
        with found.open("rb"):
            return cls(found.absolute().parent, str(found), only=found.name)

    def walk(self) -> Listing:
        """List the documents.

        Returns:
            Names and sizes; no file is opened.

        Complexity: one ``scandir`` a folder and one ``lstat`` a file that counts; memory grows
        with the number of files.
        """
        walked = _Walk(self)
        walked.enter(str(self.root), "")
        walked.documents.sort()
        return Listing(tuple(walked.documents), walked.skipped, tuple(walked.troubles))


def plan(
    documents: Iterable[Document], root: str | os.PathLike[str], *, chunk_bytes: int = CHUNK_BYTES
) -> list[Chunk]:
    """Cut documents into chunks, in their order, so that a chunk touches few packages.

    Args:
        documents: What to cut up.
        root: Folder that their paths are below.
        chunk_bytes: A chunk ends with the file that reaches this size; a larger file is a chunk
            of its own.

    Returns:
        The chunks; every document is in exactly one.
    """
    validate.count("chunk_bytes", chunk_bytes)
    entries = ((Entry(each.path, (each.package,)), each.size) for each in documents)
    return list(cut(entries, os.fspath(root), chunk_bytes))


def cut(entries: Iterable[tuple[Entry, int]], root: str, chunk_bytes: int) -> Iterator[Chunk]:
    """Cut entries, given with their sizes, into chunks; see :func:`plan`."""
    number, size = 0, 0
    held: list[Entry] = []
    for entry, bytes_ in entries:
        held.append(entry)
        size += bytes_
        if size >= chunk_bytes:
            yield Chunk(number, root, tuple(held), size)
            number, size = number + 1, 0
            held.clear()
    if held:
        yield Chunk(number, root, tuple(held), size)


@final
class _Walk:
    """The state of one walk."""

    __slots__ = ("corpus", "documents", "skipped", "troubles")

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.documents: list[Document] = []
        self.troubles: list[Trouble] = []
        self.skipped = 0

    def enter(self, root: str, below: str) -> None:
        """List a folder and all below it, without recursion: trees may be deep."""
        waiting = [below]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(f"{root}/{folder}") as entries:
                    waiting += [name for each in entries if (name := self._take(each, folder))]
            except OSError as error:
                self.troubles.append(Trouble(folder, error.strerror or str(error)))

    def _take(self, entry: os.DirEntry[str], folder: str) -> str | None:
        """Keep a file; return the path of a folder that is to be entered."""
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            inside = self.corpus.only is None and entry.name not in self.corpus.without
            return path if inside else None
        if not self._counts(entry.name):
            return None
        if not entry.is_file(follow_symlinks=False) and self.corpus.only is None:
            self.skipped += 1
            return None
        package = path.partition("/")[0] if folder else entry.name.rpartition(".")[0] or entry.name
        self.documents.append(Document(path, package, entry.stat().st_size))
        return None

    def _counts(self, name: str) -> bool:
        only, suffix = self.corpus.only, self.corpus.suffix
        return (only is None or name == only) and (suffix is None or name.endswith(suffix))
