"""Presence: a broker in the directory of brokers, and what it sees of the others there.

Two loops::

    keep    listing --(when it changes, after a gap, every TTL/3)--> directory
    watch   directory --(a live message, or every INTERVAL)--> routes

An outage ends neither: it is told once, and once again when it is over. Until then all is as it
was known last, for who lists nobody has not said that nobody is there.

A change is *in force* here when the directory has it and this broker has seen it there. Others
have then been told as well, by the same live message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from anyio import Event as Bell
from anyio import move_on_after

from aiopatterns.core.clock import rng, sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.waiters import Waiters
from aiopatterns.messaging.brokerevents import BrokerInterrupted, BrokerResumed
from aiopatterns.messaging.listing import TTL, Listing, read_edition
from aiopatterns.messaging.routes import KEEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.protocols import Directory
    from aiopatterns.backends.records import Members
    from aiopatterns.messaging.listing import Listed
    from aiopatterns.messaging.routes import Peer, Routes

__all__ = ["INTERVAL", "SEEN_WITHIN", "Presence"]

#: Seconds after which a broker looks by itself, if no live message came.
INTERVAL: Final = 1.0
#: Seconds that a change waits to be seen here, once the directory has it.
SEEN_WITHIN: Final = 1.0
# Seconds until a backend that did not answer is asked again, at most.
_RETRY: Final = 1.0


@final
class Presence:
    """What a broker tells and sees in the directory.

    Args:
        name: The broker's name, for events.
        directory: The directory of brokers.
        routes: What it sees.
        buried: Told of each broker that has gone for good.
    """

    __slots__ = (
        "_bell",
        "_buried",
        "_changed",
        "_departing",
        "_directory",
        "_edition",
        "_ended",
        "_interrupted",
        "_listed",
        "_missing",
        "_name",
        "_revision",
        "_routes",
        "_seen",
        "_told",
    )

    def __init__(
        self,
        name: str,
        directory: Directory,
        routes: Routes,
        *,
        buried: Callable[[Peer], object],
    ) -> None:
        self._name = name
        self._directory = directory
        self._routes = routes
        self._buried = buried
        self._listed: dict[int, Listed] = {}
        self._edition = self._revision = 0
        self._departing = self._ended = False
        self._told = self._seen = -1  # the newest edition that the directory has, that was seen
        self._changed = Waiters()  # who waits for one of these to grow
        self._bell = Bell()  # rings when there is something to tell
        self._missing = Bell()  # rings when a broker is listed no more
        self._interrupted = False

    @property
    def connected(self) -> bool:
        """Whether the backend answered when it was last asked."""
        return not self._interrupted

    def list(self, listed: Listed) -> None:
        """List a subscription; it is in force here at once."""
        self._routes.list_here(listed)
        self._listed[listed.number] = listed
        self._change()

    def unlist(self, number: int) -> None:
        """List it no more; harmless if it is not listed."""
        listed = self._listed.pop(number, None)
        if listed is not None:
            self._routes.unlist_here(listed)
            self._change()

    def depart(self) -> None:
        """List nothing to others from now on: this broker is about to leave."""
        self._departing = True
        self._change()

    def renew(self) -> None:
        """Tell the directory again, now: it may have lost what it was told."""
        self._bell.set()

    async def in_force(self, within: float) -> bool:
        """Wait until the newest change is in force; return whether the directory has it.

        Args:
            within: Seconds to wait for the directory.
        """
        edition = self._edition
        with move_on_after(within):
            while self._told < edition and not self._ended:
                await self._changed.wait()
        if self._told < edition:
            return False
        with move_on_after(SEEN_WITHIN):
            while self._seen < edition and not self._ended:
                await self._changed.wait()
        return True

    async def look(self) -> None:
        """Look into the directory once. 1 round trip; raises as that does."""
        snapshot = await self._directory.snapshot()
        if snapshot.revision >= self._revision:  # else the watch has seen a newer one meanwhile
            self._heed(snapshot)

    async def keep(self) -> None:
        """Keep this broker listed, for ever."""
        while True:
            self._bell = Bell()
            try:
                await self._tell()
            except BackendError as error:
                self.lost(error)
                await sleep(_RETRY * (0.5 + rng().random()) / 1.5)
                continue
            self._found()
            with move_on_after(TTL / 3):
                await self._bell.wait()

    async def watch(self) -> None:
        """Follow the directory, for ever."""
        while True:
            try:
                await self._follow()
            except BackendError as error:
                self.lost(error)
            await sleep(_RETRY * rng().random())

    async def bury(self) -> None:
        """Forget brokers that stay away, for ever."""
        while True:
            await self._missing.wait()
            await sleep(KEEP)
            self._missing = Bell()
            for peer in self._routes.bury():
                self._buried(peer)
            if self._routes.missing:
                self._missing.set()

    def end(self) -> None:
        """Let nobody wait any more: the loops have ended."""
        self._ended = True
        self._changed.wake_all()

    async def leave(self) -> None:
        """Be out of the directory. 1 round trip; raises as that does."""
        await self._directory.remove(self._routes.here.member)

    def _change(self) -> None:
        self._edition += 1
        self._bell.set()

    async def _follow(self) -> None:
        async with self._directory.watch(interval=INTERVAL) as snapshots:
            async for snapshot in snapshots:
                self._heed(snapshot)

    async def _tell(self) -> None:
        listed = () if self._departing else tuple(self._listed.values())
        listing = Listing(self._edition, listed)
        await self._directory.put(self._routes.here.member, listing.encode(), ttl=TTL)
        self._told = listing.edition
        self._changed.wake_all()

    def _heed(self, snapshot: Members) -> None:
        """Take what the directory says."""
        self._revision = snapshot.revision
        own = snapshot.members.get(self._routes.here.member)
        if own is not None:
            self._seen = max(self._seen, read_edition(own))
            self._changed.wake_all()
        elif self._told >= 0:
            self._bell.set()  # it has forgotten
        self._routes.heed(snapshot.members)
        if self._routes.missing:
            self._missing.set()

    def _found(self) -> None:
        """The backend has answered."""
        if self._interrupted:
            self._interrupted = False
            if listening():
                emit(BrokerResumed(self._name))

    def lost(self, error: BackendError) -> None:
        """The backend has not answered, whoever asked it."""
        if not self._interrupted:
            self._interrupted = True
            if listening():
                emit(BrokerInterrupted(self._name, str(error)))
