"""Strategies: which endpoint gets the next call.

A :class:`Strategy` is a value. Whenever the endpoints that may be used have changed, the balancer
asks it for a :class:`Picker` of exactly those: what can be worked out beforehand is worked out
then, and not during a call.

A strategy of one's own is a subclass of each::

    class First(Strategy):
        def picker(self, endpoints, traffic):
            return FirstPicker(endpoints)


    class FirstPicker(Picker):
        def pick(self, key):
            return self.endpoints[0]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import attrgetter
from typing import TYPE_CHECKING

from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from aiopatterns.cluster.endpoint import Endpoint, Traffic
    from aiopatterns.core.types import Key

__all__ = ["Picker", "Strategy", "least_loaded"]

_load = attrgetter("load")


class Picker(ABC):
    """Picks among endpoints that do not change.

    Args:
        endpoints: At least one.

    ``turn`` is a function without arguments that does what :meth:`pick` does, for pickers that
    heed no key: it saves ``choose`` a call. None if there is none.
    """

    __slots__ = ("endpoints", "turn")

    def __init__(
        self, endpoints: Sequence[Endpoint], *, turn: Callable[[], Endpoint] | None = None
    ) -> None:
        self.endpoints: tuple[Endpoint, ...] = tuple(endpoints)
        self.turn: Callable[[], Endpoint] | None = turn

    @abstractmethod
    def pick(self, key: Key | None) -> Endpoint:
        """Return the endpoint for the next call; ``key`` is what the call is about, if anything."""

    def beside(self, key: Key | None, excluded: Collection[str]) -> Endpoint | None:
        """Return one whose id is not in ``excluded``: the least loaded. None if there is none.

        Complexity: O(n).
        """
        del key
        rest = [each for each in self.endpoints if each.id not in excluded]
        return least_loaded(rest) if rest else None


class Strategy(ABC):
    """Which endpoint gets the next call; see the subclasses."""

    __slots__ = ()

    @abstractmethod
    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker among ``endpoints``, which are at least one, in the order of their ids.

        Called anew whenever the endpoints or their weights have changed.
        """


def least_loaded(endpoints: Sequence[Endpoint]) -> Endpoint:
    """Return the one with the least load, any of equals.

    Args:
        endpoints: At least one.
    """
    start = int(rng().random() * len(endpoints))
    return min((*endpoints[start:], *endpoints[:start]), key=_load)
