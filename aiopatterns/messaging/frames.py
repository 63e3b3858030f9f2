"""Frames: what brokers send to each other's inboxes.

::

    delivery  | 1 | how many: 2 bytes | number of a subscription: 4 bytes, each | envelope |
    reply     | 2 | number of the request: 8 bytes | outcome: 1 byte | body |

A message goes to each broker once, with the numbers of the subscriptions there that it is for. A
reply bears the number that the requester gave. Its body is by the outcome:

=========  ====================================================
``VALUE``  the codec's name (1 byte + text), and what it wrote
``ERROR``  the description of an error (``remote.py``)
``ABSENT`` nothing: no such subscription is here (any more)
=========  ====================================================

All numbers are big-endian. Any bytes open, or raise
:class:`~aiopatterns.core.errors.CodecError`; a first byte that is not known is written by a newer
release.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, pack
from typing import TYPE_CHECKING, Final, NamedTuple, final

from aiopatterns.core.errors import CodecError, UnknownVersionError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Delivery", "Outcome", "Reply", "open_frame", "pack_delivery", "pack_reply"]

_DELIVERY: Final = 1
_REPLY: Final = 2
_ONE: Final = Struct(">BHI")
_HEAD: Final = Struct(">BH")
_ANSWER: Final = Struct(">BQB")
_ID_BYTES: Final = 4


class Outcome(IntEnum):
    """How a request ended at its handler."""

    VALUE = 0
    ERROR = 1
    ABSENT = 2


@final
class Delivery(NamedTuple):
    """A message for subscriptions of this broker.

    Attributes:
        numbers: The subscriptions.
        envelope: The message.
    """

    numbers: tuple[int, ...]
    envelope: bytes


@final
class Reply(NamedTuple):
    """An answer to a request of this broker.

    Attributes:
        number: The request.
        outcome: How it ended.
        body: By the outcome.
    """

    number: int
    outcome: Outcome
    body: bytes


def pack_delivery(numbers: Sequence[int], envelope: bytes) -> bytes:
    """Return a delivery as bytes."""
    if len(numbers) == 1:
        return _ONE.pack(_DELIVERY, 1, numbers[0]) + envelope
    return pack(f">BH{len(numbers)}I", _DELIVERY, len(numbers), *numbers) + envelope


def pack_reply(number: int, outcome: Outcome, body: bytes = b"") -> bytes:
    """Return a reply as bytes."""
    return _ANSWER.pack(_REPLY, number, outcome) + body


def open_frame(data: bytes) -> Delivery | Reply:
    """Return what ``data`` holds.

    Raises:
        UnknownVersionError: A newer release has written it.
        CodecError: It is cut off, or no frame at all.

    Complexity: O(size).
    """
    kind = data[0] if data else 0
    if kind == _REPLY:
        if len(data) < _ANSWER.size:
            raise CodecError(f"cut off: {len(data)} bytes hold no reply")
        _, number, outcome = _ANSWER.unpack_from(data)
        if outcome > Outcome.ABSENT:
            raise UnknownVersionError(f"outcome {outcome} of a reply is not known", version=outcome)
        return Reply(number, Outcome(outcome), data[_ANSWER.size :])
    if kind == _DELIVERY:
        return _delivery(data)
    raise UnknownVersionError(f"frames of kind {kind} are not known to this release", version=kind)


def _delivery(data: bytes) -> Delivery:
    if len(data) < _HEAD.size:
        raise CodecError(f"cut off: {len(data)} bytes hold no delivery")
    many = _HEAD.unpack_from(data)[1]
    end = _HEAD.size + many * _ID_BYTES
    if not many or len(data) < end:
        raise CodecError(f"cut off: {len(data)} bytes hold no delivery to {many} subscriptions")
    numbers = tuple(
        int.from_bytes(data[at : at + _ID_BYTES], "big") for at in range(_HEAD.size, end, _ID_BYTES)
    )
    return Delivery(numbers, data[end:])
