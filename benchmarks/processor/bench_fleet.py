"""The main job over jobs and over a Dask cluster, beside the processes of one program.

All have two worker processes that run already (those of one program are started for each run, from
a warm fork server, in milliseconds), the same corpus of 31 MB and the same functions, and every
run checks that the results are equal. What differs is how chunks get to the workers and what they
found gets back: over Redis as jobs and references, over Dask's scheduler, over a pipe.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from distributed import LocalCluster

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.contrib.dask import DaskExecutor
from aiopatterns.flow.executors import Executor, Processes
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.hands import TARGET
from aiopatterns.processor.system import DataProcessor
from benchmarks.harness import Bench
from benchmarks.processor import serial
from benchmarks.processor.bench_system import PRELOAD, corpus, expected, same

WORKERS = 2
AOF = {"appendonly": "yes"}


@cache
def server() -> RedisServer:
    """A server that keeps what it acknowledges, as a run that must survive its kill needs."""
    return RedisServer(config=AOF)


@cache
def cluster() -> LocalCluster:
    return LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)


@contextmanager
def workers() -> Iterator[None]:
    """Worker processes as on another machine, one chunk at a time each."""
    argv = [sys.executable, "-m", "aiopatterns", "worker", TARGET, "--backend", server().url]
    argv += ["--concurrency", "1"]
    started = [subprocess.Popen(argv, stdout=subprocess.DEVNULL) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for each in started:
            each.terminate()
        for each in started:
            each.wait()


bench = Bench("processor/fleet")
whole = bench.case(f"the main job, 31 MB, {WORKERS} workers that run", clock="wall", unit="s/run")


async def run(executor: Executor | Fleet) -> int:
    same(await DataProcessor(corpus(), executor=executor).run())
    return 1


@whole.ours("Fleet over Redis")
async def fleet() -> int:
    return await run(Fleet(server().url, processes=0))


@whole.ours("DaskExecutor")
async def dask() -> int:
    return await run(DaskExecutor(cluster().scheduler_address, limit=2 * WORKERS))


@whole.ours("Processes")
async def processes() -> int:
    return await run(Processes(WORKERS, preload=PRELOAD))


@whole.limit("serial loop")
async def plain() -> int:
    same(serial.run(corpus()))
    return 1


if __name__ == "__main__":
    expected()  # before anything is timed
    with server(), workers(), cluster():
        bench.main()
