"""One watch of one service for all who want it in this process.

::

    directory --- one watch ---> Feed --- book ---> newest Snapshot --+--> ServiceWatch
                                                                      `--> ServiceWatch

The feed looks while somebody watches, and survives whatever the backend does: an outage only means
that nothing is new. A watch of the backend does not tell that it cannot look, so the feed asks when
it is overdue. A watcher holds no queue; it takes the newest snapshot when it comes round, and skips
what it missed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

from anyio import CancelScope, create_task_group, current_time, move_on_after

from aiopatterns.cluster.contact import AGAIN
from aiopatterns.cluster.registration import directory_name
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError, ClosedError
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.protocols import Backend, Watching
    from aiopatterns.cluster.book import Book
    from aiopatterns.cluster.contact import Contact
    from aiopatterns.cluster.snapshot import Snapshot

__all__ = ["Feed", "ServiceWatch"]

# Intervals without a look after which a watch is overdue.
_OVERDUE: Final = 2.5


@final
class Feed:
    """The shared watch of one service.

    Args:
        book: What is known of it.
        backend: Where it is looked for.
        contact: Told whether the backend answers.
        interval: Seconds between two looks.
    """

    __slots__ = (
        "_backend",
        "_changes",
        "_contact",
        "_interval",
        "_late",
        "_looked",
        "_scope",
        "book",
        "watches",
    )

    def __init__(self, book: Book, backend: Backend, contact: Contact, *, interval: float) -> None:
        self.book: Book = book
        self.watches: set[ServiceWatch] = set()
        self._changes: Watching | None = None
        self._looked = False  # whether a look has succeeded, or failed
        self._backend = backend
        self._contact = contact
        self._interval = interval
        self._scope, self._late = CancelScope(), CancelScope()

    async def run(self) -> None:
        """Look until :meth:`stop`; an outage of the backend ends nothing."""
        try:
            with self._scope:
                async with create_task_group() as tasks:
                    tasks.start_soon(self._see_to_it)
                    await self._look()
        except BaseExceptionGroup as errors:
            raise_bare(errors)

    def stop(self) -> None:
        """Look no more."""
        self._scope.cancel()

    def close(self) -> None:
        """End the watches: the registry is closed."""
        for watch in self.watches:
            watch.close()

    @property
    def known(self) -> Snapshot | None:
        """The last good snapshot, with its age; None before the first.

        What was known before this feed began may be old, and counts only once a look has failed.
        """
        self.confirm()
        return self.book.known if self._looked else None

    def confirm(self) -> None:
        """Note in the book when the backend held it last."""
        if self._changes is not None:
            self.book.confirm(self._changes.confirmed)

    def heed(self, *, changed: bool) -> None:
        """The book was written in: give all watchers what is known now, if that is another."""
        self._late.deadline = current_time() + self.book.due()
        if changed or not self._looked:
            self._offer()

    def _offer(self) -> None:
        """Give all watchers what is known."""
        self._looked = True
        for watch in self.watches:
            watch.offer()

    def _missed(self, error: BackendError | None = None) -> None:
        """A look failed, or takes too long: what was known before is better than nothing."""
        if error is not None:
            self._contact.failed(error)
        if not self._looked and self.book.known is not None:
            self._offer()

    async def _look(self) -> None:
        """Watch the directory, and begin anew when that ends."""
        directory = self._backend.directory(directory_name(self.book.service))
        failures = 0
        while True:
            try:
                async with directory.watch(interval=self._interval) as changes:
                    failures, self._changes = 0, changes
                    await self._follow(changes)
            except BackendError as error:
                failures += 1
                self._missed(error)
            await sleep(AGAIN.delay(max(failures, 1), rng=rng()))

    async def _follow(self, changes: Watching) -> None:
        """Take in what is new, and let go whoever was stale for long enough."""
        while True:
            with move_on_after(self.book.due()) as self._late:
                try:
                    members = await anext(changes)
                except StopAsyncIteration:
                    return
                self._contact.answered(asked=changes.confirmed)
                self.heed(changed=self.book.take(members, asked=changes.confirmed))
            if self._late.cancelled_caught:
                self.heed(changed=self.book.look())

    async def _see_to_it(self) -> None:
        """Find out why the watch has not looked for too long, or note that it does again."""
        while True:
            await sleep(self._interval)
            seen = -math.inf if self._changes is None else self._changes.confirmed
            self._contact.answered(asked=seen)
            if monotonic() - seen <= _OVERDUE * self._interval:
                continue
            self._missed()
            try:
                await self._backend.time()
            except BackendError as error:
                self._missed(error)


@final
class ServiceWatch:
    """Snapshots of one service as they change; made by ``registry.watch(...)``.

    The newest only: the first comes at once, and then one for each change, however many there were
    since. An async iterator, inside ``async with``; it ends with the block or with the registry.
    """

    __slots__ = ("_attach", "_begun", "_detach", "_feed", "_news", "_waiters")

    def __init__(
        self, attach: Callable[[ServiceWatch], Feed], detach: Callable[[ServiceWatch], object]
    ) -> None:
        self._attach = attach
        self._detach = detach
        self._feed: Feed | None = None
        self._begun = False
        self._news = False
        self._waiters = Waiters()

    async def __aenter__(self) -> Self:
        """Begin to watch.

        Raises:
            RuntimeError: This watch is open already.
            ClosedError: The registry is not open.
        """
        if self._feed is not None:
            msg = "this watch is open already; enter it only once"
            raise RuntimeError(msg)
        self._feed = feed = self._attach(self)
        self._begun = True
        self._news = feed.known is not None
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self._detach(self)
        self.close()

    def __aiter__(self) -> Self:
        """Return this iterator."""
        return self

    async def __anext__(self) -> Snapshot:
        """Wait for the newest snapshot.

        Raises:
            ClosedError: The block has not begun.

        Cancellation: loses nothing.
        """
        if not self._begun:
            msg = "this watch is not open; use it inside 'async with registry.watch(...) as snapshots:'"
            raise ClosedError(msg)
        while (feed := self._feed) is not None:
            if self._news and (known := feed.known) is not None:
                self._news = False
                return known
            await self._waiters.wait()
        raise StopAsyncIteration

    def offer(self) -> None:
        """There is something new."""
        self._news = True
        self._waiters.wake_all()

    def close(self) -> None:
        """End the iteration."""
        self._feed = None
        self._waiters.wake_all()
