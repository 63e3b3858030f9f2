"""What a Redis backend has done so far: a frozen record, and the counters behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["RedisStatistics", "Tally"]


@final
@dataclass(frozen=True, slots=True)
class RedisStatistics:
    """The figures of a Redis backend since it was made; ``in_flight`` is of now.

    Attributes:
        url: Where it is, passwords masked.
        users: How many have it open.
        commands: Commands sent over shared connections and lines.
        round_trips: Writes that carried them: ``commands / round_trips`` is what pipelining gains.
        retries: Commands that were sent again.
        reconnects: Connections that were made in place of a broken one.
        in_flight: Commands that wait for their replies.
    """

    url: str
    users: int
    commands: int
    round_trips: int
    retries: int
    reconnects: int
    in_flight: int


@final
class Tally:
    """The counters; whoever does a thing adds to them."""

    __slots__ = ("commands", "reconnects", "retries", "round_trips")

    def __init__(self) -> None:
        self.commands = 0
        self.round_trips = 0
        self.retries = 0
        self.reconnects = 0
