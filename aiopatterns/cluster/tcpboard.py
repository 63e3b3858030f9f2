"""The switchboard of one node: its door and its links, and the tasks of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from anyio import (
    TASK_STATUS_IGNORED,
    CancelScope,
    create_task_group,
    create_tcp_listener,
    move_on_after,
)
from anyio.abc import SocketAttribute, SocketListener

from aiopatterns.cluster.tcpaddress import everywhere, joined, outward
from aiopatterns.cluster.tcpcounts import Mismatches
from aiopatterns.cluster.tcpdoor import Door
from aiopatterns.cluster.tcpguest import Guest
from aiopatterns.cluster.tcplink import Link
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import SecretMismatchError
from aiopatterns.core.lifecycle import Owner

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.cluster.secret import Secret
    from aiopatterns.cluster.tcpcounts import Counts
    from aiopatterns.cluster.tcpwire import Wire
    from aiopatterns.cluster.transport import Answer, Receive

__all__ = ["Place", "Switchboard"]

#: Seconds that leaving waits for what was sent just before.
FAREWELL: Final = 0.5
_LOOK: Final = 0.005


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a node listens.

    Attributes:
        host: Where it listens.
        port: The same; 0 for any that is free.
        known_as: Host by which others reach it; if that is everywhere, it is found out.
        known_port: Port by which others reach it; 0 for the one it listens at.
        most: Guests at once, and links at once.
    """

    host: str
    port: int
    known_as: str
    known_port: int
    most: int


@final
class Switchboard(Owner):
    """The connections of one node while it serves.

    Args:
        node: Its name.
        place: Where it listens.
        receive: Takes a packet.
        answer: Answers a request.
        secret: What its peers know.
        counts: Where things are counted.
    """

    __slots__ = (
        "_answer",
        "_counts",
        "_door",
        "_links",
        "_mismatches",
        "_place",
        "_receive",
        "_secret",
        "address",
    )

    def __init__(
        self,
        node: str,
        place: Place,
        *,
        receive: Receive,
        answer: Answer,
        secret: Secret,
        counts: Counts,
    ) -> None:
        super().__init__(node)
        self._place = place
        self._receive = receive
        self._answer = answer
        self._secret = secret
        self._counts = counts
        self._mismatches = Mismatches(node, counts)
        self._door = Door(
            node,
            guest=self._guest,
            secret=secret,
            most=place.most,
            counts=counts,
            mismatches=self._mismatches,
        )
        self._links: dict[str, Link] = {}
        self.address: str = ""

    def statistics(self) -> tuple[int, int]:
        """Return how many guests and how many links there are."""
        return len(self._door), len(self._links)

    def send(self, address: str, data: bytes) -> None:
        """Send a packet soon, or lose it."""
        try:
            link = self._link(address)
        except ValueError:
            self._counts.dropped += 1
            return
        self._counts.sent += 1
        self._counts.dropped += link.send(data)

    async def exchange(self, address: str, data: bytes, timeout: float) -> bytes:
        """Send a request and return the answer; see :meth:`Link.ask`.

        Raises:
            ValueError: ``address`` is no place to call.
        """
        return await self._link(address).ask(data, timeout)

    async def _start(self, tasks: TaskGroup) -> None:
        self.address = await tasks.start(self._listen)

    async def _drain(self) -> None:
        """Give what was sent just before the time to get out."""
        with move_on_after(FAREWELL):
            while any(link.busy for link in self._links.values()):
                await sleep(_LOOK)

    def _settle(self) -> None:
        for link in [*self._links.values()]:
            link.end(ConnectionAbortedError("this node has left"))

    async def _listen(self, *, task_status: TaskStatus[str] = TASK_STATUS_IGNORED) -> None:
        place = self._place
        known_as = outward(place.known_as) if everywhere(place.known_as) else place.known_as
        listeners = await create_tcp_listener(local_host=place.host, local_port=place.port)
        try:
            port: int = listeners.extra_attributes[SocketAttribute.local_port]()
            async with create_task_group() as tasks:
                for each in listeners.listeners:
                    assert isinstance(each, SocketListener), each
                    tasks.start_soon(self._door.accept, each, tasks)
                task_status.started(joined(known_as, place.known_port or port))
        finally:
            with CancelScope(shield=True):
                await listeners.aclose()

    def _guest(self, wire: Wire) -> Guest:
        return Guest(wire, receive=self._receive, answer=self._answer, counts=self._counts)

    def _link(self, address: str) -> Link:
        """Return the way to a peer, the one used last; too many, and the one not used for long goes.

        Raises:
            ValueError: ``address`` is no place to call.
        """
        link = self._links.pop(address, None)
        if link is None:
            tasks = self._open_group()
            link = Link(address, secret=self._secret, own=self.address, ended=self._ended)
            tasks.start_soon(link.run)
        self._links[address] = link
        if len(self._links) > self._place.most:
            next(iter(self._links.values())).end(ConnectionAbortedError("too many connections"))
        return link

    def _ended(self, link: Link, error: Exception | None) -> None:
        """Forget a link that takes nothing more."""
        self._links.pop(link.address, None)
        self._counts.dropped += link.waiting
        if isinstance(error, SecretMismatchError):
            self._mismatches.note(link.address, incoming=False)
