"""A connection between two peers: how it begins, and what is written and read on it.

Every wait has its end, so that nobody can hold a connection without saying something: the
beginning must be over within :data:`HANDSHAKE` seconds, a frame that has begun must be whole within
:data:`WHOLE`, what is written must be taken within :data:`WRITTEN`, and one that is silent for
:data:`SILENT` seconds is closed. At most one frame and one chunk are kept of what arrives.
"""

from __future__ import annotations

import socket
from math import inf
from secrets import token_bytes
from struct import pack
from typing import TYPE_CHECKING, Final, final

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    Lock,
    connect_tcp,
    fail_after,
)
from anyio.abc import SocketAttribute

from aiopatterns.cluster.secret import PROOF_BYTES
from aiopatterns.cluster.tcpframes import (
    CHALLENGE_BYTES,
    HEAD_BYTES,
    NONCE_BYTES,
    Frames,
    challenge,
    is_sealed,
    opening,
    read_hello,
    rest_of_hello,
)
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import SecretMismatchError

if TYPE_CHECKING:
    from anyio.abc import SocketStream

    from aiopatterns.cluster.secret import Seal, Secret
    from aiopatterns.cluster.tcpframes import Frame

__all__ = ["LOST", "Wire", "call", "meet"]

#: Seconds for the beginning of a connection; for who calls, with getting through at all.
HANDSHAKE: Final = 5.0
#: Seconds from the first byte of a frame to its last.
WHOLE: Final = 10.0
#: Seconds until the other side has taken what was written.
WRITTEN: Final = 10.0
#: Seconds after which a caller who says nothing is gone; callers hang up before that.
SILENT: Final = 90.0
_CHUNK: Final = 65_536
# The kernel gives a connection up whose data nobody acknowledges for as long (RFC 5482), in ms.
_OPTIONS: Final = tuple(
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_USER_TIMEOUT", int(WRITTEN * 1_000)),)
    if hasattr(socket, name)
)
# How the called side closes (l_onoff, l_linger). An orderly end in the middle of the beginning tells
# the caller that its secret is wrong, so every other end there is made to look like a failure.
_ABRUPT: Final = pack("ii", 1, 0)
_ORDERLY: Final = pack("ii", 0, 0)

#: What says that a connection is no more.
LOST: Final = (OSError, EndOfStream, BrokenResourceError, ClosedResourceError)


@final
class Wire:
    """A connection on which both sides have proved that they share the secret.

    Args:
        stream: The connection; whoever made it closes it.
        out: Seal of what is written.
        back: Seal of what is read.
    """

    __slots__ = ("_began", "_frames", "_seal", "_stream", "_turn")

    def __init__(self, stream: SocketStream, *, out: Seal, back: Seal) -> None:
        self._stream = stream
        self._seal = out
        self._frames = Frames(back)
        self._began = inf
        self._turn = Lock()

    async def write(self, *frames: Frame) -> None:
        """Write frames; one call at a time, others wait for their turn.

        Raises:
            OSError: The other side does not take them.
            BrokenResourceError: The connection is no more.

        Cancellation: only to give the connection up.
        """
        async with self._turn:
            seal = self._seal
            with fail_after(WRITTEN):
                await self._stream.send(b"".join([frame.encode(seal) for frame in frames]))

    async def read(self, silent: float) -> list[Frame]:
        """Wait for something to arrive and return the frames that are whole now, perhaps none.

        Args:
            silent: Seconds after which one who says nothing is gone.

        Raises:
            CodecError: What arrived is none of ours.
            OSError: Nothing arrived in time.
            EndOfStream: The other side has hung up.
            BrokenResourceError: The connection is no more.

        Cancellation: only to give the connection up.
        """
        with fail_after(min(silent, self._began + WHOLE - monotonic())):
            chunk = await self._stream.receive(_CHUNK)
        frames = self._frames.feed(chunk)
        if not self._frames.partial:
            self._began = inf
        elif frames or self._began == inf:
            self._began = monotonic()
        return frames


async def meet(stream: SocketStream, secret: Secret) -> tuple[Wire, str]:
    """Begin as the side that was called; return the wire and the caller's address.

    Raises:
        SecretMismatchError: The caller does not know the secret.
        CodecError: The caller is no peer.
        OSError: It does not say what it should in time.
        EndOfStream: It has hung up.
        BrokenResourceError: The connection is no more.
    """
    first = challenge(token_bytes(NONCE_BYTES), sealed=not secret.known_to_all)
    raw = stream.extra_attributes[SocketAttribute.raw_socket]()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
    with fail_after(HANDSHAKE):
        await stream.send(first)
        head = await _exactly(stream, HEAD_BYTES)
        rest = await _exactly(stream, rest_of_hello(head))
        address, proof = read_hello(rest)
        transcript = first + head + rest[:-PROOF_BYTES]
        proved = secret.proves("caller", transcript, proof)
        if proved:
            await stream.send(secret.proof("called", transcript))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY)
        if not proved:
            raise SecretMismatchError(address=address)
    caller, called = secret.seal("caller", transcript), secret.seal("called", transcript)
    return Wire(stream, out=called, back=caller), address


async def call(host: str, port: int, *, secret: Secret, address: str) -> tuple[SocketStream, Wire]:
    """Connect and begin as the side that calls; return the connection, to be closed, and the wire.

    Args:
        host: Whom to call.
        port: Where there.
        secret: What both know.
        address: Where this side is called itself.

    Raises:
        SecretMismatchError: The other side does not know the secret, or says that we do not.
        CodecError: There is no peer at that place.
        OSError: Nobody is there, or it does not say what it should in time.
        EndOfStream: It has hung up.
        BrokenResourceError: The connection is no more.
    """
    with fail_after(HANDSHAKE):
        return await _begun(await connect_tcp(host, port), secret, address)


async def _begun(stream: SocketStream, secret: Secret, own: str) -> tuple[SocketStream, Wire]:
    """Return the wire of a new connection, or close that."""
    try:
        raw = stream.extra_attributes[SocketAttribute.raw_socket]()
        for option in _OPTIONS:
            raw.setsockopt(*option)
        return stream, await _introduce(stream, secret, own)
    except BaseException:
        await stream.aclose()
        raise


async def _introduce(stream: SocketStream, secret: Secret, address: str) -> Wire:
    first = await _exactly(stream, CHALLENGE_BYTES)
    sealed = is_sealed(first)
    hello = opening(token_bytes(NONCE_BYTES), address, sealed=not secret.known_to_all)
    transcript = first + hello
    await stream.send(hello + secret.proof("caller", transcript))
    if sealed == secret.known_to_all:
        has, have = ("a secret", "none") if sealed else ("no secret", "one")
        raise SecretMismatchError(f"the peer has {has} and this side has {have}")
    try:
        proof = await _exactly(stream, PROOF_BYTES)
    except EndOfStream as error:  # an orderly end: it has looked at the proof
        raise SecretMismatchError("the peer does not accept the secret of this side") from error
    if not secret.proves("called", transcript, proof):
        raise SecretMismatchError("the peer does not know the secret of this side")
    caller, called = secret.seal("caller", transcript), secret.seal("called", transcript)
    return Wire(stream, out=caller, back=called)


async def _exactly(stream: SocketStream, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await stream.receive(size - len(found))
    return found
