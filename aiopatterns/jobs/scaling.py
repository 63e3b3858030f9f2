"""How many processes: the load of a queue, from what its store and its workers tell.

The decision is that of :class:`~aiopatterns.flow.autoscale.Autoscale`; here its load is made::

    wait that jobs have to expect = jobs queued / jobs done per second (by all workers, lately)
    a process is idle while what is queued and what runs would fit into the others
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final, NamedTuple, final

from aiopatterns.flow.autoscale import Load

__all__ = ["Sample", "Scaler"]

# Of the newest sample, in the average of the rate.
_WEIGHT: Final = 0.5


class Sample(NamedTuple):
    """What was seen of a queue.

    Args:
        queued: Jobs that could run.
        running: Jobs that run.
        done: Jobs that all workers have done so far; it may fall, when one of them goes.
    """

    queued: int
    running: int
    done: int


@final
class Scaler:
    """Makes loads of samples.

    Args:
        concurrency: Jobs that one process runs at once.
    """

    __slots__ = ("_at", "_concurrency", "_done", "_rate", "_since")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._at = -inf
        self._done = 0
        self._rate = 0.0
        self._since: list[float] = []  # when each process that is not needed was needed last

    def load(self, now: float, limit: int, sample: Sample) -> Load:
        """Return the load of this moment.

        Args:
            now: Monotonic seconds.
            limit: Processes that there are.
            sample: What was seen.
        """
        queued, running, done = sample
        if done >= self._done and now > self._at > -inf:
            rate = (done - self._done) / (now - self._at)
            self._rate += (rate - self._rate) * _WEIGHT
        self._at, self._done = now, done
        needed = min(limit, ceil((queued + running) / self._concurrency))
        self._since = [*self._since, *(now,) * limit][: limit - needed]
        wait = 0.0 if not queued else queued / self._rate if self._rate > 0 else inf
        return Load(
            limit=limit, ready=queued, oldest_wait=wait, idle=[now - each for each in self._since]
        )
