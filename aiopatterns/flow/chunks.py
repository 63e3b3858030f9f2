"""A source in chunks, whose size follows the time that an item takes.

::

    plain source  ---------------------------- next() ---> worker     pulled by who asks
    async source --> pump(): one task of its own --> next() ---> worker

A call to a process costs about 0.1 ms, so items travel in chunks. Their size aims at some time of
work; when the length of the source is known, no chunk is more than a share of what is left, so
that the last ones are small and the workers end together.

Guarantees:

* The source is pulled only for those who have asked, by one at a time, in order.
* An asynchronous source is read and closed by one task: its generator may hold a cancel scope or a
  task group, which must be left by the task that entered it. Plain generators are closed, too.

Source: guided self-scheduling, Polychronopoulos and Kuck, 1987.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from aiopatterns.core.notes import note
from aiopatterns.core.types import as_async_iterator, close
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aiopatterns.core.types import Source

__all__ = ["Chunk", "Feed", "Sizes"]

# A chunk grows by at most this factor over the one that was measured, so one lucky measurement of
# quick items does not put thousands of slow ones into one chunk.
_GROWTH: Final = 8
# Bounds the memory of a chunk where items take no time to speak of.
_MOST: Final = 16384
# Chunks left for each worker when the end of the source is near.
_SHARES: Final = 4


class Chunk(NamedTuple):
    """Some items of the source.

    Args:
        number: Which chunk it is, from 0.
        start: The position of its first item, from 0.
        items: The items.
    """

    number: int
    start: int
    items: list[Any]


@final
class Sizes:
    """How many items the next chunk takes.

    Args:
        fixed: A size for all of them; None measures.
        aim: Seconds of work that a chunk shall be.
        workers: How many chunks are worked on at once.
    """

    __slots__ = ("_aim", "_fixed", "_size", "_workers")

    def __init__(self, fixed: int | None, *, aim: float, workers: int) -> None:
        self._fixed = fixed
        self._aim = aim
        self._workers = workers
        self._size = 1

    def next(self, left: int | None) -> int:
        """Return the size for the next chunk; ``left`` items remain, None if that is not known."""
        if self._fixed is not None:
            return self._fixed
        if left is None:
            return self._size
        return max(1, min(self._size, -(-left // (_SHARES * self._workers))))

    def learn(self, count: int, elapsed: float) -> None:
        """Take the measured time of a chunk into account."""
        wanted = int(self._aim * count / elapsed) if elapsed > 0 else _MOST
        self._size = max(1, min(wanted, max(self._size, count * _GROWTH), _MOST))


@final
class Feed:
    """The source in chunks, for several who ask.

    Args:
        source: The source.
        sizes: Decides how many items a chunk has.

    Raises:
        TypeError: ``source`` cannot be iterated over.
    """

    __slots__ = (
        "_demand",
        "_items",
        "_left",
        "_over",
        "_pulled",
        "_ready",
        "_sizes",
        "_stream",
        "_supply",
        "_taken",
        "_wanted",
    )

    def __init__(self, source: Source[Any], sizes: Sizes) -> None:
        self._sizes = sizes
        self._stream: AsyncIterator[Any] | None = None
        self._items: Iterator[Any] = iter(())
        self._left: int | None = None
        if isinstance(source, AsyncIterable):
            self._stream = aiter(source)
        else:
            as_async_iterator("source", source)  # refuses what cannot be iterated
            self._left = len(source) if isinstance(source, Sized) else None
            self._items = iter(source)
        self._taken = self._pulled = self._wanted = 0
        self._over = False
        self._ready: deque[Chunk] = deque()
        self._demand = Waiters()
        self._supply = Waiters()

    @property
    def waits(self) -> bool:
        """Whether the source is asynchronous, so that :meth:`pump` must run."""
        return self._stream is not None

    async def next(self) -> Chunk | None:
        """Return the next chunk; None at the end of the source.

        Raises:
            Exception: What a plain source raised, with a note.
        """
        if self._stream is None:
            try:
                return self._chunk(list(islice(self._items, self._size())))
            except Exception as error:
                self._blame(error)
                raise
        self._wanted += 1
        self._demand.wake()
        while not self._ready and not self._over:
            await self._supply.wait()
        return self._ready.popleft() if self._ready else None

    async def pump(self) -> None:
        """Read the asynchronous source for those who ask, and close it.

        Raises:
            Exception: What the source raised, with a note.

        Cancellation: the source is closed.
        """
        try:
            while not self._over:
                while not self._wanted:
                    await self._demand.wait()
                self._wanted -= 1
                await self._read()
        except Exception as error:
            self._blame(error)
            raise
        finally:
            self._over = True
            self._supply.wake_all()
            await close(self._stream)

    async def close(self) -> None:
        """Close a plain generator; :meth:`pump` closes an asynchronous one."""
        await close(self._items)

    def learn(self, chunk: Chunk, elapsed: float) -> None:
        """Take the measured time of a chunk into account."""
        self._sizes.learn(len(chunk.items), elapsed)

    async def _read(self) -> None:
        assert self._stream is not None, "only an asynchronous source is pumped"
        items: list[Any] = []
        size = self._size()
        while len(items) < size and not self._over:
            try:
                items.append(await anext(self._stream))
            except StopAsyncIteration:
                self._over = True
        chunk = self._chunk(items)
        if chunk is not None:
            self._ready.append(chunk)
            self._supply.wake()

    def _size(self) -> int:
        return self._sizes.next(None if self._left is None else self._left - self._taken)

    def _chunk(self, items: list[Any]) -> Chunk | None:
        if not items:
            return None
        chunk = Chunk(self._pulled, self._taken, items)
        self._pulled += 1
        self._taken += len(items)
        return chunk

    def _blame(self, error: Exception) -> None:
        note(error, f"map_reduce: raised by the source after {self._taken} items")
