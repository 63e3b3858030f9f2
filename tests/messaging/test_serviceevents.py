"""Events of services: stable names and levels."""

from __future__ import annotations

import pytest

from aiopatterns.core.telemetry import Event
from aiopatterns.messaging import (
    ServiceDraining,
    ServiceStarted,
    ServiceStopped,
    ServiceTimerFailed,
)


@pytest.mark.parametrize(
    ("event", "name", "level"),
    [
        (ServiceStarted("s", "1"), "started", "info"),
        (ServiceDraining("s", "1"), "draining", "info"),
        (ServiceStopped("s", "1", 1, 2, 3), "stopped", "info"),
        (ServiceTimerFailed("s", "h", "e"), "timer_failed", "warning"),
    ],
)
def test_names_and_levels(event: Event, name: str, level: str):
    assert (event.name, event.level) == (f"aiopatterns.service.{name}", level)
