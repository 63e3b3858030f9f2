"""Consistent hashing with bounded loads: a key has an endpoint of its own, unless that is full.

::

    ring      ...--a--c--b--b--a--c--...        160 points for each endpoint of mean weight
    key           ^ falls to the point below: a
    a is full     ^ walks on: b, c, ...         full: more than ``bound`` x its share of all calls

What belongs to a key (a cache, a session, a connection) is found again as long as its endpoint is
there. When one comes or goes, only the keys move that are its own. When one key is so hot that
its endpoint has more than its share, the rest of its calls go to the next on the ring, always the
same.

All processes agree on whose a key is if they see the same endpoints; the hash is the same
everywhere. It does not withstand keys that an adversary chooses, but the bound does.

Source: Karger et al., "Consistent Hashing and Random Trees", STOC 1997; Mirrokni, Thorup and
Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018. CRC-32 for the keys and 160
points are those of nginx's ``hash ... consistent``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Final, final
from zlib import crc32

from aiopatterns.cluster.strategy import Picker, Strategy
from aiopatterns.core.clock import rng
from aiopatterns.core.hashing import ring_points
from aiopatterns.core.validate import count, number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from aiopatterns.cluster.endpoint import Endpoint, Traffic
    from aiopatterns.core.types import Key

__all__ = ["ConsistentHash"]

# The ring has 2 ** 32 places, as CRC-32 has values; points are the upper halves of 64 bits, and the
# lower ones say whose they are: whole numbers are sorted three times as fast as pairs.
_RING: Final = 1 << 32
_HALF: Final = 32
_LOWER: Final = _RING - 1


@final
@dataclass(frozen=True, slots=True)
class ConsistentHash(Strategy):
    """The same endpoint for the same key; without a key, anybody.

    Args:
        bound: How many times its share of all calls in flight an endpoint may have, above 1.
            Infinity for no bound: a key then never moves while its endpoint is there.
        points: Points of an endpoint of mean weight; more even out the shares, whose standard
            deviation is about ``1 / sqrt(points)``.

    Raises:
        ValueError: A value is out of its range.

    Complexity: O(log n), about 0.4 us; 50 us for each endpoint when one comes or goes.
    """

    bound: float = 1.25
    points: int = 160

    def __post_init__(self) -> None:
        """Refuse a bound that not all calls fit in."""
        if number("bound", self.bound, "a number > 1") <= 1:
            msg = f"bound must be a number > 1, not {self.bound!r}"
            raise ValueError(msg)
        count("points", self.points)

    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker among ``endpoints``."""
        return _Ring(endpoints, traffic, self)


@final
class _Ring(Picker):
    """Finds the point below a key."""

    __slots__ = ("_hashes", "_owners", "_random", "_shares", "_traffic")

    def __init__(
        self, endpoints: Sequence[Endpoint], traffic: Traffic, rules: ConsistentHash
    ) -> None:
        super().__init__(endpoints)
        placed = sorted(_points(self.endpoints, rules.points))
        self._hashes = [each >> _HALF for each in placed]
        self._owners = [self.endpoints[each & _LOWER] for each in placed]
        self._random = rng().random
        self._traffic = traffic
        size = len(endpoints)
        mean = sum(each.weight / size for each in endpoints)
        self._shares = {each: rules.bound * (each.weight / mean / size) for each in endpoints}

    def pick(self, key: Key | None) -> Endpoint:
        """Return whose ``key`` is, or the next that is not full."""
        if type(key) is str:  # most are: this saves them a call
            place = crc32(key.encode("utf-8", "surrogatepass"))
        else:
            place = self._place(key)
        at = bisect_right(self._hashes, place) - 1
        owner = self._owners[at]
        if owner.in_flight and self._full(owner):
            return next(each for each in self._from(at) if not self._full(each))
        return owner

    def beside(self, key: Key | None, excluded: Collection[str]) -> Endpoint | None:
        """Return the next on the ring that is not in ``excluded``, and not full if there is one."""
        at = bisect_right(self._hashes, self._place(key)) - 1
        rest = [each for each in self._from(at) if each.id not in excluded]
        free = (each for each in rest if not self._full(each))
        return next(free, rest[0]) if rest else None

    def _place(self, key: Key | None) -> int:
        """Return the place of a key on the ring."""
        if key is None:
            return int(self._random() * _RING)
        if isinstance(key, str):
            return crc32(key.encode("utf-8", "surrogatepass"))
        if isinstance(key, bytes):
            return crc32(key)
        if isinstance(key, int) and not isinstance(key, bool):
            return crc32(b"%d" % key)
        msg = f"key must be a string, bytes, a whole number or None, not {key!r}"
        raise TypeError(msg)

    def _full(self, endpoint: Endpoint) -> bool:
        """Whether one more call would be more than its share allows."""
        return endpoint.in_flight >= (self._traffic.in_flight + 1) * self._shares[endpoint]

    def _from(self, at: int) -> Iterator[Endpoint]:
        """Walk the ring downwards: each endpoint once."""
        return iter(dict.fromkeys((*self._owners[at::-1], *self._owners[:at:-1])))


def _points(endpoints: Sequence[Endpoint], points: int) -> Iterator[int]:
    """Place each endpoint by its weight: its points, each with its number in the lower half.

    The mean counts as the nearest power of two, so that the points of the others stay where they
    are when one changes.
    """
    size = len(endpoints)
    mean = sum((each.instance.weight or 1) / size for each in endpoints)
    unit = points / 2.0 ** round(log2(mean))
    for at, endpoint in enumerate(endpoints):
        for point in ring_points(endpoint.id, max(1, round(endpoint.weight * unit))):
            yield point & ~_LOWER | at
