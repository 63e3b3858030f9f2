"""The counters behind the figures of a Redis backend."""

from __future__ import annotations

from typing import final

__all__ = ["Tally"]


@final
class Tally:
    """The counters; whoever does a thing adds to them."""

    __slots__ = ("commands", "reconnects", "retries", "round_trips")

    def __init__(self) -> None:
        self.commands: int = 0
        self.round_trips: int = 0
        self.retries: int = 0
        self.reconnects: int = 0
