"""The data-processing system, and the test kit, as users write them, under both checkers."""

from __future__ import annotations

from typing import assert_type

from aiopatterns.backends import open_backend
from aiopatterns.contrib.dask import DaskExecutor
from aiopatterns.flow import Inline, Processes
from aiopatterns.processor import Analysis, Corpus, DataProcessor, Fleet, render_report
from aiopatterns.testing import Trial, Visited, cancel_everywhere, explore, simulate


async def process() -> None:
    processor = DataProcessor(Corpus.at("sources"), executor=Processes(2))
    analysis = await processor.run()
    assert_type(analysis, Analysis)
    assert_type(analysis.files, int)
    assert_type(render_report(analysis, processor.progress, title="sources"), str)
    DataProcessor(Corpus.standard_library(), executor=Inline())


async def distributed() -> None:
    async with DaskExecutor("tcp://scheduler:8786", limit=8) as cluster:
        assert_type(await cluster.run(len, "text"), int)
        fleet = Fleet("redis://localhost", processes=4, run="nightly", executor=cluster)
        assert_type(await DataProcessor(Corpus.at("sources"), executor=fleet).run(), Analysis)
        assert_type(fleet.run, str)
    Fleet(open_backend("memory://"), processes=0)


async def forty_two() -> int:
    return 42


def kit() -> None:
    assert_type(simulate(forty_two, seed=7), int)
    explore(forty_two, range(200))
    assert_type(cancel_everywhere(lambda: Trial(forty_two()), minimum=1), Visited)
