"""Whether the registry's backend answers, told once when it stops and once when it is back.

Reading and writing are two things: a server that is full, or that has become a replica, still
answers those who look, and refuses those who renew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from aiopatterns.core.errors import BackendError

__all__ = ["AGAIN", "Contact", "RegistryInterrupted", "RegistryResumed"]

#: How long to wait before a backend that failed is asked again.
AGAIN: Final = Exponential(initial=0.1, factor=2.0, cap=1.0, jitter="equal")


@dataclass(frozen=True, slots=True)
class RegistryInterrupted(Event):
    """The backend is out of reach: callers see what was known, registrations wait to renew.

    Args:
        registry: Name of the registry.
        doing: What cannot be done, ``"reading"`` or ``"writing"``.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.registry.interrupted"
    level: ClassVar[str] = "warning"

    registry: str
    doing: str
    error: str


@dataclass(frozen=True, slots=True)
class RegistryResumed(Event):
    """The backend answers again.

    Args:
        registry: Name of the registry.
        doing: What can be done again, ``"reading"`` or ``"writing"``.
        seconds: How long it could not.
    """

    name: ClassVar[str] = "aiopatterns.registry.resumed"

    registry: str
    doing: str
    seconds: float


@final
class Contact:
    """What all calls of one registry, and of one kind, found out about the backend.

    Args:
        registry: Name of the registry, for the events.
        doing: What these calls do.
    """

    __slots__ = ("_doing", "_registry", "_since", "interruptions")

    def __init__(self, registry: str, doing: str) -> None:
        self._registry = registry
        self._doing = doing
        self._since: float | None = None
        self.interruptions: int = 0

    @property
    def up(self) -> bool:
        """Whether the last call was answered."""
        return self._since is None

    def answered(self, *, asked: float = math.inf) -> None:
        """A call came back.

        Args:
            asked: When it was made, in monotonic seconds, if that may be long ago: what was asked
                before a failure says nothing of the time after.
        """
        since = self._since
        if since is None or asked < since:
            return
        self._since = None
        if listening():
            emit(RegistryResumed(self._registry, self._doing, monotonic() - since))

    def failed(self, error: BackendError) -> None:
        """A call did not come back, or was refused."""
        if self._since is not None:
            return
        self._since = monotonic()
        self.interruptions += 1
        if listening():
            emit(RegistryInterrupted(self._registry, self._doing, str(error)))
