"""What a worker pool costs: one item at a time, a long queue, a stream, and bytes."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import tracemalloc

from aiometer import amap as aiometer_amap

from aiopatterns.core.errors import QueueFullError
from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.flow.pool import WorkerPool
from benchmarks.harness import Bench

ONE_BY_ONE = 20_000
MANY = 100_000
SLEEPS = 5_000

bench = Bench("flow/pool", versions=("aiometer",))


async def double(item: int) -> int:
    return item * 2


async def nap(item: int) -> int:
    await asyncio.sleep(0.001)
    return item * 2


# ------------------------------------------------------------------------- one item at a time

await_one = bench.case("submit one item and await its result", clock="cpu", unit="us/item")


@await_one.ours("aiopatterns.WorkerPool.submit")
async def submit_and_await() -> int:
    total = 0
    async with WorkerPool(double, workers=8) as pool:
        for item in range(ONE_BY_ONE):
            total += await (await pool.submit(item))
    assert total == ONE_BY_ONE * (ONE_BY_ONE - 1)
    return ONE_BY_ONE


@await_one.ours("aiopatterns.WorkerPool.run")
async def run() -> int:
    total = 0
    async with WorkerPool(double, workers=8) as pool:
        for item in range(ONE_BY_ONE):
            total += await pool.run(item)
    assert total == ONE_BY_ONE * (ONE_BY_ONE - 1)
    return ONE_BY_ONE


@await_one.ours("the same with timeout, priority and Autoscale")
async def submit_with_everything() -> int:
    total = 0
    async with WorkerPool(double, workers=Autoscale(1, 8), timeout=5) as pool:
        for item in range(ONE_BY_ONE):
            total += await (await pool.submit(item, priority=item & 1))
    assert total == ONE_BY_ONE * (ONE_BY_ONE - 1)
    return ONE_BY_ONE


@await_one.peer("asyncio.create_task", follows="docs.python.org, Coroutines and Tasks")
async def create_task() -> int:
    total = 0
    for item in range(ONE_BY_ONE):
        total += await asyncio.create_task(double(item))
    assert total == ONE_BY_ONE * (ONE_BY_ONE - 1)
    return ONE_BY_ONE


@await_one.peer("asyncio.Queue, 8 workers, a future an item", follows="docs.python.org, Queues")
async def queue_and_future() -> int:
    queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue(100)
    total = 0
    workers = [asyncio.create_task(_queue_worker(queue)) for _ in range(8)]
    loop = asyncio.get_running_loop()
    for item in range(ONE_BY_ONE):
        future: asyncio.Future[int] = loop.create_future()
        await queue.put((item, future))
        total += await future
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert total == ONE_BY_ONE * (ONE_BY_ONE - 1)
    return ONE_BY_ONE


async def _queue_worker(queue: asyncio.Queue[tuple[int, asyncio.Future[int]]]) -> None:
    while True:
        item, future = await queue.get()
        future.set_result(await double(item))
        queue.task_done()


@await_one.limit("await fn(item)")
async def bare() -> int:
    total = 0
    for item in range(ONE_BY_ONE):
        total += await double(item)
    assert total == ONE_BY_ONE * (ONE_BY_ONE - 1)
    return ONE_BY_ONE


await_one.under(5.0)

# ----------------------------------------------------------------------------------- a queue

many = bench.case("100k no-op items through the queue", clock="cpu", unit="us/item")


@many.ours("aiopatterns.WorkerPool.stream")
async def stream() -> int:
    total = 0
    async with WorkerPool(double, workers=8) as pool, pool.stream(range(MANY)) as outcomes:
        async for outcome in outcomes:
            total += outcome.unwrap()
    assert total == MANY * (MANY - 1)
    return MANY


@many.ours("aiopatterns.WorkerPool.submit_nowait, queue of 100k")
async def submit_nowait() -> int:
    async with WorkerPool(double, workers=8, queue=MANY) as pool:
        handles = [pool.submit_nowait(item) for item in range(MANY)]
        await pool.drain()
        total = sum([await handle for handle in handles])
    assert total == MANY * (MANY - 1)
    return MANY


@many.ours("aiopatterns.WorkerPool.submit, queue of 100")
async def submit() -> int:
    async with WorkerPool(double, workers=8) as pool:
        for item in range(MANY):
            await pool.submit(item)
        await pool.drain()
        assert pool.statistics().done == MANY
    return MANY


@many.ours("the same with ten priorities")
async def submit_with_priorities() -> int:
    async with WorkerPool(double, workers=8) as pool:
        for item in range(MANY):
            await pool.submit(item, priority=item % 10)
        await pool.drain()
        assert pool.statistics().done == MANY
    return MANY


@many.peer("asyncio.Queue(100), 8 workers, a future an item", follows="docs.python.org, Queues")
async def queue_of_futures() -> int:
    queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue(100)
    workers = [asyncio.create_task(_queue_worker(queue)) for _ in range(8)]
    loop = asyncio.get_running_loop()
    futures = []
    for item in range(MANY):
        future: asyncio.Future[int] = loop.create_future()
        await queue.put((item, future))
        futures.append(future)
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert sum(future.result() for future in futures) == MANY * (MANY - 1)
    return MANY


@many.peer("a task an item behind a Semaphore", follows="docs.python.org, Synchronization")
async def semaphore() -> int:
    gate = asyncio.Semaphore(8)

    async def one(item: int) -> int:
        async with gate:
            return await double(item)

    results = await asyncio.gather(*(one(item) for item in range(MANY)))
    assert sum(results) == MANY * (MANY - 1)
    return MANY


@many.peer("aiometer.amap", follows="README, max_at_once")
async def aiometer() -> int:
    total = 0
    async with aiometer_amap(double, list(range(MANY)), max_at_once=8) as results:
        async for result in results:
            total += result
    assert total == MANY * (MANY - 1)
    return MANY


# ----------------------------------------------------------------------------------- sleeping

sleeping = bench.case("5k items of 1 ms, 100 workers", clock="wall", unit="ms/run")


@sleeping.ours("aiopatterns.WorkerPool.stream")
async def sleeping_stream() -> int:
    total = 0
    async with WorkerPool(nap, workers=100) as pool, pool.stream(range(SLEEPS)) as outcomes:
        async for outcome in outcomes:
            total += outcome.unwrap()
    assert total == SLEEPS * (SLEEPS - 1)
    return 1


@sleeping.peer("aiometer.amap", follows="README, max_at_once")
async def sleeping_aiometer() -> int:
    total = 0
    async with aiometer_amap(nap, list(range(SLEEPS)), max_at_once=100) as results:
        async for result in results:
            total += result
    assert total == SLEEPS * (SLEEPS - 1)
    return 1


@sleeping.limit("100 workers over one iterator")
async def sleeping_workers() -> int:
    items = iter(range(SLEEPS))
    total = 0

    async def work() -> None:
        nonlocal total
        for item in items:
            doubled = await nap(item)
            total += doubled

    await asyncio.gather(*(work() for _ in range(100)))
    assert total == SLEEPS * (SLEEPS - 1)
    return 1


async def memory(items: int = 100_000) -> dict[str, float]:
    """Return bytes for each item that waits, and of what they are made."""
    async with WorkerPool(double, queue=items) as pool:
        pool.pause()
        tracemalloc.start()
        for item in range(1000, 1000 + items):
            try:
                pool.submit_nowait(item)
            except QueueFullError:
                raise AssertionError from None
        whole = tracemalloc.get_traced_memory()[0] / items
        tracemalloc.stop()
        handle = pool.statistics().queued and next(iter(pool._shift.backlog))  # type: ignore[union-attr]
        return {
            "bytes an item": whole,
            "of that the handle": float(sys.getsizeof(handle)),
            "of that the context": float(sys.getsizeof(contextvars.copy_context())) + 16,
        }


if __name__ == "__main__":
    print(asyncio.run(memory()))
    bench.main()
