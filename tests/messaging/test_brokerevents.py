"""Events of the broker: stable names and levels."""

from __future__ import annotations

import pytest

from aiopatterns.core.telemetry import Event
from aiopatterns.messaging.brokerevents import (
    BrokerFrameRefused,
    BrokerHandlerFailed,
    BrokerInterrupted,
    BrokerMessagesDropped,
    BrokerResumed,
    BrokerSubscriptionFailed,
)


@pytest.mark.parametrize(
    ("event", "name", "level"),
    [
        (BrokerInterrupted("b", "e"), "interrupted", "warning"),
        (BrokerResumed("b"), "resumed", "info"),
        (BrokerHandlerFailed("p", "t", "i", "e"), "handler_failed", "error"),
        (BrokerMessagesDropped("p", 1, "drop_old"), "messages_dropped", "warning"),
        (BrokerSubscriptionFailed("p", 1), "subscription_failed", "error"),
        (BrokerFrameRefused("b", "e"), "frame_refused", "warning"),
    ],
)
def test_names_and_levels(event: Event, name: str, level: str):
    assert (event.name, event.level) == (f"aiopatterns.broker.{name}", level)
