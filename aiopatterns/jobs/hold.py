"""A job in the hands of this process, from the step that claimed it to the step that settles it.

::

    claimed --> ready --> running --> finished --> settled
                  |          |           |
                  '----------+-----------'---> lost    another worker has it: nothing it does counts

A hold is *ours* only while its loop knows it under its id. A job that was taken away and claimed
again is another hold, so what the first run comes to is told from what the second does.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from aiopatterns.jobs.attempt import Attempt
    from aiopatterns.jobs.turns import Turns

__all__ = ["Cut", "Hold"]


class Cut(IntEnum):
    """Why work in progress is cancelled; a later one outranks those before it."""

    TIMEOUT = 1
    CANCEL = 2
    LEAVE = 3
    LOST = 4


@final
class Hold:
    """One claimed job.

    Args:
        turns: The step loop that claimed it, and will settle it.
        id: The job.
        body: Its bytes.
        attempt: Which attempt this is, from 1.
        alone: It may have killed a process: nothing else runs beside it.
    """

    __slots__ = ("alone", "at", "attempt", "body", "cut", "finished", "id", "turns")

    def __init__(self, turns: Turns, id: str, body: bytes, attempt: int, *, alone: bool) -> None:
        self.turns: Turns = turns
        self.id: str = id
        self.body: bytes = body
        self.attempt: int = attempt
        self.alone: bool = alone
        self.at: Attempt | None = None  # in which it runs
        self.cut: Cut | None = None  # asked for before it ran
        self.finished: bool = False

    def interrupt(self, cut: Cut) -> None:
        """Cancel it if it runs; else it will not run."""
        if self.cut is None or self.cut < cut:
            self.cut = cut
        if self.at is not None:
            self.at.interrupt(self, cut)
