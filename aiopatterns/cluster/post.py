"""Packets out: what they are about, and as much news as there is room for.

::

    probe and answer   | head | what the target has to know of itself | news of members | broadcasts |
    gossip round       |      | news of members                       | broadcasts                   |

A probe stays within :data:`SMALL`, one frame of Ethernet; a round of gossip may fill a packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.gossip import transmits
from aiopatterns.cluster.messages import packet_with
from aiopatterns.cluster.transport import MAX_PACKET

if TYPE_CHECKING:
    from aiopatterns.cluster.membership import Membership
    from aiopatterns.cluster.messages import Head
    from aiopatterns.cluster.rumours import Rumours
    from aiopatterns.cluster.transport import Transport

__all__ = ["SMALL", "Post"]

SMALL: Final = 1_400
"""Bytes of a packet that carries a head (memberlist's ``UDPBufferSize``)."""

#: Bytes of a packet beside names and pieces: version, numbers, lengths; generously.
_FRAME: Final = 64


@final
class Post:
    """What one node sends without waiting.

    Args:
        cluster: Name of the cluster.
        members: Its table.
        rumours: Its broadcasts.
        transport: What carries packets.
    """

    __slots__ = ("_cluster", "_frame", "_members", "_rumours", "_transport", "sent")

    def __init__(
        self, cluster: str, members: Membership, rumours: Rumours, transport: Transport
    ) -> None:
        self._cluster = cluster
        self._members = members
        self._rumours = rumours
        self._transport = transport
        names = cluster, members.me.name, members.me.address
        self._frame = _FRAME + sum(len(each.encode()) for each in names)
        self.sent: int = 0

    def send(self, address: str, head: Head, *, about: str = "") -> None:
        """Send a packet about ``head``, and tell the member ``about`` what is said of it."""
        claim = self._members.about(about) if about else None
        self._send(address, head, SMALL, [] if claim is None else [claim])

    def gossip(self, fanout: int) -> None:
        """Tell so many members by chance what is new, if anything is."""
        members = self._members
        for name in members.ring.sample(fanout):
            if not members.news and not self._rumours.news:
                return
            self._send(members.members[name].address, None, MAX_PACKET, [])

    def _send(self, address: str, head: Head | None, size: int, updates: list[bytes]) -> None:
        room = size - self._frame - sum(map(len, updates))
        limit = transmits(self._members.living)
        if self._members.news:
            news = self._members.news.take(room, limit)
            room -= sum(map(len, news))
            updates += news
        rumours = self._rumours.news.take(room, limit) if self._rumours.news else []
        self.sent += 1
        me = self._members.me
        data = packet_with(self._cluster, me, head=head, updates=updates, rumours=rumours)
        self._transport.send(address, data)
