"""Listings: what a broker tells the others about itself, as a member of the directory of brokers.

One record for each broker: its subscriptions with their patterns and groups. Its inbox is found by
its id. ``edition`` grows with every change, so that a broker sees when the directory has its newest
one. A broker that is about to leave lists nothing, and so gets no new messages while it finishes.
"""

from __future__ import annotations

from typing import Annotated, Final, final

import msgspec

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError

__all__ = [
    "DIRECTORY",
    "MOST",
    "TTL",
    "Listed",
    "Listing",
    "inbox_of",
    "is_member",
    "read_edition",
    "read_listing",
]

#: Name of the directory of brokers.
DIRECTORY: Final = "brokers"
#: Seconds after which a broker that does not renew its listing is out of the directory.
TTL: Final = 15.0
#: Subscriptions of a broker at most: a frame has two bytes to say for how many of them it is.
MOST: Final = 65_535

# What frames can hold.
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
# Ids of brokers are shorter; their inboxes have to be names of channels.
_LONGEST: Final = 64


@final
class Listed(msgspec.Struct, frozen=True, array_like=True):
    """A subscription as the others see it; new fields go to the end.

    Attributes:
        number: What messages for it bear.
        pattern: The topics it wants.
        group: Of all subscriptions of one group, one gets each message; None for no group.
        answers: Whether it gets what is sent and requested as well, or only what is published.
    """

    number: _Number
    pattern: str
    group: str | None = None
    answers: bool = True


@final
class Listing(msgspec.Struct, frozen=True, array_like=True):
    """A broker as the others see it; new fields go to the end.

    Attributes:
        edition: Grows with each change.
        subscriptions: What it wants.
    """

    edition: int = 0
    subscriptions: Annotated[tuple[Listed, ...], msgspec.Meta(max_length=MOST)] = ()

    def encode(self) -> bytes:
        """Return it as bytes."""
        return MSGPACK.encode(self)


@final
class _Edition(msgspec.Struct, frozen=True, array_like=True):
    """A listing of which nothing else is wanted."""

    edition: int = 0


_listing_of = MSGPACK.decoder(Listing)
_edition_of = MSGPACK.decoder(_Edition)
_NOTHING: Final = Listing()


def read_listing(data: bytes) -> Listing:
    """Return the listing that ``data`` holds; what cannot be read lists nothing."""
    try:
        return _listing_of(data)
    except CodecError:
        return _NOTHING


def read_edition(data: bytes) -> int:
    """Return the edition of the listing that ``data`` holds, at a fraction of the cost."""
    try:
        return _edition_of(data).edition
    except CodecError:
        return _NOTHING.edition


def is_member(text: str) -> bool:
    """Whether ``text`` may be the id of a broker; anything else was written by none."""
    return len(text) <= _LONGEST and text.isascii()


def inbox_of(member: str) -> str:
    """Return the channel on which the broker ``member`` listens."""
    return f"broker:{member}"
