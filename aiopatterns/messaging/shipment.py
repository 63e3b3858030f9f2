"""Shipments: one message on its way to all who get it, and how that went.

A message travels to each broker once. A group's copy that finds nobody at the inbox goes on to the
next place of the group, at once; a copy of a place without a group is lost then, for there is
nobody else whose it is. The sender waits until all copies are out, and not until they are handled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.errors import QueueFullError
from aiopatterns.messaging.frames import pack_delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from aiopatterns.core.clock import Home, Parked
    from aiopatterns.core.errors import AioPatternsError
    from aiopatterns.messaging.courier import Courier
    from aiopatterns.messaging.draft import Draft
    from aiopatterns.messaging.routes import Group, Peer, Place

__all__ = ["Copy", "Notification", "Shipment"]


@final
class Shipment:
    """One message on its way; ``await`` waits until all copies are out.

    Args:
        draft: The message.
        here: This broker.
        home: The loop.
        courier: Takes the copies for other brokers.
        deliver: Takes the copy of a subscription of this broker.
    """

    __slots__ = (
        "_courier",
        "_deliver",
        "_error",
        "_here",
        "_home",
        "_open",
        "_parked",
        "draft",
        "lost",
    )

    def __init__(
        self,
        draft: Draft,
        here: Peer,
        *,
        home: Home,
        courier: Courier,
        deliver: Callable[[int, Draft], object],
    ) -> None:
        self.draft: Final = draft
        self.lost: int = 0  # groups of which nobody could be reached
        self._here = here
        self._home = home
        self._courier = courier
        self._deliver = deliver
        self._error: AioPatternsError | None = None
        self._open = 0
        self._parked: Parked | None = None

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until all copies are out.

        Raises:
            BackendError: Some could not be sent.
        """
        if self._open:
            self._parked = self._home.future()
            yield from self._parked.__await__()
        if self._error is not None:
            raise self._error

    def ship(self, places: tuple[Place, ...], groups: tuple[Group, ...]) -> None:
        """Send a copy to each of ``places``, and to one place of each of ``groups``."""
        copies: dict[Peer, Copy] = {}
        for place in places:
            self._copy_for(copies, place).numbers.append(place.number)
        for group in groups:
            picked = group.pick()
            if picked is None:
                self.lost += 1
                continue
            copy = self._copy_for(copies, picked)
            copy.numbers.append(picked.number)
            copy.groups.append((group, picked))
        if copies.keys() != {self._here}:
            _ = (
                self.draft.envelope
            )  # if it cannot be written, nobody gets it, also if nobody wants it
        ours = copies.pop(self._here, None)
        for copy in (*(() if ours is None else (ours,)), *copies.values()):
            self._send(copy)

    def end(self, error: AioPatternsError | None = None) -> None:
        """One copy less is on its way."""
        self._error = self._error or error
        self._open -= 1
        if not self._open and self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    def pass_on(self, group: Group, tried: list[Place]) -> None:
        """Send a group's copy to the next place of the group."""
        place = group.pick(tried)
        if place is None:
            self.lost += 1
            return
        copy = Copy(self, place.peer)
        copy.numbers.append(place.number)
        copy.groups.append((group, place))
        copy.tried = [*tried, place]
        self._send(copy)

    def _copy_for(self, copies: dict[Peer, Copy], place: Place) -> Copy:
        copy = copies.get(place.peer)
        if copy is None:
            copy = copies[place.peer] = Copy(self, place.peer)
        return copy

    def _send(self, copy: Copy) -> None:
        if copy.peer is self._here:
            for number in copy.numbers:
                self._deliver(number, self.draft)
            return
        self._open += 1
        if not self._courier.post(copy):
            self.end(QueueFullError("too many messages wait to be sent", name="broker"))


@final
class Copy:
    """What one broker gets of a message.

    Args:
        shipment: The message.
        peer: The broker.
    """

    __slots__ = ("_shipment", "groups", "numbers", "peer", "tried")

    def __init__(self, shipment: Shipment, peer: Peer) -> None:
        self._shipment = shipment
        self.peer: Final = peer
        self.numbers: Final[list[int]] = []
        self.groups: Final[list[tuple[Group, Place]]] = []  # those that are served by it
        self.tried: list[Place] = []

    @property
    def wanted(self) -> bool:
        """It is, always: a message that was published is sent."""
        return True

    @property
    def channel(self) -> str:
        """Where it goes."""
        return self.peer.inbox

    @property
    def data(self) -> bytes:
        """What it is."""
        return pack_delivery(self.numbers, self._shipment.draft.envelope)

    def told(self, result: int | AioPatternsError) -> None:
        """Take how it went; for each group that nobody has received, try the next."""
        shipment = self._shipment
        if not isinstance(result, int):
            shipment.end(result)
            return
        if not result:
            self.peer.pass_over()
            for group, place in self.groups:
                shipment.pass_on(group, [*self.tried, place])
        shipment.end()


@final
class Notification:
    """A frame of which nobody wants to know how it went.

    Args:
        channel: Where it goes.
        data: What it is.
    """

    __slots__ = ("channel", "data")

    def __init__(self, channel: str, data: bytes) -> None:
        self.channel: Final = channel
        self.data: Final = data

    @property
    def wanted(self) -> bool:
        """It is, always."""
        return True

    def told(self, result: object) -> None:
        """Let it be: whoever was to get it is gone, or will ask again."""
