"""Suspicion: how long a peer that did not answer may contradict before it counts as dead.

One accuser may be wrong, so the time starts long. Each other node that finds the same by itself
shortens it, down to the time that a contradiction needs to go round::

    left   high |*
                |  .
                |     * second accuser
                |         .  *  third ...
            low |_ _ _ _ _ _ _ _ _ * _ _     accusers needed: CONFIRMATIONS others
                '----------------------> accusers

Before the time is over the suspect is asked a last time. Gossip reaches all with a probability near
1 only, and who has missed a contradiction would otherwise bury a living node.

Source: Dadgar, Phillips and Currey, "Lifeguard", DSN 2018, section IV.B, with the curve of
memberlist: ``high - (high - low) * log(c + 1) / log(k + 1)``.
"""

from __future__ import annotations

from math import log
from typing import Final, final

__all__ = ["CONFIRMATIONS", "Suspicion"]

CONFIRMATIONS: Final = 2
"""Accusers beside the first that bring the time to its minimum (memberlist: multiplier - 2)."""


@final
class Suspicion:
    """One peer under suspicion.

    Args:
        accuser: Who says so first.
        now: Monotonic seconds at which that was heard.
        low: Seconds with all confirmations.
        high: Seconds with none.
        needed: Confirmations that bring it to ``low``; 0 if there is nobody else to ask.
    """

    __slots__ = (
        "_accusers",
        "_called",
        "_high",
        "_low",
        "_needed",
        "_since",
        "accuser",
        "deadline",
    )

    def __init__(
        self, accuser: str, now: float, *, low: float, high: float, needed: int = CONFIRMATIONS
    ) -> None:
        self.accuser: str = accuser
        self._accusers = {accuser}
        self._since = now
        self._low, self._high = low, high
        self._needed = needed
        self._called = False
        self.deadline: float = now + (high if needed else low)

    def confirm(self, accuser: str) -> bool:
        """Count another accuser; returns whether that was news."""
        accusers = self._accusers
        if len(accusers) > self._needed or accuser in accusers:
            return False
        accusers.add(accuser)
        share = log(len(accusers)) / log(self._needed + 1)
        if not self._called:
            self.deadline = self._since + self._high - (self._high - self._low) * share
        return True

    def last_call(self, now: float, lead: float) -> bool:
        """Whether it is time to ask the suspect a last time; true once.

        Args:
            now: Monotonic seconds.
            lead: Seconds that it has to answer; nobody is declared dead before.
        """
        if self._called or now < self.deadline - lead:
            return False
        self._called = True
        self.deadline = max(self.deadline, now + lead)
        return True

    def extend(self, seconds: float) -> None:
        """Give more time: this node was not able to listen for so long."""
        self._since += seconds
        self.deadline += seconds
