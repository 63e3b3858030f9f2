"""The places of a worker, shared by its step loops.

A loop asks for places before each step, keeps them while the step is on its way, and gives back
those for which no job came::

    limit = free + reserved (asked for by a step on its way) + used (claimed, not finished)

With one loop that is all. With several (partitions, queues) those that know of work share what is
free: a *home* loop at once, another one when it has waited for a moment, so that a worker stays
with its own partition while that keeps it busy, and still no partition starves.

While a suspect has to run alone, one loop is *exclusive*: nobody gets a place until all are free,
and then it gets one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from aiopatterns.jobs.turns import Turns

__all__ = ["PATIENCE", "Slots"]

#: Seconds that a loop which is not at home leaves the places to those that are.
PATIENCE: Final = 0.1


@final
class Slots:
    """Places for jobs.

    Args:
        limit: How many there are.
    """

    __slots__ = ("closed", "exclusive", "hungry", "limit", "reserved", "used")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.used: int = 0
        self.reserved: int = 0
        self.closed: bool = False  # no more is claimed: the worker ends
        self.exclusive: dict[Turns, None] = {}
        self.hungry: dict[Turns, float] = {}  # who knows of work, since when; longest first

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return self.limit - self.used - self.reserved

    @property
    def open(self) -> bool:
        """Whether any job would be welcome."""
        return self.free > 0 and not self.closed and not self.exclusive

    def grant(self, turns: Turns) -> int:
        """How many places ``turns`` may ask for now."""
        free = self.free
        if self.closed or free <= 0:
            return 0
        if self.exclusive:
            return int(turns in self.exclusive and free == self.limit)
        if not self.hungry or (len(self.hungry) == 1 and turns in self.hungry):
            return free
        now = monotonic()
        line = [each for each, since in self.hungry.items() if each.home or now >= since + PATIENCE]
        if turns not in line:
            if not turns.home:
                return 0 if line else free
            line.append(turns)
        share, extra = divmod(free, len(line))
        return share + (line.index(turns) < extra)

    def patient_until(self, turns: Turns) -> float:
        """Until when ``turns`` leaves the places to others, in monotonic seconds; or infinity."""
        until = self.hungry.get(turns, inf) + PATIENCE
        return until if not turns.home and until > monotonic() else inf

    def reserve(self, places: int) -> None:
        """A step that asks for ``places`` is on its way."""
        self.reserved += places

    def arrive(self, asked: int, came: int) -> None:
        """The step is back: it asked for so many, and so many jobs came."""
        self.reserved -= asked
        self.used += came
        if came < asked:
            self._tell()

    def leave(self) -> None:
        """A job gives its place up."""
        self.used -= 1
        if self.hungry:
            self._tell()

    def want(self, turns: Turns) -> None:
        """``turns`` knows of work; it keeps its turn if it has waited already."""
        self.hungry.setdefault(turns, monotonic())

    def served(self, turns: Turns) -> None:
        """``turns`` has asked for its share: it goes to the end of the line."""
        self.hungry.pop(turns, None)

    def isolate(self, turns: Turns, *, wanted: bool) -> None:
        """Give nothing out until all is free, and then to ``turns``; or go on as usual."""
        if wanted:
            self.exclusive[turns] = None
        elif self.exclusive.pop(turns, self) is None:
            self._tell()

    def _tell(self) -> None:
        for turns in [*self.hungry]:
            turns.signal()
