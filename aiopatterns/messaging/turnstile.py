"""The turnstile: of the consumers of a group that keeps keys in order, one at a time claims.

::

    standing by --lease taken--> takes over what is in hand --> claims, renews the lease
         ^                                                              |
         '--------- the lease is lost, or may be: lets go of all -------'

Order by a key that only the consumer knows (a function of the message) can be kept over several
processes in one way: by one of them at a time. The others stand by, and one of them goes on when
the one that claims leaves, or has been silent for the life of the lease. It first takes over, in
the order of the stream, whatever was in hand, and only then claims what is fresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from anyio import move_on_after

from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Held, Lease
    from aiopatterns.messaging.fetcher import Fetcher

__all__ = ["STANDBY", "Turnstile"]

#: Seconds between two looks of a consumer that stands by; who leaves is followed no later.
STANDBY: Final = 0.8


@final
class Turnstile:
    """Lets a fetcher claim as long as it holds the lease of its group.

    Args:
        lease: The lease.
        fetcher: Paused at the beginning.
        ttl: Life of the lease, in seconds.
    """

    __slots__ = ("_fetcher", "_held", "_lease", "_ttl")

    def __init__(self, lease: Lease, fetcher: Fetcher, *, ttl: float) -> None:
        self._lease = lease
        self._fetcher = fetcher
        self._ttl = ttl
        self._held: Held | None = None

    @property
    def holds(self) -> bool:
        """Whether this consumer is the one that claims."""
        return self._held is not None

    async def run(self) -> None:
        """Stand by, claim, and stand by again."""
        while True:
            asked = monotonic()
            self._held = await self._asked()
            if self._held is None:
                await sleep(min(STANDBY, self._ttl) * (0.75 + 0.25 * rng().random()))
                continue
            self._fetcher.resume(inherits=True)
            await self._keep(self._held, asked + self._ttl)
            self._held = None
            self._fetcher.pause()
            self._fetcher.give_up()

    async def leave(self) -> None:
        """Let another one go on at once."""
        held, self._held = self._held, None
        if held is not None:
            try:
                await held.release()
            except BackendError:
                return  # it ends by itself

    async def _asked(self) -> Held | None:
        try:
            return await self._lease.try_acquire(ttl=self._ttl)
        except BackendError:  # the fetcher tells of outages
            return None

    async def _keep(self, held: Held, until: float) -> None:
        """Renew the lease; return when it is lost, or may be."""
        while monotonic() < until:
            await sleep(min(self._ttl / 4, until - monotonic()))
            asked, renewed = monotonic(), None
            with move_on_after(max(until - asked, 0.0)):
                renewed = await _renewed(held)
            if renewed is False:
                return
            if renewed:
                until = asked + self._ttl


async def _renewed(held: Held) -> bool | None:
    """Renew a lease; whether it was, or None if nobody knows."""
    try:
        return await held.renew()
    except BackendError:
        return None
