"""Which server a command goes to: one server, the master that Sentinels name, or a cluster's node.

A route gives commands to pipelines, one for each server, and knows what a failure says about the
map. The client asks it to issue a command, and to issue it again after a failure; everything else
(whether that is allowed, how often, when to give up) is the client's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from aiopatterns.backends.redis.errors import RefusalError
from aiopatterns.backends.redis.pipeline import Pipeline

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from aiopatterns.backends.redis.connection import Command, Waiting
    from aiopatterns.backends.redis.errors import Failure
    from aiopatterns.backends.redis.statistics import Tally
    from aiopatterns.backends.url import Address, Target

__all__ = ["Route", "SingleRoute", "make_route"]


class Route(Protocol):
    """How commands find their server; on one loop, from opening to closing."""

    @property
    def in_flight(self) -> int:
        """How many commands wait for their replies."""
        ...

    async def open(self) -> Failure | None:
        """Learn the map; a failure if nobody tells it."""
        ...

    @property
    def servers(self) -> tuple[Address | None, ...]:
        """All servers that hold keys; None stands for the only one."""
        ...

    @property
    def send(self) -> Callable[[Command], Waiting]:
        """Issues a command."""
        ...

    def send_to(self, server: Address | None, command: Command) -> Waiting:
        """Issue a command to one of :attr:`servers`."""
        ...

    @property
    def get(self) -> Callable[[str], Waiting]:
        """Issues the read of one key, which holds a string or nothing."""
        ...

    def resend(self, command: Command, failure: Failure) -> Waiting:
        """Issue a command again, having learned from its failure."""
        ...

    def home(self, command: Command) -> Address | None:
        """Return the server that a line has to use for ``command``; None if any will do."""
        ...

    def redirected(self, failure: Failure) -> Address | None:
        """Return the server that a refusal names, having learned from it; None if it names none."""
        ...

    async def locate(self, home: Address | None) -> Address:
        """Return where to connect to for ``home``.

        Raises:
            UnsentError: Nobody knows.
        """
        ...

    def drop(self, why: str) -> list[asyncio.Future[None]]:
        """Hang up everywhere; returns whose end is to be awaited."""
        ...


@final
class SingleRoute:
    """All commands go to one server.

    Args:
        target: User, password, database and TLS.
        find: Tells where the server is now.
        patience: See :class:`Pipeline`.
        tally: Where to count.
    """

    __slots__ = ("_find", "_pipeline")

    def __init__(
        self,
        target: Target,
        find: Callable[[], Awaitable[Address]],
        *,
        patience: float,
        tally: Tally,
    ) -> None:
        self._find = find
        self._pipeline = Pipeline(target, find, patience=patience, tally=tally)

    @property
    def servers(self) -> tuple[Address | None, ...]:
        """There is one."""
        return (None,)

    def send_to(self, server: Address | None, command: Command) -> Waiting:
        """Issue a command to it."""
        del server
        return self._pipeline.send(command)

    @property
    def send(self) -> Callable[[Command], Waiting]:
        """Issues a command; the client keeps what this returns, for it is the pipeline's own."""
        return self._pipeline.send

    @property
    def get(self) -> Callable[[str], Waiting]:
        """Issues the read of one key; as :attr:`send`."""
        return self._pipeline.get

    @property
    def in_flight(self) -> int:
        """How many commands wait for their replies."""
        return self._pipeline.in_flight

    async def open(self) -> Failure | None:
        """There is no map."""
        return None

    def resend(self, command: Command, failure: Failure) -> Waiting:
        """Issue a command again; a server that is no master any more is looked for anew."""
        if isinstance(failure, RefusalError) and failure.code in {"READONLY", "MASTERDOWN"}:
            self._pipeline.renew("the server is no master any more")
        return self._pipeline.send(command)

    def home(self, command: Command) -> Address | None:
        """Any connection will do."""
        del command
        return None

    def redirected(self, failure: Failure) -> Address | None:
        """Nobody redirects."""
        del failure
        return None

    async def locate(self, home: Address | None) -> Address:
        """Return where the server is now."""
        del home
        return await self._find()

    def drop(self, why: str) -> list[asyncio.Future[None]]:
        """Hang up."""
        return self._pipeline.drop(why)


def make_route(target: Target, address: Address | None, *, patience: float, tally: Tally) -> Route:
    """Return the route for ``target``; must be called on the loop that will use it.

    Args:
        target: The checked URL.
        address: Where a private server listens, if one was started.
        patience: Seconds that a server may be silent.
        tally: Where to count.
    """
    if target.scheme == "redis+cluster":
        from aiopatterns.backends.redis.cluster import ClusterRoute

        return ClusterRoute(target, patience=patience, tally=tally)
    if target.scheme == "redis+sentinel":
        from aiopatterns.backends.redis.sentinel import finder

        return SingleRoute(target, finder(target, patience), patience=patience, tally=tally)

    async def find() -> Address:
        return address or target.addresses[0]

    return SingleRoute(target, find, patience=patience, tally=tally)
