"""How a consumer takes the entries of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["FetchTerms"]


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
    """

    stream: str
    group: str
    consumer: str
    prefetch: int
    max_deliveries: int
    claim_idle: float
