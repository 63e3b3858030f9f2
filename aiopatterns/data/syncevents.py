"""Events of synchronisation: what a log of it should show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from aiopatterns.core.telemetry import Event

__all__ = [
    "SyncConflictFound",
    "SyncInterrupted",
    "SyncQuarantined",
    "SyncResumed",
    "SyncStartedOver",
]


@final
@dataclass(frozen=True, slots=True)
class SyncConflictFound(Event):
    """Two versions met whose authors did not know of each other; the strategy has seen to it.

    Attributes:
        source: The store that one came from.
        target: The store where the other one was.
        key: Which record.
    """

    name: ClassVar[str] = "aiopatterns.sync.conflict_found"

    source: str
    target: str
    key: str


@final
@dataclass(frozen=True, slots=True)
class SyncQuarantined(Event):
    """A record cannot be taken; it was put aside at the target, and the others went on.

    Attributes:
        source: The store that it came from.
        target: The store that keeps it in quarantine.
        key: Which record.
        reason: Why.
    """

    name: ClassVar[str] = "aiopatterns.sync.quarantined"
    level: ClassVar[str] = "error"

    source: str
    target: str
    key: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class SyncStartedOver(Event):
    """The change log does not reach back to the checkpoint: all records are compared.

    Attributes:
        source: The store whose log it is.
        target: The store that goes on from the checkpoint.
        checkpoint: How far the target had come; 0 if nobody knows.
    """

    name: ClassVar[str] = "aiopatterns.sync.started_over"
    level: ClassVar[str] = "warning"

    source: str
    target: str
    checkpoint: int


@final
@dataclass(frozen=True, slots=True)
class SyncInterrupted(Event):
    """A store does not answer; the watch goes on trying.

    Attributes:
        watch: Which one.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.sync.interrupted"
    level: ClassVar[str] = "error"

    watch: str
    error: str


@final
@dataclass(frozen=True, slots=True)
class SyncResumed(Event):
    """Both stores answer again.

    Attributes:
        watch: Which one.
    """

    name: ClassVar[str] = "aiopatterns.sync.resumed"

    watch: str
