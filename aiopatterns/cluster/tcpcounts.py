"""What passes between peers over TCP, counted, and what is told of those with another secret."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Final, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.telemetry import Event, emit, listening

__all__ = ["Counts", "Mismatches", "PeerSecretMismatch"]

#: Seconds until the same is told again.
TOLD: Final = 60.0


@dataclass(frozen=True, slots=True)
class PeerSecretMismatch(Event):
    """Two peers met that do not share a secret; told once a minute at most, and counted.

    Args:
        node: The node that tells it.
        address: Where the other one is, or says that it is.
        incoming: Whether the other one called.
    """

    name: ClassVar[str] = "aiopatterns.peer.secret_mismatch"
    level: ClassVar[str] = "warning"

    node: str
    address: str
    incoming: bool


@final
@dataclass(slots=True)
class Counts:
    """What has passed, and what has not.

    Attributes:
        sent: Packets given to connections.
        received: Packets that came from guests.
        dropped: Packets that were lost here.
        mismatched: Connections that ended because of a wrong secret.
        malformed: Connections that ended because of bytes that no peer sends.
        crowded: Connections that were closed because there were too many.
    """

    sent: int = 0
    received: int = 0
    dropped: int = 0
    mismatched: int = 0
    malformed: int = 0
    crowded: int = 0


@final
class Mismatches:
    """Counts wrong secrets and tells of them, not more often than once in :data:`TOLD` seconds.

    Args:
        node: Name of the node.
        counts: Where they are counted.
    """

    __slots__ = ("_counts", "_node", "_told")

    def __init__(self, node: str, counts: Counts) -> None:
        self._node = node
        self._counts = counts
        self._told = {True: -inf, False: -inf}

    def note(self, address: str, *, incoming: bool) -> None:
        """Count one, and tell of it if that was not done lately."""
        self._counts.mismatched += 1
        now = monotonic()
        if listening() and now >= self._told[incoming] + TOLD:
            self._told[incoming] = now
            emit(PeerSecretMismatch(self._node, address, incoming))
