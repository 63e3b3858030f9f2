"""How requests leave: what a transport takes, what it gives, and what it promises.

::

    Outgoing --- transport.send(outgoing, timeouts) ---> Incoming --- async for chunk ---> body
                          |                                 |
                          '---> UpstreamError               '--- aclose() at any time

A transport is an owner: it keeps connections while it is open. What it is given is clean already:
headers without framing and hop-by-hop ones, a target that is safe. It frames the body anew, by
``length`` or in chunks, and never passes on the framing of the client.

Guarantees of every transport:

* ``send`` returns when the head of a final answer is there; interim ones (1xx) are dropped.
* An answer with contradicting or broken framing is an error of the kind ``"invalid"``, and its
  connection is not used again.
* An error that says ``sent=False`` means that no byte of the request can have been seen upstream.
* Connect, first-byte and idle timeouts are kept here; the total one is its caller's.
* A body is read no faster than its reader takes it.
* Cancelled at any await: the connection is closed, and nothing is left behind.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final

from aiopatterns.core.lifecycle import Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Sequence

    from aiopatterns.gateway.policy import Timeouts
    from aiopatterns.gateway.request import Headers

__all__ = ["Incoming", "Outgoing", "Transport", "TransportStatistics", "UpstreamSocket"]


@final
@dataclass(slots=True)
class Outgoing:
    """A request on its way out.

    Attributes:
        method: In upper case.
        host: Name or address to connect to, IPv6 without brackets.
        port: Port to connect to.
        tls: Whether to speak TLS, with ``host`` as the name to verify.
        target: Path and query as they go on the wire.
        headers: With ``host``; without framing (``content-length``, ``transfer-encoding``) and
            hop-by-hop headers.
        body: The whole body, its chunks, or None for none.
        length: Bytes of the body if that is known; None for chunks without a known end.
    """

    method: bytes
    host: str
    port: int
    tls: bool
    target: bytes
    headers: Headers
    body: bytes | AsyncIterable[bytes] | None = None
    length: int | None = None

    @property
    def endpoint(self) -> str:
        """Where it goes, for errors: host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Incoming(Protocol):
    """An answer, from its head on; iterate over it once for the chunks of its body.

    Iterating raises ``UpstreamError`` if the body does not come to its end.
    """

    @property
    def status(self) -> int:
        """Status, 200 to 599."""
        ...

    @property
    def headers(self) -> Headers:
        """As received, hop-by-hop ones included; names in lower case."""
        ...

    def whole(self) -> bytes | None:
        """Return the whole body if all of it is here already, else None.

        Bytes mean that the answer has ended and the connection was given back: it is not
        iterated over then, and need not be closed. Saves small answers a stream.
        """
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if all was read, else close it; harmless if done already."""
        ...


class UpstreamSocket(Protocol):
    """A WebSocket to an upstream."""

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        ...

    async def receive(self) -> str | bytes | None:
        """Return the next message; None when the upstream has closed."""
        ...

    @property
    def closed(self) -> tuple[int, str]:
        """Code and reason with which the upstream has closed."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it."""
        ...


@final
@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """Figures of a transport.

    Attributes:
        requests: Requests that it was given, WebSockets included.
        failed: Those that got no answer.
        connections: Connections that are open now; None if the client behind it does not tell.
        idle: Those of them that wait for a request; None likewise.
    """

    requests: int
    failed: int
    connections: int | None = None
    idle: int | None = None


class Transport(Owner):
    """Sends requests over connections that it keeps; see the module's text for its promises."""

    __slots__ = ()

    @abstractmethod
    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Incoming:
        """Send a request and return its answer when the head of that is there.

        Raises:
            UpstreamError: There is no answer.
            ClosedError: The transport is not open.
        """

    @abstractmethod
    async def websocket(
        self, outgoing: Outgoing, subprotocols: Sequence[str], timeouts: Timeouts
    ) -> UpstreamSocket:
        """Open a WebSocket.

        Raises:
            UpstreamError: There is none to be had.
            ClosedError: The transport is not open.
        """
