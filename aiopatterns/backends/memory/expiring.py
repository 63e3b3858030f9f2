"""A mapping whose entries have a life: gone to every reader at once, swept without a timer.

An entry whose time is over is invisible from that instant on, whatever still holds it. It is
removed when somebody looks for it, or by the next writes: each puts its own expiry on a heap and
takes at most two that are due from it, so garbage shrinks faster than it can grow and no single
call pays for all of it. A heap that is mostly outdated, because keys were rewritten, is built
anew, at a cost that the rewrites have paid for.

Not guaranteed: without a write nothing is swept; what has expired then keeps its memory.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

if TYPE_CHECKING:
    from aiopatterns.backends.memory.home import MemoryHome

__all__ = ["Expiring"]

K = TypeVar("K")
V = TypeVar("V")

# A heap of up to twice the live entries is left alone, a small one always.
_SMALL: Final = 64


@final
class Expiring(Generic[K, V]):
    """Values under keys until their time is over.

    Args:
        home: Whose time it is.

    Complexity: O(1) to read; O(log n) amortised to write with a life, O(1) without.
    """

    __slots__ = ("_entries", "_heap", "_home", "_written")

    def __init__(self, home: MemoryHome) -> None:
        self._home = home
        self._entries: dict[K, tuple[V, float]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._written = 0  # orders what expires in one instant, so keys are never compared

    def __len__(self) -> int:
        """Entries that hold memory, expired ones that nobody has swept yet among them."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value of ``key``, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires = entry
        if expires <= self._home.now():
            del self._entries[key]
            return None
        return value

    def live(self) -> list[K]:
        """Return the keys whose time is not over. O(n)."""
        now = self._home.now()
        return [key for key, (_, expires) in self._entries.items() if expires > now]

    def put(self, key: K, value: V, ttl: float | None) -> None:
        """Write ``value`` under ``key`` for ``ttl`` seconds from now, or for ever."""
        expires = math.inf if ttl is None else self._home.after(ttl)
        self._entries[key] = value, expires
        if ttl is not None:
            self._written += 1
            heappush(self._heap, (expires, self._written, key))
        if self._heap:
            self._sweep(self._home.now())

    def change(self, key: K, value: V) -> None:
        """Write ``value`` under ``key``, which is there; its life goes on."""
        self._entries[key] = value, self._entries[key][1]

    def pop(self, key: K) -> V | None:
        """Remove ``key`` and return its value, or None."""
        value = self.get(key)
        self._entries.pop(key, None)
        return value

    def _sweep(self, now: float) -> None:
        """Take at most two entries that are due; build an outdated heap anew."""
        heap, entries = self._heap, self._entries
        for _ in range(2):
            if not heap or heap[0][0] > now:
                break
            key = heappop(heap)[2]
            if entries.get(key, (None, math.inf))[1] <= now:
                del entries[key]
        if len(heap) > 2 * len(entries) + _SMALL:
            self._heap = [each for each in heap if entries.get(each[2], (None, 0))[1] == each[0]]
            heapify(self._heap)
