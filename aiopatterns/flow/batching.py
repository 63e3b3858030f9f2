"""Items in batches, by number and by time, without overflow.

Writing rows one by one is slow, and waiting for a full batch is slow when few rows come. A batch
is passed on when it is full, or when its first item has waited ``within`` seconds, or when the
input ends::

    push(item) --> [ filling batch, at most `size` ] --taken when full, due, or at the end--> down
                          ^ timer starts with the first item of *this* batch

Guarantees:

* Every item is in exactly one batch, in the order of the input; no batch is empty or has more than
  ``size`` items.
* Time is that of one batch: the timer starts with its first item and is disarmed when the batch is
  taken, so it never cuts the next one short.
* A slow consumer overflows nothing. While it works on one batch, the next fills up to ``size``,
  due or not, and then the producer waits.
* Memory is what the batch holds: a huge ``size`` costs nothing until the items come.

Not guaranteed: a batch is passed on within the time only if whoever follows is ready to take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, final

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.validate import count, optional_positive, text
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.isolation import Isolation
from aiopatterns.flow.stage import Node
from aiopatterns.flow.tally import Tally

if TYPE_CHECKING:
    from aiopatterns.flow.stage import Spawn

__all__ = ["Batch", "Batching"]


class _Timer(Protocol):
    def cancel(self) -> object: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One ``batch``; its fields are explained at ``Pipeline.batch``.

    Raises:
        ValueError: A number is out of its range.
        TypeError: A number is of the wrong type.
    """

    size: int
    within: float | None = None
    name: str = "batch"

    def __post_init__(self) -> None:
        count("size", self.size)
        optional_positive("within", self.within)
        text("name", self.name)


@final
class Batching(Node):
    """The runtime of one batch stage.

    Args:
        batch: The stage.
        down: What follows.

    The latency it counts is the time from the first item of a batch until it was taken.
    """

    __slots__ = ("_began", "_down", "_due", "_ended", "_items", "_news", "_room", "_spec", "_timer")

    def __init__(self, batch: Batch, down: Node) -> None:
        self.tally: Tally = Tally(batch.name)
        self._spec = batch
        self._down = down
        self._items: list[Any] = []
        self._began = 0.0
        self._due = self._ended = False
        self._timer: _Timer | None = None
        self._room, self._news = Waiters(), Waiters()

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        self.tally.queued += 1
        while len(self._items) >= self._spec.size:
            await self._room.wait()
        self._add(item)

    async def end(self) -> None:
        """Take the end of the input; see :class:`Node`."""
        self._ended = True
        self._news.wake()

    def start(self, spawn: Spawn) -> None:
        """Start the tasks; see :class:`Node`."""
        spawn(self._emit, f"batches of {self.tally.name}")

    def stop(self) -> None:
        """Disarm the timers; see :class:`Node`."""
        if self._timer is not None:
            self._timer.cancel()

    async def _emit(self) -> None:
        """Pass batches on until the input has ended."""
        isolation = Isolation()
        push = self._down.push
        while True:
            if self._ready():
                batch = self._take()
                await (isolation.call(push, batch) if isolation.spoiled() else push(batch))
            elif self._ended:
                break
            else:
                await self._news.wait()
        await self._down.end()

    # -- synchronous core

    def _add(self, item: Any) -> None:
        """Put an item into the batch; the first one starts its timer."""
        items = self._items
        items.append(item)
        if len(items) == 1:
            self._began = monotonic()
            if self._spec.within is not None:
                self._timer = call_later(self._spec.within, self._ring)
        if self._ready():
            self._news.wake()

    def _ready(self) -> bool:
        """Whether there is a batch to take now."""
        full = len(self._items) >= self._spec.size
        return full or (bool(self._items) and (self._due or self._ended))

    def _take(self) -> list[Any]:
        """Take the batch, and make room for the next."""
        taken, self._items = self._items, []
        self._due = False
        self.stop()
        self._timer = None
        self.tally.queued -= len(taken)
        self.tally.started += len(taken)
        self.tally.done += len(taken)
        self.tally.latency.record(monotonic() - self._began)
        self._room.wake()
        return taken

    def _ring(self) -> None:
        """The time of the batch that fills is over; the timers of others are disarmed."""
        self._due = True
        self._news.wake()
