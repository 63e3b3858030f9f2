"""Envelope: what a key of the shared tier holds, a value or a tombstone.

::

    value      56 01 | crc32 4 | codec 1 | flags 1 | nonce 8 | fresh 8 | stale 8 | cost 4 | tags 2
               then for each tag: bytes of its name 2, its name, its version 8
               then the payload
    tombstone  54 01 | 16 bytes by chance

``fresh`` and ``stale`` are milliseconds by the server's clock, all ones for never; ``cost`` is how
long the load took, in microseconds. Numbers are big-endian.

Bytes come from a server that others write to: a newer or older release, another program, a broken
disk. So whatever is not exactly an envelope of this version, with these fields, this codec and the
right checksum, is *no* envelope. For a reader that is a miss, and for the fill that follows it is
what it compares with, so that it is overwritten.

The nonce makes every envelope differ from every other, also from one of the same value: what a
fill compares with is one particular writing of the key, never a look-alike of it (no ABA). For the
same reason no two tombstones are alike.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Envelope", "codec_id", "is_tombstone", "opened", "sealed", "tombstone", "version"]

_VALUE: Final = b"V\x01"
_TOMBSTONE: Final = b"T\x01"
_TOMBSTONE_BYTES: Final = 18
_VERSION_BYTES: Final = 8
_NAME_BYTES: Final = 2

_SUM: Final = Struct(">I")
_HEAD: Final = Struct(">BB8sQQIH")  # what the checksum covers begins here
_HEAD_AT: Final = len(_VALUE) + _SUM.size
_TAGS_AT: Final = _HEAD_AT + _HEAD.size

_ABSENT: Final = 1  # flag: the source has no value; no payload
_NEVER: Final = 2**64 - 1
_LONGEST_COST: Final = 2**32 - 1
_CODECS: Final = (("json", 1), ("msgpack", 2))
# Ids from here on are made of the name of a codec that somebody has brought.
_FOREIGN: Final = 128


class Envelope(NamedTuple):
    """A value as it travels.

    Attributes:
        payload: The value in the codec's bytes; None: the source has none.
        fresh_until: Seconds by the server's clock, infinite for never.
        stale_until: The same.
        cost: Seconds that the load took.
        versions: The tags and their versions before the load.
    """

    payload: bytes | None
    fresh_until: float
    stale_until: float
    cost: float
    versions: Sequence[tuple[str, bytes]]


def codec_id(name: str) -> int:
    """Return the number that stands for a codec, 1 to 255."""
    for known, number in _CODECS:
        if name == known:
            return number
    return _FOREIGN + blake2b(name.encode(), digest_size=1).digest()[0] % _FOREIGN


def version() -> bytes:
    """Return a version of a tag that was never used before."""
    return rng().randbytes(_VERSION_BYTES)


def tombstone() -> bytes:
    """Return a tombstone, unlike any other."""
    return _TOMBSTONE + rng().randbytes(_TOMBSTONE_BYTES - len(_TOMBSTONE))


def is_tombstone(raw: bytes) -> bool:
    """Whether these bytes are a tombstone."""
    return len(raw) == _TOMBSTONE_BYTES and raw.startswith(_TOMBSTONE)


def sealed(envelope: Envelope, codec: int) -> bytes:
    """Return an envelope as bytes, unlike those of any other sealing."""
    head = _HEAD.pack(
        codec,
        _ABSENT if envelope.payload is None else 0,
        rng().randbytes(_VERSION_BYTES),
        _milliseconds(envelope.fresh_until),
        _milliseconds(envelope.stale_until),
        min(int(envelope.cost * 1_000_000), _LONGEST_COST),
        len(envelope.versions),
    )
    parts = [head]
    for tag, number in envelope.versions:
        name = tag.encode()
        parts += (len(name).to_bytes(_NAME_BYTES, "big"), name, number)
    parts.append(envelope.payload or b"")
    body = b"".join(parts)
    return b"".join((_VALUE, _SUM.pack(crc32(body)), body))


def opened(raw: bytes, codec: int | None) -> Envelope | None:
    """Return the envelope that ``raw`` is, or None if it is none that this release can use.

    Args:
        raw: Any bytes.
        codec: The codec that the payload has to be of; None if that does not matter.

    Complexity: O(size), for the checksum.
    """
    if len(raw) < _TAGS_AT or not raw.startswith(_VALUE):
        return None
    (checksum,) = _SUM.unpack_from(raw, len(_VALUE))
    if crc32(memoryview(raw)[_HEAD_AT:]) != checksum:
        return None
    wrote, flags, _, fresh, stale, cost, tags = _HEAD.unpack_from(raw, _HEAD_AT)
    read = _versions(raw, tags)
    if codec not in {None, wrote} or flags > _ABSENT or fresh > stale or read is None:
        return None
    versions, payload_at = read
    return Envelope(
        payload=None if flags else raw[payload_at:],
        fresh_until=_seconds(fresh),
        stale_until=_seconds(stale),
        cost=cost / 1_000_000,
        versions=versions,
    )


def _versions(raw: bytes, count: int) -> tuple[tuple[tuple[str, bytes], ...], int] | None:
    """Return the tags with their versions and where the payload begins; None if it is cut off."""
    versions, at = list[tuple[str, bytes]](), _TAGS_AT
    for _ in range(count):
        name_at = at + _NAME_BYTES
        version_at = name_at + int.from_bytes(raw[at:name_at], "big")
        at = version_at + _VERSION_BYTES
        if at > len(raw):
            return None
        try:
            versions.append((raw[name_at:version_at].decode(), raw[version_at:at]))
        except UnicodeDecodeError:
            return None
    return tuple(versions), at


def _milliseconds(seconds: float) -> int:
    """Round a time down, so that nothing lives longer for it."""
    return _NEVER if seconds == math.inf else max(0, int(seconds * 1_000))


def _seconds(milliseconds: int) -> float:
    return math.inf if milliseconds == _NEVER else milliseconds / 1_000
