"""The tasks that could start: the best first, and only those whose resources are all free.

::

    offer --> [ ready, by rank ] --take--> claims a slot and all resources at once
                 ^        |
                 |        v  one resource is short
              release  [ parked at that resource, by rank ]

Guarantees:

* All or nothing: a task holds either everything it asked for or nothing, so tasks that wait hold
  nothing that others wait for, and there is no deadlock.
* A parked task is looked at again when the resource that it lacked is given back, not before; so
  ten thousand tasks that wait for one connection cost nothing while they wait.

Complexity: O(log n) for each step, amortised.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Ready", "Startable"]

Rank: TypeAlias = tuple[int, int, int]
"""Smaller goes first; all ranks of one run differ."""


class Startable(Protocol):
    """What can be offered."""

    slot: int

    @property
    def rank(self) -> Rank:
        """Its place in the order; smaller goes first."""
        ...

    @property
    def resources(self) -> Mapping[str, int]:
        """What it needs."""
        ...


S = TypeVar("S", bound=Startable)


@final
class Ready(Generic[S]):
    """The line of tasks that could start.

    Args:
        limit: How many run at once.
        resources: How much there is of each resource.
    """

    __slots__ = ("_free", "_line", "_parked", "_slots")

    def __init__(self, limit: int, resources: Mapping[str, int]) -> None:
        self._slots = list(range(limit))
        self._free = dict(resources)
        self._line: list[tuple[Rank, S]] = []
        self._parked: dict[str, list[tuple[Rank, S]]] = {}

    def __bool__(self) -> bool:
        return bool(self._line and self._slots)

    def offer(self, item: S) -> None:
        """Put a task in line."""
        heappush(self._line, (item.rank, item))

    def take(self) -> S | None:
        """Take the best task that can start, and claim what it needs; None if none can."""
        while self._line and self._slots:
            rank, item = heappop(self._line)
            lacking = self._lacking(item)
            if lacking is None:
                item.slot = heappop(self._slots)
                for name, amount in item.resources.items():
                    self._free[name] -= amount
                self._look_again(item.resources)
                return item
            heappush(self._parked.setdefault(lacking, []), (rank, item))
            self._look_again(item.resources)
        return None

    def release(self, item: S) -> None:
        """Give back what a task has claimed."""
        heappush(self._slots, item.slot)
        for name, amount in item.resources.items():
            self._free[name] += amount
        self._look_again(item.resources)

    def _lacking(self, item: S) -> str | None:
        """Return a resource of which there is not enough."""
        for name, amount in item.resources.items():
            if self._free.setdefault(name, 1) < amount:
                return name
        return None

    def _look_again(self, names: Iterable[str]) -> None:
        """Put back in line the best that is parked at each resource, if it now fits there."""
        for name in names:
            parked = self._parked.get(name)
            if parked and parked[0][1].resources[name] <= self._free[name]:
                heappush(self._line, heappop(parked))
