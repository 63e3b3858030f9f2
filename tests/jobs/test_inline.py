"""Inline mode: jobs run at their enqueue, as a worker would run them, and nothing is needed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from anyio import move_on_after

from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_correlation, bind_deadline, correlation_id
from aiopatterns.core.errors import (
    BackendError,
    CodecError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    Reject,
    RetryLater,
    TimeoutExceededError,
)
from aiopatterns.core.rate import Rate
from aiopatterns.jobs.bulk import JobFilter
from aiopatterns.jobs.context import Context, hops_onward
from aiopatterns.jobs.events import JobProgress
from aiopatterns.jobs.handle import JobStatus
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.unique import Unique
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, fail_everywhere

pytestmark = pytest.mark.promise("jobs-inline")


@dataclass
class Row:
    id: int


def make(**options):
    # Nobody listens at this address; inline mode needs nobody.
    return JobQueue("inline", "redis://localhost:1", **options)


async def test_a_job_runs_at_its_enqueue():
    jobs, ran = make(), list[Any]()

    @jobs.job
    async def fn(row: Row, *, n: int = 1) -> Row:
        ran.append(row)
        return Row(row.id + n)

    with jobs.inline():
        handle = await fn.enqueue(Row(1), n=2)
        assert ran == [Row(1)]
        assert await handle.status() is JobStatus.DONE
        assert await handle.result() == Row(3)
        assert handle.created
        assert await fn.handle(handle.job_id).result() == Row(3)
        assert await handle.cancel() is JobStatus.DONE
    assert await handle.result(timeout=1) == Row(3)  # also after the block


async def test_what_cannot_be_sent_is_refused_here_as_well():
    jobs = make(max_bytes=100)

    @jobs.job
    async def fn(x: Any) -> Any:
        return x

    with jobs.inline():
        with pytest.raises(CodecError):
            await fn.enqueue(object())
        with pytest.raises(CodecError, match="max_bytes=100"):
            await fn.enqueue("x" * 200)


async def test_delays_backoff_and_limits_are_left_out():
    jobs, tries = make(limits=Limits(concurrency=1)), list[int]()

    @jobs.job(
        retry=Retry(on=OSError, attempts=3, backoff=Constant(3600)),
        limits=Limits(rate=Rate(1, per=3600)),
        unique=Unique("{x}", mode="debounce", window=3600),
    )
    async def fn(ctx: Context, x: int) -> int:
        tries.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError
        return x

    with jobs.inline():
        handles = [await fn.using(delay=3600).enqueue(n) for n in (1, 1, 2)]
        assert [await each.result() for each in handles] == [1, 1, 2]
    assert tries == [1, 2, 3] * 3


async def test_failed_jobs_are_dead_letters():
    jobs = make()

    @jobs.job
    async def broken(x: int) -> None:
        raise ValueError("no")

    @jobs.job(retry=Retry(on=Exception))
    async def rejected() -> None:
        raise Reject("never")

    @jobs.job(timeout=0.01)
    async def slow(ctx: Context) -> None:
        assert ctx.remaining is not None
        assert ctx.remaining <= 0.01
        await sleep(60)

    with jobs.inline():
        handle = await broken.enqueue(3)
        assert await handle.status() is JobStatus.DEAD
        with pytest.raises(JobFailedError, match="ValueError: no"):
            await handle.result()
        await rejected.enqueue()
        with pytest.raises(JobFailedError, match=r"took longer than its 0\.01 s") as info:
            await (await slow.enqueue()).result()
        assert info.value.type == "TimeoutExceededError"
        letters = await jobs.dead_letters()
        assert {(each.name, each.error.type) for each in letters} == {
            ("broken", "ValueError"),
            ("rejected", "Reject"),
            ("slow", "TimeoutExceededError"),
        }
        assert (await jobs.statistics()).dead == 3
        assert await jobs.requeue(JobFilter(name="broken")) == 1
        assert (await jobs.statistics()).queued == 1
        await rejected.enqueue()  # whoever enqueues next runs what is queued
        assert (await jobs.statistics()).dead == 4
        assert await jobs.purge() == 4


async def test_retry_later_is_at_once():
    jobs, tries = make(), list[int]()

    @jobs.job
    async def fn(ctx: Context) -> int:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise RetryLater(3600)
        return ctx.attempt

    with jobs.inline():
        assert await (await fn.enqueue()).result() == 1
    assert tries == [1, 1, 1]


async def test_results_that_are_not_kept_are_not_found():
    jobs = make()

    @jobs.job(result_ttl=0)
    async def fn() -> int:
        return 1

    with jobs.inline():
        handle = await fn.enqueue()
        with pytest.raises(JobNotFoundError):
            await handle.result()
        with pytest.raises(JobNotFoundError):
            await jobs.handle("nobody").result()


async def test_dependents_of_a_dead_job_are_cancelled():
    jobs, ran = make(), list[str]()

    @jobs.job
    async def fn(name: str, *, fail: bool = False) -> None:
        ran.append(name)
        if fail:
            raise ValueError

    with jobs.inline():
        first = await fn.enqueue("first")
        second = await fn.using(after=[first]).enqueue("second", fail=True)
        third = await fn.using(after=[second]).enqueue("third")
        assert await third.status() is JobStatus.CANCELLED
        with pytest.raises(JobCancelledError):
            await third.result()
    assert ran == ["first", "second"]


async def test_unique_keys_and_throttle_windows_hold():
    jobs, ran = make(), list[int]()

    @jobs.job(unique=Unique("k", mode="throttle", window=3600))
    async def fn(x: int) -> None:
        ran.append(x)

    @jobs.job(unique=Unique("k"))
    async def dropped(x: int) -> None:
        ran.append(x)

    with jobs.inline():
        first, second = await fn.enqueue(1), await fn.enqueue(2)
        assert first.job_id == second.job_id
        assert not second.created
        await dropped.enqueue(3)
        await dropped.enqueue(4)  # the first has ended
    assert ran == [1, 3, 4]


async def test_many_batches_and_jobs_within_jobs():
    jobs, ran = make(partitions=2), list[Any]()

    @jobs.batch(size=10, within=1)
    async def load(rows: list[Row]) -> list[int]:
        ran.append(rows)
        return [each.id for each in rows]

    @jobs.batch(size=10, within=1, name="sink")
    def sink(rows: list[Row]) -> None:
        ran.append(rows)

    @jobs.job
    async def outer(n: int) -> int:
        assert hops_onward() == n + 1
        if n < 3:
            return await (await outer.enqueue(n + 1)).result() + 1
        return 0

    with jobs.inline():
        handles = await jobs.enqueue_many([load.job(Row(n)) for n in range(3)])
        assert [await each.result() for each in handles] == [0, 1, 2]
        assert ran == [[Row(0)], [Row(2)], [Row(1)]]  # two partitions, one after the other
        assert await (await sink.enqueue(Row(9))).result() is None
        assert await (await outer.enqueue(0)).result() == 3


async def test_a_paused_queue_runs_nothing_until_the_next_enqueue():
    jobs = make()

    @jobs.job
    async def fn() -> int:
        return 1

    with jobs.inline():
        await jobs.pause()
        handle = await fn.enqueue()
        assert await handle.status() is JobStatus.QUEUED
        with pytest.raises(TimeoutExceededError):
            await handle.result(timeout=0.05)
        await jobs.resume()
        await fn.enqueue()
        assert await handle.result() == 1


async def test_middleware_and_lifespan_are_there():
    entered = list[str]()

    @asynccontextmanager
    async def lifespan():
        entered.append("in")
        yield {"db": 7}
        entered.append("out")

    jobs = make(lifespan=lifespan)

    @jobs.job
    async def plain() -> str:
        return "plain"

    @jobs.job
    async def wants(ctx: Context) -> int:
        return ctx.state["db"]

    with jobs.inline():
        assert await (await plain.enqueue()).result() == "plain"
        assert not entered  # nobody could see it
        assert await (await wants.enqueue()).result() == 7
        assert await wants() == 7
    assert entered == ["in", "out"] * 2

    @jobs.middleware
    async def around(ctx, call_next):
        return f"{ctx.state['db']} {await call_next(ctx)}"

    assert await plain() == "7 plain"


async def test_a_lifespan_may_yield_nothing():
    @asynccontextmanager
    async def lifespan():
        yield None

    jobs = make(lifespan=lifespan)

    @jobs.job
    async def fn(ctx: Context) -> dict[str, object]:
        return dict(ctx.state)

    assert await fn() == {}


async def test_a_call_runs_here_with_a_context_of_its_own():
    jobs = make()

    @jobs.job(retry=Retry(on=ValueError), timeout=0.001)
    async def fn(ctx: Context, fail: bool = False) -> tuple[Any, ...]:
        await ctx.progress(0.25)
        if fail:
            raise ValueError("mine")
        await sleep(0.01)
        return ctx.attempt, ctx.name, ctx.correlation_id, ctx.remaining, dict(ctx.state)

    with capture_events() as events, bind_correlation("req"):
        attempt, name, correlation, remaining, state = await fn()
        assert (attempt, name, correlation, remaining, state) == (1, "fn", "req", None, {})
        with bind_deadline(10**9):
            assert (await fn())[3] > 0
        with pytest.raises(ValueError, match="mine"):
            await fn(fail=True)  # bare, and at the first time
    told = [each for each in events if isinstance(each, JobProgress)]
    assert [(each.queue, each.job, each.fraction) for each in told] == [("inline", "fn", 0.25)] * 3
    assert len({each.job_id for each in told}) == 3
    await fn()  # without a listener
    wrong: Any = fn
    with pytest.raises(TypeError, match="wrong arguments for"):
        await wrong(1, 2, 3)


async def test_blocks_nest_and_are_apart():
    jobs = make()

    @jobs.job(unique=Unique("k", mode="throttle", window=60))
    async def fn() -> str | None:
        return correlation_id()

    with jobs.inline():
        outer = await fn.enqueue()
        with jobs.inline():
            inner = await fn.enqueue()
            assert inner.created
            assert (await jobs.statistics()).dead == 0
        assert not (await fn.enqueue()).created
        assert await outer.result() is await inner.result() is None
    with pytest.raises(BackendError):
        async with jobs:
            pytest.fail("nobody listens there")


async def test_events_of_the_block_are_told():
    jobs = make()

    @jobs.job
    async def fn() -> None: ...

    with jobs.inline():
        async with jobs.events() as events:
            handle = await fn.enqueue()
            kinds = []
            async for event in events:
                assert event.job_id == handle.job_id
                kinds.append(event.kind)
                if event.kind == "done":
                    break
    assert kinds == ["queued", "started", "done"]


@pytest.mark.promise("jobs-cancel-everywhere")
def test_a_job_that_is_cancelled_inline_is_queued_again():
    def scenario():
        jobs, ran = make(), list[int]()

        @jobs.job
        async def fn(x: int) -> None:
            await sleep(1)
            ran.append(x)

        block = jobs.inline()
        block.__enter__()

        async def check():
            figures = await jobs.statistics()
            assert figures.running == 0
            assert figures.queued + len(ran) in {0, 2}
            block.__exit__(None, None, None)

        async def work():
            await jobs.enqueue_many([fn.job(1), fn.job(2)])

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=2)


def test_errors_everywhere_are_those_of_the_job():
    def scenario(fault):
        @asynccontextmanager
        async def lifespan():
            fault()
            yield None

        jobs = make(lifespan=lifespan)

        @jobs.middleware
        async def around(ctx, call_next):
            fault()
            return await call_next(ctx)

        @jobs.job
        async def fn() -> None:
            fault()

        async def work():
            with jobs.inline():
                handle = await fn.enqueue()
                assert (await jobs.statistics()).running == 0
                with move_on_after(1):
                    await handle.result()

        async def tolerant():
            try:
                await work()
            except JobFailedError as error:
                assert error.type == "InjectedError"

        return Trial(tolerant())

    fail_everywhere(scenario, minimum=3)
