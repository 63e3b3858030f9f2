"""Table: a dict of any size whose slowest step is short.

A dict is fast on the average. Now and then it is built anew, all of it, in one step that nothing
interrupts: with a million entries that takes some 40 ms, also when it only keeps its size, for
every removed entry leaves a hole behind and the holes are cleared away together. An event loop
stands still meanwhile. :class:`Pages` spreads the entries over many small dicts, so each of
these steps is short::

    key --hash % pages--> [ page 0 ] [ page 1 ] [ page 2 ] ...   <= about 16,384 entries each

Not guaranteed: pages of one size. Keys that all hash alike share one page; then it is as slow as
a dict.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pages", "Table", "table_for"]

K = TypeVar("K")
T = TypeVar("T")

# A dict of that many entries is built anew in less than a millisecond.
_PAGE: Final = 16_384


@final
class Pages(Generic[K, T]):
    """A mapping in pages.

    Args:
        limit: How many entries it will hold at most.

    Complexity: O(1) for each key, 0.1 us more than a dict.
    """

    __slots__ = ("_count", "pages")

    def __init__(self, limit: int) -> None:
        # An odd number: whole numbers that are multiples of a power of two still spread.
        self._count = -(-limit // _PAGE) | 1
        self.pages: list[dict[K, T]] = [{} for _ in range(self._count)]

    def get(self, key: K) -> T | None:
        """Return what is there under ``key``, or None."""
        return self.pages[hash(key) % self._count].get(key)

    def pop(self, key: K, default: None) -> T | None:
        """Take away what is there under ``key``, or return None."""
        return self.pages[hash(key) % self._count].pop(key, default)

    def __setitem__(self, key: K, value: T) -> None:
        self.pages[hash(key) % self._count][key] = value

    def __len__(self) -> int:
        return sum(map(len, self.pages))

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self.pages)


Table: TypeAlias = "dict[K, T] | Pages[K, T]"
"""What holds entries by key."""


def table_for(limit: int) -> Table[K, T]:
    """Return an empty table for at most ``limit`` entries: a dict while that is quick."""
    return {} if limit <= _PAGE else Pages(limit)
