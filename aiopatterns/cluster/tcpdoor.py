"""Where a peer is called: who is let in over TCP, and how long they may stay.

::

    accept --> at most 64 strangers --- proof ---> guests, one for each address --> the node
                     |                      `-- wrong: closed, counted, told once a minute
                     `-- one more: the one who has been a stranger longest is closed

Strangers can cost little: some bytes each for at most five seconds. They cannot keep members out
either, for a member proves itself in one round trip and a crowd of strangers only shows each other
the door. A guest who comes again from the same address takes the place of the one before, which
was a connection that the caller has lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import TYPE_CHECKING, ClassVar, Final, final

from anyio import CancelScope

from aiopatterns.cluster.tcpwire import LOST, meet
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import CodecError, SecretMismatchError
from aiopatterns.core.telemetry import Event, emit, listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import SocketListener, SocketStream, TaskGroup

    from aiopatterns.cluster.secret import Secret
    from aiopatterns.cluster.tcpcounts import Counts, Mismatches
    from aiopatterns.cluster.tcpguest import Guest
    from aiopatterns.cluster.tcpwire import Wire

__all__ = ["Door", "PeerAcceptFailed"]

#: Connections that have not proved themselves, at once.
STRANGERS: Final = 64
#: Seconds until it is tried again to accept, when the machine has no sockets left.
PAUSE: Final = 0.5
#: The same, when it is only that a caller has hung up already, or something unknown.
BRIEFLY: Final = 0.01
_EXHAUSTED: Final = (EMFILE, ENFILE, ENOBUFS, ENOMEM)


@dataclass(frozen=True, slots=True)
class PeerAcceptFailed(Event):
    """New connections cannot be accepted; told once, and tried again until it succeeds.

    Args:
        node: The node that cannot be called.
        error: What is wrong.
    """

    name: ClassVar[str] = "aiopatterns.peer.accept_failed"
    level: ClassVar[str] = "error"

    node: str
    error: str


@final
class Door:
    """Accepts connections for one node.

    Args:
        node: Name of the node.
        guest: Makes the guest of a connection.
        secret: What guests have to know.
        most: Guests at once.
        counts: Where things are counted.
        mismatches: Where wrong secrets are told.
    """

    __slots__ = (
        "_counts",
        "_guest",
        "_guests",
        "_mismatches",
        "_most",
        "_node",
        "_secret",
        "_strangers",
    )

    def __init__(
        self,
        node: str,
        *,
        guest: Callable[[Wire], Guest],
        secret: Secret,
        most: int,
        counts: Counts,
        mismatches: Mismatches,
    ) -> None:
        self._node = node
        self._guest = guest
        self._secret = secret
        self._most = most
        self._counts = counts
        self._mismatches = mismatches
        self._strangers: dict[CancelScope, None] = {}
        self._guests: dict[str, CancelScope] = {}

    def __len__(self) -> int:
        """Number of guests."""
        return len(self._guests)

    async def accept(self, listener: SocketListener, tasks: TaskGroup) -> None:
        """Accept for ever; a machine that has no sockets left is asked again."""
        failing = False
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if not failing and listening():
                    emit(PeerAcceptFailed(self._node, str(error)))
                failing = True
                await sleep(PAUSE if error.errno in _EXHAUSTED else BRIEFLY)
            else:
                failing = False
                tasks.start_soon(self._serve, stream)

    async def _serve(self, stream: SocketStream) -> None:
        """Care for one connection from its beginning to its end; never raises."""
        with CancelScope() as scope:
            async with stream:
                found = await self._greet(stream, scope)
                if found is not None:
                    await self._host(found[0], found[1], scope)

    async def _greet(self, stream: SocketStream, scope: CancelScope) -> tuple[Wire, str] | None:
        """Let a stranger prove itself."""
        self._strangers[scope] = None
        if len(self._strangers) > STRANGERS:
            self._counts.crowded += 1
            longest = next(iter(self._strangers))
            del self._strangers[longest]
            longest.cancel()
        try:
            return await meet(stream, self._secret)
        except SecretMismatchError as error:
            self._mismatches.note(error.address, incoming=True)
        except CodecError:
            self._counts.malformed += 1
        except LOST:
            pass  # it has said nothing wrong, only not enough
        finally:
            self._strangers.pop(scope, None)
        return None

    async def _host(self, wire: Wire, address: str, scope: CancelScope) -> None:
        """Listen to a guest, in place of the one before from there."""
        former = self._guests.pop(address, None)
        if former is not None:
            former.cancel()
        elif len(self._guests) >= self._most:
            self._counts.crowded += 1
            return
        self._guests[address] = scope
        try:
            await self._guest(wire).run()
        finally:
            self._forget(address, scope)

    def _forget(self, address: str, scope: CancelScope) -> None:
        """Forget a guest, unless another one has taken its place."""
        if self._guests.get(address) is scope:
            del self._guests[address]
