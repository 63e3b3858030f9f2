"""What consumers of streams tell about themselves: outages, failures, dead letters, lost entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = [
    "StreamDeadLettered",
    "StreamDeliveryLost",
    "StreamHandlerFailed",
    "StreamInterrupted",
    "StreamResumed",
]


@dataclass(frozen=True, slots=True)
class StreamInterrupted(Event):
    """The backend is out of reach; the consumer asks again until it answers.

    Attributes:
        stream: Name of the stream.
        group: The consumer's group.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.stream.interrupted"
    level: ClassVar[str] = "warning"

    stream: str
    group: str
    error: str


@dataclass(frozen=True, slots=True)
class StreamResumed(Event):
    """The backend answers again, and the consumer goes on.

    Attributes:
        stream: Name of the stream.
        group: The consumer's group.
        seconds: How long it was away.
    """

    name: ClassVar[str] = "aiopatterns.stream.resumed"

    stream: str
    group: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StreamHandlerFailed(Event):
    """A message was not handled, and comes again.

    Attributes:
        stream: Name of the stream.
        group: The consumer's group.
        entry: Id of the entry.
        attempt: Which attempt has failed, from 1.
        delay: Seconds until the next.
        error: What was raised.
    """

    name: ClassVar[str] = "aiopatterns.stream.handler_failed"
    level: ClassVar[str] = "warning"

    stream: str
    group: str
    entry: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True)
class StreamDeadLettered(Event):
    """A message is given up, and is in the group's dead letters.

    Attributes:
        stream: Name of the stream.
        group: The consumer's group.
        entry: Id of the entry, which ``requeue`` takes.
        attempts: How often it was tried.
        error: Why it is given up.
    """

    name: ClassVar[str] = "aiopatterns.stream.dead_lettered"
    level: ClassVar[str] = "error"

    stream: str
    group: str
    entry: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class StreamDeliveryLost(Event):
    """An entry in hand was given to another consumer, for this one was silent for too long.

    Attributes:
        stream: Name of the stream.
        group: The consumer's group.
        entry: Id of the entry.
    """

    name: ClassVar[str] = "aiopatterns.stream.delivery_lost"
    level: ClassVar[str] = "warning"

    stream: str
    group: str
    entry: str
