"""How long an act has taken."""

from __future__ import annotations

from typing import final

from aiopatterns.core.clock import monotonic

__all__ = ["Stopwatch"]


@final
class Stopwatch:
    """Counts the seconds from :meth:`start` to :meth:`stop`, or until now; 0 before that."""

    __slots__ = ("_began", "_ended")

    def __init__(self) -> None:
        self._began: float | None = None
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has run."""
        if self._began is None:
            return 0.0
        return (monotonic() if self._ended is None else self._ended) - self._began

    def start(self) -> None:
        """Begin at 0."""
        self._began, self._ended = monotonic(), None

    def stop(self) -> None:
        """Stand still."""
        self._ended = monotonic()
