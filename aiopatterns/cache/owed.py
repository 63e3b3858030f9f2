"""Owed: invalidations are told at least once, whatever becomes of the server or of the caller.

What is invalid is *owed* from before it is sent until it is known to have been written::

    invalidate(k) --> owed: k --> sent --> written: not owed any more
                        ^                |
                        '-- told again --'  no answer, refused, or the caller was cancelled

As long as something is owed, the shared tier is neither asked for it nor filled with it, so this
process at least never reads what it has itself declared invalid. There are at most
:data:`MOST_OWED` items, of which a hundred are patterns; beyond that one item takes their place that
stands for everything. A pattern that could not be told at once is told as everything as well.
"""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.records import Change
from aiopatterns.cache.envelope import tombstone, version
from aiopatterns.cache.farnames import GRACE, LONGEST
from aiopatterns.cache.invalidation import ALL, KEYS, MATCHING, TAGS, Item
from aiopatterns.cache.rules import beginning, matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from aiopatterns.cache.farnames import FarNames
    from aiopatterns.cache.invalidation import Key, News
    from aiopatterns.cache.pieces import Pieces

__all__ = ["MOST_OWED", "Outbox", "Owed"]

#: Items that are owed at most.
MOST_OWED: Final = 10_000
# Patterns among them: every read asks each of them, 0.4 us.
_MOST_PATTERNS: Final = 100
# Items that are told again in one command.
_AT_ONCE: Final = 500


@final
class Owed:
    """What the server was not told of yet. O(1) for an item."""

    __slots__ = ("_due", "_items", "_patterns", "_tickets")

    def __init__(self) -> None:
        self._items: dict[Item, int] = {}
        self._due: dict[Item, int] = {}
        self._patterns: dict[Item, Callable[[object], bool]] = {}
        self._tickets = count(1)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def due(self) -> int:
        """How many have to be told again; the others are on their way."""
        return len(self._due)

    def add(self, items: Iterable[Item]) -> int:
        """Owe ``items``, which are about to be told; return the ticket of that."""
        ticket = next(self._tickets)
        for item in items:
            self._items[item] = ticket
            self._due.pop(item, None)
            if item.kind == MATCHING:
                self._patterns[item] = matcher(str(item.name))
        if len(self._items) > MOST_OWED or len(self._patterns) > _MOST_PATTERNS:
            self._items = {Item(ALL): ticket}
            self._patterns.clear()
            self._due = dict(self._items)
        return ticket

    def settle(self, items: Iterable[Item], ticket: int, *, told: bool) -> None:
        """Owe ``items`` no more, or tell them again; but for those that were added again since."""
        for item in items:
            if self._items.get(item) == ticket:
                if told:
                    del self._items[item]
                    self._due.pop(item, None)
                    self._patterns.pop(item, None)
                else:
                    self._due[item] = ticket

    def again(self, limit: int) -> tuple[list[Item], int]:
        """Return some of what has to be told again, and the ticket of that."""
        items = list(islice(self._due, limit))
        return items, self.add(items)

    def concerns(self, key: Key, tags: Collection[str]) -> bool:
        """Whether something is owed that makes ``key`` invalid."""
        items = self._items
        if not items:
            return False
        if Item(ALL) in items or Item(KEYS, key) in items:
            return True
        if any(fits(key) for fits in self._patterns.values()):
            return True
        return any(Item(TAGS, tag) in items for tag in tags)


@final
class Outbox:
    """Tells the server, and through it the other processes, what is invalid.

    Args:
        pieces: How keys are changed where it is told.
        news: Makes the messages.
        names: Names of keys and of the channel.
    """

    __slots__ = ("_names", "_news", "_pieces", "owed")

    def __init__(self, pieces: Pieces, news: News[Any], names: FarNames) -> None:
        self._pieces = pieces
        self._news = news
        self._names = names
        self.owed: Final = Owed()

    async def tell(self, items: Sequence[Item]) -> bool:
        """Declare ``items`` invalid; False if that could not be told now, and is owed.

        Cancellation: they are owed.
        """
        changes = [self._change(item) for item in items]  # refuses bad keys before they are owed
        return await self.send(items, changes, self.owed.add(items))

    async def send(self, items: Sequence[Item], changes: Sequence[Change], ticket: int) -> bool:
        """Send ``changes``, which settle ``items``; False if they have to be told again.

        So it is also if one was too late. They compare nothing, so it is not for what a key holds.
        """
        told = False
        try:
            told = all(await self._pieces.change(changes))
        finally:
            self.owed.settle(items, ticket, told=told)
        return told

    async def tell_again(self) -> None:
        """Tell what is due, some at a time, as long as the server takes it."""
        told = True
        while told and self.owed.due:
            items, ticket = self.owed.again(_AT_ONCE)
            told = await self.send(items, [self._change(item) for item in items], ticket)

    def told(self, item: Item, change: Change) -> Change:
        """Return ``change`` such that it tells the others of ``item`` when it is made."""
        notice = self._news.message(item)
        return change._replace(notify=self._names.channel, notice=notice)

    def _change(self, item: Item) -> Change:
        if item.kind == KEYS:
            change = Change(self._names.key(item.name), tombstone(), ttl=GRACE)
        elif item.kind == TAGS:
            change = Change(self._names.version(str(item.name)), version(), ttl=LONGEST)
        else:
            item = Item(ALL)
            change = Change(self._names.version(""), beginning(), ttl=LONGEST)
        return self.told(item, change)
