"""Priority channels: what matters most overtakes what came first.

A :class:`~aiopatterns.flow.channel.Channel` whose buffer is a heap. All that holds for channels
holds here as well, only the order differs: the higher priority first, and first in, first out
among equals. A stream of urgent items can keep the others waiting for ever; that is what a
priority means.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import isnan
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

    Complexity: O(log n) an operation, O(n) to drop.

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
        self._heap = _Heap(_first_of_pair if key is None else plain_function("key", key))
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
        return self._heap.evict(item)


class _Heap(list[tuple[float, int, T]]):
    """The highest priority first, equals first in, first out; a list for its fast length."""

    __slots__ = ("_key", "_newest", "_oldest")

    def __init__(self, key: Callable[[T], float]) -> None:
        super().__init__()
        self._key = key
        self._newest = 0
        self._oldest = 0

    def append(self, item: T) -> None:  # type: ignore[override]  # takes an item, keeps an entry
        """Take ``item`` in, behind its equals."""
        rank = self._rank(item)
        self._newest += 1
        heappush(self, (rank, self._newest, item))

    def popleft(self) -> T:
        """Take the next item out."""
        return heappop(self)[2]

    def extendleft(self, items: Iterable[T]) -> None:
        """Put ``items`` back, each in front of its equals."""
        for item in items:
            self._oldest -= 1
            heappush(self, (self._rank(item), self._oldest, item))

    def evict(self, item: T) -> tuple[T, bool]:
        """Drop the lowest priority and of equals the oldest; ``item`` if it is lower still."""
        lowest = max(self, key=lambda entry: (entry[0], -entry[1]), default=None)
        if lowest is None or self._rank(item) > lowest[0]:
            return item, False
        self.remove(lowest)
        heapify(self)
        return lowest[2], True

    def _rank(self, item: T) -> float:
        rank = -self._key(item)
        if isinstance(rank, float) and isnan(rank):
            msg = f"the priority of an item must be a number, not nan: {item!r}"
            raise ValueError(msg)
        return rank


def _first_of_pair(item: object) -> float:
    """Return the priority of a pair ``(priority, value)``."""
    match item:
        case (int() | float() as priority, object()):
            return priority
        case _:
            msg = f"item must be a pair (priority, value), or the channel needs key=, not {item!r}"
            raise TypeError(msg)
