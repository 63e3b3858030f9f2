"""The ground floor: errors, time, telemetry, lifecycle and small algorithms."""

from __future__ import annotations

from aiopatterns.core.context import (
    Context,
    bind_correlation,
    bind_deadline,
    correlation_id,
    deadline,
    remaining,
)
from aiopatterns.core.lifecycle import Owner, OwnerState
from aiopatterns.core.outcome import Err, Ok, Outcome
from aiopatterns.core.telemetry import (
    Event,
    Listener,
    Subscription,
    install_listener,
    listen,
    log_events,
)

__all__ = [
    "Context",
    "Err",
    "Event",
    "Listener",
    "Ok",
    "Outcome",
    "Owner",
    "OwnerState",
    "Subscription",
    "bind_correlation",
    "bind_deadline",
    "correlation_id",
    "deadline",
    "install_listener",
    "listen",
    "log_events",
    "remaining",
]
