"""Events of sagas: what a log of them should show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from aiopatterns.core.telemetry import Event

if TYPE_CHECKING:
    from aiopatterns.data.sagajournal import SagaState

__all__ = [
    "SagaEnded",
    "SagaMigrationNeeded",
    "SagaRecoveryInterrupted",
    "SagaRecoveryResumed",
    "SagaStuck",
    "SagaTakenOver",
    "SagaTurnedBack",
]


@final
@dataclass(frozen=True, slots=True)
class SagaTurnedBack(Event):
    """A saga is being undone.

    Attributes:
        saga: Of what it is a run.
        id: Its id.
        cause: Why.
    """

    name: ClassVar[str] = "aiopatterns.saga.turned_back"
    level: ClassVar[str] = "warning"

    saga: str
    id: str
    cause: str


@final
@dataclass(frozen=True, slots=True)
class SagaEnded(Event):
    """A saga has come to its end.

    Attributes:
        saga: Of what it is a run.
        id: Its id.
        state: ``COMPLETED`` or ``COMPENSATED``.
    """

    name: ClassVar[str] = "aiopatterns.saga.ended"

    saga: str
    id: str
    state: SagaState


@final
@dataclass(frozen=True, slots=True)
class SagaStuck(Event):
    """A saga cannot go on by itself: a person has to look, and then to call ``resume``.

    Attributes:
        saga: Of what it is a run.
        id: Its id.
        steps: Those that were given up; empty if its record cannot be read.
        error: What the last of them raised, in words.
    """

    name: ClassVar[str] = "aiopatterns.saga.stuck"
    level: ClassVar[str] = "error"

    saga: str
    id: str
    steps: tuple[str, ...]
    error: str


@final
@dataclass(frozen=True, slots=True)
class SagaTakenOver(Event):
    """A saga whose holder has gone is brought to its end here.

    Attributes:
        saga: Of what it is a run.
        id: Its id.
        fence: How often it was taken.
    """

    name: ClassVar[str] = "aiopatterns.saga.taken_over"
    level: ClassVar[str] = "warning"

    saga: str
    id: str
    fence: int


@final
@dataclass(frozen=True, slots=True)
class SagaMigrationNeeded(Event):
    """Sagas were begun by other steps than this process has, and wait for a process that has them.

    Attributes:
        saga: Of what they are runs.
        definition: Version and shape of their steps.
        ids: Some of them.
    """

    name: ClassVar[str] = "aiopatterns.saga.migration_needed"
    level: ClassVar[str] = "error"

    saga: str
    definition: str
    ids: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class SagaRecoveryInterrupted(Event):
    """The store of sagas does not answer; recovery goes on asking.

    Attributes:
        saga: Whose recovery it is.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.saga.recovery_interrupted"
    level: ClassVar[str] = "error"

    saga: str
    error: str


@final
@dataclass(frozen=True, slots=True)
class SagaRecoveryResumed(Event):
    """The store of sagas answers again.

    Attributes:
        saga: Whose recovery it is.
    """

    name: ClassVar[str] = "aiopatterns.saga.recovery_resumed"

    saga: str
