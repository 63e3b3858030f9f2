"""Pace: how many jobs a second, told from counters that are published every two seconds.

A look between two publications sees no change, the one after it the change of two seconds. So the
pace is that of a window of two publications, over which such steps cancel out::

    published   0 ... 2000 ... 4000 ... 6000          every 2 s
    looks       0 0 2000 2000 4000 4000 6000          every 1 s;  (6000 - 2000) / 4 s
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.publishing import INTERVAL

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Pace"]

#: Seconds over which counters are compared.
WINDOW: Final = 2 * INTERVAL


@final
class Pace:
    """The pace of many counters, each of which only grows, and starts anew with its process.

    Complexity: O(counters) for each look; keeps those of the last look only.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    def look(self, counters: Mapping[tuple[str, str], int], at: float) -> dict[str, float]:
        """Return how much is added a second, by the second part of the counters' names.

        Args:
            counters: Their values by (process, what it counts).
            at: The time, in monotonic seconds.
        """
        seen, paces = self._seen, dict[str, float]()
        self._seen = {}
        for key, value in counters.items():
            points = self._seen[key] = seen.get(key) or deque()
            points.append((at, value))
            while len(points) > 2 and at - points[1][0] >= WINDOW:
                points.popleft()
            (began, before) = points[0]
            pace = (value - before) / (at - began) if at > began else 0.0
            paces[key[1]] = paces.get(key[1], 0.0) + max(pace, 0.0)
        return paces
