"""Local health: a node that is slow itself gives the others more time.

A node whose own probes fail while its helpers are silent as well, or whose event loop is stuck, is
more likely sick than surrounded by the dead. It keeps a score from 0 (well) to :data:`WORST`, and
stretches the period and the patience of its probes by ``score + 1``.

Source: Dadgar, Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", DSN 2018, section IV.A. Not there: the lag of the event loop counts as well, since in
one thread a blocked loop is the common way to be slow.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["WORST", "Awareness"]

WORST: Final = 7
"""Highest score; memberlist's ``AwarenessMaxMultiplier`` of 8."""


@final
class Awareness:
    """The health score of one node."""

    __slots__ = ("score",)

    def __init__(self) -> None:
        self.score: int = 0

    def improve(self) -> None:
        """A probe was answered."""
        if self.score:
            self.score -= 1

    def worsen(self, by: int = 1) -> None:
        """Something went wrong that is more likely to be this node's fault."""
        self.score = min(self.score + by, WORST)

    def stretch(self, seconds: float) -> float:
        """Return how long to wait instead of ``seconds``."""
        return seconds * (self.score + 1)
