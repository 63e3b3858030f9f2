"""Collect the library's events in a test.

Example::

    with capture_events() as events:
        ...
    assert [event.name for event in events] == ["aiopatterns.retry.scheduled"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.telemetry import Event, Subscription, listen

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["capture_events"]


@final
class capture_events:  # noqa: N801 - used like a function, in a with statement
    """Collect every event of the process inside a ``with`` block; the block's value is the list."""

    __slots__ = ("_subscription",)

    def __init__(self) -> None:
        self._subscription: Subscription | None = None

    def __enter__(self) -> list[Event]:
        """Start to listen; returns the list, which grows."""
        events: list[Event] = []
        self._subscription = listen(events.append)
        return events

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop to listen; the list stays."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
