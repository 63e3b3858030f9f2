"""One stream into several branches, and their results back into one.

Each branch is a chain of stages of its own and gets every item::

                        .-> [ relay ] -> branch 1 ... -.
    push(item) -> broadcast                             +-> [ relay ] -> down
                        `-> [ relay ] -> branch 2 ... -'

Guarantees:

* Every branch gets every item, in the order of the input. A branch that starts to work late
  misses nothing.
* A fast branch runs ahead of a slow one by at most the capacity of the relay in front of the slow
  one; then the broadcast waits. No branch can stall another for good, and none can grow without
  bound.
* The results of one branch stay in the order in which it gives them; between branches there is no
  order. The end is passed on when the last branch has ended.

Not guaranteed: copies. All branches get the same object, so they must not change it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.clock import yield_now
from aiopatterns.core.validate import text
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.isolation import Isolation
from aiopatterns.flow.stage import Node
from aiopatterns.flow.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.flow.batching import Batch
    from aiopatterns.flow.stage import Spawn, Stage

__all__ = ["Branches", "Broadcast", "Relay"]

# A full relay must not starve the loop: one forced turn in this many items.
_TURN: Final = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """One ``broadcast``: the stages of each branch."""

    branches: tuple[tuple[Stage | Batch | Branches, ...], ...]
    name: str = "broadcast"

    def __post_init__(self) -> None:
        text("name", self.name)


@final
class Broadcast(Node):
    """Gives every item to each of several nodes.

    Args:
        name: Name of the stage.
        branches: The nodes.
    """

    __slots__ = ("_branches",)

    def __init__(self, name: str, branches: Sequence[Node]) -> None:
        self.tally: Tally = Tally(name)
        self._branches = tuple(branches)

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        self.tally.started += 1
        for branch in self._branches:
            await branch.push(item)
        self.tally.done += 1

    async def end(self) -> None:
        """Take the end of the input; see :class:`Node`."""
        for branch in self._branches:
            await branch.end()


@final
class Relay(Node):
    """A bounded queue in front of a node, and the task that empties it.

    Items that wait here are counted as queued by the node behind it.

    Args:
        down: The node behind it.
        capacity: How many items may wait.
        producers: How often the end is told before it is the end.
    """

    __slots__ = ("_capacity", "_down", "_items", "_news", "_producers", "_room")

    def __init__(self, down: Node, *, capacity: int, producers: int = 1) -> None:
        self.tally: Tally = down.tally
        self._down = down
        self._capacity = capacity
        self._producers = producers
        self._items: deque[Any] = deque()
        self._room, self._news = Waiters(), Waiters()

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        self.tally.queued += 1
        while len(self._items) >= self._capacity:
            await self._room.wait()
        self._items.append(item)
        if self._news.parked:
            self._news.wake()

    async def end(self) -> None:
        """Take the end of the input; see :class:`Node`."""
        self._producers -= 1
        self._news.wake()

    def start(self, spawn: Spawn) -> None:
        """Start the tasks; see :class:`Node`."""
        spawn(self._relay, f"relay to {self.tally.name}")

    async def _relay(self) -> None:
        isolation = Isolation()
        items, tally, push, turn = self._items, self.tally, self._down.push, _TURN
        while items or self._producers:
            turn -= 1
            if not items or not turn:
                turn = _TURN
                await (yield_now() if items else self._news.wait())
                continue
            item = items.popleft()
            if self._room.parked:
                self._room.wake()
            tally.queued -= 1
            await (isolation.call(push, item) if isolation.spoiled() else push(item))
        await self._down.end()
