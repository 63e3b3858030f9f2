"""Round robin: everybody in turn, or in turn by weight.

The turns are written down when the endpoints change, and a pick is one step along them::

    weights 3, 1, 2:    a c a b c a | a c a b c a | ...       each as evenly spaced as it can be

Each process begins at a place of its own, or the first endpoint would get the first call of all.
Weights whose ratio is not that of small numbers (1 to 777.3) are scheduled by due times instead:
exact as well, but a pick costs O(log n).

Source: the spacing is that of smooth weighted round robin (nginx, 2012); by due times it is
earliest deadline first, as in Envoy and gRPC. The random start is that of lura.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import cycle
from typing import TYPE_CHECKING, final

from aiopatterns.cluster.shares import shares
from aiopatterns.cluster.strategy import Picker, Strategy
from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiopatterns.cluster.endpoint import Endpoint, Traffic
    from aiopatterns.core.types import Key

__all__ = ["RoundRobin", "WeightedRoundRobin"]


@final
@dataclass(frozen=True, slots=True)
class RoundRobin(Strategy):
    """Everybody in turn, whatever the weights; only a newcomer gets less at first.

    Complexity: O(1), about 0.1 us.
    """

    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker among ``endpoints``."""
        del traffic
        return _Turns(endpoints, [each.ramp for each in endpoints])


@final
@dataclass(frozen=True, slots=True)
class WeightedRoundRobin(Strategy):
    """Everybody in turn, those with more weight more often, evenly spaced.

    Complexity: O(1), about 0.1 us; O(log n) where the ratio of weights is not that of small
    numbers.
    """

    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker among ``endpoints``."""
        del traffic
        return _Turns(endpoints, [each.weight for each in endpoints])


@final
class _Turns(Picker):
    """Goes along a schedule."""

    __slots__ = ("_next",)

    def __init__(self, endpoints: Sequence[Endpoint], weights: Sequence[float]) -> None:
        schedule = _scheduled(endpoints, weights) or _by_due_time(endpoints, weights)
        self._next = schedule.__next__
        super().__init__(endpoints, turn=self._next)

    def pick(self, key: Key | None) -> Endpoint:
        """Return whose turn it is."""
        del key
        return self._next()


def _scheduled(
    endpoints: Sequence[Endpoint], weights: Sequence[float]
) -> Iterator[Endpoint] | None:
    """Write the turns down, if they are few enough."""
    counted = shares(weights)
    if counted is None:
        return None
    # An endpoint with k turns has them at (0 + phase) / k, (1 + phase) / k, ...; the phases differ
    # so that those with few turns do not all come in one place.
    placed = sorted(
        ((turn + (at + 0.5) / len(counted)) / share, at)
        for at, share in enumerate(counted)
        for turn in range(share)
    )
    turns = [endpoints[at] for _, at in placed]
    start = int(rng().random() * len(turns))
    return cycle(turns[start:] + turns[:start])


def _by_due_time(endpoints: Sequence[Endpoint], weights: Sequence[float]) -> Iterator[Endpoint]:
    """Give the turn to whose is due first; the next is due a span later that is 1 / weight."""
    greatest = max(weights)
    due = [
        (rng().random() * greatest / weight, at, greatest / weight)
        for at, weight in enumerate(weights)
    ]
    heapify(due)
    while True:
        now, at, span = due[0]
        yield endpoints[at]
        heapreplace(due, (now + span, at, span))
