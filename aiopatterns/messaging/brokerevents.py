"""What a broker tells about itself: lost connections, lost messages, failed handlers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = [
    "BrokerFrameRefused",
    "BrokerHandlerFailed",
    "BrokerInterrupted",
    "BrokerMessagesDropped",
    "BrokerResumed",
    "BrokerSubscriptionFailed",
]


@dataclass(frozen=True, slots=True)
class BrokerInterrupted(Event):
    """The backend is out of reach: only subscriptions of this process are served.

    Attributes:
        broker: Its name.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.broker.interrupted"
    level: ClassVar[str] = "warning"

    broker: str
    error: str


@dataclass(frozen=True, slots=True)
class BrokerResumed(Event):
    """The backend answers again.

    Attributes:
        broker: Its name.
    """

    name: ClassVar[str] = "aiopatterns.broker.resumed"

    broker: str


@dataclass(frozen=True, slots=True)
class BrokerHandlerFailed(Event):
    """A handler raised.

    Attributes:
        pattern: What it is subscribed to.
        topic: Of the message.
        message_id: Of the message.
        error: What it raised, in words.
    """

    name: ClassVar[str] = "aiopatterns.broker.handler_failed"
    level: ClassVar[str] = "error"

    pattern: str
    topic: str
    message_id: str
    error: str


@dataclass(frozen=True, slots=True)
class BrokerMessagesDropped(Event):
    """A subscription is slower than its messages come; told once, until its queue is empty again.

    Attributes:
        pattern: What it is subscribed to.
        waiting: Messages in its queue.
        overflow: Which are dropped.
    """

    name: ClassVar[str] = "aiopatterns.broker.messages_dropped"
    level: ClassVar[str] = "warning"

    pattern: str
    waiting: int
    overflow: str


@dataclass(frozen=True, slots=True)
class BrokerSubscriptionFailed(Event):
    """A subscription with ``overflow="fail"`` had no more room and was closed.

    Attributes:
        pattern: What it was subscribed to.
        waiting: Messages in its queue, which are still handled.
    """

    name: ClassVar[str] = "aiopatterns.broker.subscription_failed"
    level: ClassVar[str] = "error"

    pattern: str
    waiting: int


@dataclass(frozen=True, slots=True)
class BrokerFrameRefused(Event):
    """Something came in that is no message: malformed, too long, or of a newer release.

    Attributes:
        broker: The broker's name.
        error: Why it was refused.
    """

    name: ClassVar[str] = "aiopatterns.broker.frame_refused"
    level: ClassVar[str] = "warning"

    broker: str
    error: str
