"""Courier: what goes to other brokers, all of a turn in one go.

::

    request --.
    publish --+--> outgoing --> one of :data:`COURIERS` tasks --> publish_many --> inboxes
    reply   --'                                                        |
    told(how many received it, or why not) <---------------------------'

Nobody waits for the network but the couriers, so a deadline never has to be carried into it: who
has no more use for a parcel that has not left simply says so. Several batches may be on their way
at a time, which is what keeps a long round trip from holding up all others; they leave in the
order in which they were handed in.

Guarantees: each parcel that was handed in is told once how it went, unless it is not wanted any
more; in an outage as well, and at the end: :meth:`Courier.close` tells those that may not have
left. Not guaranteed: order across an outage.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import TYPE_CHECKING, Final, Protocol, final

from aiopatterns.backends.records import Notice
from aiopatterns.core.errors import BackendError, ClosedError
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiopatterns.backends.protocols import PubSub
    from aiopatterns.core.errors import AioPatternsError

__all__ = ["COURIERS", "MAX_OUTGOING", "Courier", "Parcel"]

#: Batches on their way at most.
COURIERS: Final = 4
#: Parcels that wait for a courier at most.
MAX_OUTGOING: Final = 65_536

# Parcels in one batch at most.
_BATCH: Final = 256


class Parcel(Protocol):
    """What is sent to one broker."""

    @property
    def wanted(self) -> bool:
        """Whether it still has to be sent."""
        ...

    @property
    def channel(self) -> str:
        """Where it goes."""
        ...

    @property
    def data(self) -> bytes:
        """What it is."""
        ...

    def told(self, result: int | AioPatternsError) -> None:
        """Take how many have received it, or why it could not be sent."""
        ...


@final
class Courier:
    """Sends parcels.

    Args:
        pubsub: Where they go.
        counts: Whether the number of receivers that the backend gives is that of all.
        failed: Told when a batch could not be sent.
    """

    __slots__ = (
        "_closed",
        "_counts",
        "_cut_off",
        "_failed",
        "_idle",
        "_outgoing",
        "_pubsub",
        "_under_way",
        "_waiters",
    )

    def __init__(
        self, pubsub: PubSub, *, counts: bool, failed: Callable[[BackendError], object]
    ) -> None:
        self._failed = failed
        self._pubsub = pubsub
        self._counts = counts
        self._outgoing: deque[Parcel] = deque()
        self._waiters = Waiters()
        self._idle = Waiters()
        self._under_way = 0
        self._cut_off: list[Parcel] = []  # on their way when their courier was cancelled
        self._closed = False

    def __len__(self) -> int:
        """Return how many parcels have not been told how it went."""
        return len(self._outgoing) + self._under_way

    def post(self, parcel: Parcel) -> bool:
        """Hand ``parcel`` in; False if too many wait already."""
        outgoing = self._outgoing
        if self._closed:
            parcel.told(_closed())
            return True
        if len(outgoing) >= MAX_OUTGOING:
            return False
        outgoing.append(parcel)
        if len(outgoing) == 1:
            self._waiters.wake()
        return True

    async def carry(self) -> None:
        """Send what is handed in, for ever.

        Cancellation: what is on its way may arrive or not.
        """
        while True:
            while not self._outgoing:
                await self._waiters.wait()
            await self._send(self._take())

    async def flush(self) -> None:
        """Wait until nothing is left to be sent."""
        while len(self):
            await self._idle.wait()

    async def finish(self) -> None:
        """Send what was handed in, for the couriers have ended."""
        while self._outgoing:
            await self._send(self._take())

    def close(self) -> None:
        """Tell all that may not have left, and whatever is handed in from now on."""
        self._closed = True
        for parcel in (*self._cut_off, *self._outgoing):
            if parcel.wanted:
                parcel.told(_closed())
        self._cut_off.clear()
        self._outgoing.clear()

    def _take(self) -> list[Parcel]:
        """Return the next batch; what remains is another courier's."""
        outgoing, batch = self._outgoing, list[Parcel]()
        while outgoing and len(batch) < _BATCH:
            parcel = outgoing.popleft()
            if parcel.wanted:
                batch.append(parcel)
        if outgoing:
            self._waiters.wake()
        return batch

    async def _send(self, batch: list[Parcel]) -> None:
        self._under_way += len(batch)
        try:
            results = await self._results(batch)
            for parcel, result in zip(batch, results, strict=True):
                parcel.told(result)
        except BaseException:
            self._cut_off += batch
            raise
        finally:
            self._under_way -= len(batch)
            if not len(self):
                self._idle.wake_all()

    async def _results(self, batch: list[Parcel]) -> Sequence[int | AioPatternsError]:
        notices = [Notice(parcel.channel, parcel.data) for parcel in batch]
        try:
            received = await self._pubsub.publish_many(notices)
        except BackendError as error:
            self._failed(error)
            return [copy(error) for _ in batch]  # no two may share a traceback
        # A node of a cluster counts only those who are connected to it.
        return received if self._counts else [max(1, count) for count in received]


def _closed() -> ClosedError:
    return ClosedError("the broker was closed; what was to be sent may have been or not")
