"""Who leaves a full cache: S3-FIFO that promotes after one use, and LRU.

Both keep their nodes in one ring, from the oldest to the newest. In S3-FIFO a second mark cuts it
in two queues: what came lately, and what has proven itself::

              small: a tenth                        main: the rest
    [small] s s s s s s s s <- new      [main] m m m m m m m m m m m m m m
       |                                   ^  |                          ^
       |-- used meanwhile: goes to main ---'  |-- used: once more ------'
       '-- not used: leaves, its hash is      '-- not used: leaves
           remembered; if it comes again
           soon, it goes to main at once

So a scan passes through the small queue and leaves main alone, and a hit only counts a number
up: nothing is moved, and nothing is locked.

Guarantees:

* One victim costs at most ``MOST_LOOKS`` looks at nodes, however large the cache is; then the
  oldest leaves even if it was used.
* Ghosts are hashes, about 140 bytes each with their table, at most as many as main has room for.

Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP
2023. The paper promotes after two uses; after one it was never below LRU in the traces that were
measured, and better on the average. Nor does the small queue adapt, as in the paper's S3-FIFO-D: it
was measured, and what it gains where popularity ends at once it loses elsewhere
(``benchmarks/cache/bench_ratio.py``).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast, final

from aiopatterns.cache.table import table_for

if TYPE_CHECKING:
    from aiopatterns.cache.table import Table
    from aiopatterns.cache.terms import Eviction

__all__ = ["LRU", "MOST_LOOKS", "MOST_USES", "S3FIFO", "Ghosts", "Node", "Policy", "policy_for"]

#: Looks at nodes that one victim may cost.
MOST_LOOKS: Final = 1_024
#: Uses of a node are counted up to that, as in the paper.
MOST_USES: Final = 3
# The share of the small queue, as in the paper.
_SMALL: Final = 10


class Node:
    """What stands in a ring.

    Args:
        hashed: The hash of its key.
        weight: Its weight.
        stale_until: When it is over (monotonic seconds).
    """

    __slots__ = ("hashed", "newer", "older", "proven", "stale_until", "uses", "weight")

    newer: Node
    older: Node

    def __init__(self, hashed: int, weight: int, stale_until: float) -> None:
        self.hashed: int = hashed
        self.weight: int = weight
        self.stale_until: float = stale_until
        #: Uses since it came or was last spared, at most :data:`MOST_USES`.
        self.uses: int = 0
        #: Whether it stands in main.
        self.proven: bool = False


N = TypeVar("N", bound=Node)


class Policy(Generic[N]):
    """A ring of nodes with a mark, and a hand that walks around it.

    The hand is for whoever looks at all nodes, a few at a time: a node that stays is met once in
    each round.
    """

    __slots__ = ("_mark", "hand", "looks")

    #: Whether :meth:`touch` has to be called at each use; else uses are counted in the node.
    touches: bool = False

    def __init__(self) -> None:
        self._mark = _mark()
        self.hand: Node = self._mark
        #: Looks at nodes for victims, since it was made.
        self.looks: int = 0

    def admit(self, node: N) -> None:
        """Take in a node as the newest."""
        _place(node, self._mark)

    def touch(self, node: N) -> None:
        """Note a use."""

    def forget(self, node: N) -> None:
        """Take out a node that has to go."""
        self.cut(node)

    def victim(self) -> N:
        """Take out the node that leaves next; there must be one."""
        raise NotImplementedError

    def fits(self, node: N, limit: int) -> bool:
        """Whether a node may push out others, where all together may weigh ``limit``."""
        return node.weight <= limit

    def remember(self, node: N) -> None:
        """Note that a node should be welcome if it comes again."""

    def clear(self) -> None:
        """Let go of all nodes: they keep a ring of their own, to be cut out of one by one."""
        self.hand = self._mark = _mark()

    def cut(self, node: Node) -> None:
        """Take a node out of its ring. It keeps no neighbour, for somebody may keep it."""
        newer, older = node.newer, node.older
        if node is self.hand:
            self.hand = newer
        older.newer = newer
        newer.older = older
        del node.newer, node.older

    def _count(self, looks: int) -> None:
        """Note that a victim has cost so many looks."""
        self.looks += looks


@final
class LRU(Policy[N]):
    """The least recently used leaves first."""

    __slots__ = ()

    touches = True

    def touch(self, node: N) -> None:
        """Make a node the newest."""
        self.cut(node)
        _place(node, self._mark)

    def victim(self) -> N:
        """Take out the node that was used longest ago."""
        self._count(1)
        node = cast("N", self._mark.newer)
        self.forget(node)
        return node


@final
class S3FIFO(Policy[N]):
    """New ones prove themselves in a small queue before they may stay.

    The shares of the queues are those of the weight that is there, so it does not matter which
    bound the cache has come up against.

    Args:
        limit: How many nodes there are at most.
    """

    __slots__ = ("_ghosts", "_main", "_proven", "_small")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._main = _mark()
        _place(self._main, self._mark)
        # Weights of the two queues.
        self._small = self._proven = 0
        self._ghosts = Ghosts(max(1, limit - limit // _SMALL))

    def admit(self, node: N) -> None:
        """Take in a node: to main if it is remembered, or if the small queue has its share."""
        if self._ghosts.take(node.hashed) or self._small * _SMALL > self._small + self._proven:
            node.proven = True
            self._proven += node.weight
            before = self._mark
        else:
            self._small += node.weight
            before = self._main
        _place(node, before)

    def forget(self, node: N) -> None:
        """Take out a node that has to go."""
        self.cut(node)
        if node.proven:
            self._proven -= node.weight
        else:
            self._small -= node.weight

    def victim(self) -> N:
        """Take out the oldest of the small queue, or of main where that has grown too long."""
        left = MOST_LOOKS
        while True:
            left -= 1
            oldest = self._mark.newer
            if oldest is self._main or self._small * _SMALL < self._small + self._proven:
                oldest = self._main.newer
            if not oldest.uses or not left:
                break
            self._spare(oldest)
        self._count(MOST_LOOKS - left)
        self.cut(oldest)
        if oldest.proven:
            self._proven -= oldest.weight
        else:
            self._small -= oldest.weight
            self._ghosts.add(oldest.hashed)
        return cast("N", oldest)

    def fits(self, node: N, limit: int) -> bool:
        """Whether a node may push out others: it weighs no more than its whole queue may."""
        share = max(1, limit // _SMALL)
        return node.weight <= (limit - share if node.hashed in self._ghosts else share)

    def remember(self, node: N) -> None:
        """Let a node go to main if it comes again soon."""
        self._ghosts.add(node.hashed)

    def clear(self) -> None:
        """Let go of all nodes; what has left before is still remembered."""
        super().clear()
        self._main = _mark()
        _place(self._main, self._mark)
        self._small = self._proven = 0

    def _spare(self, node: Node) -> None:
        """Let a used node stay: it becomes the newest of main."""
        self.cut(node)
        _place(node, self._mark)
        if node.proven:
            node.uses -= 1
        else:
            node.uses = 0
            node.proven = True
            self._small -= node.weight
            self._proven += node.weight


@final
class Ghosts:
    """Hashes of what has left lately: the last ``limit`` of them, first in, first out.

    Complexity: O(1) for each.
    """

    __slots__ = ("_limit", "_line", "_serial", "_serials")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._serial = 0
        self._line: deque[int] = deque()
        self._serials: Table[int, int] = table_for(limit)

    def __len__(self) -> int:
        return len(self._serials)

    def __contains__(self, hashed: int) -> bool:
        return self._serials.get(hashed) is not None

    def add(self, hashed: int) -> None:
        """Remember a hash, in place of the oldest if there are too many."""
        self._serial = serial = self._serial + 1
        self._line.append(hashed)
        self._serials[hashed] = serial
        if serial > self._limit:
            oldest = self._line.popleft()
            # One that was taken meanwhile, or came again, stands there no more as the oldest.
            if self._serials.get(oldest) == serial - self._limit:
                self._serials.pop(oldest, None)

    def take(self, hashed: int) -> bool:
        """Forget a hash; return whether it was there."""
        return self._serials.pop(hashed, None) is not None


def policy_for(eviction: Eviction, limit: int) -> LRU[N] | S3FIFO[N]:
    """Return a policy for at most ``limit`` nodes."""
    return LRU() if eviction == "lru" else S3FIFO(limit)


def _mark() -> Node:
    """Return a ring of a mark alone; it is never over."""
    mark = Node(0, 0, math.inf)
    mark.older = mark.newer = mark
    return mark


def _place(node: Node, before: Node) -> None:
    """Put a node into a ring, as the newest before a mark."""
    older = before.older
    node.older = older
    node.newer = before
    older.newer = node
    before.older = node
