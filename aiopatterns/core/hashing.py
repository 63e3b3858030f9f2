"""Who is responsible for a key: hashes that all processes agree on, and owners that rarely move.

Python's own ``hash`` of a string differs from process to process. :func:`stable_hash` is the same
in every process, on every machine and in every release.

Two ways to give keys to nodes, with one surface. Both move only what has to move: when a node
leaves, its keys go to the others and no other key moves; when a node joins, keys move to it and
between no others::

    HashRing    points on a circle, a key falls to the one below   O(log n) lookup, memory O(n)
    Rendezvous  every node bids for a key, the highest has it      O(n) lookup, no state to build

A ring is for many nodes and many lookups; its nodes hold shares that differ by about a tenth. When
one comes or goes its points are cut in or out: with 1,000 nodes that is 3 ms, and to place all anew
would be 100. Rendezvous is for up to some twenty nodes: shares are even, and follow the weights
exactly.

Not guaranteed: that a hash is hard to guess. Who must withstand chosen keys passes a secret
``key=`` to :func:`stable_hash`.

Source: BLAKE2b (RFC 7693); Karger et al., "Consistent Hashing and Random Trees", STOC 1997;
Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998, with the
logarithmic weights of Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005;
the mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from hashlib import blake2b
from math import log
from struct import unpack
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

from aiopatterns.core.errors import NoEndpointError
from aiopatterns.core.validate import count, positive, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aiopatterns.core.types import Key

__all__ = ["Circle", "HashRing", "Rendezvous", "ring_points", "stable_hash"]

V = TypeVar("V")

_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1
# One digest of BLAKE2b holds eight points of a ring.
_POINTS_PER_DIGEST: Final = 8
# Points are sorted with the number of their node in the lower half: whole numbers take a third of
# the time of pairs.
_HALF: Final = 32
_LOWER: Final = (1 << _HALF) - 1
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB


def stable_hash(value: Key, *, key: bytes = b"") -> int:
    """Hash a key to 64 bits, the same everywhere.

    Args:
        value: A string, bytes or a whole number. As in a dict, ``"1"``, ``b"1"`` and ``1`` are
            three different keys.
        key: Secret of at most 64 bytes, for keys that come from strangers.

    Returns:
        A number from 0 to 2 ** 64 - 1.

    Raises:
        TypeError: ``value`` is something else (also a bool).
        ValueError: The secret is too long.

    Complexity: O(length), about 0.8 us for a short key.
    """
    if isinstance(value, str):
        data = b"s" + value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        data = b"b" + value
    elif isinstance(value, int) and not isinstance(value, bool):
        data = b"i%d" % value
    else:
        msg = f"value must be a string, bytes or a whole number, not {value!r}"
        raise TypeError(msg)
    return int.from_bytes(blake2b(data, digest_size=8, key=key).digest(), "big")


@final
class HashRing:
    """Consistent hashing: nodes as points on a circle.

    Args:
        nodes: Names of the nodes, or a mapping from name to weight; a node of weight 2 gets two
            shares.
        points: Points for each unit of weight; more even out the shares. The standard deviation
            of a share is about ``1 / sqrt(points)``.

    Raises:
        ValueError: A name is empty, or a weight or ``points`` is not above 0.

    Complexity: O(log n) for :meth:`owner`, about 1.2 us, where n is the number of points; to add or
        remove a node, O(log n) for each of its points and one copy of the ring.

    Example::

        ring = HashRing(["cache-1", "cache-2", "cache-3"])
        ring.owner("user:17")  # always the same of the three
    """

    __slots__ = ("_circle", "_points", "_weights")

    def __init__(
        self, nodes: Iterable[str] | Mapping[str, float] = (), *, points: int = 160
    ) -> None:
        self._points = count("points", points)
        self._weights = _weights(nodes)
        self._circle = Circle().changed(
            {node: (0, self._share(weight)) for node, weight in self._weights.items()}
        )

    def add(self, node: str, *, weight: float = 1.0) -> None:
        """Add a node, or change its weight; keys move only to it or from it."""
        text("node", node)
        positive("weight", weight)
        had = self._share(self._weights[node]) if node in self._weights else 0
        self._weights[node] = weight
        self._circle = self._circle.changed({node: (had, self._share(weight))})

    def remove(self, node: str) -> None:
        """Remove a node; only its keys move.

        Raises:
            KeyError: There is no such node.
        """
        had = self._share(self._weights.pop(node))
        self._circle = self._circle.changed({node: (had, 0)})

    def owner(self, key: Key) -> str:
        """Return the node that is responsible for ``key``.

        Raises:
            NoEndpointError: There is no node.
        """
        if not self._weights:
            raise _nobody(key)
        # Below the first point is the last one, which is what index -1 means.
        circle = self._circle
        return circle.names[bisect_right(circle.points, stable_hash(key)) - 1]

    def owners(self, key: Key, limit: int) -> list[str]:
        """Return the responsible node and those that follow it, for replicas and fallbacks.

        Args:
            key: The key.
            limit: How many at most, all different.
        """
        found: dict[str, None] = {}
        wanted = min(count("limit", limit), len(self._weights))
        circle = self._circle
        at = bisect_right(circle.points, stable_hash(key)) - 1
        while len(found) < wanted:
            found[circle.names[at]] = None
            at -= 1
        return list(found)

    def __len__(self) -> int:
        return len(self._weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __contains__(self, node: object) -> bool:
        return node in self._weights

    def _share(self, weight: float) -> int:
        """Return how many points a node of that weight has."""
        return max(1, round(self._points * weight))


@final
class Circle:
    """The points of a ring in order, and whose each is; equal ones are in the order of the names.

    A circle does not change: :meth:`changed` makes another.

    Args:
        points: The points, in order.
        names: Whose each is.
        lower: Bits that are cut off the points of 64 bits.
    """

    __slots__ = ("_lower", "names", "points")

    def __init__(
        self, points: Iterable[int] = (), names: Iterable[str] = (), *, lower: int = 0
    ) -> None:
        self.points: list[int] = [*points]
        self.names: list[str] = [*names]
        self._lower = lower

    def changed(self, nodes: Mapping[str, tuple[int, int]]) -> Circle:
        """Return the circle on which these nodes have other numbers of points.

        Args:
            nodes: How many points each had and is to have.

        Complexity: O(log n) for each point that comes or goes, and a copy if there is any.
        """
        gone: dict[str, list[int]] = {}
        new: dict[str, list[int]] = {}
        for name, (had, wanted) in nodes.items():
            if had != wanted:
                points = [each >> self._lower for each in ring_points(name, max(had, wanted))]
                fewer = min(had, wanted)
                (gone if had > wanted else new)[name] = points[fewer:]
        return self.without(gone).joined(new)

    def without(self, gone: Mapping[str, Sequence[int]]) -> Circle:
        """Return it without these points."""
        if not gone:
            return self
        places: list[int] = []
        for point, name in zip(*_ordered(gone), strict=True):
            place = self._place(point, name)
            # A node may have a point twice, side by side.
            places.append(max(place, places[-1] + 1) if places else place)
        return self._like(_cut(self.points, places), _cut(self.names, places))

    def joined(self, new: Mapping[str, Sequence[int]]) -> Circle:
        """Return it with these points besides."""
        if not new:
            return self
        points, names = _ordered(new)
        if not self.points:
            return self._like(points, names)
        places = [self._place(*each) for each in zip(points, names, strict=True)]
        return self._like(
            _spliced(self.points, places, points), _spliced(self.names, places, names)
        )

    def _place(self, point: int, name: str) -> int:
        """Return where a point is, or belongs."""
        points, names = self.points, self.names
        place = bisect_left(points, point)
        while place < len(points) and points[place] == point and names[place] < name:
            place += 1
        return place

    def _like(self, points: list[int], names: list[str]) -> Circle:
        return Circle(points, names, lower=self._lower)


@final
class Rendezvous:
    """Rendezvous hashing: every node bids for a key, and the highest bid has it.

    Args:
        nodes: Names of the nodes, or a mapping from name to weight; the share of a node is its
            weight over the sum of all.

    Raises:
        ValueError: A name is empty or a weight is not above 0.

    Complexity: O(n) for :meth:`owner`, about 0.8 us, and 0.5 us for each node.

    Example::

        shards = Rendezvous({"big": 2.0, "small": 1.0})
        shards.owner("user:17")  # "big" for two keys in three
    """

    __slots__ = ("_seeds", "_weights")

    def __init__(self, nodes: Iterable[str] | Mapping[str, float] = ()) -> None:
        self._weights = _weights(nodes)
        self._seeds = {node: stable_hash(node) for node in self._weights}

    def add(self, node: str, *, weight: float = 1.0) -> None:
        """Add a node, or change its weight; keys move only to it or from it."""
        self._weights[text("node", node)] = positive("weight", weight)
        self._seeds[node] = stable_hash(node)

    def remove(self, node: str) -> None:
        """Remove a node; only its keys move.

        Raises:
            KeyError: There is no such node.
        """
        del self._weights[node]
        del self._seeds[node]

    def owner(self, key: Key) -> str:
        """Return the node that is responsible for ``key``.

        Raises:
            NoEndpointError: There is no node.
        """
        if not self._seeds:
            raise _nobody(key)
        return max(self._bids(key))[1]

    def owners(self, key: Key, limit: int) -> list[str]:
        """Return the responsible node and the next in the order of bids.

        Args:
            key: The key.
            limit: How many at most, all different.
        """
        ranked = sorted(self._bids(key), reverse=True)
        return [node for _, node in ranked[: count("limit", limit)]]

    def __len__(self) -> int:
        return len(self._weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __contains__(self, node: object) -> bool:
        return node in self._weights

    def _bids(self, key: Key) -> Iterator[tuple[float, str]]:
        hashed = stable_hash(key)
        for node, seed in self._seeds.items():
            # Uniform in (0, 1): neither end, where the logarithm is not defined or is 0.
            share = ((_mixed(hashed ^ seed) >> 12) + 0.5) / (1 << 52)
            yield self._weights[node] / -log(share), node


def _weights(nodes: Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    if isinstance(nodes, str):
        msg = f"nodes must be names or a mapping from name to weight, not {nodes!r}"
        raise TypeError(msg)
    if isinstance(nodes, Mapping):
        given = cast("Mapping[str, float]", nodes)
    else:
        given = dict.fromkeys(nodes, 1.0)
    return {text("node", node): positive("weight", weight) for node, weight in given.items()}


def ring_points(node: str, wanted: int) -> list[int]:
    """Return the points of one node on a ring of 64 bits.

    Args:
        node: Its name.
        wanted: How many. Fewer are the first of more, so a node that grows keeps its points.

    Complexity: O(wanted), 1 us for eight.
    """
    found: list[int] = []
    for turn in range(-(-wanted // _POINTS_PER_DIGEST)):
        found += unpack(">8Q", blake2b(f"{node}#{turn}".encode()).digest())
    return found[:wanted]


def _ordered(nodes: Mapping[str, Sequence[int]]) -> tuple[list[int], list[str]]:
    """Return the points of all nodes in order, equal ones by name, and whose each is."""
    names = sorted(nodes)
    placed = sorted(point << _HALF | at for at, name in enumerate(names) for point in nodes[name])
    return [each >> _HALF for each in placed], [names[each & _LOWER] for each in placed]


def _cut(line: Sequence[V], places: Iterable[int]) -> list[V]:
    """Return ``line`` without what is at these places, which are in order."""
    left: list[V] = []
    start = 0
    for place in places:
        left += line[start:place]
        start = place + 1
    left += line[start:]
    return left


def _spliced(line: Sequence[V], places: Iterable[int], new: Sequence[V]) -> list[V]:
    """Return ``line`` with ``new``, each before what is at its place; places are in order."""
    joined: list[V] = []
    start = 0
    for place, each in zip(places, new, strict=True):
        joined += line[start:place]
        joined.append(each)
        start = place
    joined += line[start:]
    return joined


def _mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * _MIX_1 & _MASK
    value = (value ^ (value >> 27)) * _MIX_2 & _MASK
    return value ^ (value >> 31)


def _nobody(key: Key) -> NoEndpointError:
    return NoEndpointError(f"no node is left to own {key!r}; add one first", name="hashing")
