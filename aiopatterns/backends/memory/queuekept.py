"""What is left of jobs that have ended: outcomes for their time, and dead letters.

Letters lie in the order of their deaths, so the oldest are at the front, whether they are too old
or one too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.memory.queuejob import Letter
from aiopatterns.backends.queue import DEAD_LIMIT, DEAD_TTL, Outcome
from aiopatterns.backends.queuetimes import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.memory.queuejob import Job
    from aiopatterns.backends.queue import JobState

__all__ = ["Kept"]


@final
class Kept:
    """Outcomes and dead letters of one queue.

    Args:
        home: Whose time it is that outcomes expire by.

    Complexity: O(1) amortised, O(log n) to keep an outcome.
    """

    __slots__ = ("_outcomes", "letters")

    def __init__(self, home: MemoryHome) -> None:
        self._outcomes: Expiring[str, Outcome] = Expiring(home)
        self.letters: dict[str, Letter] = {}

    def keep(self, id: str, outcome: Outcome, milliseconds: int) -> None:
        """Keep how a job ended."""
        self._outcomes.put(id, outcome, milliseconds / 1_000)

    def bury(self, job: Job, error: bytes, now: int) -> None:
        """Make ``job`` a dead letter; the oldest beyond the limit is gone."""
        self.letters.pop(job.id, None)
        self.letters[job.id] = Letter(job, error, now)
        self.trim(now)
        if len(self.letters) > DEAD_LIMIT:
            del self.letters[next(iter(self.letters))]

    def trim(self, now: int) -> None:
        """Drop letters that are too old."""
        letters, oldest = self.letters, now - whole(DEAD_TTL)
        while letters:
            job_id, letter = next(iter(letters.items()))
            if letter.at > oldest:
                return
            del letters[job_id]

    def newest_first(self) -> Iterator[Letter]:
        """Iterate over the letters."""
        return reversed(self.letters.values())

    def outcome(self, id: str, now: int) -> Outcome | None:
        """Return how job ``id`` ended, if that is kept."""
        self.trim(now)
        letter = self.letters.get(id)
        if letter is not None:
            return Outcome("dead", letter.error, letter.job.tries)
        return self._outcomes.get(id)

    def state(self, id: str, now: int) -> JobState:
        """Return the state of a job that has ended, ``unknown`` if nothing is kept."""
        outcome = self.outcome(id, now)
        return "unknown" if outcome is None else outcome.state
