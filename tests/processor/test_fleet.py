"""Runs over workers of their own, in memory and as processes over Redis."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.flow.executors import Inline
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.output import Output
from aiopatterns.processor.report import render_report
from aiopatterns.processor.system import DataProcessor
from tests.jobs.fleet import on_one_loop
from tests.processor.reference import make_tree
from tests.processor.test_system import assert_plain, grow


async def serial(root, chunk_bytes=200):
    return await DataProcessor(Corpus.at(root), executor=Inline(1), chunk_bytes=chunk_bytes).run()


@pytest.mark.parametrize("seed", [1, 4, 7])
async def test_in_memory_the_result_equals_a_plain_serial_count(tmp_path, seed):
    fleet = Fleet("memory://", processes=3)
    processor = DataProcessor(Corpus.at(grow(tmp_path, seed)), executor=fleet, chunk_bytes=40)
    analysis = await processor.run()
    assert_plain(analysis, tmp_path)
    assert analysis == await serial(tmp_path, 40)
    stages = processor.progress.snapshot().stages
    assert all(each.done == each.total for each in stages)


@pytest.mark.real
@pytest.mark.timeout(40)
@on_one_loop
async def test_over_worker_processes_the_result_is_the_same(tmp_path, redis_url):
    make_tree(tmp_path)
    processor = DataProcessor(
        Corpus.at(tmp_path), executor=Fleet(redis_url, processes=2), chunk_bytes=200
    )
    assert await processor.run() == await serial(tmp_path)
    lanes = {lane for lane, _ in processor.progress.snapshot().lanes}
    assert "process 1" in lanes
    assert not any(each.startswith("thread") for each in lanes)
    await nothing_is_left(redis_url)


async def nothing_is_left(url: str) -> None:
    """Only outcomes with a life are left: no value, no job that waits."""
    async with open_backend(url) as backend:
        assert not (await backend.kv.scan("run:", limit=10_000)).keys
        counts = await backend.queue("aiopatterns.run").counts()
        assert (counts.queued, counts.scheduled, counts.running) == (0, 0, 0)
