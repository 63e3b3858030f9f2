"""Chunks and what is found in them as bytes, for the way between machines.

Between the processes of one program results are pickled. Over a backend they are data and nothing
but data: msgpack, decoded into the types that are expected. Names of files are bytes there, since
a system's names need not be text that UTF-8 can hold.

Guarantees: what is encoded here comes back equal, whatever bytes the names hold; anything else
raises :class:`~aiopatterns.core.errors.CodecError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from aiopatterns.core.codec import MSGPACK
from aiopatterns.processor.corpus import Chunk, Entry, Trouble
from aiopatterns.processor.stages import Counted, Facts, Kind, Processed, Volume
from aiopatterns.processor.tokens import Bag

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "read_chunk",
    "read_counted",
    "read_facts",
    "read_processed",
    "write_chunk",
    "write_counted",
    "write_facts",
    "write_processed",
]

_Troubles: TypeAlias = list[tuple[bytes, bytes]]

_chunk_of: Final = MSGPACK.decoder(tuple[int, bytes, list[tuple[bytes, list[bytes]]], int])
_facts_of: Final = MSGPACK.decoder(list[tuple[bytes, bytes, Kind, int, int, int, bytes, bytes]])
_processed_of: Final = MSGPACK.decoder(tuple[Bag, Volume, _Troubles])
_counted_of: Final = MSGPACK.decoder(tuple[list[tuple[bytes, Bag]], _Troubles])


def write_chunk(chunk: Chunk) -> bytes:
    """Return a chunk as bytes."""
    entries = [(_out(path), [*map(_out, packages)]) for path, packages in chunk.entries]
    return MSGPACK.encode((chunk.number, _out(chunk.root), entries, chunk.size))


def read_chunk(data: bytes) -> Chunk:
    """Return the chunk that :func:`write_chunk` wrote."""
    number, root, entries, size = _chunk_of(data)
    found = (Entry(_in(path), (*map(_in, packages),)) for path, packages in entries)
    return Chunk(number, _in(root), tuple(found), size)


def write_facts(facts: Iterable[Facts]) -> bytes:
    """Return what ingestion found as bytes."""
    rows = [
        (_out(path), _out(package), *rest, _out(reason)) for path, package, *rest, reason in facts
    ]
    return MSGPACK.encode(rows)


def read_facts(data: bytes) -> tuple[Facts, ...]:
    """Return the facts that :func:`write_facts` wrote."""
    rows = _facts_of(data)
    return tuple(
        Facts(_in(path), _in(package), kind, size, lines, longest, digest, _in(reason))
        for path, package, kind, size, lines, longest, digest, reason in rows
    )


def write_processed(found: Processed) -> bytes:
    """Return what processing found as bytes."""
    return MSGPACK.encode((found.names, found.volume, _troubles_out(found.troubles)))


def read_processed(data: bytes) -> Processed:
    """Return what :func:`write_processed` wrote."""
    names, volume, troubles = _processed_of(data)
    return Processed(names, volume, _troubles_in(troubles))


def write_counted(found: Counted) -> bytes:
    """Return what analysis found as bytes."""
    words = [(_out(package), bag) for package, bag in found.words]
    return MSGPACK.encode((words, _troubles_out(found.troubles)))


def read_counted(data: bytes) -> Counted:
    """Return what :func:`write_counted` wrote."""
    words, troubles = _counted_of(data)
    return Counted(tuple((_in(name), bag) for name, bag in words), _troubles_in(troubles))


def _troubles_out(troubles: Iterable[Trouble]) -> _Troubles:
    return [(_out(each.path), _out(each.reason)) for each in troubles]


def _troubles_in(troubles: _Troubles) -> tuple[Trouble, ...]:
    return tuple(Trouble(_in(path), _in(reason)) for path, reason in troubles)


def _out(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _in(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
