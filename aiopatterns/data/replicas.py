"""Routing to replicas: writes to the primary, reads to copies that are fresh enough.

A primary that serves every read is the first thing to be full. Copies take reads off it, but they
are late, so a user who has just written may not find what he wrote, or may find it and lose it with
the next click. A router sends each block of reads where that cannot happen::

    write() ------------------------------------------------------------> primary
                                                                             ^
    read() --> a copy that answers, is late by max_lag at most,              |
               and has come as far as the session needs --> there            |
                   | none                                                    |
                   `--> wait max_wait for one --> none --> [ bulkhead ] -----'

The caller says what is a read; no statement is parsed. A block stays where it has begun.

Guarantees:

* *Read your writes*: a read block in a session sees what write blocks of this session have
  committed before, also those that failed or were cancelled and committed all the same.
* *Monotonic reads*: it sees at least what read blocks of this session saw that have ended before.
* Both hold through tokens as well, in other processes, and cost a question only when a session
  moves from one place to another.
* No read goes to a copy that was known to be late by more than the limit, or that has not answered
  lately. One that fails a block is asked at once.
* Reads at the primary, for whatever reason, pass one bulkhead: copies that die take the reads
  with them that are too many, not the primary.

Not guaranteed: a lag is as old as the last look, ``interval + timeout`` at most, and outside of a
session two reads may go back in time. After a failover that lost writes, sessions that saw these
read at the primary until it has come as far; nothing brings the writes back. A copy that restarts
between two looks, and nobody notices, may be some writes behind what it has shown before.

Sources: Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994); django-
multidb-router pins by time, for 15 s, where this one knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from anyio import create_task_group, move_on_after

from aiopatterns.core.clock import sleep
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.validate import instance, non_negative, positive
from aiopatterns.data.position import Position
from aiopatterns.data.replica import Follower, Replica
from aiopatterns.data.routing import ReadBlock, Routes, WriteBlock
from aiopatterns.data.session import ReplicaSession
from aiopatterns.resilience.bulkhead import Bulkhead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from aiopatterns.data.replica import ReplicaStatistics

__all__ = ["ReplicaRouter", "ReplicaRouterStatistics"]

N = TypeVar("N", bound=Replica)

#: Seconds between two looks at a copy while reads wait for it.
_HURRY: Final = 0.005
_FALLBACK: Final = 16
_FALLBACK_QUEUE: Final = 64
_FALLBACK_WAIT: Final = 1.0


@final
@dataclass(frozen=True, slots=True)
class ReplicaRouterStatistics:
    """What a router knows and has done.

    Attributes:
        replicas: One record for each copy.
        writes: Blocks that were sent to the primary to write.
        reads: Blocks that were sent to copies.
        fallbacks: Blocks of reads that were sent to the primary.
        waited: Blocks of reads that waited for a copy to come as far as their session.
    """

    replicas: tuple[ReplicaStatistics, ...]
    writes: int
    reads: int
    fallbacks: int
    waited: int


@final
class ReplicaRouter(Owner, Generic[N]):
    """Send writes to the primary and reads to copies that are fresh enough.

    Args:
        primary: Where writes go.
        replicas: Its copies; without any, every read goes to the primary.
        max_lag: Seconds that a copy may be behind and still be read. Once lost, it comes back at
            half of that.
        max_wait: Seconds that a read waits for a copy that is not as far as its session.
        interval: Seconds between two looks at a copy.
        timeout: Seconds that a database has to tell its position; a copy that takes longer is lost.
        fallback: What reads at the primary pass; unless given, 16 at once, and 64 wait a second.
        name: What events call it.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of range, or two databases have one name.

    Example::

        async with ReplicaRouter(primary, [left, right]) as router, router.session():
            async with router.write() as node, node.borrow() as connection:
                await connection.execute("INSERT ...")
            async with router.read() as node, node.borrow() as connection:
                await connection.execute("SELECT ...")  # sees the insert, wherever it runs
    """

    __slots__ = (
        "_followers",
        "_interval",
        "_routes",
    )

    def __init__(
        self,
        primary: N,
        replicas: Sequence[N],
        *,
        max_lag: float = 1.0,
        max_wait: float = 0.1,
        interval: float = 0.5,
        timeout: float = 1.0,
        fallback: Bulkhead | None = None,
        name: str = "replicas",
    ) -> None:
        super().__init__(name)
        nodes = _distinct(primary, replicas)
        positive("max_lag", max_lag, finite=False)
        non_negative("max_wait", max_wait)
        self._interval = positive("interval", interval)
        positive("timeout", timeout)
        if fallback is None:
            fallback = Bulkhead(_FALLBACK, max_queue=_FALLBACK_QUEUE, max_wait=_FALLBACK_WAIT)
        instance("fallback", fallback, Bulkhead, "a Bulkhead")
        max_age = interval + 2 * timeout
        self._followers = [
            Follower(node, router=name, max_lag=max_lag, max_age=max_age) for node in nodes
        ]
        self._routes: Routes[N] = Routes(
            primary,
            self._followers,
            fallback=fallback,
            max_wait=max_wait,
            timeout=timeout,
            check=self._open_group,
        )

    def write(self) -> WriteBlock[N]:
        """Return an ``async with`` block that gives the primary.

        In a session, its end asks the primary how far it has come; the block has ended well also
        if that fails, and the session asks again when it needs to know.

        Raises (on entering):
            ClosedError: The router is not open.
        """
        return WriteBlock(self._routes)

    def read(self, *, max_lag: float | None = None) -> ReadBlock[N]:
        """Return an ``async with`` block that gives a database to read from.

        Args:
            max_lag: Seconds that a copy may be behind for this block, instead of the router's.

        Raises:
            TypeError: ``max_lag`` is no number.
            ValueError: It is not above 0.

        Raises (on entering):
            ClosedError: The router is not open.
            BulkheadFullError: No copy will do, and too many read at the primary already.

        Cancellation: while it waits, nothing is held.
        """
        if max_lag is not None:
            positive("max_lag", max_lag, finite=False)
        return ReadBlock(self._routes, max_lag)

    def session(self, token: str | None = None) -> ReplicaSession:
        """Return an ``async with`` block in which reads see earlier writes and never go back.

        Args:
            token: Of a session to go on with, as :meth:`ReplicaSession.token` told it.

        Raises:
            TypeError: ``token`` is no text.
            ValueError: It is no token.
        """
        return ReplicaSession(self._routes, None if token is None else Position.parse(token))

    def statistics(self) -> ReplicaRouterStatistics:
        """Return what it knows and has done."""
        routes = self._routes
        return ReplicaRouterStatistics(
            tuple(each.statistics() for each in self._followers),
            routes.writes,
            routes.reads,
            routes.fallbacks,
            routes.waited,
        )

    # --------------------------------------------------------------------------- private core

    async def _start(self, tasks: TaskGroup) -> None:
        """Look at all copies, for ``timeout`` at most, and go on looking."""
        async with create_task_group() as first:
            for each in self._followers:
                first.start_soon(self._routes.look_at, each)
        for each in self._followers:
            tasks.start_soon(self._watch, each)

    async def _watch(self, follower: Follower[N]) -> None:
        """Look at a copy again and again, more often while reads wait."""
        while True:
            if self._routes.waiting:
                await sleep(_HURRY)
            else:
                with move_on_after(self._interval):
                    await follower.nudge.wait()
            await self._routes.look_at(follower)


def _distinct(primary: N, replicas: Sequence[N]) -> list[N]:
    """Return the copies as a list.

    Raises:
        TypeError: One is no database that tells its position.
        ValueError: Two have one name.
    """
    nodes = list(replicas)
    for each in (primary, *nodes):
        instance("primary and replicas", each, Replica, "objects with name, position() and lag()")
    names = [each.name for each in (primary, *nodes)]
    if len(set(names)) < len(names):
        msg = f"primary and replicas must have different names, not {names!r}"
        raise ValueError(msg)
    return nodes
