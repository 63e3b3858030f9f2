"""Broadcast: every branch gets everything, whatever its pace."""

from __future__ import annotations

import operator
from collections import Counter

import anyio
import pytest

from aiopatterns.core.clock import rng, sleep, yield_now
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.testing import explore, simulate


async def collect(pipeline):
    async with pipeline.open() as results:
        return [result async for result in results]


def tagged(tag, delay=0.0):
    async def tag_it(x):
        await sleep(delay * rng().random())
        return tag, x

    return tag_it


def test_every_branch_gets_every_item_in_order():
    async def scenario():
        pipeline = Pipeline(range(30), capacity=2).broadcast(
            lambda p: p.map(tagged("fast")),
            lambda p: p.map(tagged("slow", 1.0), workers=2),
            lambda p: p.batch(4).flat_map(lambda batch: batch).map(tagged("batch")),
        )
        got = await collect(pipeline)
        assert len(got) == 90
        for tag in ("fast", "slow", "batch"):
            assert [x for each, x in got if each == tag] == list(range(30))

    explore(scenario, range(30))


def test_a_branch_runs_ahead_by_the_capacity_only():
    done = []

    async def fast(x):
        done.append(x)
        return x

    async def stuck(x):
        await sleep(1000)
        return x

    async def scenario():
        pipeline = Pipeline(range(100), capacity=5).broadcast(
            lambda p: p.map(fast), lambda p: p.map(stuck)
        )
        async with pipeline.filter(lambda x: False).open() as results:
            await sleep(1)
            report = results.statistics()
            broadcast = report.stages[0]
            assert broadcast.in_flight == 1
            assert broadcast.processed == 6
        assert len(done) <= 7

    simulate(scenario)


async def test_broadcasts_nest_and_follow_each_other():
    def split(p: Pipeline[int]) -> Pipeline[int]:
        return p.broadcast(lambda p: p.map(plus), lambda p: p)

    def plus(x: int) -> int:
        return x + 1

    pipeline = Pipeline([10]).broadcast(split, lambda p: p.map(operator.neg))
    assert sorted(await collect(split(pipeline))) == [-10, -9, 10, 11, 11, 12]


async def test_the_statistics_name_the_branches_in_order():
    pipeline = Pipeline([1]).broadcast(lambda p: p.map(abs).filter(bool), lambda p: p.map(str))
    report = await pipeline.map(repr).run()
    names = ["broadcast", "abs", "bool", "str", "repr"]
    assert [stage.name for stage in report.stages] == names
    assert [stage.processed for stage in report.stages] == [1, 1, 1, 1, 2]


async def test_a_failure_in_a_branch_stops_everything():
    def fail(x):
        raise LookupError(x)

    pipeline = Pipeline(range(5)).broadcast(lambda p: p.map(fail), lambda p: p.map(abs))
    with pytest.raises(LookupError) as caught:
        await pipeline.run()
    assert caught.value.__notes__ == ["in stage 'fail', item 0"]


def test_a_full_relay_does_not_starve_the_loop():
    async def scenario():
        go_on, turns = anyio.Event(), [0]
        called: Counter[int] = Counter()

        async def first_waits(x):
            if x == 0:
                await go_on.wait()
            called[turns[0]] += 1

        async def release():
            await sleep(1)
            go_on.set()
            while sum(called.values()) < 1000:
                turns[0] += 1
                await yield_now()

        pipeline = Pipeline(range(1000), capacity=1000).broadcast(lambda p: p.map(first_waits))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            await pipeline.run()
        assert max(called.values()) <= 128

    simulate(scenario)
