r"""The run as a timeline that Perfetto and Chrome read.

The format is the Trace Event Format (JSON): open the file in the trace viewer of Chromium
browsers or in the Perfetto UI. One track shows the stages, one each who worked and on what, a
counter shows how many tasks waited, and arrows lead from a chunk's processing to its analysis::

    stages     [ ingestion ][ processing       ][ analysis          ][ report ]
    process 1               [ 0 ][ 2 ][ 3 ]      [ 1 ][ 2 ]...
    process 2               [ 1 ][ 4 ]           [ 0 ][ 3 ]...
    queued     ~~~~\________~~~~\_____________~~~~\____

Guarantees: every begin has its end with the same track and name, every arrow's start its finish,
and times never fall.

Source: Google, Trace Event Format (2016); times are microseconds.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiopatterns.processor.progress import Progress, Sample, Snapshot, Span

__all__ = ["render_trace"]

_STAGES_TRACK: Final = 0

Event = dict[str, object]


def render_trace(progress: Progress) -> str:
    """Return the trace of a run as JSON.

    Args:
        progress: The record of the run.

    Complexity: O(n log n) for n tasks; about 300 bytes each.
    """
    snapshot = progress.snapshot()
    lanes = {lane: number for number, (lane, _) in enumerate(snapshot.lanes, 1)}
    spans = sorted(progress.spans, key=lambda each: each.start)
    events = [
        *_titles(lanes),
        *_stages(snapshot),
        *_tasks(spans, lanes),
        *_arrows(spans, lanes),
        *_queues(progress.samples),
    ]
    process = os.getpid()
    for each in events:
        each["pid"] = process
    # Stable: on each track events were made in order, which equal times must not change.
    events.sort(key=lambda each: cast("float", each["ts"]))
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _titles(lanes: dict[str, int]) -> Iterator[Event]:
    """Name the tracks."""
    yield _event("M", "process_name", 0.0, _STAGES_TRACK, args={"name": "aiopatterns run"})
    for lane, track in {"stages": _STAGES_TRACK, **lanes}.items():
        yield _event("M", "thread_name", 0.0, track, args={"name": lane})


def _stages(snapshot: Snapshot) -> Iterator[Event]:
    """The stages as async spans, paired by their id."""
    for number, each in enumerate(snapshot.stages):
        if each.start is None:
            continue
        end = snapshot.elapsed if each.end is None else each.end
        args = {"files": each.files, "bytes": each.size, "state": each.state.value}
        common = {"cat": "stage", "id": number}
        yield _event("b", each.name, each.start, _STAGES_TRACK, args=args, **common)
        yield _event("e", each.name, end, _STAGES_TRACK, **common)


def _tasks(spans: Sequence[Span], lanes: dict[str, int]) -> Iterator[Event]:
    """The tasks, as begin and end on the track of who did them."""
    for each in spans:
        track = lanes[each.lane]
        name = f"{each.stage} {each.task}"
        args = {"chunk": each.task, "files": each.files, "bytes": each.size}
        yield _event("B", name, each.start, track, cat=each.stage, args=args)
        yield _event("E", name, each.end, track, cat=each.stage)


def _arrows(spans: Sequence[Span], lanes: dict[str, int]) -> Iterator[Event]:
    """Arrows from a chunk's processing to its analysis."""
    begun = {each.task: each for each in spans if each.stage == "processing"}
    for each in spans:
        if each.stage == "analysis" and each.task in begun:
            source = begun[each.task]
            common = {"cat": "chunk", "id": each.task}
            yield _event("s", "chunk", source.start, lanes[source.lane], **common)
            yield _event("f", "chunk", each.start, lanes[each.lane], bp="e", **common)


def _queues(samples: Sequence[Sample]) -> Iterator[Event]:
    """How many tasks wait and run, as counters."""
    for each in samples:
        args = {"queued": each.queued, "running": each.running}
        yield _event("C", "tasks", each.at, _STAGES_TRACK, args=args)


def _event(phase: str, name: str, at: float, track: int, **more: object) -> Event:
    return {"ph": phase, "name": name, "ts": round(at * 1e6, 3), "tid": track, **more}
