"""Sessions: what one user has written and seen, so that later reads do not go back behind it.

A session is a position that only grows, and the places that were used since it was last known::

    write            primary used    --> its position is asked: the session needs that much
    read at A        A used              nothing is asked: A only moves forward
    read at A again                      nothing is asked
    read at B        A is asked how far it has come; B must have come that far

So reads that stay at one copy cost nothing, and a position is only asked for when a session moves.

A session is found by the context in which the code runs: tasks that are started inside its block
belong to it as well, and nothing has to be passed on. Between processes it travels as a token.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple, final

from aiopatterns.data.position import Position

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    class Settling(Protocol):
        """The router of a session, as far as the session needs it."""

        async def settle(self, session: ReplicaSession) -> None: ...


__all__ = ["ReplicaSession", "Use"]


class Use(NamedTuple):
    """One use of a place.

    Attributes:
        number: Uses of a session are numbered in their order.
        epoch: That of the place, at the time.
    """

    number: int
    epoch: int


@final
class ReplicaSession:
    """An ``async with`` block in which reads never go back; made by a router.

    Args:
        router: Whose it is.
        start: What it must see from the beginning.
    """

    __slots__ = ("_entered", "_number", "_outer", "_router", "required", "used")

    def __init__(self, router: Settling, start: Position | None) -> None:
        self._router = router
        self._entered = False
        self._outer: ReplicaSession | None = None
        self._number = 0
        self.required: Position = start or Position()
        self.used: dict[str, Use] = {}

    async def token(self) -> str:
        """Return what another process needs to go on with this session.

        It is no secret, and not signed. One that was made up leads at worst to reads at the
        primary, as many at once as its bulkhead lets through.

        Raises:
            BackendUnavailableError: A position is needed for it, and the primary did not tell one.

        Cancellation: changes nothing.
        """
        await self._router.settle(self)
        return str(self.required)

    def use(self, name: str, epoch: int) -> Use:
        """Take in that a place was used up to now.

        Args:
            name: Of the place.
            epoch: That of the place when the use began; blocks may end in another order than they
                began, and the earliest says how much is known.
        """
        self._number += 1
        if name in self.used:
            epoch = min(epoch, self.used[name].epoch)
        self.used[name] = use = Use(self._number, epoch)
        return use

    def settle(self, name: str, use: Use, position: Position) -> None:
        """Take in how far a place has come that was used, if it was not used again meanwhile."""
        self.required = max(self.required, position)
        if self.used.get(name) == use:
            del self.used[name]

    async def __aenter__(self) -> ReplicaSession:
        """Enter it: blocks of this task, and of those it starts, belong to it.

        Raises:
            RuntimeError: It is entered already.
        """
        if self._entered:
            msg = "the session is entered already; make another by router.session()"
            raise RuntimeError(msg)
        self._entered, self._outer = True, _current.get()
        _current.set(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave it; it may be entered again, and goes on then."""
        _current.set(self._outer)
        self._entered, self._outer = False, None

    @property
    def outer(self) -> ReplicaSession | None:
        """The session around it, of this router or another."""
        return self._outer

    @property
    def router(self) -> Settling:
        """Whose it is."""
        return self._router


_current: Final[ContextVar[ReplicaSession | None]] = ContextVar(
    "aiopatterns_replica_session", default=None
)


def session_of(router: Settling) -> ReplicaSession | None:
    """Return the innermost session of ``router`` that this code runs in."""
    session = _current.get()
    while session is not None and session.router is not router:
        session = session.outer
    return session
