"""Sites: which machine this is, and what it sees of the files that a run has listed.

A run counts the files of one machine. Who works on a chunk elsewhere must have the same files at
the same path; that is told by a stamp of the chunk, taken on both machines::

    here                                 there
    chunk, HOST  ------------------->    its HOST is another one: stamp(chunk)
    stamp(chunk), the same?  <-------    work, stamp

On the machine that listed them nothing is looked at twice. The clocks of two machines have
nothing to do with each other, so what was done elsewhere is told as if it had ended when it is
told.
"""

from __future__ import annotations

import platform
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from zlib import crc32

from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from aiopatterns.processor.corpus import Chunk
    from aiopatterns.processor.stages import Timed

__all__ = ["HOST", "Seen", "by_this_clock", "seen_by_another", "stamp"]

T = TypeVar("T")


def _host() -> str:
    """Return the name of this machine, with a digest of its boot and of its mounts where it has one."""
    name = platform.node()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        mounts = bytes(Path("/proc/self/ns/mnt").readlink())
    except OSError:
        return name
    return f"{name}/{sha256(boot + mounts).hexdigest()[:8]}"


HOST: Final = _host()
"""This machine, as it sees its files: containers of one name are not the same."""


class Seen(NamedTuple):
    """What a machine sees of a chunk's files.

    Attributes:
        host: The machine.
        stamp: What :func:`stamp` says there.
    """

    host: str
    stamp: bytes


def stamp(chunk: Chunk) -> bytes:
    """Return a digest of the paths, sizes and times of change of a chunk's files on this machine."""
    digest = sha256()
    for path, _ in chunk.entries:
        try:
            found = Path(chunk.root, path).stat()
            digest.update(f"{path!r} {found.st_size} {found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path!r}\n".encode())
    return digest.digest()[:16]


def seen_by_another(chunk: Chunk, host: str) -> Seen | None:
    """Return what this machine sees of a chunk, unless it is ``host``, which has listed it."""
    return None if host == HOST else Seen(HOST, stamp(chunk))


def by_this_clock(timed: Timed[T], host: str) -> Timed[T]:
    """Return the record of what another machine did, by the clock of this one."""
    process, now = crc32(f"{host} {timed.process}".encode()), monotonic()
    start = now - (timed.end - timed.start)
    return timed._replace(process=process, thread=process, start=start, end=now)
