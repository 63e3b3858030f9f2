"""What a stage counts: where every item is, at every instant.

An item that has reached a stage is in exactly one place: it waits, or its function runs, or it has
left as processed, as failed, or because the run was cancelled under it::

    accepted ---> queued ---> in_flight ---> processed
                     |            |--------> failed
                     `------------`--------> cancelled

Guarantees:

* ``accepted == processed + failed + cancelled + queued + in_flight`` at every instant, for each
  stage and for the sums. Nothing is ever dropped silently.
* What one stage passes on is accepted by the next in the same step, also while it still waits for
  room there: no item is between two stages.
* Counters change in steps without a suspension, never across one.

Latencies are those of the user's function. The first 256 items are timed, then one in eight:
reading the clock twice and sorting the figure in would cost more than all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiopatterns.core.quantile import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PipelineReport", "StageStatistics", "Tally", "is_timed"]

_TIMED_FIRST: Final = 256
_TIMED_MASK: Final = 7


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """Figures of one stage at one instant.

    Args:
        name: Name of the stage.
        accepted: Items that have reached the stage.
        processed: Items whose function returned. For a batch: items that left in a batch.
        failed: Items whose function raised in the end, whatever ``on_error`` made of that.
        cancelled: Items that were waiting or running when the run was given up.
        queued: Items that wait: for room, for a worker, for a retry, for their batch.
        in_flight: Items whose function runs now.
        p50: Median of the seconds that the function took; None before the first. For a generator
            in a fused ``flat_map`` that is the time until it was there, not that of its outputs.
            For a batch: seconds from its first item until it was taken.
        p99: 99th percentile of the same.
    """

    name: str
    accepted: int
    processed: int
    failed: int
    cancelled: int
    queued: int
    in_flight: int
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """Figures of one run of a pipeline, under way or ended.

    The totals (``accepted`` to ``in_flight``) are sums over the stages and the output.

    Args:
        name: Name of the pipeline.
        stages: The stages in the order in which they were declared; a broadcast is followed by
            the stages of its branches.
        output: The end of the pipeline: what was ``processed`` there was delivered.
        read: Items taken from the source.
        elapsed: Seconds since the start, until now or until the end.
    """

    name: str
    stages: tuple[StageStatistics, ...]
    output: StageStatistics
    read: int
    elapsed: float

    @property
    def delivered(self) -> int:
        """Results that were read, or that the sink has taken."""
        return self.output.processed

    @property
    def accepted(self) -> int:
        """Sum of ``accepted``."""
        return sum(each.accepted for each in self._all())

    @property
    def processed(self) -> int:
        """Sum of ``processed``."""
        return sum(each.processed for each in self._all())

    @property
    def failed(self) -> int:
        """Sum of ``failed``."""
        return sum(each.failed for each in self._all())

    @property
    def cancelled(self) -> int:
        """Sum of ``cancelled``."""
        return sum(each.cancelled for each in self._all())

    @property
    def queued(self) -> int:
        """Sum of ``queued``."""
        return sum(each.queued for each in self._all())

    @property
    def in_flight(self) -> int:
        """Sum of ``in_flight``."""
        return sum(each.in_flight for each in self._all())

    def _all(self) -> Iterable[StageStatistics]:
        return (*self.stages, self.output)


class Tally:
    """The counters of one stage; plain attributes, because the hot path adds to them.

    Args:
        name: Name of the stage.

    ``queued`` counts items that were accepted and not started, ``started`` those whose function
    was started for good (a retry that waits is queued again), ``done`` and ``failed`` how they
    ended.
    """

    __slots__ = ("_aborted", "_discarded", "done", "failed", "latency", "name", "queued", "started")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.queued: int = 0
        self.started: int = 0
        self.done: int = 0
        self.failed: int = 0
        self._aborted = self._discarded = 0
        self.latency: Histogram = Histogram()

    def settle(self) -> None:
        """Count what still waits or runs as cancelled; nothing runs any more."""
        self._discarded += self.queued
        self.queued = 0
        self._aborted += self._running()

    def snapshot(self) -> StageStatistics:
        """Return the figures of this moment."""
        return StageStatistics(
            name=self.name,
            accepted=self.queued + self.started + self._discarded,
            processed=self.done,
            failed=self.failed,
            cancelled=self._discarded + self._aborted,
            queued=self.queued,
            in_flight=self._running(),
            p50=self.latency.quantile(0.5),
            p99=self.latency.quantile(0.99),
        )

    def _running(self) -> int:
        return self.started - self.done - self.failed - self._aborted


def is_timed(index: int) -> bool:
    """Whether the item of this number is one of those that are timed."""
    return index < _TIMED_FIRST or not index & _TIMED_MASK
