"""The crew behind stream_map: what its synchronous core does, step by step."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.flow.crew import Crew, MapStatistics, Plan
from aiopatterns.testing import simulate


def plan(fn, items, **changes):
    given = {
        "limit": 2,
        "window": 4,
        "ordered": False,
        "errors": "raise",
        "retry": None,
        "total": False,
    }
    return Plan(fn=fn, items=items, **{**given, **changes})


def test_a_run_from_start_to_end():
    async def nap(seconds: float) -> float:
        await sleep(seconds)
        return seconds

    async def run():
        async with anyio.create_task_group() as tasks:
            crew: Crew[float, float] = Crew(plan(nap, [3, 1, 2]), tasks)
            assert crew.statistics() == MapStatistics()
            crew.start()
            assert [await crew.lane.read() for _ in range(3)] == [1, 3, 2]
            with pytest.raises(StopAsyncIteration):
                await crew.lane.read()
        assert crew.statistics() == MapStatistics(accepted=3, done=3)

    simulate(run)


def test_stopping_twice_counts_once():
    async def nap(seconds: float) -> float:
        await sleep(seconds)
        return seconds

    async def run():
        async with anyio.create_task_group() as tasks:
            crew: Crew[float, float] = Crew(plan(nap, [3, 1, 2]), tasks)
            crew.start()
            await sleep(0.5)
            crew.stop()
            crew.stop()
        assert crew.statistics() == MapStatistics(accepted=2, cancelled=2)

    simulate(run)


def test_few_workers_are_started_for_few_items():
    async def run():
        async with anyio.create_task_group() as tasks:
            crew: Crew[float, float] = Crew(plan(sleep, [1, 1], limit=1000, window=1000), tasks)
            crew.start()
            await sleep(0.5)
            assert len(crew._handles) <= 6
            assert crew.statistics().running == 2

    simulate(run)
