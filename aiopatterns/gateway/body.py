"""The body of a request: read from the client as it is needed, never as a whole, and bounded.

Nothing is read before somebody asks, so a client is read no faster than the service takes it. The
bound is counted while streaming; a ``Content-Length`` above it is refused before.

Guarantees: never more than one message of the server is held; a client that goes away in the middle
ends the iteration by an error, so a cut-off body never looks complete, nor one that is shorter than
it said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.errors import RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.gateway.request import Receive

__all__ = ["Body", "ClientGoneError"]

_TOO_LARGE: Final = "the body is too large"
_TOO_SHORT: Final = "the body is shorter than its length"
_CLOSE: Final = ((b"connection", b"close"),)


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


@final
class Body:
    """A request's body; iterate over it once.

    Args:
        receive: Gives the server's messages; None if the body is known to be empty.
        limit: Bytes at most.
        length: Bytes, if the client said.

    Attributes:
        empty: Whether there is none; known before anything is read.
        started: Whether some of it was read already.
        ended: Whether all of it was read.
        settled: Called once, when there is nothing left to read.
    """

    __slots__ = ("_left", "_receive", "_taken", "empty", "ended", "length", "settled", "started")

    def __init__(self, receive: Receive | None, limit: int, length: int | None = None) -> None:
        self._receive = receive
        self._left = limit
        self._taken = 0
        self.length: int | None = length
        self.empty: bool = receive is None
        self.started: bool = False
        self.ended: bool = receive is None
        self.settled: Callable[[], object] | None = None

    def __aiter__(self) -> Body:
        """Return this body."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk.

        Raises:
            RequestRefusedError: It is longer than allowed (413), or not as long as it said (400).
            ClientGoneError: The client has gone.
        """
        receive = self._receive
        while receive is not None and not self.ended:
            self.started = True
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            self._take(len(chunk), more=message.get("more_body", False))
            if chunk:
                return chunk
        raise StopAsyncIteration

    async def buffer(self, most: int | None = None) -> bytes:
        """Read and return all of it.

        Args:
            most: Bytes at most, if that is less than what the gateway allows.

        Raises:
            RequestRefusedError: It is longer (413), or not as long as it said (400).
            ClientGoneError: The client has gone.
        """
        if most is not None:
            self._left = min(self._left, most)
        return b"".join([chunk async for chunk in self])

    def _take(self, size: int, *, more: bool) -> None:
        """Count what has come."""
        self._taken += size
        if self._taken > self._left:
            raise RequestRefusedError(_TOO_LARGE, status=413, headers=_CLOSE)
        if not more:
            if self.length is not None and self._taken != self.length:
                raise RequestRefusedError(_TOO_SHORT, status=400, headers=_CLOSE)
            self.ended = True
            if self.settled is not None:
                self.settled()
