"""How far a run is: what the live screen, the report and the trace read.

The system tells a :class:`Progress` what begins and ends; everybody else asks it for a frozen
:class:`Snapshot`. State changes are synchronous, so a snapshot is consistent at every instant::

    total = done + running + queued          for the tasks of every stage

A *task* is one chunk in one stage; a *lane* is who worked on it, a process or a thread.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from statistics import quantiles
from typing import TYPE_CHECKING, Final, NamedTuple, final

from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from aiopatterns.processor.corpus import Chunk
    from aiopatterns.processor.stages import Timed

__all__ = [
    "HERE",
    "STAGES",
    "Progress",
    "Sample",
    "Snapshot",
    "Span",
    "StageSnapshot",
    "StageState",
]

STAGES: Final = ("ingestion", "processing", "analysis", "report")
"""The stages in their order."""


HERE: Final = -1
"""The task number of work that is not about one chunk."""


class StageState(Enum):
    """Where a stage is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Span(NamedTuple):
    """One task that was done.

    Attributes:
        stage: Name of the stage.
        task: Number of the chunk in it; :data:`HERE` for work on the whole.
        lane: Who did it: ``process 1``, ``thread 2``, ``main``.
        start: Begin, in seconds since the run began.
        end: End, likewise.
        files: Files of the chunk.
        size: Bytes of the chunk.
    """

    stage: str
    task: int
    lane: str
    start: float
    end: float
    files: int
    size: int


class Sample(NamedTuple):
    """Depth of a stage's queue at an instant, in seconds since the run began."""

    stage: str
    at: float
    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class StageSnapshot:
    """Figures of one stage.

    Args:
        name: One of :data:`STAGES`.
        state: Where it is.
        total: Tasks in all; 0 while that is not known.
        done: Tasks that are done.
        running: Tasks under way.
        files: Files that were done.
        size: Bytes that were done.
        size_total: Bytes in all.
        start: Begin in seconds since the run began; None before.
        end: End, likewise.
        elapsed: Seconds from begin to end, or until now.
        p50: Median seconds of a task; None while none is done.
        p95: 95th percentile, likewise.
        p99: 99th percentile, likewise.
    """

    name: str
    state: StageState
    total: int
    done: int
    running: int
    files: int
    size: int
    size_total: int
    start: float | None
    end: float | None
    elapsed: float
    p50: float | None
    p95: float | None
    p99: float | None

    @property
    def queued(self) -> int:
        """Tasks that wait."""
        return self.total - self.done - self.running

    @property
    def throughput(self) -> float:
        """Bytes in a second, over the whole stage."""
        return self.size / self.elapsed if self.elapsed else 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Figures of a run.

    Args:
        stages: One for each of :data:`STAGES`, in order.
        elapsed: Seconds since the run began, or that it took.
        lanes: Who has worked so far, in order of appearance, with the seconds they were busy.
    """

    stages: tuple[StageSnapshot, ...]
    elapsed: float
    lanes: tuple[tuple[str, float], ...]


@final
class Progress:
    """The record of one run; the clock starts with its construction.

    Args:
        workers: How many tasks can run at once. A few more are handed out than that, so that the
            next is at hand when one ends; those count as queued.
    """

    __slots__ = ("_busy", "_lanes", "_origin", "_stages", "_workers", "samples", "spans")

    def __init__(self, workers: int = 1) -> None:
        self._origin = monotonic()
        self._workers = workers
        self._stages = {name: _Stage(name, workers) for name in STAGES}
        self._lanes: dict[tuple[int, int], str] = {}
        self._busy: dict[str, float] = {}
        self.spans: list[Span] = []
        self.samples: list[Sample] = []

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Note that a stage runs while the block does; one that runs again begins anew."""
        each = self._stages[name] = _Stage(name, self._workers, start=self._now())
        each.state = StageState.RUNNING
        try:
            yield
        except BaseException:
            each.state = StageState.FAILED
            raise
        else:
            each.state = StageState.DONE
        finally:
            each.end = self._now()

    @contextmanager
    def here(self, stage: str) -> Generator[None]:
        """Note that the block is work of a stage that is done right here, not in a chunk."""
        start = self._now()
        try:
            yield
        finally:
            self._add(Span(stage, HERE, "main", start, self._now(), 0, 0))

    def expect(self, stage: str, chunks: Iterable[Chunk]) -> None:
        """Note the tasks of a stage; all of them are queued."""
        each = self._stages[stage]
        sizes = [chunk.size for chunk in chunks]
        each.total, each.size_total = len(sizes), sum(sizes)
        self._sample(each)

    def start(self, stage: str) -> None:
        """Note that a worker takes a task."""
        self._stages[stage].running += 1

    def drop(self, stage: str) -> None:
        """Note that a task's attempt failed or was cancelled: it is queued again."""
        self._stages[stage].running -= 1

    def finish(self, stage: str, chunk: Chunk, timed: Timed[object]) -> None:
        """Note that a task is done, by whom and when."""
        each = self._stages[stage]
        each.running -= 1
        each.done += 1
        each.files += len(chunk.entries)
        each.size += chunk.size
        each.seconds.append(timed.end - timed.start)
        begun, ended = timed.start - self._origin, timed.end - self._origin
        files, lane = len(chunk.entries), self._lane(timed)
        self._add(Span(stage, chunk.number, lane, begun, ended, files, chunk.size))
        self._sample(each)

    def snapshot(self) -> Snapshot:
        """Return the figures of this moment."""
        now = self._now()
        stages = tuple(each.snapshot(now) for each in self._stages.values())
        ended = stages[-1].end
        return Snapshot(stages, now if ended is None else ended, tuple(self._busy.items()))

    def _now(self) -> float:
        return monotonic() - self._origin

    def _add(self, span: Span) -> None:
        self.spans.append(span)
        self._busy[span.lane] = self._busy.get(span.lane, 0.0) + span.end - span.start

    def _sample(self, stage: _Stage) -> None:
        running = min(stage.running, self._workers)
        queued = stage.total - stage.done - running
        self.samples.append(Sample(stage.name, self._now(), queued, running))

    def _lane(self, timed: Timed[object]) -> str:
        """Name who did it: by order of appearance, for ids say nothing."""
        key = (timed.process, timed.thread)
        if key not in self._lanes:
            kind = "thread" if timed.process == os.getpid() else "process"
            number = sum(each.startswith(kind) for each in self._lanes.values()) + 1
            self._lanes[key] = f"{kind} {number}"
        return self._lanes[key]


@final
class _Stage:
    """The changing figures of one stage."""

    __slots__ = (
        "done",
        "end",
        "files",
        "name",
        "running",
        "seconds",
        "size",
        "size_total",
        "start",
        "state",
        "total",
        "workers",
    )

    def __init__(self, name: str, workers: int, *, start: float | None = None) -> None:
        self.name = name
        self.workers = workers
        self.state = StageState.WAITING
        self.total = self.done = self.running = self.files = self.size = self.size_total = 0
        self.start = start
        self.end: float | None = None
        self.seconds: list[float] = []

    def snapshot(self, now: float) -> StageSnapshot:
        """Freeze the figures."""
        end = now if self.end is None else self.end
        p50, p95, p99 = _percentiles(self.seconds)
        return StageSnapshot(
            name=self.name,
            state=self.state,
            total=self.total,
            done=self.done,
            running=min(self.running, self.workers),
            files=self.files,
            size=self.size,
            size_total=self.size_total,
            start=self.start,
            end=self.end,
            elapsed=0.0 if self.start is None else end - self.start,
            p50=p50,
            p95=p95,
            p99=p99,
        )


def _percentiles(values: list[float]) -> tuple[float | None, float | None, float | None]:
    """Return the 50th, 95th and 99th percentile."""
    if not values:
        return None, None, None
    if len(values) == 1:
        return values[0], values[0], values[0]
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]
