"""How many jobs of a queue are where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.queue import Counts

__all__ = ["JobStatistics", "summed"]


@final
@dataclass(frozen=True, slots=True)
class JobStatistics:
    """Figures of a queue at one instant.

    Attributes:
        queued: Jobs that a worker could take, or that a limit's concurrency holds back.
        scheduled: Jobs that wait for their time, retries among them.
        waiting: Jobs that wait for others.
        running: Jobs in workers.
        dead: Dead letters.
        paused: Whether nothing is given out.
        workers: Workers that are alive, each once, however many partitions it serves.
    """

    queued: int
    scheduled: int
    waiting: int
    running: int
    dead: int
    paused: bool
    workers: int


def summed(parts: Sequence[Counts]) -> JobStatistics:
    """Return the figures of all partitions together; a worker has one id in all of them."""
    return JobStatistics(
        queued=sum(each.queued for each in parts),
        scheduled=sum(each.scheduled for each in parts),
        waiting=sum(each.waiting for each in parts),
        running=sum(each.running for each in parts),
        dead=sum(each.dead for each in parts),
        paused=any(each.paused for each in parts),
        workers=len(frozenset[str]().union(*(each.alive for each in parts))),
    )
