"""What type checkers must know about jobs; checked, never run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_type

from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.jobs import (
    CallNext,
    Context,
    DeadLetter,
    Handle,
    Job,
    JobEvent,
    JobFilter,
    JobQueue,
    JobStatistics,
    JobStatus,
    Limits,
    Middleware,
    Prepared,
    Unique,
    UnsentJob,
)
from aiopatterns.resilience.ratelimit import Rate
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@asynccontextmanager
async def lifespan() -> AsyncGenerator[dict[str, int]]:
    yield {"pool": 1}


jobs = JobQueue("thumbnails", "redis://localhost", lease=15, partitions=1, lifespan=lifespan)
wired = JobQueue("wired", codec=(MSGPACK, JSON), signing=[b"0123456789abcdef"], max_bytes=10_000)
limited = JobQueue("limited", limits=Limits(rate=Rate(100)))


@dataclass
class Row:
    id: int


@jobs.job(name="thumbs.make", retry=Retry(on=OSError), timeout=30, priority=3, result_ttl=60)
async def thumbnail(ctx: Context, path: str, *, size: int = 128) -> bytes:
    await ctx.progress(0.5)
    return path.encode() * size


@jobs.job
async def bare(row: Row) -> int:
    return row.id


@jobs.job
async def bare_with_context(ctx: Context, row: Row) -> int:
    return row.id + ctx.attempt


@jobs.job(unique=Unique("user:{user_id}"), limits=Limits(concurrency=1, key="user:{user_id}"))
def in_a_thread(user_id: int) -> str:
    return str(user_id)


@jobs.batch(size=100, within=0.5)
async def load(rows: list[Row]) -> None:
    assert rows


@jobs.batch(size=100, within=0.5, timeout=5)
async def measure(ctx: Context, rows: list[Row]) -> list[float]:
    return [row.id + ctx.attempt / 2 for row in rows]


@jobs.cron("*/5 * * * *", timezone="Europe/Berlin", timeout=5)
async def sweep() -> int:
    return 1


@jobs.cron("0 0 * * * *")
async def hourly(ctx: Context) -> None:
    assert ctx.state


@jobs.middleware
async def timed(ctx: Context, call_next: Callable[[Context], Awaitable[Any]]) -> object:
    return await call_next(ctx)


@jobs.middleware
async def counted(ctx: Context, call_next: CallNext) -> int:
    return int(await call_next(ctx))


layers: list[Middleware] = [timed, counted]


async def calls() -> None:
    handle = await thumbnail.enqueue("a.png", size=64)
    assert_type(handle, Handle[bytes])
    assert_type(await handle.result(timeout=10), bytes)
    assert_type(await handle.status(), JobStatus)
    assert_type(await handle.cancel(), JobStatus)
    assert_type(await handle.progress(), float | None)
    assert_type(await thumbnail("a.png"), bytes)
    assert_type(thumbnail.job("a.png", size=3), UnsentJob[bytes])
    other = thumbnail.using(delay=5, priority=9, after=[handle, "id"], id="mine")
    assert_type(await other.enqueue("b.png"), Handle[bytes])
    later: Prepared[[Row], int] = bare.using(delay=1)
    assert_type(await later.enqueue(Row(2)), Handle[int])
    assert_type(other.job("b.png"), UnsentJob[bytes])
    assert_type(thumbnail.handle("id"), Handle[bytes])
    assert_type(await bare.enqueue(Row(1)), Handle[int])
    assert_type(await bare_with_context(Row(1)), int)
    assert_type(await in_a_thread.enqueue(user_id=3), Handle[str])
    assert_type(await in_a_thread(3), str)


async def others() -> None:
    assert_type(load, Job[[Row], None])
    assert_type(measure, Job[[Row], float])
    assert_type(await measure(Row(1)), float)
    assert_type(await sweep(), int)
    assert_type(hourly, Job[[], None])
    handles = await jobs.enqueue_many([bare.job(Row(1)), bare.job(Row(2))])
    assert_type(handles, list[Handle[int]])
    with jobs.inline():
        await hourly.enqueue()
    async with jobs.events() as events:
        async for event in events:
            assert_type(event, JobEvent)


async def bulk(opened: JobQueue) -> None:
    assert_type(await opened.statistics(), JobStatistics)
    assert_type(await opened.dead_letters(), list[DeadLetter])
    assert_type(await opened.requeue(JobFilter(name="bare")), int)
    assert_type(await opened.cancel(["a"]), int)
    assert_type(await opened.purge(), int)
    await opened.pause()
    await opened.resume()
