"""Priority channels: what matters most overtakes what came first.

A :class:`~aiopatterns.flow.channel.Channel` whose buffer is a heap. All that holds for channels
holds here as well, only the order differs: the higher priority first, and first in, first out
among equals. A stream of urgent items can keep the others waiting for ever; that is what a
priority means.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from math import inf, isnan
from typing import TYPE_CHECKING, TypeVar, final

from aiopatterns.core.validate import plain_function
from aiopatterns.flow.channel import AnyChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiopatterns.flow.channel import Overflow

__all__ = ["PriorityChannel"]

T = TypeVar("T")


@final
class PriorityChannel(AnyChannel[T]):
    """A channel that gives the highest priority first, and equals first in, first out.

    What goes in comes out: with ``key=None`` items are pairs ``(priority, value)`` on both ends.

    Args:
        capacity: This and all others but ``key`` are as for :class:`Channel`.
        key: Function of an item that gives its priority, a higher number first; None reads the
            first of a pair.
        overflow: ``"drop_old"`` drops the lowest priority, and among
            equals the oldest, which is the item being sent if it is lower than all others.
        high_water: See ``capacity``.
        low_water: See ``capacity``.
        on_pressure: See ``capacity``.
        on_drop: See ``capacity``.

    Raises:
        ValueError: As for :class:`Channel`; sending an item whose priority is NaN.
        TypeError: As for :class:`Channel`; sending an item without a priority.

    Complexity: O(log n) an operation. With ``"drop_old"`` items lie in order, so that both ends are
        at hand: O(log n) to find a place, and a move of the pointers behind it.

    Source: binary heap with a sequence number for equals (Python's ``heapq`` notes).

    Example::

        channel = PriorityChannel[tuple[int, str]](10)
        await channel.send((0, "later"))
        await channel.send((9, "now"))
        assert await channel.receive() == (9, "now")
    """

    __slots__ = ("_heap",)

    def __init__(
        self,
        capacity: int,
        *,
        key: Callable[[T], float] | None = None,
        overflow: Overflow = "wait",
        high_water: float = 0.8,
        low_water: float = 0.5,
        on_pressure: Callable[[bool], object] | None = None,
        on_drop: Callable[[T], object] | None = None,
    ) -> None:
        rank = _first_of_pair if key is None else plain_function("key", key)
        self._heap: _Heap[T] = _Sorted(rank) if overflow == "drop_old" else _Heap(rank)
        super().__init__(
            self._heap,
            capacity,
            overflow=overflow,
            high_water=high_water,
            low_water=low_water,
            on_pressure=on_pressure,
            on_drop=on_drop,
        )

    def _evict(self, item: T) -> tuple[T, bool]:
        assert isinstance(self._heap, _Sorted), "no other channel drops what it has"
        return self._heap.evict(item)


class _Heap(list[tuple[float, int, T]]):
    """The highest priority first, equals first in, first out; a list for its fast length.

    Args:
        key: Gives the priority of an item.
        push: Puts an entry in its place.
        step: 1 if what leaves first is the least, -1 if it is the greatest.
    """

    __slots__ = ("_key", "_newest", "_oldest", "_push", "_step")

    def __init__(
        self,
        key: Callable[[T], float],
        push: Callable[[list[tuple[float, int, T]], tuple[float, int, T]], None] = heappush,
        step: int = 1,
    ) -> None:
        super().__init__()
        self._key = key
        self._push = push
        self._step = step
        self._newest = 0
        self._oldest = 0

    def append(self, item: T) -> None:  # type: ignore[override]  # takes an item, keeps an entry
        """Take ``item`` in, behind its equals."""
        rank = self._rank(item)
        self._newest += self._step
        self._push(self, (rank, self._newest, item))

    def popleft(self) -> T:
        """Take the next item out."""
        return heappop(self)[2]

    def extendleft(self, items: Iterable[T]) -> None:
        """Put ``items`` back, each in front of its equals."""
        for item in items:
            self._oldest -= self._step
            self._push(self, (self._rank(item), self._oldest, item))

    def _rank(self, item: T) -> float:
        rank = -self._step * self._key(item)
        if isinstance(rank, float) and isnan(rank):
            msg = f"the priority of an item must be a number, not nan: {item!r}"
            raise ValueError(msg)
        return rank


class _Sorted(_Heap[T]):
    """The same in order throughout, what leaves first at the end: the lowest is at hand as well."""

    __slots__ = ()

    def __init__(self, key: Callable[[T], float]) -> None:
        super().__init__(key, insort, -1)

    def popleft(self) -> T:
        """Take the next item out."""
        return self.pop()[2]

    def evict(self, item: T) -> tuple[T, bool]:
        """Drop the lowest priority and of equals the oldest; ``item`` if it is lower still."""
        if not self or self._rank(item) < self[0][0]:
            return item, False
        oldest = bisect_left(self, (self[0][0], inf)) - 1
        return self.pop(oldest)[2], True


def _first_of_pair(item: object) -> float:
    """Return the priority of a pair ``(priority, value)``."""
    match item:
        case (int() | float() as priority, object()):
            return priority
        case _:
            msg = f"item must be a pair (priority, value), or the channel needs key=, not {item!r}"
            raise TypeError(msg)
