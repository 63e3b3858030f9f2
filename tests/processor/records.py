"""A finished run to draw, made by hand."""

from __future__ import annotations

import os

from aiopatterns.core.clock import monotonic
from aiopatterns.processor.corpus import Chunk, Entry
from aiopatterns.processor.progress import STAGES, Progress
from aiopatterns.processor.stages import Timed


def make_progress(tasks: int = 3) -> Progress:
    """Two processes and this one worked on a few chunks in each of three stages."""
    progress = Progress(3)
    chunks = [Chunk(n, "/", (Entry("a", ("p",)),), 1000) for n in range(tasks)]
    for stage in STAGES[:3]:
        with progress.stage(stage):
            progress.expect(stage, chunks)
            for chunk in chunks:
                progress.start(stage)
                lane = (101, 102, os.getpid())[chunk.number % 3]
                begun = monotonic()
                timed = Timed(None, chunk.number, lane, lane, begun, begun + 1e-4)
                while monotonic() < begun + 2e-4:
                    pass
                progress.finish(stage, chunk, timed)
    with progress.stage("report"), progress.here("report"):
        pass
    return progress
