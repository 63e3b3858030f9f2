"""The backlog of a pool: what waits, and what comes next.

The order is exact: the highest priority first, and among equals the one submitted first. Items
with an equal key run one at a time, so only the first of them is ready; the others stand behind
it, and stand in nobody else's way::

    ready   priority  9:  x
                      0:  a1  b1  y        <- the worker takes x, then a1, b1, y
    keys    a:  a2  a3                     <- a2 becomes ready when a1 has ended
            b:  (nobody behind b1)

Almost all pools have neither priorities nor keys, so items of priority 0 live in a plain deque and
pay for no heap. What comes back out of turn (a retry, the next of a key) keeps the place that its
number gives it, in a small heap beside the deque.

Cancelled items are skipped when they come up, and swept out when they are more than half.

Complexity: O(1) to push, pop and discard; O(log p) with p priorities in use besides 0, O(log r)
with r items that came back. Memory: 8 bytes for each waiting item; the state of a key is dropped
with its last item.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar, final

from aiopatterns.flow.handle import HandleStatus

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from aiopatterns.flow.handle import Terms, Ticket

__all__ = ["Backlog", "Lane"]

R = TypeVar("R")

# Fewer cancelled items than this are not worth a sweep.
_FEW = 32
_QUEUED = HandleStatus.QUEUED


@final
class Lane(Generic[R]):
    """Waiting items of one kind, in the order of their numbers."""

    __slots__ = ("back", "dead", "line")

    def __init__(self) -> None:
        self.line: deque[Ticket[R]] = deque()
        self.back: list[tuple[int, Ticket[R]]] = []  # a heap
        self.dead: int = 0  # entries of items that wait no more

    @property
    def live(self) -> int:
        """Number of items that wait here."""
        return len(self.line) + len(self.back) - self.dead

    def put_back(self, ticket: Ticket[R]) -> None:
        """Add an item where its number belongs."""
        heappush(self.back, (ticket.index, ticket))

    def pop(self) -> Ticket[R] | None:
        """Take the first item out; None if there is none."""
        line, back = self.line, self.back
        while line or back:
            if back and (not line or back[0][0] < line[0].index):
                ticket = heappop(back)[1]
            else:
                ticket = line.popleft()
            if ticket.state is _QUEUED:
                return ticket
            self.dead -= 1
        return None

    def first(self) -> Ticket[R] | None:
        """Return the first item and leave it there."""
        ticket = self.pop()
        if ticket is not None:
            self.put_back(ticket)
        return ticket

    def discard(self) -> None:
        """Count one item less; it has ended already and is skipped when it comes up."""
        self.dead += 1
        if self.dead > _FEW + self.live:
            self.line = deque(each for each in self.line if each.state is _QUEUED)
            self.back = [each for each in self.back if each[1].state is _QUEUED]
            heapify(self.back)
            self.dead = 0

    def clear(self) -> None:
        """Forget everything."""
        self.line.clear()
        self.back.clear()
        self.dead = 0

    def __iter__(self) -> Iterator[Ticket[R]]:
        yield from (each for each in self.line if each.state is _QUEUED)
        yield from (each for _, each in self.back if each.state is _QUEUED)


@final
class Backlog(Generic[R]):
    """All waiting items of a pool."""

    __slots__ = ("_keys", "_lanes", "common", "order")

    def __init__(self) -> None:
        # What is public here is there for the hot path, which saves itself the call of pop().
        self.common: Lane[R] = Lane()  # priority 0
        self._lanes: dict[int, Lane[R]] = {}  # other priorities
        self.order: list[int] = []  # heap of the negatives of those
        # Held keys, and who stands behind the holder, if anybody ever has.
        self._keys: dict[Hashable, Lane[R] | None] = {}

    @property
    def ready(self) -> int:
        """Number of items that a worker could take now."""
        return self.common.live + sum(lane.live for lane in self._lanes.values())

    @property
    def keys(self) -> int:
        """Number of keys that are held."""
        return len(self._keys)

    def push(self, ticket: Ticket[R]) -> bool:
        """Add a new item; True if it is ready, False if it stands behind another of its key."""
        terms = ticket.terms
        if terms is None:
            self.common.line.append(ticket)
            return True
        if terms.key is not None:
            if terms.key in self._keys:
                terms.blocked = True
                self._behind(terms.key).line.append(ticket)
                return False
            self._keys[terms.key] = None
        self._lane(terms.priority).line.append(ticket)
        return True

    def put_back(self, ticket: Ticket[R]) -> None:
        """Add an item that has been taken out before; it still holds its key."""
        self._lane(ticket.priority).put_back(ticket)

    def pop(self) -> Ticket[R] | None:
        """Take out the item that comes next; None if none is ready."""
        common = self.common
        if self.order:
            return self._pop_by_priority()
        if common.back or common.dead:
            return common.pop()
        return common.line.popleft() if common.line else None

    def discard(self, terms: Terms | None) -> None:
        """Forget the waiting item that has these terms; its state has changed already."""
        if terms is None:
            self.common.discard()
        elif terms.blocked:
            self._behind(terms.key).discard()
        else:
            self._lane(terms.priority).discard()

    def clear(self) -> list[Ticket[R]]:
        """Take everything out, in no particular order; keys are given up."""
        waiting = list(self)
        for each in (self.common, self._lanes, self.order, self._keys):
            each.clear()
        return waiting

    def release(self, key: Hashable) -> Ticket[R] | None:
        """Give up a key; returns the next item of the key, which is ready now, if there is one."""
        behind = self._keys[key]
        ticket = None if behind is None else behind.pop()
        if ticket is None:
            del self._keys[key]
            return None
        assert ticket.terms is not None
        ticket.terms.blocked = False
        self.put_back(ticket)
        return ticket

    def firsts(self) -> list[Ticket[R]]:
        """Return the first ready item of each priority."""
        firsts = (lane.first() for lane in (self.common, *self._lanes.values()))
        return [each for each in firsts if each is not None]

    def __iter__(self) -> Iterator[Ticket[R]]:
        """Iterate over everything that waits here, in no particular order."""
        for lane in (self.common, *self._lanes.values(), *self._keys.values()):
            yield from lane or ()

    def _behind(self, key: Hashable) -> Lane[R]:
        lane = self._keys[key]
        if lane is None:
            lane = self._keys[key] = Lane()
        return lane

    def _lane(self, priority: int) -> Lane[R]:
        if not priority:
            return self.common
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = Lane()
            heappush(self.order, -priority)
        return lane

    def _pop_by_priority(self) -> Ticket[R] | None:
        """Take from the highest lane that has an item, and drop those that have none."""
        while self.order:
            priority = -self.order[0]
            if priority < 0 and (ticket := self.common.pop()) is not None:
                return ticket
            if (ticket := self._lanes[priority].pop()) is not None:
                return ticket
            del self._lanes[priority]
            heappop(self.order)
        return self.common.pop()
