"""Gate: the shared tier is an accelerator, so whoever waits for it waits briefly, and only once.

::

            a call takes longer than 0.25 s, or nobody answers
      UP ------------------------------------------------------> DOWN: every call ends at once
       ^                                                           |
       '-- the keeper's own question is answered, every second ----'

No caller ever pays for finding out whether the server is back: that is the work of the keeper in
the background. What the server refuses (it is full, or read-only) does not close the gate, for it
still answers reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar, final

from anyio import move_on_after

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.core.telemetry import Event, emit, listening

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["TIMEOUT", "Gate", "TierBack", "TierLost", "TierRefused"]

T = TypeVar("T")

#: Seconds that one call waits for the server at most.
TIMEOUT: Final = 0.25
# A refusal is told that often at most.
_TELL_EVERY: Final = 10.0


@dataclass(frozen=True, slots=True)
class TierLost(Event):
    """The shared tier does not answer: the cache goes on with what it has near.

    Args:
        cache: Name of the cache.
        error: What happened.
    """

    name: ClassVar[str] = "aiopatterns.cache.tier_lost"
    level: ClassVar[str] = "warning"

    cache: str
    error: str


@dataclass(frozen=True, slots=True)
class TierBack(Event):
    """The shared tier answers again.

    Args:
        cache: Name of the cache.
        after: Seconds since it was lost.
    """

    name: ClassVar[str] = "aiopatterns.cache.tier_back"

    cache: str
    after: float


@dataclass(frozen=True, slots=True)
class TierRefused(Event):
    """The server refuses something; told every ten seconds at most.

    Args:
        cache: Name of the cache.
        error: What it said.
    """

    name: ClassVar[str] = "aiopatterns.cache.tier_refused"
    level: ClassVar[str] = "warning"

    cache: str
    error: str


@final
class Gate:
    """Lets calls through to a server that answers.

    Args:
        name: Name of the cache, for events.

    Attributes:
        up: Whether calls are let through; nobody but the keeper sets it.
    """

    __slots__ = ("_lost_at", "_name", "_tell_at", "up")

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost_at: float | None = None
        self._tell_at = 0.0
        self.up: bool = False

    async def call(self, fn: Callable[[], Awaitable[T]], *, probe: bool = False) -> T | None:
        """Return what ``fn`` returns, or None if it failed or was not let through.

        Args:
            fn: Asks the server once; does not return None.
            probe: Whether it is let through while the gate is down.

        Cancellation: the call may have happened or not.
        """
        if not (self.up or probe):
            return None
        try:
            with move_on_after(TIMEOUT):
                return await fn()
        except BackendUnavailableError as error:
            self.lost(str(error))
        except ClosedError:
            self.up = False
        except BackendError as error:
            self._refused(str(error))
        else:
            self.lost(f"no answer within {TIMEOUT} s")
        return None

    def lost(self, error: str) -> None:
        """Go down; who is down already stays so."""
        self.up = False
        if self._lost_at is None:
            self._lost_at = monotonic()
            if listening():
                emit(TierLost(self._name, error))

    def back(self) -> None:
        """Go up."""
        self.up = True
        lost_at, self._lost_at = self._lost_at, None
        if lost_at is not None and listening():
            emit(TierBack(self._name, monotonic() - lost_at))

    def _refused(self, error: str) -> None:
        now = monotonic()
        if now >= self._tell_at and listening():
            self._tell_at = now + _TELL_EVERY
            emit(TierRefused(self._name, error))
