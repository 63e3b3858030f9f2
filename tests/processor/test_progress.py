from __future__ import annotations

import os

import pytest

from aiopatterns.core.clock import monotonic
from aiopatterns.processor.corpus import Chunk, Entry
from aiopatterns.processor.progress import HERE, Progress, StageState
from aiopatterns.processor.stages import Timed

CHUNKS = [Chunk(n, "/", (Entry("a", ("p",)),) * 2, 100) for n in range(4)]


def timed(task: int, seconds: float = 0.1, process: int = 1, thread: int = 1) -> Timed[None]:
    now = monotonic()
    return Timed(None, task, process, thread, now, now + seconds)


def test_what_is_handed_out_before_its_time_counts_as_queued():
    progress = Progress(2)
    with progress.stage("analysis"):
        progress.expect("analysis", CHUNKS)
        for _ in range(4):
            progress.start("analysis")
        now = progress.snapshot().stages[2]
        assert (now.running, now.queued) == (2, 2)


def test_a_run_from_begin_to_end():
    progress = Progress(4)
    waiting = progress.snapshot().stages[0]
    assert (waiting.state, waiting.start, waiting.elapsed, waiting.throughput, waiting.p50) == (
        StageState.WAITING, None, 0.0, 0.0, None,
    )  # fmt: skip
    with progress.stage("ingestion"):
        progress.expect("ingestion", CHUNKS)
        progress.start("ingestion")
        progress.start("ingestion")
        progress.finish("ingestion", CHUNKS[0], timed(0, 0.1))
        progress.drop("ingestion")
        now = progress.snapshot().stages[0]
        assert (now.state, now.total, now.done, now.running, now.queued) == (
            StageState.RUNNING, 4, 1, 0, 3,
        )  # fmt: skip
        assert (now.files, now.size, now.size_total, now.end) == (2, 100, 400, None)
        assert now.p50 == now.p95 == now.p99 == pytest.approx(0.1)
        progress.start("ingestion")
        progress.finish("ingestion", CHUNKS[1], timed(1, 0.3))
    done = progress.snapshot().stages[0]
    assert done.state is StageState.DONE
    assert done.p50 == pytest.approx(0.2)
    assert done.end is not None
    assert done.elapsed == done.end - (done.start or 0)
    assert done.throughput == pytest.approx(200 / done.elapsed)
    assert [each.task for each in progress.spans] == [0, 1]
    assert [(each.queued, each.running) for each in progress.samples] == [(4, 0), (2, 1), (2, 0)]


def test_a_stage_that_fails_and_runs_again():
    progress = Progress()
    with pytest.raises(KeyError), progress.stage("analysis"):
        progress.expect("analysis", CHUNKS)
        raise KeyError
    assert progress.snapshot().stages[2].state is StageState.FAILED
    with progress.stage("analysis"):
        progress.expect("analysis", CHUNKS[:1])
    again = progress.snapshot().stages[2]
    assert (again.state, again.total) == (StageState.DONE, 1)


def test_who_worked_is_named_by_order_of_appearance():
    progress = Progress()
    with progress.stage("processing"):
        progress.expect("processing", CHUNKS)
        for task, (process, thread) in enumerate([(7, 7), (os.getpid(), 5), (8, 8), (7, 7)]):
            progress.start("processing")
            progress.finish("processing", CHUNKS[task], timed(task, 0.5, process, thread))
        with progress.here("processing"):
            pass
    lanes = dict(progress.snapshot().lanes)
    assert [*lanes] == ["process 1", "thread 1", "process 2", "main"]
    assert lanes["process 1"] == pytest.approx(1.0)
    assert progress.spans[-1].task == HERE


def test_the_clock_stops_with_the_report():
    progress = Progress()
    with progress.stage("report"):
        pass
    assert progress.snapshot().elapsed == progress.snapshot().stages[3].end
