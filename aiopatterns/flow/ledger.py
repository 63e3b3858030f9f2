"""What a pool counts: where every item is, at every instant.

An accepted item is in exactly one place, and the counters say so::

    accepted == done + failed + cancelled + dropped + queued + running

That holds whenever anybody can look: in the user's functions, in event listeners, between any two
turns of the loop. It holds because an item moves from one counter to another in one step without
a suspension, and nobody is told before the step is complete.

What the counters mean:

* ``queued``: waits for a worker, behind its key, for a token of the rate limit, or for its retry.
* ``cancelled``: somebody cancelled it, or its function raised a cancellation by itself.
* ``dropped``: it had not started, or waited for a retry, when the pool was left by an error or a
  cancellation; its handle is CANCELLED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, final

from aiopatterns.core.quantile import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Ledger", "PoolStatistics", "WorkerState", "WorkerStatistics"]

WorkerState: TypeAlias = Literal["opening", "idle", "running"]


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """Figures of one worker.

    Args:
        number: Its number in this run of the pool, from 0.
        state: ``"opening"`` its resource, ``"idle"``, or ``"running"`` an item (waiting for a
            token of the rate limit included).
        attempts: Attempts that have ended here.
        failed: Those of them that raised.
        busy: Seconds spent in the user's function.
    """

    number: int
    state: WorkerState
    attempts: int
    failed: int
    busy: float


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Figures of a pool; ``accepted`` is always the sum of the six counters after it.

    Args:
        accepted: Items taken in by this run of the pool.
        done: Items whose function returned.
        failed: Items whose function raised at last, or whose deadline passed.
        cancelled: Items that were cancelled.
        dropped: Items that had not started when the pool was left by an error.
        queued: Items that wait.
        running: Items whose function runs.
        workers: Workers alive now; they start when there is something to do.
        limit: Most workers there may be now; after a shrink more may be finishing.
        p50: Median of the seconds one attempt took; None before the first.
        p95: 95th percentile of the same.
        p99: 99th percentile of the same.
        per_worker: The workers alive now.
    """

    accepted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    dropped: int = 0
    queued: int = 0
    running: int = 0
    workers: int = 0
    limit: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    per_worker: tuple[WorkerStatistics, ...] = ()


@final
class Ledger:
    """The counters of one run of a pool; plain attributes, because the hot path moves them."""

    __slots__ = (
        "accepted",
        "cancelled",
        "done",
        "dropped",
        "failed",
        "queued",
        "running",
        "seconds",
    )

    def __init__(self) -> None:
        self.accepted: int = 0
        self.queued: int = 0
        self.running: int = 0
        self.done: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.dropped: int = 0
        self.seconds: Histogram = Histogram()

    def snapshot(self, limit: int, workers: Iterable[WorkerStatistics]) -> PoolStatistics:
        """Return the figures of this moment."""
        per_worker = tuple(workers)
        return PoolStatistics(
            accepted=self.accepted,
            done=self.done,
            failed=self.failed,
            cancelled=self.cancelled,
            dropped=self.dropped,
            queued=self.queued,
            running=self.running,
            workers=len(per_worker),
            limit=limit,
            p50=self.seconds.quantile(0.5),
            p95=self.seconds.quantile(0.95),
            p99=self.seconds.quantile(0.99),
            per_worker=per_worker,
        )
