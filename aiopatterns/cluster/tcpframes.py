"""What travels on a connection between two peers, byte by byte; pure, it does no I/O.

A connection begins with three messages of known size, then come frames::

    called -> caller   "aiop" | version | sealed | 16 random bytes
    caller -> called   "aiop" | version | sealed | 16 random bytes | 2: size | address | proof
    called -> caller   proof

    frame              4: size of the rest | seal | kind | 4: number | payload

``sealed`` says whether that side has a secret of its own, so that a node with the wrong settings
is told what is wrong. Numbers are big-endian. What arrives may come from anybody: sizes are looked
at before anything is kept, and everything that is not as it should be is a :class:`CodecError`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, final

from aiopatterns.cluster.secret import PROOF_BYTES, SEAL_BYTES
from aiopatterns.cluster.transport import MAX_EXCHANGE
from aiopatterns.core.errors import CodecError, UnknownVersionError

if TYPE_CHECKING:
    from aiopatterns.cluster.secret import Seal

__all__ = [
    "CHALLENGE_BYTES",
    "HEAD_BYTES",
    "MAX_ADDRESS",
    "NONCE_BYTES",
    "Frame",
    "Frames",
    "Kind",
    "challenge",
    "is_sealed",
    "opening",
    "read_hello",
    "rest_of_hello",
]

MAGIC: Final = b"aiop"
VERSION: Final = 1
NONCE_BYTES: Final = 16
#: Bytes of the message that a connection begins with, and of what the hello begins with.
CHALLENGE_BYTES: Final = len(MAGIC) + 2 + NONCE_BYTES
#: Longest address, in bytes: a DNS name of 253 characters, brackets, a colon and a port.
MAX_ADDRESS: Final = 261

_SIZE_BYTES: Final = 4
_NUMBER_BYTES: Final = 4
_LENGTH_BYTES: Final = 2
HEAD_BYTES: Final = CHALLENGE_BYTES + _LENGTH_BYTES
_LEAST: Final = SEAL_BYTES + 1 + _NUMBER_BYTES
_LAST_NUMBER: Final = 2 ** (8 * _NUMBER_BYTES)


class Kind(IntEnum):
    """What a frame is."""

    PACKET = 1
    REQUEST = 2
    ANSWER = 3
    REFUSAL = 4


@final
class Frame(NamedTuple):
    """One frame.

    Attributes:
        kind: What it is.
        number: Joins an answer to its request; 0 for packets.
        payload: What the node has to say.
    """

    kind: Kind
    number: int
    payload: bytes = b""

    def encode(self, seal: Seal) -> bytes:
        """Return the bytes of this frame as the next one under ``seal``."""
        number = (self.number % _LAST_NUMBER).to_bytes(_NUMBER_BYTES, "big")
        body = bytes((self.kind,)) + number + self.payload
        size = (SEAL_BYTES + len(body)).to_bytes(_SIZE_BYTES, "big")
        return b"".join((size, seal.next(body), body))


@final
class Frames:
    """Cuts what arrives into frames.

    Args:
        seal: That of the other side.

    Attributes:
        partial: Whether a frame has begun that is not whole yet.

    Complexity: O(size); keeps at most one unfinished frame and what has arrived with it.
    """

    __slots__ = ("_kept", "_seal")

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._kept = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return bool(self._kept)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take what has arrived and return the frames that are whole now.

        Raises:
            CodecError: A frame is larger than any may be, or its seal is not that of the next
                frame; nothing that comes later can be understood any more.
        """
        kept = self._kept
        kept += chunk
        found: list[Frame] = []
        start = 0
        while len(kept) >= start + _SIZE_BYTES:
            end = start + _SIZE_BYTES + _size(kept, start)
            if len(kept) < end:
                break
            found.append(self._frame(bytes(kept[start + _SIZE_BYTES : end])))
            start = end
        del kept[:start]
        return found

    def _frame(self, data: bytes) -> Frame:
        seal, body = data[:SEAL_BYTES], data[SEAL_BYTES:]
        if not self._seal.fits(body, seal):
            raise CodecError("a frame has a wrong seal")
        try:
            kind = Kind(body[0])
        except ValueError:
            raise CodecError(f"no frame is of kind {body[0]}") from None
        end = 1 + _NUMBER_BYTES
        return Frame(kind, int.from_bytes(body[1:end], "big"), body[end:])


def _size(kept: bytearray, start: int) -> int:
    """Return the size of the frame that begins there."""
    size = int.from_bytes(kept[start : start + _SIZE_BYTES], "big")
    if not _LEAST <= size <= _LEAST + MAX_EXCHANGE:
        raise CodecError(f"a frame has {_LEAST} to {_LEAST + MAX_EXCHANGE} bytes, not {size}")
    return size


def challenge(nonce: bytes, *, sealed: bool) -> bytes:
    """Return what the called side begins with."""
    return MAGIC + bytes((VERSION, sealed)) + nonce


def is_sealed(data: bytes) -> bool:
    """Return whether the side that begins so has a secret of its own.

    Raises:
        UnknownVersionError: It speaks a version that this release does not know.
        CodecError: These bytes are no challenge and begin no hello.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise CodecError("these are not the bytes of a peer")
    version, sealed = data[len(MAGIC)], data[len(MAGIC) + 1]
    if version != VERSION:
        raise UnknownVersionError(version=version)
    return bool(sealed)


def opening(nonce: bytes, address: str, *, sealed: bool) -> bytes:
    """Return what the caller answers to the challenge, but for the proof, which depends on it."""
    text = address.encode("ascii")
    return challenge(nonce, sealed=sealed) + len(text).to_bytes(_LENGTH_BYTES, "big") + text


def rest_of_hello(head: bytes) -> int:
    """Return how many bytes follow on the first :data:`HEAD_BYTES` of a hello.

    Raises:
        UnknownVersionError: The caller speaks a version that this release does not know.
        CodecError: These bytes begin no hello, or its address is longer than any.
    """
    is_sealed(head)
    size = int.from_bytes(head[CHALLENGE_BYTES:], "big")
    if not 1 <= size <= MAX_ADDRESS:
        raise CodecError(f"an address has 1 to {MAX_ADDRESS} bytes, not {size}")
    return size + PROOF_BYTES


def read_hello(rest: bytes) -> tuple[str, bytes]:
    """Return the address of the caller and its proof.

    Raises:
        CodecError: The address is no text.
    """
    try:
        return rest[:-PROOF_BYTES].decode("ascii"), rest[-PROOF_BYTES:]
    except UnicodeDecodeError as error:
        raise CodecError(f"an address is ASCII text: {error}") from None
