"""Random: anybody, by weight.

No state and no order, so no two processes ever march in step; but the counts spread as those of
dice do. Weights count exactly where their ratio is that of small numbers, else to a thousandth of
all calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from aiopatterns.cluster.shares import rounded
from aiopatterns.cluster.strategy import Picker, Strategy
from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.cluster.endpoint import Endpoint, Traffic
    from aiopatterns.core.types import Key

__all__ = ["Random", "drawn_from"]


@final
@dataclass(frozen=True, slots=True)
class Random(Strategy):
    """Anybody, by weight.

    Complexity: O(1), about 0.2 us.
    """

    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker among ``endpoints``."""
        del traffic
        return _Dice(endpoints)


@final
class _Dice(Picker):
    """Draws from a list in which each endpoint stands as often as its weight says."""

    __slots__ = ("_places", "_random")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        super().__init__(endpoints)
        self._places = drawn_from(endpoints)
        self._random = rng().random

    def pick(self, key: Key | None) -> Endpoint:
        """Return anybody."""
        del key
        places = self._places
        return places[int(self._random() * len(places))]


def drawn_from(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Return a list in which each endpoint stands as often as its weight says."""
    counted = rounded([each.weight for each in endpoints])
    return [
        endpoint for endpoint, share in zip(endpoints, counted, strict=True) for _ in range(share)
    ]
