"""What a backend has done so far: a frozen record, the same for all backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["BackendStatistics"]


@final
@dataclass(frozen=True, slots=True)
class BackendStatistics:
    """The figures of a backend since it was made; ``users`` and ``in_flight`` are of now.

    All but the first two are about the way to a server: memory has none, so they stay 0.

    Attributes:
        url: Where it is, passwords masked.
        users: How many have it open.
        commands: Commands sent over shared connections and those of claims and waits.
        round_trips: Writes that carried them: ``commands / round_trips`` is what pipelining gains.
        retries: Commands that were sent again.
        reconnects: Connections that were made in place of a broken one.
        in_flight: Commands that wait for their replies.
    """

    url: str
    users: int
    commands: int = 0
    round_trips: int = 0
    retries: int = 0
    reconnects: int = 0
    in_flight: int = 0
