"""What a circuit breaker tells about itself: its events.

Each is built only if somebody listens, and emitted when the circuit is consistent again, so a
listener may look at the circuit, or force it. ``circuit`` is always the name of the breaker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from aiopatterns.core.telemetry import Event

if TYPE_CHECKING:
    from aiopatterns.resilience.judge import Outcome

__all__ = [
    "CircuitClosed",
    "CircuitForced",
    "CircuitHalfOpened",
    "CircuitLateResult",
    "CircuitOpened",
    "CircuitRejected",
    "CircuitStuck",
    "CircuitThresholdExceeded",
    "ForcedMode",
]

ForcedMode: TypeAlias = Literal["isolated", "disabled", "observe"]


@dataclass(frozen=True, slots=True)
class CircuitOpened(Event):
    """A circuit opened.

    Args:
        circuit: Its name.
        seconds: Length of the break.
        openings: As in :class:`BreakInfo`.
        failures: Failed calls that it saw.
        failure_ratio: Their share.
        slow_ratio: The share of slow calls.
    """

    name: ClassVar[str] = "aiopatterns.circuit.opened"
    level: ClassVar[str] = "warning"

    circuit: str
    seconds: float
    openings: int
    failures: int
    failure_ratio: float | None
    slow_ratio: float | None


@dataclass(frozen=True, slots=True)
class CircuitHalfOpened(Event):
    """The break of a circuit is over and its first probe is on the way.

    Args:
        circuit: Its name.
    """

    name: ClassVar[str] = "aiopatterns.circuit.half_opened"

    circuit: str


@dataclass(frozen=True, slots=True)
class CircuitClosed(Event):
    """A circuit that was open or half-open is closed.

    Args:
        circuit: Its name.
    """

    name: ClassVar[str] = "aiopatterns.circuit.closed"

    circuit: str


@dataclass(frozen=True, slots=True)
class CircuitStuck(Event):
    """The probes of a circuit came to no verdict in time.

    Args:
        circuit: Its name.
        in_flight: Calls that have not ended.
    """

    name: ClassVar[str] = "aiopatterns.circuit.half_open_stuck"
    level: ClassVar[str] = "warning"

    circuit: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class CircuitThresholdExceeded(Event):
    """A circuit that only observes would have opened.

    Args:
        circuit: Its name.
        failures: Failed calls in the window.
        failure_ratio: Their share.
        slow_ratio: The share of slow calls.
    """

    name: ClassVar[str] = "aiopatterns.circuit.threshold_exceeded"
    level: ClassVar[str] = "warning"

    circuit: str
    failures: int
    failure_ratio: float | None
    slow_ratio: float | None


@dataclass(frozen=True, slots=True)
class CircuitRejected(Event):
    """A circuit refused a call.

    Args:
        circuit: Its name.
        retry_after: Seconds until trying again makes sense, if that is known.
    """

    name: ClassVar[str] = "aiopatterns.circuit.rejected"

    circuit: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class CircuitForced(Event):
    """An operator forced a circuit into a mode, or set it free.

    Args:
        circuit: Its name.
        mode: The mode; None if it is free.
    """

    name: ClassVar[str] = "aiopatterns.circuit.forced"
    level: ClassVar[str] = "warning"

    circuit: str
    mode: ForcedMode | None


@dataclass(frozen=True, slots=True)
class CircuitLateResult(Event):
    """A call ended that had begun in an earlier state; it counts for nothing.

    Args:
        circuit: The name of the circuit.
        outcome: How it ended.
    """

    name: ClassVar[str] = "aiopatterns.circuit.late_result"
    level: ClassVar[str] = "debug"

    circuit: str
    outcome: Outcome
