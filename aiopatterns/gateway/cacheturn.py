"""One turn at asking a service for an answer, for all who want the same meanwhile.

The first one asks, in its own task, so that its answer streams to it and its timeouts are its own.
The others wait for what it finds::

    kept       the answer was kept: all get it
    failed     it raised: each gets an error of its own
    passed     it is for the first one alone: the others ask by themselves, at once
    left       it was cancelled: one of the others takes its turn

Guarantees: however a turn ends, nobody waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.flight import copied
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from aiopatterns.gateway.cachestock import Stored

__all__ = ["Turn"]


@final
class Turn:
    """A turn that somebody has.

    Attributes:
        kept: What was found, if it was kept.
        error: What was raised.
        passed: Whether the others ask by themselves.
        ended: Whether it is over.
    """

    __slots__ = ("_waiters", "ended", "error", "kept", "passed")

    def __init__(self) -> None:
        self._waiters = Waiters()
        self.kept: Stored | None = None
        self.error: Exception | None = None
        self.passed: bool = False
        self.ended: bool = False

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiters)

    async def wait(self) -> None:
        """Wait for its end; what came of it stands in its attributes.

        Raises:
            Exception: What was raised, a copy for each who waits.

        Cancellation: leaves the turn as it is.
        """
        if not self.ended:
            await self._waiters.wait(lost=_nothing)
        if self.error is not None:
            raise copied(self.error) or self.error

    def end(self) -> None:
        """Let those who wait go on; harmless if they have."""
        self.ended = True
        self._waiters.wake_all()


def _nothing() -> None:
    """Everybody is woken, so nobody has a wake-up to pass on."""
