"""What type checkers must know about pools; checked, never run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, assert_type

from aiopatterns.core import Outcome
from aiopatterns.flow import Autoscale, Handle, HandleStatus, PoolStatistics, WorkerPool
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def fetch(url: str) -> bytes:
    return url.encode()


def resize(path: str) -> int:
    return len(path)


class Connection: ...


@asynccontextmanager
async def connect() -> AsyncGenerator[Connection]:
    yield Connection()


async def query(statement: str, connection: Connection) -> list[int]:
    return []


def blocking_query(statement: str, connection: Connection) -> list[int]:
    return []


async def handles() -> None:
    async with WorkerPool(fetch, workers=8) as pool:
        assert_type(pool, WorkerPool[str, bytes])
        handle = await pool.submit("a", priority=1, key=("k", 1), deadline=5.0)
        assert_type(handle, Handle[bytes])
        assert_type(await handle, bytes)
        assert_type(handle.status, HandleStatus)
        assert_type(handle.cancel(), bool)
        assert_type(pool.submit_nowait("b"), Handle[bytes])
        assert_type(await pool.run("c"), bytes)
        assert_type(pool.statistics(), PoolStatistics)
        await pool.submit(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def streams() -> None:
    async with WorkerPool(fetch) as pool:
        async with pool.stream(["a"]) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Outcome[bytes])
        async with pool.stream(["a"], ordered=True, errors="raise") as results:
            async for result in results:
                assert_type(result, bytes)


async def kinds() -> None:
    assert_type(WorkerPool(resize), WorkerPool[str, int])
    assert_type(WorkerPool(query, resource=connect), WorkerPool[str, list[int]])
    assert_type(WorkerPool(blocking_query, resource=connect), WorkerPool[str, list[int]])
    pool = WorkerPool(
        fetch,
        workers=Autoscale(1, 8, target_wait=0.1, idle=5),
        queue=10,
        retry=Retry(on=OSError),
        rate=TokenBucket(Rate(10)),
        timeout=5,
        policy=Stack(Timeout(3)),
    )
    assert_type(pool, WorkerPool[str, bytes])
