"""Peers over TCP: the transport of a node whose neighbours are other processes and machines.

::

    node --- send, exchange ---> Link for each peer called ---- TCP ----> Door of that peer
                                                                            |  proof, limits
    node <--- receive, answer --- Guest for each peer that calls <----------'

Each node keeps one connection to every peer it has something to say to, and each of them keeps one
back, so nothing depends on who called first. Connections are made when needed, closed when idle,
and made again when they break.

Guarantees:

* Only those get through who know the secret, and nothing that was recorded is taken
  (:mod:`aiopatterns.cluster.secret`).
* ``send`` never waits and never raises: a peer that is slow, stopped or gone delays nobody. The
  newest 64 packets for it are kept until it takes them.
* Whatever arrives, and from whomever: what it may cost in bytes, connections and seconds is
  bounded, and nothing of it raises.
* Leaving waits up to half a second for what was sent just before, so that a farewell gets out.

Not guaranteed: secrecy (see there), and order between packets and exchanges.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.tcpaddress import at_loopback, host_and_port, joined
from aiopatterns.cluster.tcpboard import Place, Switchboard
from aiopatterns.cluster.tcpcounts import Counts
from aiopatterns.cluster.transport import MAX_EXCHANGE, MAX_PACKET, OPEN
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.validate import count, positive, text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.cluster.secret import Secret
    from aiopatterns.cluster.transport import Answer, Receive

__all__ = ["TCPStatistics", "TCPTransport"]

# Stands for a port where only the host is looked at.
_ANY: Final = 1


@final
@dataclass(frozen=True, slots=True)
class TCPStatistics:
    """What a transport has carried, and what it has kept out, since it was made.

    Attributes:
        guests: Peers that are calling now.
        links: Peers that are being called now.
        sent: Packets given to connections.
        received: Packets that came from guests.
        dropped: Packets that were lost here: too large, to no address, or too many at once.
        mismatched: Connections that ended because the two sides do not share a secret.
        malformed: Connections that ended because of bytes that no peer sends.
        crowded: Connections that were closed because there were too many.
    """

    guests: int
    links: int
    sent: int
    received: int
    dropped: int
    mismatched: int
    malformed: int
    crowded: int


@final
class TCPTransport:
    """Reaches peers over TCP, and is reached by them.

    Args:
        host: Where to listen: an address or a name of this machine. Whoever can reach it is a
            stranger, so a node demands a secret unless this is the loopback interface.
        port: The same; 0 for any that is free, :attr:`address` tells which.
        advertise: Where others reach it, as ``"host"`` or ``"host:port"``, if that is not where it
            listens: behind a proxy or a published port of a container. For ``"0.0.0.0"``, which is
            a place to listen but none to call, it is the address from which this machine would
            call others.
        max_connections: Peers that may call at once, more are turned away; and peers that are
            called at once, where the one that was not called for longest makes room.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type.

    Example::

        async with PeerNode("a", transport=TCPTransport("127.0.0.1", 7000)) as node:
            ...
    """

    __slots__ = ("_address", "_board", "_counts", "_place")

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        advertise: str | None = None,
        max_connections: int = 1024,
    ) -> None:
        host = text("host", host).strip("[]")
        known_as, known_port = _known_as(host, port, advertise)
        self._place = Place(
            host, port, known_as, known_port, count("max_connections", max_connections)
        )
        self._counts = Counts()
        self._board: Switchboard | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where others reach this node, known since it serves or did.

        Raises:
            ClosedError: It has not served yet, so there is no port.
        """
        if not self._address:
            raise ClosedError("the transport has no address yet; open its node with 'async with'")
        return self._address

    @property
    def public(self) -> bool:
        """Whether others than this machine can reach it."""
        place = self._place
        return not (at_loopback(place.host) and at_loopback(place.known_as))

    def check(self, address: str) -> None:
        """Refuse what is no address of this kind.

        Raises:
            TypeError: It is no text.
            ValueError: It is not ``"host:port"``.
        """
        host_and_port("address", address)

    def serve(
        self, name: str, *, receive: Receive, answer: Answer, secret: Secret = OPEN
    ) -> AbstractAsyncContextManager[None]:
        """Listen inside the block; see :meth:`Transport.serve`.

        Raises:
            RuntimeError: It serves a node already.
            OSError: The address cannot be listened at.
        """
        board = Switchboard(
            name,
            self._place,
            receive=receive,
            answer=answer,
            secret=secret,
            counts=self._counts,
        )
        return self._serve(board)

    def send(self, address: str, data: bytes) -> None:
        """Send a packet; see :meth:`Transport.send`."""
        if self._board is None or len(data) > MAX_PACKET:
            self._counts.dropped += 1
        else:
            self._board.send(address, data)

    async def exchange(self, address: str, data: bytes, *, timeout: float) -> bytes:
        """Ask and return the answer; see :meth:`Transport.exchange`.

        Raises:
            ClosedError: It does not serve.
            ValueError: ``data`` is larger than any request may be, or ``timeout`` is not above 0.
            TimeoutExceededError: No answer in time.
            SecretMismatchError: The other side has another secret.
            ConnectionAbortedError: The other side is there and has refused to answer.
            OSError: It cannot be reached, or there is no such address.
        """
        positive("timeout", timeout)
        if len(data) > MAX_EXCHANGE:
            msg = f"data must have at most {MAX_EXCHANGE} bytes, not {len(data)}"
            raise ValueError(msg)
        if self._board is None:
            raise ClosedError("the transport is not open; open its node with 'async with'")
        try:
            return await self._board.exchange(address, data, timeout)
        except ValueError as error:
            raise OSError(str(error)) from None

    def statistics(self) -> TCPStatistics:
        """Return what it has carried, and what it has kept out."""
        guests, links = self._board.statistics() if self._board is not None else (0, 0)
        return TCPStatistics(guests=guests, links=links, **asdict(self._counts))

    @asynccontextmanager
    async def _serve(self, board: Switchboard) -> AsyncGenerator[None]:
        if self._board is not None:
            raise RuntimeError("this transport serves a node already; each needs one of its own")
        self._board = board
        try:
            async with board:
                self._address = board.address
                yield
        finally:
            self._board = None


def _known_as(host: str, port: int, advertise: str | None) -> tuple[str, int]:
    """Return the host and port by which others reach who listens there; port 0 for the same."""
    host_and_port("host and port", joined(host, count("port", port, minimum=0) or _ANY))
    if advertise is None:
        return host, 0
    if ":" in text("advertise", advertise).rpartition("]")[2]:
        return host_and_port("advertise", advertise)
    return host_and_port("advertise", f"{advertise}:{_ANY}")[0], 0
