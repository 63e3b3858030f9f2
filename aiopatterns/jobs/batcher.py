"""Jobs that are worked on together: collected until there are enough of them, or long enough.

::

    job, job, job ...  --> full (size, or all places of the worker) --> one attempt for all
                       --> the first has waited ``within`` seconds  -->

Each has a place of its own while it waits, and an attempt of its own: if the function raises, each
is retried or dead by its own count. One that is cancelled while it waits leaves the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.clock import call_later

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from aiopatterns.jobs.envelope import Envelope
    from aiopatterns.jobs.hold import Hold

    class Timer(Protocol):
        """What a timer of the loop can do."""

        def cancel(self) -> None: ...


__all__ = ["Batcher"]


@final
class Batcher:
    """Collects the jobs of one name.

    Args:
        size: How many make a batch.
        within: How long the first waits, in seconds.
        full: Called with each batch.
    """

    __slots__ = ("_calls", "_full", "_size", "_timer", "_within")

    def __init__(
        self, size: int, within: float, full: Callable[[list[tuple[Hold, Envelope]]], object]
    ) -> None:
        self._size = size
        self._within = within
        self._full = full
        self._calls: list[tuple[Hold, Envelope]] = []
        self._timer: Timer | None = None

    def add(self, hold: Hold, envelope: Envelope) -> None:
        """Take a job in."""
        self._calls.append((hold, envelope))
        if len(self._calls) >= self._size:
            self.flush()
        elif self._timer is None:
            self._timer = call_later(self._within, self.flush)

    def flush(self) -> None:
        """Hand over what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, []
        if calls:
            self._full(calls)
