"""Dead letters of a stream: messages that a group has given up, kept to be looked at and redriven.

A group keeps the 10,000 newest. One whose bytes are no message (malformed, too long, of a newer
release) is listed as well, with its bytes as they were appended and without a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.errors import CodecError

if TYPE_CHECKING:
    from aiopatterns.backends.records import Claimed
    from aiopatterns.messaging.envelope import Envelopes
    from aiopatterns.messaging.message import Message

__all__ = ["DeadLetter", "read_letter", "reason_of"]

# Characters of a reason that are kept.
_LONGEST: Final = 2_000


@final
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a group has given up.

    Attributes:
        id: Id of the entry; ``requeue([...], group=...)`` takes it.
        message: What was said; None if the bytes are no message.
        attempts: How often it was handed out.
        error: Why it was given up.
        data: The bytes of the entry; empty if it was trimmed away meanwhile.
    """

    id: str
    message: Message | None
    attempts: int
    error: str
    data: bytes


def read_letter(stored: Claimed, reason: bytes, envelopes: Envelopes) -> DeadLetter:
    """Return a stored dead letter as users see it."""
    try:
        message = envelopes.decode(stored.payload)
    except CodecError:
        message = None
    text = reason.decode(errors="replace")
    return DeadLetter(stored.id, message, stored.deliveries, text, stored.payload)


def reason_of(error: BaseException) -> str:
    """Return why a message is given up, in one line that is not too long."""
    return f"{type(error).__name__}: {error}"[:_LONGEST]
