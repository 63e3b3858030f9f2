"""The gossip queue: what is told by the way, and how often.

News ride on packets that are sent anyhow, and on gossip rounds of their own while there are any.
Each piece is sent a number of times that grows with the logarithm of the cluster, enough to reach
everybody with a probability near 1, and is then forgotten::

    sent 0 times   [ d ] [ e ]      a packet is filled from the top
    sent 1 time    [ c ]            what was sent moves one down
    ...                             a newer piece under the same key replaces the older one
    sent n times   gone

Source: Das, Gupta and Motivala, "SWIM", DSN 2002, section 4.1; limit and order of memberlist's
``TransmitLimitedQueue``.
"""

from __future__ import annotations

from math import ceil, log10
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

__all__ = ["RETRANSMIT", "GossipQueue", "transmits"]

K = TypeVar("K", bound="Hashable")

RETRANSMIT: Final = 4
"""Factor of the number of transmissions (memberlist's ``RetransmitMult``)."""

#: Of five nodes one in forty would miss a piece that each sends four times, if a tenth is lost; of
#: those that each sends eight times, one in a thousand.
_LEAST: Final = 2


def transmits(members: int) -> int:
    """Return how often a piece of news is sent by each node of a cluster of that size."""
    return RETRANSMIT * max(ceil(log10(members + 1)), _LEAST)


@final
class GossipQueue(Generic[K]):
    """Encoded news by key, those that were sent least first.

    Complexity: O(1) to put and to drop; taking is O(pieces looked at).
    """

    __slots__ = ("_levels", "_sent")

    def __init__(self) -> None:
        self._levels: list[dict[K, bytes]] = []  # by number of transmissions
        self._sent: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def __contains__(self, key: K) -> bool:
        return key in self._sent

    def put(self, key: K, piece: bytes) -> None:
        """Queue ``piece``, in place of what is queued under the same key."""
        self.drop(key)
        self._sent[key] = 0
        self._level(0)[key] = piece

    def drop(self, key: K) -> None:
        """Forget what is queued under ``key``, if anything."""
        sent = self._sent.pop(key, None)
        if sent is not None:
            del self._levels[sent][key]

    def take(self, room: int, limit: int) -> list[bytes]:
        """Return pieces to send now, and count them as sent.

        Args:
            room: Bytes that there is room for.
            limit: After how many transmissions a piece is dropped.
        """
        taken: list[bytes] = []
        for sent, key, piece in list(self._fitting(room)):
            del self._levels[sent][key]
            taken.append(piece)
            if sent + 1 < limit:
                self._sent[key] = sent + 1
                self._level(sent + 1)[key] = piece
            else:
                del self._sent[key]
        return taken

    def _fitting(self, room: int) -> Iterator[tuple[int, K, bytes]]:
        for sent, level in enumerate(self._levels):
            for key, piece in level.items():
                size = len(piece)
                if size <= room:
                    room -= size
                    yield sent, key, piece
                if room <= 0:
                    return

    def _level(self, sent: int) -> dict[K, bytes]:
        while len(self._levels) <= sent:
            self._levels.append({})
        return self._levels[sent]
