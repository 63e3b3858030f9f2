"""An error that refuses notes (a frozen dataclass) leaves every pattern bare and identical."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from aiopatterns import (
    Dag,
    Pipeline,
    Retry,
    WorkerPool,
    amap,
    map_reduce,
    produce_consume,
    stream_map,
)
from aiopatterns.flow import Inline, Threads
from aiopatterns.resilience import Chaos, Constant, Hedge


@dataclass(frozen=True)
class FrozenError(Exception):
    item: int


ERROR = FrozenError(3)


async def fails(item: int) -> int:
    if item == ERROR.item:
        raise ERROR
    return item


def fails_here(item: int) -> int:
    if item == ERROR.item:
        raise ERROR
    return item


async def keep(item: object) -> None:
    return None


async def source():
    for item in range(5):
        yield item
    raise ERROR


async def in_amap():
    await amap(fails, range(5), limit=2)


async def in_stream_map():
    async with stream_map(fails, range(5), limit=2) as results:
        async for _ in results:
            pass


async def in_pool():
    async with WorkerPool(fails, workers=2) as pool:
        await pool.run(3)


async def in_pool_stream():
    async with WorkerPool(fails, workers=2) as pool:
        async with pool.stream(range(5), errors="raise") as outcomes:
            async for _ in outcomes:
                pass


async def in_stage():
    await Pipeline(range(5)).map(fails, workers=2).run(into=keep)


async def in_executor_stage():
    await Pipeline(range(5)).map(fails_here, executor=Threads(2)).run(into=keep)


async def in_source_of_pipeline():
    await Pipeline(source()).map(keep, workers=2).run(into=keep)


async def in_producer():
    await produce_consume([range(5)], fails)


async def in_map_reduce():
    await map_reduce(
        range(5), fails, lambda total, item: total + item, initial=int, executor=Inline()
    )


async def in_dag():
    dag = Dag("frozen")
    dag.add(lambda: fails_here(3), id="only")
    await dag.run()


async def in_retry():
    await Retry(on=FrozenError, attempts=2, backoff=Constant(0)).call(fails, 3)


async def in_hedge():
    await Hedge(0).call(fails, 3)


async def in_chaos():
    await Chaos(errors=[lambda: ERROR], rate=1.0, seed=1).call(fails, 1)


@pytest.mark.parametrize(
    "pattern",
    [
        in_amap,
        in_stream_map,
        in_pool,
        in_pool_stream,
        in_stage,
        in_executor_stage,
        in_source_of_pipeline,
        in_producer,
        in_map_reduce,
        in_dag,
        in_retry,
        in_hedge,
        in_chaos,
    ],
)
async def test_the_error_leaves_as_it_is(pattern):
    with pytest.raises(FrozenError) as raised:
        await pattern()
    assert raised.value == ERROR
