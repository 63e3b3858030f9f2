"""What can be seen of a circuit from outside: its state, and its counts at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

__all__ = ["CircuitState", "CircuitStatistics"]


class CircuitState(Enum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@final
@dataclass(frozen=True, slots=True)
class CircuitStatistics:
    """A circuit at one instant.

    The counts are those of the state it is in: of the window while it is closed, of what opened
    it while it is open, of the probes while it is half-open. Each state begins with none.

    Args:
        state: The state.
        calls: Calls that were recorded.
        failures: Those that failed.
        successes: Those that did not.
        slow: Those that were slow, failed or not.
        rejected: Calls that were refused since the state began.
        in_flight: Calls that were admitted, in whatever state, and have not ended.
        failure_ratio: Share of the calls that failed; None without calls, and while a closed
            circuit has too few of them to decide.
        slow_ratio: The same for slow calls.
        mean_elapsed: Mean duration of the calls in seconds; None without calls. While a closed
            circuit is busy it is an estimate: one good call in 64 is measured, or all with a
            ``slow`` rule, and those counted in one go, between two bad calls, buckets or looks,
            count with the mean of the measured. A call that failed unmeasured counts with the
            duration of the last that failed measured.
    """

    state: CircuitState
    calls: int
    failures: int
    successes: int
    slow: int
    rejected: int
    in_flight: int
    failure_ratio: float | None
    slow_ratio: float | None
    mean_elapsed: float | None
