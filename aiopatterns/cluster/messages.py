"""What peers say to each other, in bytes.

One version byte, then msgpack. Two roads of the transport, two shapes::

    send      Packet    (cluster, sender, address, incarnation, head, updates, rumours)
                        head: what it is about: a probe, its answer, or nothing; the rest rides along
    exchange  Request   (cluster, sender, address, body)  ->  Answer (one of its own for each body)

An *update* is a claim about a member, a *rumour* is a broadcast of the user's. Both are encoded
once and travel many times, so packets are put together from pieces.

Guarantees:

* Any bytes decode or raise :class:`~aiopatterns.core.errors.CodecError`, a newer version its
  subclass ``UnknownVersionError``. Texts, numbers and lists have bounds that decoding holds.
* A release reads what the release before it wrote: fields are only ever added at the end.

Not guaranteed: that a claim is true. Who does not trust the network sets a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, final

import msgspec
from msgspec import Meta, Raw, Struct

from aiopatterns.cluster.instance import LONGEST
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError, UnknownVersionError

if TYPE_CHECKING:
    from aiopatterns.cluster.member import Member

__all__ = [
    "MAX_BROADCAST",
    "MAX_MEMBERS",
    "MAX_MESSAGE",
    "VERSION",
    "Accepted",
    "Ack",
    "Answer",
    "Check",
    "Have",
    "Head",
    "Heard",
    "Letter",
    "Packet",
    "Ping",
    "Proxy",
    "Refused",
    "Request",
    "Rumour",
    "Share",
    "Sync",
    "Synced",
    "Update",
    "answer_of",
    "encode",
    "packet_of",
    "packet_with",
    "piece",
    "request_of",
]

VERSION: Final = 1
"""The version that this release writes."""

MAX_MEMBERS: Final = 10_000
"""Records of members that a table holds at most, and entries of any list on the wire."""

MAX_BROADCAST: Final = 1 << 15
"""Bytes of a broadcast message at most: it has to fit into a packet."""

MAX_MESSAGE: Final = 1 << 20
"""Bytes of a message to one peer at most."""

_VERSION_BYTE: Final = bytes((VERSION,))
_MANY: Final = MAX_MEMBERS

Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=LONGEST)]
# A host name of that length, brackets and a port.
Address: TypeAlias = Annotated[str, Meta(min_length=1, max_length=LONGEST + 8)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 53)]


@final
class Update(Struct, frozen=True, array_like=True):
    """A claim about one member.

    Attributes:
        name: Whom it is about.
        address: Where that is reached.
        incarnation: Which of its own versions it is about.
        state: 0 alive, 1 suspect, 2 dead, 3 left.
        accuser: Who says so, if it is suspect or dead.
    """

    name: Text
    address: Address
    incarnation: Count
    state: Annotated[int, Meta(ge=0, le=3)]
    accuser: Annotated[str, Meta(max_length=LONGEST)] = ""


@final
class Rumour(Struct, frozen=True, array_like=True):
    """A broadcast message.

    Attributes:
        origin: Name of the node that sent it first.
        epoch: The incarnation with which that node started: each run counts anew.
        number: Which of its broadcasts, from 1.
        payload: The message in msgpack.
    """

    origin: Text
    epoch: Count
    number: Annotated[int, Meta(ge=1, le=1 << 53)]
    payload: Annotated[bytes, Meta(max_length=MAX_BROADCAST)]


@final
class Have(Struct, frozen=True, array_like=True):
    """Which broadcasts of one run of one node are known: all up to a number, and some beyond."""

    origin: Text
    epoch: Count
    upto: Count
    beyond: Annotated[list[Count], Meta(max_length=_MANY)] = []


@final
class Ping(Struct, frozen=True, array_like=True, tag=1):
    """Are you there?"""

    number: Count
    target: Text


@final
class Ack(Struct, frozen=True, array_like=True, tag=2):
    """It is there: answer to a ping, directly or through a helper."""

    number: Count


@final
class Proxy(Struct, frozen=True, array_like=True, tag=3):
    """Please ask somebody for me (SWIM's ping-req)."""

    number: Count
    target: Text
    address: Address


@final
class Heard(Struct, frozen=True, array_like=True, tag=4):
    """I shall ask for you: tells a node that it is not cut off itself (Lifeguard's nack)."""

    number: Count


Head: TypeAlias = Ping | Ack | Proxy | Heard
Updates: TypeAlias = Annotated[list[Update], Meta(max_length=_MANY)]
Rumours: TypeAlias = Annotated[list[Rumour], Meta(max_length=_MANY)]
Haves: TypeAlias = Annotated[list[Have], Meta(max_length=_MANY)]


@final
class Packet(Struct, frozen=True, array_like=True):
    """What is sent without an answer being waited for.

    Attributes:
        cluster: Name of the cluster.
        sender: Who sends it.
        address: Where that is reached.
        incarnation: Its own; so whoever gets a packet knows that its sender is alive.
        head: What it is about.
        updates: Claims about members.
        rumours: Broadcasts.
    """

    cluster: Text
    sender: Text
    address: Address
    incarnation: Count
    head: Head | None
    updates: Updates
    rumours: Rumours


@final
class Sync(Struct, frozen=True, array_like=True, tag=1):
    """Push and pull the whole state.

    Attributes:
        members: What the asker knows of the members, itself first.
        have: Which broadcasts it knows.
        joining: Whether it has been told nothing yet.
    """

    members: Updates
    have: Haves
    joining: bool = False


@final
class Check(Struct, frozen=True, array_like=True, tag=2):
    """Are you there? The reliable way.

    Attributes:
        target: Who is meant.
        doubted: The incarnation of it that is not believed alive; 0 if it is.
    """

    target: Text
    doubted: Count = 0


@final
class Share(Struct, frozen=True, array_like=True, tag=3):
    """Broadcasts that the other side lacks."""

    rumours: Rumours


@final
class Letter(Struct, frozen=True, array_like=True, tag=4):
    """A message to one peer."""

    target: Text
    payload: Annotated[bytes, Meta(max_length=MAX_MESSAGE)]


@final
class Request(Struct, frozen=True, array_like=True):
    """What is asked for an answer."""

    cluster: Text
    sender: Text
    address: Address
    body: Sync | Check | Share | Letter


@final
class Accepted(Struct, frozen=True, array_like=True, tag=1):
    """Done, by a node of this incarnation."""

    incarnation: Count


@final
class Synced(Struct, frozen=True, array_like=True, tag=2):
    """Answer to :class:`Sync`: the same, and the broadcasts that the asker lacks."""

    members: Annotated[list[Update], Meta(min_length=1, max_length=_MANY)]
    have: Haves
    rumours: Rumours


@final
class Refused(Struct, frozen=True, array_like=True, tag=3):
    """Not done, and why.

    Attributes:
        why: ``"full"`` (the inbox), ``"leaving"`` (the node), ``"taken"`` (the name is another living node's),
            ``"stranger"`` (the request is for another node), ``"cluster"`` (the asker is of
            another one) or ``"unbelieved"`` (its incarnation, or there is no room for it).
        detail: The address of the living node, the name of this one, or the cluster.
    """

    why: Text
    detail: Annotated[str, Meta(max_length=LONGEST + 8)] = ""


Answer: TypeAlias = Accepted | Synced | Refused


@final
class _Pieces(Struct, frozen=True, array_like=True):
    """A :class:`Packet` put together from parts that are encoded already."""

    cluster: str
    sender: str
    address: str
    incarnation: int
    head: Head | None
    updates: list[Raw]
    rumours: list[Raw]


_packet_of = MSGPACK.decoder(Packet)
_request_of = MSGPACK.decoder(Request)
_answer_of = MSGPACK.decoder(Answer)
# Own packets hold nothing that cannot be encoded, so the bare encoder will do.
_encode = msgspec.msgpack.Encoder().encode


def encode(value: Request | Answer) -> bytes:
    """Return a request or an answer in bytes."""
    return _VERSION_BYTE + _encode(value)


def piece(value: Update | Rumour) -> bytes:
    """Return an update or a rumour in bytes, for :func:`packet_with`."""
    return _encode(value)


def packet_with(
    cluster: str,
    me: Member,
    *,
    head: Head | None,
    updates: list[bytes],
    rumours: list[bytes],
) -> bytes:
    """Return a packet of ``me`` in bytes, put together from pieces."""
    return _VERSION_BYTE + _encode(
        _Pieces(
            cluster,
            me.name,
            me.address,
            me.incarnation,
            head,
            [Raw(u) for u in updates],
            [Raw(r) for r in rumours],
        )
    )


def packet_of(data: bytes) -> Packet:
    """Return the packet in ``data``.

    Raises:
        UnknownVersionError: A newer release wrote it.
        CodecError: It is malformed.
    """
    return _packet_of(_body(data))


def request_of(data: bytes) -> Request:
    """Return the request in ``data``; raises as :func:`packet_of`."""
    return _request_of(_body(data))


def answer_of(data: bytes) -> Answer:
    """Return the answer in ``data``; raises as :func:`packet_of`."""
    answer: Answer = _answer_of(_body(data))
    return answer


def _body(data: bytes) -> bytes:
    if not data:
        raise CodecError("an empty packet")
    if data[0] != VERSION:
        raise UnknownVersionError(version=data[0])
    return data[1:]
