"""The data-processing system, and the test kit, as users write them, under both checkers."""

from __future__ import annotations

from typing import assert_type

from aiopatterns.flow import Inline, Processes
from aiopatterns.processor import Analysis, Corpus, DataProcessor, render_report
from aiopatterns.testing import Trial, Visited, cancel_everywhere, explore, simulate


async def process() -> None:
    processor = DataProcessor(Corpus.at("sources"), executor=Processes(2))
    analysis = await processor.run()
    assert_type(analysis, Analysis)
    assert_type(analysis.files, int)
    assert_type(render_report(analysis, processor.progress, title="sources"), str)
    DataProcessor(Corpus.standard_library(), executor=Inline())


async def forty_two() -> int:
    return 42


def kit() -> None:
    assert_type(simulate(forty_two, seed=7), int)
    explore(forty_two, range(200))
    assert_type(cancel_everywhere(lambda: Trial(forty_two()), minimum=1), Visited)
