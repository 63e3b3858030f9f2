"""The entries of a memory log: payloads under ids that grow, cheap at both ends.

::

    keys     [ -, -, 3-0, x, 5-0, 5-1, 9-0 ]      sorted; a removed one leaves a hole (x)
                  ^ head                           everything before it is a hole
    payloads { 3-0, 5-0, 5-1, 9-0 }

Holes are skipped, and swept out when they are more than half, at a cost that the removals have
paid for.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["START", "Entries", "Key"]

Key: TypeAlias = tuple[int, int]

#: Before every entry.
START: Final[Key] = (0, 0)
# A few holes are left alone.
_SMALL: Final = 64


@final
class Entries:
    """Payloads in order of their ids.

    Complexity: O(1) to append, amortised to remove; O(log n + result) to read.
    """

    __slots__ = ("_head", "_keys", "_payloads", "last")

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._payloads: dict[Key, bytes] = {}
        self._head = 0
        self.last: Key = START

    def __len__(self) -> int:
        return len(self._payloads)

    def append(self, payload: bytes, milliseconds: int) -> Key:
        """Append ``payload``; its id is above all before, also if the time is not."""
        first, second = self.last
        self.last = (milliseconds, 0) if milliseconds > first else (first, second + 1)
        self._keys.append(self.last)
        self._payloads[self.last] = payload
        return self.last

    def get(self, key: Key) -> bytes | None:
        """Return the payload of ``key``, or None."""
        return self._payloads.get(key)

    def after(self, key: Key) -> Iterator[tuple[Key, bytes]]:
        """Iterate over the entries above ``key``, which must not change meanwhile."""
        keys, payloads = self._keys, self._payloads
        for position in range(bisect_right(keys, key, lo=self._head), len(keys)):
            payload = payloads.get(keys[position])
            if payload is not None:
                yield keys[position], payload

    def count_after(self, key: Key) -> int:
        """Return how many entries are above ``key``; O(log n) if none of them was removed."""
        keys, payloads = self._keys, self._payloads
        position = bisect_right(keys, key, lo=self._head)
        if len(keys) - self._head == len(payloads):
            return len(keys) - position
        return sum(keys[each] in payloads for each in range(position, len(keys)))

    def remove(self, key: Key) -> None:
        """Remove ``key``; harmless if it is gone."""
        if self._payloads.pop(key, None) is not None:
            self._sweep()

    def trim(self, length: int) -> int:
        """Remove the oldest beyond ``length``; return how many."""
        surplus = max(0, len(self._payloads) - length)
        target = len(self._payloads) - surplus
        while len(self._payloads) > target:  # by position: a dict forgets its front slowly
            self._payloads.pop(self._keys[self._head], None)
            self._head += 1
        self._sweep()
        return surplus

    def _sweep(self) -> None:
        """Move the head past holes; build the keys anew if most of them are holes."""
        keys, payloads = self._keys, self._payloads
        while self._head < len(keys) and keys[self._head] not in payloads:
            self._head += 1
        if len(keys) > 2 * len(payloads) + _SMALL:
            self._keys = list(payloads)
            self._head = 0
