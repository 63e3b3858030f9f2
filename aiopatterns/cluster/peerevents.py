"""What a peer tells about itself and the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = [
    "PeerChanged",
    "PeerHandlerFailed",
    "PeerJoinFailed",
    "PeerJoined",
    "PeerRejected",
    "PeerStalled",
]


@dataclass(frozen=True, slots=True)
class PeerJoined(Event):
    """A node is in company, for the first time or again.

    Args:
        node: Name of the node.
        seed: Address of who has answered it; empty if the others have found it.
        members: How many members it knows now, with itself.
    """

    name: ClassVar[str] = "aiopatterns.peer.joined"

    node: str
    seed: str
    members: int


@dataclass(frozen=True, slots=True)
class PeerJoinFailed(Event):
    """No seed lets a node in; it goes on trying. Once for each time that it is alone.

    Args:
        node: Name of the node.
        error: What was wrong with the seed that came furthest.
    """

    name: ClassVar[str] = "aiopatterns.peer.join_failed"
    level: ClassVar[str] = "warning"

    node: str
    error: str


@dataclass(frozen=True, slots=True)
class PeerChanged(Event):
    """A member stands otherwise than before.

    Args:
        node: Name of the node that says so.
        peer: Name of the member.
        state: ``"alive"``, ``"suspect"``, ``"dead"`` or ``"left"``.
        before: The state before; empty for a new member.
        address: Where it is reached.
    """

    name: ClassVar[str] = "aiopatterns.peer.changed"

    node: str
    peer: str
    state: str
    before: str
    address: str


@dataclass(frozen=True, slots=True)
class PeerStalled(Event):
    """The event loop of a node was stuck; it gives the others that much more time.

    Args:
        node: Name of the node.
        seconds: How late its loop was.
    """

    name: ClassVar[str] = "aiopatterns.peer.stalled"
    level: ClassVar[str] = "warning"

    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PeerRejected(Event):
    """Something arrived that is no message of this network. Told once; statistics count them.

    Args:
        node: Name of the node.
        error: What was wrong with it.
    """

    name: ClassVar[str] = "aiopatterns.peer.rejected"
    level: ClassVar[str] = "warning"

    node: str
    error: str


@dataclass(frozen=True, slots=True)
class PeerHandlerFailed(Event):
    """A handler of messages has raised.

    Args:
        node: Name of the node.
        sender: Whose message it was.
        error: The ``repr`` of the error.
    """

    name: ClassVar[str] = "aiopatterns.peer.handler_failed"
    level: ClassVar[str] = "error"

    node: str
    sender: str
    error: str
