"""Replicas: copies of a primary, and what is known of each.

What a router asks of a database, primary or copy, is :class:`Replica`: a name, how far it has come
and how late it is. What it has learned of a copy is a :class:`Follower`, which decides by itself
whether the copy may be read::

                 lag <= max_lag                       no answer, or lag > max_lag
    unknown ----------------------> usable ------------------------------------------.
                                      ^                                              |
                                      `---------- answers, and lag <= max_lag / 2 -- lost

To come back takes half the lag, so that a copy at the limit does not come and go with every look.

A copy only moves forward, so a position seen once is one that it still has. That ends when it was
lost or is seen further back: a standby of PostgreSQL that restarts may answer at a position before
that of its last answer. The ``epoch`` of a follower counts these breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar, final, runtime_checkable

from aiopatterns.core.clock import monotonic
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from aiopatterns.data.position import Position

__all__ = ["Follower", "Replica", "ReplicaBack", "ReplicaLost", "ReplicaStatistics"]


@runtime_checkable
class Replica(Protocol):
    """A database, primary or copy, as a router sees it."""

    @property
    def name(self) -> str:
        """What statistics and events call it; no two of a router have the same."""
        ...

    async def position(self) -> Position:
        """Return how far it has come: what a primary has written, or a copy shows to its readers.

        Raises:
            Exception: It cannot be asked; it is not read then.
        """
        ...

    async def lag(self) -> float:
        """Return how many seconds it is behind its primary; infinite if it follows none.

        Raises:
            Exception: It cannot be asked; it is not read then.
        """
        ...


N = TypeVar("N", bound=Replica)


@final
@dataclass(frozen=True, slots=True)
class ReplicaStatistics:
    """What a router knows of one copy.

    Attributes:
        name: Its name.
        usable: Whether it is read.
        position: How far it had come when it was last asked; None if it does not answer.
        lag: Seconds that it was behind then; infinite if it does not answer.
        in_flight: Blocks that read from it now.
    """

    name: str
    usable: bool
    position: Position | None
    lag: float
    in_flight: int


@final
@dataclass(frozen=True, slots=True)
class ReplicaLost(Event):
    """A copy is not read any more.

    Attributes:
        router: Whose it is.
        replica: Its name.
        reason: The error it answered with, or its lag.
    """

    name: ClassVar[str] = "aiopatterns.replica.lost"
    level: ClassVar[str] = "warning"

    router: str
    replica: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class ReplicaBack(Event):
    """A copy is read again.

    Attributes:
        router: Whose it is.
        replica: Its name.
        lag: Seconds that it is behind.
    """

    name: ClassVar[str] = "aiopatterns.replica.back"

    router: str
    replica: str
    lag: float


@final
class Follower(Generic[N]):
    """What a router has learned of one copy.

    Args:
        node: The copy.
        router: What events call the router.
        max_lag: Seconds that it may be behind.
        max_age: Seconds for which an answer counts; nothing is known after that.
    """

    __slots__ = (
        "_max_age",
        "_max_lag",
        "_measured_at",
        "_router",
        "_was_usable",
        "epoch",
        "in_flight",
        "lag",
        "node",
        "nudge",
        "position",
    )

    def __init__(self, node: N, *, router: str, max_lag: float, max_age: float) -> None:
        self.node: N = node
        self.position: Position | None = None
        self.lag: float = inf
        self.epoch: int = 0
        self.in_flight: int = 0
        self.nudge: Waiters = Waiters()
        self._router = router
        self._max_lag = max_lag
        self._max_age = max_age
        self._measured_at = -inf
        self._was_usable: bool | None = None

    @property
    def usable(self) -> bool:
        """Whether it may be read by those who name no limit of their own."""
        return bool(self._was_usable) and self.is_within(inf)

    def is_within(self, max_lag: float) -> bool:
        """Whether it answers and is at most ``max_lag`` seconds behind."""
        if self.position is None or not isfinite(self.lag) or self.lag > max_lag:
            return False
        return monotonic() - self._measured_at <= self._max_age

    def has(self, position: Position) -> bool:
        """Whether it has come to ``position``."""
        return self.position is not None and self.position >= position

    def measured(self, position: Position, lag: float) -> None:
        """Take in an answer."""
        if self.position is not None and position < self.position:
            self.epoch += 1
        self.position, self.lag = position, lag
        self._measured_at = monotonic()
        limit = self._max_lag / 2 if self._was_usable is False else self._max_lag
        if isfinite(lag) and lag <= limit:
            self._set_usable()
        else:
            self._set_lost(f"it is {lag:.3g} s behind")

    def failed(self, error: Exception) -> None:
        """Take in that it could not be asked."""
        self.epoch += 1
        self.position, self.lag = None, inf
        self._set_lost(repr(error))

    def statistics(self) -> ReplicaStatistics:
        """Return what is known now."""
        node = self.node
        return ReplicaStatistics(node.name, self.usable, self.position, self.lag, self.in_flight)

    # --------------------------------------------------------------------------- private core

    def _set_usable(self) -> None:
        came_back, self._was_usable = self._was_usable is False, True
        if came_back and listening():
            emit(ReplicaBack(self._router, self.node.name, self.lag))

    def _set_lost(self, reason: str) -> None:
        was_known_lost, self._was_usable = self._was_usable is False, False
        if not was_known_lost and listening():
            emit(ReplicaLost(self._router, self.node.name, reason))
