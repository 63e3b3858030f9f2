"""Pace: how many jobs a second, told from counters that are published every two seconds.

A publication says when it was made, so a pace is the difference of two by their own clock, however
often somebody looks in between::

    published   0 at 10.0 s        2000 at 12.0 s        4000 at 14.0 s
    looks          0      0            1000   1000           1000
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Counter", "Pace"]


@final
class Counter(NamedTuple):
    """What a process has counted, and when it said so, by its own clock."""

    value: int
    at: float


@final
class Pace:
    """The pace of many counters, each of which only grows, and starts anew with its process.

    Complexity: O(counters) for each look; keeps those of the last look only.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[Counter, float]] = {}

    def look(self, counters: Mapping[tuple[str, str], Counter]) -> dict[str, float]:
        """Return how much is added a second, by the second part of the counters' names.

        Args:
            counters: By (process, what it counts).
        """
        seen, paces = self._seen, dict[str, float]()
        self._seen = {}
        for key, now in counters.items():
            before, pace = seen.get(key, (now, 0.0))
            if now.at > before.at:
                pace = max(0.0, (now.value - before.value) / (now.at - before.at))
            self._seen[key] = now, pace
            paces[key[1]] = paces.get(key[1], 0.0) + pace
        return paces
