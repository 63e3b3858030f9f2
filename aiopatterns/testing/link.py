"""One connection through the fault proxy: two pumps, and what befalls each request.

The request pump asks the network for the fate of each request and remembers it; the reply pump
meets the replies in the same order and does to them what was decided. Either pump's end is the
end of the connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

from anyio import CancelScope, create_task_group

from aiopatterns.testing.frames import Frames, is_push

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Counts", "Direction", "Fate", "Link", "Network", "Peer", "reset"]

Direction: TypeAlias = Literal["requests", "replies"]
Peer: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""One end of a connection: what it says, and where to tell it something."""

_CHUNK: Final = 1 << 16
# Close at once and say so with a reset, instead of the polite end: struct linger {1, 0}.
_LINGER: Final = struct.pack("ii", 1, 0)


class Fate(Enum):
    """What becomes of a request and of its reply."""

    THROUGH = "through"
    DROP_REPLY = "drop_reply"
    DROP_REQUEST = "drop_request"
    DUPLICATE = "duplicate"
    SWALLOW = "swallow"  # the second reply to a request that was sent twice


@dataclass(slots=True)
class Counts:
    """What has passed and what has not; see ``ProxyStatistics``."""

    connections: int = 0
    refused: int = 0
    unreachable: int = 0
    requests: int = 0
    replies: int = 0
    dropped_requests: int = 0
    dropped_replies: int = 0
    duplicated: int = 0
    cut: int = 0


class Network(Protocol):
    """What a connection asks about the weather."""

    counts: Counts

    def fate(self, request: bytes) -> Fate:
        """Decide what becomes of a request; each is asked for once."""
        ...

    async def hold(self, direction: Direction) -> None:
        """Wait as long as bytes in this direction are held up."""
        ...


@final
class Link:
    """A connection between a client and the server.

    Args:
        network: Who decides.
        client: The client's end.
        server: The server's end.
        framed: Whether requests and replies are told apart by the Redis protocol.
    """

    __slots__ = ("_client", "_fates", "_framed", "_network", "_scope", "_server")

    def __init__(self, network: Network, client: Peer, server: Peer, *, framed: bool) -> None:
        self._network = network
        self._client = client
        self._server = server
        self._framed = framed
        self._fates: deque[Fate] = deque()
        self._scope = CancelScope()

    async def run(self) -> None:
        """Carry bytes until one side ends, or a fault ends both.

        Cancellation: both connections are reset.
        """
        try:
            async with create_task_group() as group:
                self._scope = group.cancel_scope
                group.start_soon(self._pump, self._client[0], self._pass_requests)
                group.start_soon(self._pump, self._server[0], self._pass_replies)
        except BaseException:
            reset(self._client[1])
            raise
        finally:
            # What the client was sent still reaches it; the server does not care.
            self._client[1].close()
            self._server[1].transport.abort()

    def cut(self) -> None:
        """Reset both connections, now."""
        self._network.counts.cut += 1
        reset(self._client[1])
        self._end()

    def _end(self) -> None:
        self._scope.cancel()

    async def _pump(
        self, reader: asyncio.StreamReader, handle: Callable[[list[bytes]], Awaitable[None]]
    ) -> None:
        frames = Frames() if self._framed else None
        # A side is gone, and with it the connection; uvloop's transports say RuntimeError then.
        with suppress(OSError, RuntimeError):
            # A scope that was cancelled lets a read that has ended already return: what it brought
            # comes after a fault, and must not pass for what was lost.
            while (data := await reader.read(_CHUNK)) and not self._scope.cancel_called:
                await handle([data] if frames is None else frames.feed(data))
        self._end()

    async def _pass_requests(self, requests: list[bytes]) -> None:
        await self._network.hold("requests")
        for request in requests:
            fate = self._network.fate(request)
            if fate is Fate.DROP_REQUEST:
                await self._server[1].drain()
                self._network.counts.dropped_requests += 1
                self._end()
                return
            self._forward(request, fate)
        await self._server[1].drain()

    def _forward(self, request: bytes, fate: Fate) -> None:
        counts = self._network.counts
        counts.requests += 1
        self._server[1].write(request)
        # Chunks of another protocol are not counted against each other: only losses are noted.
        if self._framed or fate is Fate.DROP_REPLY:
            self._fates.append(fate)
        if fate is Fate.DUPLICATE:
            counts.duplicated += 1
            self._server[1].write(request)
            if self._framed:
                self._fates.append(Fate.SWALLOW)

    async def _pass_replies(self, replies: list[bytes]) -> None:
        await self._network.hold("replies")
        for reply in replies:
            fate = Fate.THROUGH
            if self._fates and not (self._framed and is_push(reply)):
                fate = self._fates.popleft()
            if fate is Fate.DROP_REPLY:
                self._network.counts.dropped_replies += 1
                self._end()
                break
            if fate is not Fate.SWALLOW:
                self._network.counts.replies += 1
                self._client[1].write(reply)
        await self._client[1].drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once: TCP clients see a reset, those on Unix sockets the end."""
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX:
        with suppress(OSError):  # the other side was faster
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()
