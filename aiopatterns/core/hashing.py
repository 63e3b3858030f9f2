"""Who is responsible for a key: hashes that all processes agree on, and owners that rarely move.

Python's own ``hash`` of a string differs from process to process. :func:`stable_hash` is the same
in every process, on every machine and in every release.

Two ways to give keys to nodes, with one surface. Both move only what has to move: when a node
leaves, its keys go to the others and no other key moves; when a node joins, keys move to it and
between no others::

    HashRing    points on a circle, a key falls to the one below   O(log n) lookup, memory O(n)
    Rendezvous  every node bids for a key, the highest has it      O(n) lookup, no state to build

A ring is for many nodes and many lookups; its nodes hold shares that differ by about a tenth.
Rendezvous is for up to some twenty nodes: shares are even, and follow the weights exactly.

Not guaranteed: that a hash is hard to guess. Who must withstand chosen keys passes a secret
``key=`` to :func:`stable_hash`.

Source: BLAKE2b (RFC 7693); Karger et al., "Consistent Hashing and Random Trees", STOC 1997;
Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998, with the
logarithmic weights of Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005;
the mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from hashlib import blake2b
from math import log
from struct import unpack
from typing import TYPE_CHECKING, Final, cast, final

from aiopatterns.core.errors import NoEndpointError
from aiopatterns.core.validate import count, positive, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiopatterns.core.types import Key

__all__ = ["HashRing", "Rendezvous", "ring_points", "stable_hash"]

_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1
# One digest of BLAKE2b holds eight points of a ring.
_POINTS_PER_DIGEST: Final = 8
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

    Complexity: O(log n) for :meth:`owner`, about 1.2 us; O(n log n) to add or remove a node,
    where n is the number of points.

    Example::

        ring = HashRing(["cache-1", "cache-2", "cache-3"])
        ring.owner("user:17")  # always the same of the three
    """

    __slots__ = ("_hashes", "_names", "_points", "_weights")

    def __init__(
        self, nodes: Iterable[str] | Mapping[str, float] = (), *, points: int = 160
    ) -> None:
        self._points = count("points", points)
        self._weights = _weights(nodes)
        self._build()

    def add(self, node: str, *, weight: float = 1.0) -> None:
        """Add a node, or change its weight; keys move only to it or from it."""
        self._weights[text("node", node)] = positive("weight", weight)
        self._build()

    def remove(self, node: str) -> None:
        """Remove a node; only its keys move.

        Raises:
            KeyError: There is no such node.
        """
        del self._weights[node]
        self._build()

    def owner(self, key: Key) -> str:
        """Return the node that is responsible for ``key``.

        Raises:
            NoEndpointError: There is no node.
        """
        if not self._names:
            raise _nobody(key)
        # Below the first point is the last one, which is what index -1 means.
        return self._names[bisect_right(self._hashes, stable_hash(key)) - 1]

    def owners(self, key: Key, limit: int) -> list[str]:
        """Return the responsible node and those that follow it, for replicas and fallbacks.

        Args:
            key: The key.
            limit: How many at most, all different.
        """
        found: dict[str, None] = {}
        wanted = min(count("limit", limit), len(self._weights))
        at = bisect_right(self._hashes, stable_hash(key)) - 1
        while len(found) < wanted:
            found[self._names[at]] = None
            at -= 1
        return list(found)

    def __len__(self) -> int:
        return len(self._weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __contains__(self, node: object) -> bool:
        return node in self._weights

    def _build(self) -> None:
        """Place the points anew; equal points, which are next to impossible, go by name."""
        placed = sorted(
            (point, node)
            for node, weight in self._weights.items()
            for point in ring_points(node, max(1, round(self._points * weight)))
        )
        self._hashes = [point for point, _ in placed]
        self._names = [node for _, node in placed]


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


def _mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * _MIX_1 & _MASK
    value = (value ^ (value >> 27)) * _MIX_2 & _MASK
    return value ^ (value >> 31)


def _nobody(key: Key) -> NoEndpointError:
    return NoEndpointError(f"no node is left to own {key!r}; add one first", name="hashing")
