"""How a consumer takes the entries of a stream, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from aiopatterns.messaging.envelope import Envelopes
    from aiopatterns.messaging.message import Message
    from aiopatterns.messaging.versioning import Upcasters

__all__ = ["FetchTerms", "Tally"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTerms:
    """How a consumer takes entries.

    Attributes:
        stream: Name of the stream.
        group: The group.
        consumer: Id of the consumer, new at each opening.
        prefetch: Entries in hand at most.
        max_deliveries: How often an entry is handed out at most.
        claim_idle: Seconds of silence after which a claim ends.
        upcasters: Bring old messages to their newest form; None leaves all as they are.
    """

    stream: str
    group: str
    consumer: str
    prefetch: int
    max_deliveries: int
    claim_idle: float
    upcasters: Upcasters | None = None

    def opened(self, payload: bytes, envelopes: Envelopes) -> Message:
        """Return the message of an entry, in its newest form.

        Raises:
            CodecError: It cannot be read, or is of a version that nobody here knows.
        """
        message = envelopes.decode(payload)
        return message if self.upcasters is None else self.upcasters.upcast_message(message)


@final
@dataclass(slots=True)
class Tally:
    """What became of the entries: ``claimed`` is the sum of the others and of those in hand.

    Attributes:
        claimed: Taken in hand.
        acked: Done.
        retried: Given back to come again.
        dead: Given up.
        released: Given back without being counted.
        lost: Taken by others.
    """

    claimed: int = 0
    acked: int = 0
    retried: int = 0
    dead: int = 0
    released: int = 0
    lost: int = 0
