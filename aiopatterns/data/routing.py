"""Where a block goes: the rules of routing to replicas, without background work.

The rules stand here by themselves: what is known of the copies comes in by
:meth:`Routes.look_at`, which the router calls again and again, and blocks ask where to go. A block
holds what it was given until its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from anyio import fail_after, move_on_after

from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.position import Position
from aiopatterns.data.replica import Replica
from aiopatterns.data.session import session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aiopatterns.data.replica import Follower
    from aiopatterns.data.session import ReplicaSession, Use
    from aiopatterns.resilience.bulkhead import Bulkhead

__all__ = ["ReadBlock", "Routes", "WriteBlock"]

N = TypeVar("N", bound=Replica)


@final
class Routes(Generic[N]):
    """The primary, its copies and who may go where.

    Args:
        primary: Where writes go.
        followers: What is known of each copy.
        fallback: What reads at the primary pass.
        max_wait: Seconds that a read waits for a copy that is not as far as its session.
        timeout: Seconds that a database has to tell its position.
        check: Called before each block; raises if there is nobody who looks at the copies.
    """

    __slots__ = (
        "_check",
        "_max_wait",
        "_moved",
        "_timeout",
        "_turn",
        "fallback",
        "fallbacks",
        "followers",
        "primary",
        "reads",
        "waited",
        "waiting",
        "writes",
    )

    def __init__(
        self,
        primary: N,
        followers: Sequence[Follower[N]],
        *,
        fallback: Bulkhead,
        max_wait: float,
        timeout: float,
        check: Callable[[], object],
    ) -> None:
        self.primary: Final[N] = primary
        self.followers: Final[Sequence[Follower[N]]] = followers
        self.fallback: Final[Bulkhead] = fallback
        self.waiting: int = 0
        self.writes: int = 0
        self.reads: int = 0
        self.fallbacks: int = 0
        self.waited: int = 0
        self._check = check
        self._max_wait = max_wait
        self._timeout = timeout
        self._moved = Waiters()
        self._turn = 0

    async def look_at(self, follower: Follower[N]) -> None:
        """Ask a copy how far it has come and how late it is."""
        try:
            with fail_after(self._timeout):
                lag = await follower.node.lag()
                position = await follower.node.position()
        except Exception as error:
            follower.failed(error)
        else:
            follower.measured(position, lag)
        self._moved.wake_all()

    def begin_write(self) -> N:
        """Return the primary.

        Raises:
            ClosedError: Nobody looks at the copies.
        """
        self._check()
        self.writes += 1
        return self.primary

    async def note_write(self, session: ReplicaSession, use: Use) -> None:
        """Ask the primary how far it has come by a write; if it does not tell, ask another time."""
        position = await self._ask(self.primary)
        if position is not None:
            session.settle(self.primary.name, use, position)

    async def place(
        self, session: ReplicaSession | None, max_lag: float | None
    ) -> Follower[N] | None:
        """Return the copy to read from, or None for the primary.

        Raises:
            ClosedError: Nobody looks at the copies.
        """
        self._check()
        if session is None:
            return self._pick(Position(), max_lag)
        stay = self._stay(session, max_lag)
        if stay is not None:
            return stay
        try:
            await self.settle(session)
        except BackendUnavailableError:
            return None
        return self._pick(session.required, max_lag) or await self._wait(session, max_lag)

    async def settle(self, session: ReplicaSession) -> None:
        """Ask how far the places have come that ``session`` has used since it was last known.

        Raises:
            BackendUnavailableError: The primary was needed for that and did not tell.
        """
        for name, use in list(session.used.items()):
            session.settle(name, use, await self._bound(name, use))

    # --------------------------------------------------------------------------- private core

    def _stay(self, session: ReplicaSession, max_lag: float | None) -> Follower[N] | None:
        """Return the copy that this session reads from, if it was used nowhere else since."""
        if len(session.used) != 1:
            return None
        ((name, use),) = session.used.items()
        for each in self._candidates(session.required, max_lag):
            if each.node.name == name and each.epoch == use.epoch:
                return each
        return None

    def _candidates(self, required: Position, max_lag: float | None) -> list[Follower[N]]:
        if max_lag is None:
            return [each for each in self.followers if each.usable and each.has(required)]
        return [each for each in self.followers if each.is_within(max_lag) and each.has(required)]

    def _pick(self, required: Position, max_lag: float | None) -> Follower[N] | None:
        """Return the copy with the fewest blocks in flight, equals in turn."""
        found = self._candidates(required, max_lag)
        if not found:
            return None
        self._turn += 1
        start = self._turn % len(found)
        return min(found[start:] + found[:start], key=lambda each: each.in_flight)

    async def _wait(self, session: ReplicaSession, max_lag: float | None) -> Follower[N] | None:
        """Wait for a copy to come as far as the session, as long as one may."""
        self.waited += 1
        self.waiting += 1
        try:
            with move_on_after(self._max_wait):
                return await self._caught_up(session, max_lag)
        finally:
            self.waiting -= 1
        return None

    async def _caught_up(
        self, session: ReplicaSession, max_lag: float | None
    ) -> Follower[N] | None:
        """Return the first copy that has come as far; None once there is none to wait for."""
        while self._candidates(Position(), max_lag):
            for each in self.followers:
                each.nudge.wake_all()
            await self._moved.wait()
            if (found := self._pick(session.required, max_lag)) is not None:
                return found
        return None

    async def _bound(self, name: str, use: Use) -> Position:
        """Return a position that is not before what was seen at a place."""
        for each in self.followers:
            if each.node.name == name and each.epoch == use.epoch:
                position = await self._ask(each.node)
                if position is not None and each.epoch == use.epoch:
                    return position
        position = await self._ask(self.primary)
        if position is None:
            raise BackendUnavailableError(f"{self.primary.name} does not tell its position")
        return position

    async def _ask(self, node: N) -> Position | None:
        try:
            with fail_after(self._timeout):
                return await node.position()
        except Exception:
            return None


@final
class WriteBlock(Generic[N]):
    """The block made by :meth:`~aiopatterns.data.replicas.ReplicaRouter.write`.

    Args:
        routes: Whose it is.
    """

    __slots__ = ("_routes", "_session")

    def __init__(self, routes: Routes[N]) -> None:
        self._routes = routes
        self._session: ReplicaSession | None = None

    async def __aenter__(self) -> N:
        """Return the primary.

        Raises:
            ClosedError: The router is not open.
        """
        self._session = session_of(self._routes)
        return self._routes.begin_write()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Note that this session has written, and how far the primary has come by that."""
        session, self._session = self._session, None
        if session is not None:
            use = session.use(self._routes.primary.name, 0)
            if exc is None:
                await self._routes.note_write(session, use)


@final
class ReadBlock(Generic[N]):
    """The block made by :meth:`~aiopatterns.data.replicas.ReplicaRouter.read`.

    Args:
        routes: Whose it is.
        max_lag: Seconds that a copy may be behind; None for the router's.
    """

    __slots__ = ("_epoch", "_follower", "_max_lag", "_routes", "_session")

    def __init__(self, routes: Routes[N], max_lag: float | None) -> None:
        self._routes = routes
        self._max_lag = max_lag
        self._session: ReplicaSession | None = None
        self._follower: Follower[N] | None = None
        self._epoch = 0

    async def __aenter__(self) -> N:
        """Return a database to read from.

        Raises:
            ClosedError: The router is not open.
            BulkheadFullError: No copy will do, and too many read at the primary already.
        """
        routes = self._routes
        self._session = session_of(routes)
        self._follower = follower = await routes.place(self._session, self._max_lag)
        if follower is None:
            await routes.fallback.slot().__aenter__()
            routes.fallbacks += 1
            return routes.primary
        routes.reads += 1
        follower.in_flight += 1
        self._epoch = follower.epoch
        return follower.node

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Note what this session has seen; a copy that failed is looked at."""
        session, self._session = self._session, None
        follower, self._follower = self._follower, None
        if follower is None:
            name, epoch = self._routes.primary.name, 0
            await self._routes.fallback.slot().__aexit__(exc_type, exc, traceback)
        else:
            name, epoch = follower.node.name, self._epoch
            follower.in_flight -= 1
            if isinstance(exc, Exception):
                follower.nudge.wake_all()
        if session is not None:
            session.use(name, epoch)
