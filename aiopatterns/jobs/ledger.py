"""The figures of a worker: one ledger for each queue, and the record that is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from aiopatterns.core.quantile import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Ledger", "QueueFigures", "WorkerStatistics", "add_up"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What a worker has done for one queue since it was opened.

    Args:
        processed: Jobs that are done.
        failed: Jobs that became dead letters here.
        retried: Attempts that failed and will be made again.
        cancelled: Jobs that were cancelled while they were here.
        lost: Jobs that another worker has taken over.
        stale: Settlements that came too late.
        running: Jobs whose function runs now.
        steps: Round trips in which all of it was said.
        outages: How often the backend did not answer.
    """

    processed: int
    failed: int
    retried: int
    cancelled: int
    lost: int
    stale: int
    running: int
    steps: int
    outages: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatistics:
    """The figures of a worker, over all its queues.

    Args:
        processed: Jobs that are done.
        failed: Jobs that became dead letters here.
        retried: Attempts that failed and will be made again.
        running: Jobs whose function runs now.
        steps: Round trips in which all of it was said.
        p50: Half of the attempts took no longer, in seconds; None if there was none.
        p95: 95 % took no longer.
        p99: 99 % took no longer.
        queues: The figures of each queue, by its name.
    """

    processed: int
    failed: int
    retried: int
    running: int
    steps: int
    p50: float | None
    p95: float | None
    p99: float | None
    queues: Mapping[str, QueueFigures]


@final
class Ledger:
    """Counts what happens to the jobs of one queue in one worker.

    Args:
        queue: The queue.
    """

    __slots__ = (
        "cancelled",
        "failed",
        "lost",
        "outages",
        "processed",
        "queue",
        "retried",
        "running",
        "seconds",
        "stale",
        "steps",
    )

    def __init__(self, queue: str) -> None:
        self.queue: str = queue
        self.processed: int = 0
        self.failed: int = 0
        self.retried: int = 0
        self.cancelled: int = 0
        self.lost: int = 0
        self.stale: int = 0
        self.running: int = 0
        self.steps: int = 0
        self.outages: int = 0
        self.seconds: Histogram = Histogram()

    def figures(self) -> QueueFigures:
        """Return the figures of this moment."""
        return QueueFigures(
            processed=self.processed,
            failed=self.failed,
            retried=self.retried,
            cancelled=self.cancelled,
            lost=self.lost,
            stale=self.stale,
            running=self.running,
            steps=self.steps,
            outages=self.outages,
        )


def add_up(ledgers: Iterable[Ledger]) -> WorkerStatistics:
    """Return the figures of a worker with these ledgers, one for each of its queues."""
    found = [*ledgers]
    seconds = Histogram()
    for each in found:
        seconds.merge(each.seconds)
    figures = {each.queue: each.figures() for each in found}
    return WorkerStatistics(
        processed=sum(each.processed for each in found),
        failed=sum(each.failed for each in found),
        retried=sum(each.retried for each in found),
        running=sum(each.running for each in found),
        steps=sum(each.steps for each in found),
        p50=seconds.quantile(0.5),
        p95=seconds.quantile(0.95),
        p99=seconds.quantile(0.99),
        queues=figures,
    )
