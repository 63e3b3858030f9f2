"""Where the messages of a subscription wait for their reader: what both implementations share.

Whoever has a message puts it in, synchronously, and never waits; a reader takes one out when it
runs, so a cancelled wait loses none. A reader that is too slow loses the oldest and is told.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from aiopatterns.backends.records import Notice

__all__ = ["Inbox"]


class Inbox:
    """The reading half of a subscription: an async iterator of notices.

    Args:
        capacity: Messages that wait for the reader at most.
        on_gap: Called when messages may have been missed.

    Losses between two reads are one overflow: they count as one gap.

    Cancellation: a cancelled wait loses no message.
    """

    __slots__ = ("_capacity", "_inbox", "_on_gap", "_open", "_overflowing", "_waiters", "gaps")

    def __init__(self, *, capacity: int, on_gap: Callable[[], object] | None) -> None:
        self.gaps: int = 0
        self._capacity = capacity
        self._on_gap = on_gap
        self._inbox: deque[Notice] = deque()
        self._waiters = Waiters()
        self._open = False
        self._overflowing = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice:
        while not self._inbox:
            if not self._open:
                raise StopAsyncIteration
            await self._waiters.wait()
        self._overflowing = False
        return self._inbox.popleft()

    def deliver(self, notice: Notice) -> None:
        """Take a message in; beyond the capacity the oldest is lost."""
        if len(self._inbox) >= self._capacity:
            self._inbox.popleft()
            if not self._overflowing:
                self._overflowing = True
                self.report_gap()
        self._inbox.append(notice)
        self._waiters.wake()

    def report_gap(self) -> None:
        """Count a gap; what the callback raises is logged, for no publisher can help it."""
        self.gaps += 1
        if self._on_gap is None:
            return
        try:
            self._on_gap()
        except Exception:
            logging.getLogger("aiopatterns").exception("on_gap of a subscription failed")

    def _begin(self) -> None:
        """Let readers wait from now on.

        Raises:
            RuntimeError: They do already.
        """
        if self._open:
            msg = "this subscription is open already; enter it only once"
            raise RuntimeError(msg)
        self._open = True

    def _end(self) -> None:
        """Take no more; what was received can still be read, then the iteration ends."""
        self._open = False
        self._waiters.wake_all()
