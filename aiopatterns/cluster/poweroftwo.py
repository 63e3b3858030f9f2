"""Power of two choices: look at two, take the better one.

Two that are drawn by chance are nearly as good as the best of all, without everybody running to
the one that was best a moment ago::

    drawn: b, e      load   calls in flight for its weight, + 1
                     lag    latency, or the age of the oldest call; heeded once one of the two has
                            more than twice that of the other, and a millisecond: then load x lag
                            is compared

    a  b  c  d  e    load(b) <= load(e)?  b, else e

Endpoints that are about as fast as each other so share the calls evenly, also when they have
nothing to do; a slow one gets fewer, one that hangs next to none, and is tried again every ten
seconds.

The pairs are dealt from a shuffled deck that holds each endpoint first as often as its weight
says, and begins anew when it is through: cheaper than two throws of dice, and more even.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996; as the
default of a balancer, Finagle and kratos.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.shares import rounded
from aiopatterns.cluster.strategy import Picker, Strategy
from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.cluster.endpoint import Endpoint, Traffic
    from aiopatterns.core.types import Key

__all__ = ["PowerOfTwo"]

#: Seconds by which latencies have to differ, besides, to be heeded.
NOISE: Final = 0.001
# Each place of an endpoint meets so many others in the deck at most, all if there are no more.
_OTHERS: Final = 8
# Pairs of a deck at least: with few, who calls in a rhythm would be dealt the same ones over again.
_DECK: Final = 1_000


@final
@dataclass(frozen=True, slots=True)
class PowerOfTwo(Strategy):
    """The better of two that are drawn by chance; the default.

    Complexity: O(1), about 0.2 us.
    """

    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker among ``endpoints``."""
        return _Pairs(endpoints, traffic)


@final
class _Pairs(Picker):
    """Deals pairs and takes the better of each."""

    __slots__ = ("_deal", "_traffic")

    def __init__(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> None:
        super().__init__(endpoints)
        self._deal = cycle(_deck(self.endpoints)).__next__
        self._traffic = traffic

    def pick(self, key: Key | None) -> Endpoint:
        """Return the better of two."""
        del key
        first, second = self._deal()
        load, other = first.load, second.load
        if first.lag and second.lag:
            now = self._traffic.now
            lag = first.lag if now < first.fresh else first.latency(now)
            slow = second.lag if now < second.fresh else second.latency(now)
            if lag and slow and (lag > slow + slow + NOISE or slow > lag + lag + NOISE):
                load *= lag
                other *= slow
        return first if load <= other else second


def _deck(endpoints: Sequence[Endpoint]) -> list[tuple[Endpoint, Endpoint]]:
    """Return pairs in any order; an only endpoint is paired with itself."""
    total = len(endpoints)
    if total == 1:
        return [(endpoints[0], endpoints[0])]
    dice = rng()
    spans = dice.sample(range(1, total), min(_OTHERS, total - 1))
    counted = rounded([each.weight for each in endpoints])
    pairs = [
        (endpoints[at], endpoints[(at + span) % total])
        for at, share in enumerate(counted)
        for span in spans
        for _ in range(share)
    ]
    deck: list[tuple[Endpoint, Endpoint]] = []
    while len(deck) < _DECK:
        dice.shuffle(pairs)
        deck += pairs
    return deck
