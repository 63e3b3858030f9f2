"""Collect the library's events in a test.

Example::

    with capture_events() as events:
        await call()
    assert [event.name for event in events] == ["aiopatterns.retry.scheduled"]
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiopatterns.core.telemetry import listen

if TYPE_CHECKING:
    from collections.abc import Generator

    from aiopatterns.core.telemetry import Event

__all__ = ["capture_events"]


@contextmanager
def capture_events() -> Generator[list[Event], None, None]:
    """Collect every event of the process inside a ``with`` block.

    Returns:
        A context manager; its value is the list of events, which grows while the block runs and
        stays when it has ended.
    """
    events: list[Event] = []
    with listen(events.append):
        yield events
