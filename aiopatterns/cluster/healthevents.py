"""What health checks tell about themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aiopatterns.core.telemetry import Event

if TYPE_CHECKING:
    from aiopatterns.cluster.hysteresis import HealthState

__all__ = ["HealthChanged", "HealthCheckFailed", "HealthLoopRestarted"]


@dataclass(frozen=True, slots=True)
class HealthChanged(Event):
    """The state of a check has changed; also what functions given to ``on_change`` get.

    Attributes:
        checker: Name of the checker.
        check: Name of the check.
        before: The state until now.
        after: The state from now on.
        reason: Why the last check failed; empty if it did not.
    """

    name: ClassVar[str] = "aiopatterns.health.changed"
    level: ClassVar[str] = "warning"

    checker: str
    check: str
    before: HealthState
    after: HealthState
    reason: str


@dataclass(frozen=True, slots=True)
class HealthCheckFailed(Event):
    """A check has failed, or a failure was reported from elsewhere.

    Attributes:
        checker: Name of the checker.
        check: Name of the check.
        reason: What was wrong, in words that hold no secret.
        error: What was raised, if anything.
    """

    name: ClassVar[str] = "aiopatterns.health.check_failed"
    level: ClassVar[str] = "info"

    checker: str
    check: str
    reason: str
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class HealthLoopRestarted(Event):
    """The loop of a check had ended and was started again.

    Attributes:
        checker: Name of the checker.
        check: Name of the check.
        reason: Why it had ended.
    """

    name: ClassVar[str] = "aiopatterns.health.loop_restarted"
    level: ClassVar[str] = "error"

    checker: str
    check: str
    reason: str
