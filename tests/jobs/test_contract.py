"""The contract of jobs, sentence by sentence, in memory and on Redis, with a worker at work.

What is quoted in a docstring is what is promised; sentences about the worker alone are held by
its own tests.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from anyio import create_task_group, fail_after, from_thread

from aiopatterns.backends import open_backend
from aiopatterns.core import Reject, RetryLater
from aiopatterns.core.clock import monotonic, sleep, wall
from aiopatterns.core.context import bind_correlation, bind_deadline, correlation_id, deadline
from aiopatterns.core.errors import (
    ClosedError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    TimeoutExceededError,
)
from aiopatterns.core.rate import Rate
from aiopatterns.jobs import (
    Context,
    JobFilter,
    JobQueue,
    JobStatus,
    Limits,
    Unique,
    Worker,
)
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry

pytestmark = pytest.mark.promise("jobs-contract")


@dataclass
class Thumb:
    path: str
    size: int


class Point(msgspec.Struct):
    x: int
    y: int


async def ended(*handles, within=10):
    """Wait until all have ended; return their statuses."""
    over = {JobStatus.DONE, JobStatus.DEAD, JobStatus.CANCELLED, JobStatus.UNKNOWN}
    with fail_after(within):
        while not {await each.status() for each in handles} <= over:
            await sleep(0.01)
    return [await each.status() for each in handles]


# ------------------------------------------------------------------------------------ the page


async def test_the_example_of_the_page(backend):
    """``handle = await thumbnail.enqueue("a.png", size=64)`` ... ``handle.result(timeout=10)``."""

    @asynccontextmanager
    async def lifespan():
        yield {"suffix": "-thumb"}

    jobs = JobQueue("thumbnails", backend, lease=15, partitions=1, lifespan=lifespan)

    @jobs.job(name="thumbs.make", timeout=30, priority=0, result_ttl=60)
    async def thumbnail(ctx: Context, path: str, *, size: int) -> str:
        assert (ctx.attempt, ctx.name) == (1, "thumbs.make")
        assert ctx.deadline is None or ctx.deadline - monotonic() <= 30
        await ctx.progress(0.5)
        return f"{path}-{size}{ctx.state['suffix']}"

    async with jobs, Worker(jobs):
        handle = await thumbnail.enqueue("a.png", size=64)
        assert await handle.result(timeout=10) == "a.png-64-thumb"
        other = await thumbnail.using(priority=9, after=[handle], id="mine").enqueue("b", size=1)
        assert other.job_id == "mine"
        assert await other.result(timeout=10) == "b-1-thumb"
        many = await jobs.enqueue_many([thumbnail.job(f"{n}", size=n) for n in range(3)])
        assert [await each.result(timeout=10) for each in many] == [
            f"{n}-{n}-thumb" for n in range(3)
        ]
        assert await handle.status() is JobStatus.DONE
    assert await thumbnail("here", size=3) == "here-3-thumb"


async def test_everything_can_be_defined_at_module_level():
    """ "Constructors do no I/O and need no running loop"; "unopened raises ClosedError"."""
    jobs = JobQueue("q", "redis://nobody.invalid:1")

    @jobs.job
    async def fn() -> None: ...

    with pytest.raises(ClosedError, match="async with jobs:"):
        await fn.enqueue()


async def test_arguments_and_results_are_of_their_types(backend):
    jobs = JobQueue("q", backend)

    @jobs.job
    async def fn(thumb: Thumb, point: Point, when: datetime, *, by_id: dict[int, bytes]) -> Thumb:
        assert isinstance(point, Point)
        assert by_id == {1: b"\xff"}
        return Thumb(f"{thumb.path} {when:%Y}", point.x)

    async with jobs, Worker(jobs):
        when = datetime(2024, 1, 1, tzinfo=UTC)
        handle = await fn.enqueue(Thumb("a", 1), Point(2, 3), when, by_id={1: b"\xff"})
        assert await handle.result(timeout=5) == Thumb("a 2024", 2)
        assert await jobs.handle(handle.job_id).result() == {"path": "a 2024", "size": 2}
        wrong: Any = fn
        bad = await wrong.enqueue(5, Point(1, 1), when, by_id={})
        with pytest.raises(JobFailedError, match="argument 'thumb' of") as info:
            await bad.result(timeout=5)
        assert info.value.type == "CodecError"


@pytest.mark.real
async def test_sync_functions_run_in_threads(backend):
    jobs = JobQueue("q", backend)

    @jobs.job
    def fn(ctx: Context, x: int) -> int:
        from_thread.run(ctx.progress, 0.5)
        return x + ctx.attempt

    async with jobs, Worker(jobs):
        assert await (await fn.enqueue(1)).result(timeout=5) == 2


async def test_a_batch_takes_a_list(backend):
    """ "``@jobs.batch(size=, within=)``: enqueue takes one item, the handler a list"."""
    jobs, sizes = JobQueue("q", backend), list[int]()

    @jobs.batch(size=10, within=0.05)
    async def load(thumbs: list[Thumb]) -> list[int]:
        sizes.append(len(thumbs))
        return [each.size for each in thumbs]

    @jobs.batch(size=10, within=0.05)
    async def broken(numbers: list[int]) -> None:
        raise ValueError(f"all {len(numbers)}")

    async with jobs:
        handles = await jobs.enqueue_many([load.job(Thumb("t", n)) for n in range(25)])
        failing = await jobs.enqueue_many([broken.job(n) for n in range(3)])
        async with Worker(jobs):
            assert [await each.result(timeout=5) for each in handles] == list(range(25))
            assert sum(sizes) == 25
            assert max(sizes) == 10
            for each in failing:  # "raising fails each job of the batch"
                with pytest.raises(JobFailedError, match="ValueError"):
                    await each.result(timeout=5)
        await jobs.purge()


# ----------------------------------------------------------------------------- api_details: jobs


async def count_runs(backend, unique, enqueue):
    """Enqueue with a unique key while no worker runs, then work; return what ran, and the handles."""
    jobs, ran = JobQueue("q", backend), list[int]()

    @jobs.job(unique=unique)
    async def fn(key: str, value: int) -> int:
        ran.append(value)
        return value

    async with jobs:
        handles = await enqueue(fn)
        async with Worker(jobs):
            await ended(*handles)
        more = await enqueue(fn)
        async with Worker(jobs):
            await ended(*more)
    return ran, handles, more


async def twice(fn):
    return [await fn.enqueue("k", 1), await fn.enqueue("k", 2), await fn.enqueue("other", 3)]


async def test_unique_drop(backend):
    """ "a duplicate returns the existing handle"; free again when the job has ended."""
    ran, handles, more = await count_runs(backend, Unique("{key}"), twice)
    assert ran == [1, 3, 1, 3]
    assert handles[0].job_id == handles[1].job_id != handles[2].job_id
    for made in (handles, more):
        assert [each.created for each in made] == [True, False, True]


async def test_unique_throttle(backend):
    """The window stays after the job has ended."""
    ran, handles, more = await count_runs(
        backend, Unique("{key}", mode="throttle", window=30), twice
    )
    assert ran == [1, 3]
    assert [each.job_id for each in more] == [each.job_id for each in handles]


@pytest.mark.parametrize(
    "unique", [Unique("{key}", mode="debounce", window=0.05), Unique("{key}", mode="keep_last")]
)
async def test_unique_newest(backend, unique):
    """ "debounce and keep_last take the newest payload"."""
    ran, handles, _ = await count_runs(backend, unique, twice)
    assert sorted(ran) == [2, 2, 3, 3]
    assert handles[0].job_id == handles[1].job_id


async def test_death_and_cancel_free_the_key(backend):
    jobs = JobQueue("q", backend)

    @jobs.job(unique=Unique("k"))
    async def fn(x: int) -> None:
        raise ValueError

    async with jobs:
        first = await fn.enqueue(1)
        await first.cancel()
        second = await fn.enqueue(2)
        assert second.created
        async with Worker(jobs):
            assert await ended(second) == [JobStatus.DEAD]
        assert (await fn.enqueue(3)).created
        await jobs.cancel(JobFilter())
        assert await jobs.purge() == 1


async def test_every_status(backend):
    """ "``JobStatus``: QUEUED SCHEDULED WAITING RUNNING DONE DEAD CANCELLED UNKNOWN"."""
    jobs = JobQueue("q", backend)

    @jobs.job
    async def fn(seconds: float = 0, *, fail: bool = False) -> None:
        await sleep(seconds)
        if fail:
            raise ValueError

    @jobs.job(retry=Retry(on=OSError, backoff=Constant(3600)))
    async def retried() -> None:
        raise OSError

    async with jobs:
        first = await fn.enqueue()
        later = await fn.using(delay=3600).enqueue()
        after = await fn.using(after=[later]).enqueue()
        assert [await each.status() for each in (first, later, after)] == [
            JobStatus.QUEUED,
            JobStatus.SCHEDULED,
            JobStatus.WAITING,
        ]
        figures = await jobs.statistics()
        assert (figures.queued, figures.scheduled, figures.waiting) == (1, 1, 1)
        async with Worker(jobs, grace=1):
            again = await retried.enqueue()
            dead = await fn.enqueue(fail=True)
            running = await fn.enqueue(60)
            assert await ended(first, dead) == [JobStatus.DONE, JobStatus.DEAD]
            with fail_after(5):
                while await again.status() is not JobStatus.SCHEDULED:  # "a waiting retry"
                    await sleep(0.01)
                while await running.status() is not JobStatus.RUNNING:
                    await sleep(0.01)
            assert (await jobs.statistics()).running == 1
            assert await later.cancel() is JobStatus.CANCELLED
            assert await after.status() is JobStatus.CANCELLED
            assert await running.cancel() in {JobStatus.RUNNING, JobStatus.CANCELLED}
            assert await ended(running) == [JobStatus.CANCELLED]
            await again.cancel()
        assert await jobs.handle("nobody").status() is JobStatus.UNKNOWN
        assert (await jobs.statistics()).dead == 1
        await jobs.purge()


async def test_retry_later_costs_no_attempt_and_reject_is_dead_at_once(backend):
    jobs, attempts = JobQueue("q", backend), list[int]()

    @jobs.job(retry=Retry(on=Exception, attempts=2, backoff=Constant(0.01)))
    async def later(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) < 4:
            raise RetryLater(0.01)
        return ctx.attempt

    @jobs.job(retry=Retry(on=Exception, attempts=9))
    async def rejected() -> None:
        raise Reject("never")

    async with jobs, Worker(jobs):
        assert await (await later.enqueue()).result(timeout=5) == 1
        assert attempts == [1] * 4
        with pytest.raises(JobFailedError) as info:
            await (await rejected.enqueue()).result(timeout=5)
        assert (info.value.type, info.value.message, info.value.attempts) == ("Reject", "never", 1)
        await jobs.purge()


async def test_retries_have_attempts_and_end_in_the_dead_letters(backend):
    jobs, seen = JobQueue("q", backend), list[int]()

    @jobs.job(retry=Retry(on=OSError, attempts=3, backoff=Constant(0.01)))
    async def fn(ctx: Context, x: int) -> None:
        seen.append(ctx.attempt)
        raise OSError(f"try {ctx.attempt}")

    async with jobs:
        async with Worker(jobs):
            handle = await fn.enqueue(7)
            with pytest.raises(JobFailedError, match="OSError: try 3") as info:
                await handle.result(timeout=5)
            assert (seen, info.value.attempts) == ([1, 2, 3], 3)
        (letter,) = await jobs.dead_letters()
        assert (letter.job_id, letter.name, letter.args) == (handle.job_id, "fn", [7])
        assert (letter.attempts, letter.error.type, letter.error.message) == (3, "OSError", "try 3")
        assert "in fn" in letter.error.traceback
        # "``requeue`` keeps the id with a fresh budget"
        assert await jobs.requeue([handle]) == 1
        async with Worker(jobs):
            await ended(handle)
        assert seen == [1, 2, 3, 1, 2, 3]
        assert await jobs.purge() == 1  # "``purge()`` empties the dead letters"
        assert await jobs.dead_letters() == []


async def test_dependencies(backend):
    """ "A dead or cancelled dependency cancels all its dependents; a finished one counts as done"."""
    jobs, order = JobQueue("q", backend), list[str]()

    @jobs.job
    async def fn(name: str, *, fail: bool = False) -> None:
        order.append(name)
        if fail:
            raise ValueError

    async with jobs:
        first, second = await fn.enqueue("1"), await fn.enqueue("2")
        third = await fn.using(after=[first, second.job_id]).enqueue("3")
        dead = await fn.using(after=[third]).enqueue("dead", fail=True)
        child = await fn.using(after=[dead]).enqueue("child")
        grandchild = await fn.using(after=[child]).enqueue("grandchild")
        async with Worker(jobs):
            await ended(grandchild)
            assert order == ["1", "2", "3", "dead"]
            for each in (child, grandchild):
                with pytest.raises(JobCancelledError):
                    await each.result(timeout=5)
            late = await fn.using(after=[first, "nobody"]).enqueue("late")
            await late.result(timeout=5)
        await jobs.purge()


async def test_dependencies_across_queues_or_partitions_are_refused(backend):
    one, other = JobQueue("one", backend), JobQueue("other", backend)
    parted = JobQueue("parted", backend, partitions=2)

    def define(jobs):
        @jobs.job
        async def fn() -> None: ...

        return fn

    first, second, third = define(one), define(other), define(parted)
    async with one, other, parted, Worker(one), Worker(parted):
        handle = await first.enqueue()
        with pytest.raises(ValueError, match="after must name jobs of queue 'other', not of 'one'"):
            second.using(after=[handle])
        parents = await parted.enqueue_many([third.job(), third.job(), third.job()])
        assert [each.partition for each in parents] == [0, 1, 0]
        with pytest.raises(ValueError, match="after must name jobs of one partition"):
            third.using(after=parents)
        child = await third.using(after=[parents[0], parents[2]]).enqueue()
        assert child.partition == 0  # "keeps the partition of its parents"
        await child.result(timeout=5)
        await handle.result(timeout=5)


async def test_bulk_operations(backend):
    """ "``JobFilter(name=, state=)`` for bulk operations"."""
    jobs = JobQueue("q", backend)

    @jobs.job
    async def a() -> None: ...

    @jobs.job
    async def b() -> None:
        raise ValueError

    async with jobs:
        await jobs.enqueue_many([a.job() for _ in range(3)] + [b.job() for _ in range(3)])
        assert await jobs.cancel(JobFilter(name="a")) == 3
        assert await jobs.cancel(JobFilter(name="b", state=JobStatus.SCHEDULED)) == 0
        async with Worker(jobs):
            with fail_after(5):
                while (await jobs.statistics()).dead < 3:
                    await sleep(0.01)
        assert await jobs.requeue(JobFilter(name="b")) == 3
        assert await jobs.cancel(JobFilter()) == 3


async def test_pause_and_resume(backend):
    jobs = JobQueue("q", backend)

    @jobs.job
    async def fn() -> int:
        return 1

    async with jobs, Worker(jobs):
        await jobs.pause()
        assert (await jobs.statistics()).paused
        handle = await fn.enqueue()
        with pytest.raises(TimeoutExceededError):
            await handle.result(timeout=0.1)
        assert await handle.status() is JobStatus.QUEUED
        await jobs.resume()
        assert not (await jobs.statistics()).paused
        assert await handle.result(timeout=5) == 1


async def test_middleware_is_per_attempt_outermost_first(backend):
    jobs, trace = JobQueue("q", backend), list[str]()

    @jobs.middleware
    async def outer(ctx, call_next):
        trace.append(f"outer {ctx.attempt}")
        return await call_next(ctx)

    @jobs.middleware
    async def inner(ctx, call_next):
        trace.append("inner")
        return await call_next(ctx)

    @jobs.job(retry=Retry(on=OSError, backoff=Constant(0.01)))
    async def fn(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError

    async with jobs, Worker(jobs):
        await (await fn.enqueue()).result(timeout=5)
    assert trace == ["outer 1", "inner", "outer 2", "inner"]


async def test_events(backend):
    """ "``jobs.events()`` yields JobEvent: queued, started, progress, retrying, done, dead, ..."."""
    jobs, go = JobQueue("q", backend), list[int]()

    @jobs.job(retry=Retry(on=OSError, attempts=2, backoff=Constant(0.01)))
    async def fn(ctx: Context, *, fail: bool) -> None:
        await ctx.progress(0.5)
        while not go:
            await sleep(0.01)
        if fail:
            raise OSError("no")

    async with jobs, Worker(jobs), jobs.events() as events:
        good, bad = await fn.enqueue(fail=False), await fn.enqueue(fail=True)
        later = await fn.using(delay=60).enqueue(fail=False)
        await later.cancel()
        kinds: dict[str, list[str]] = {each.job_id: [] for each in (good, bad, later)}
        with fail_after(10):
            while await good.progress() != 0.5:  # "``await handle.progress() -> fraction | None``"
                await sleep(0.01)
            go.append(1)
            async for event in events:
                kinds[event.job_id].append(event.kind)
                if event.kind == "progress":
                    assert event.progress == 0.5
                if event.kind in {"retrying", "dead"}:
                    assert event.error is not None
                    assert event.error.type == "OSError"
                if event.kind == "dead":
                    break
        assert await later.progress() is None
        assert kinds[later.job_id] == ["queued", "cancelled"]
        assert [each for each in kinds[bad.job_id] if each != "progress"] == [
            "queued",
            "started",
            "retrying",
            "started",
            "dead",
        ]
        assert kinds[good.job_id][:2] == ["queued", "started"]
        assert "progress" in kinds[good.job_id]
        await jobs.purge()


async def test_times(backend):
    """ "``at=`` takes an aware datetime"; delays are the server's."""
    jobs = JobQueue("q", backend)

    @jobs.job
    async def fn() -> float:
        return wall()

    async with jobs, Worker(jobs):
        at = datetime.fromtimestamp(jobs.now() + 0.2, timezone(timedelta(hours=-7)))
        first = await fn.using(at=at).enqueue()
        second = await fn.using(delay=0.2).enqueue()
        past = await fn.using(at=datetime(2000, 1, 1, tzinfo=UTC)).enqueue()
        assert await first.status() is await second.status() is JobStatus.SCHEDULED
        await past.result(timeout=5)
        await first.result(timeout=5)
        await second.result(timeout=5)
        assert jobs.now() >= at.timestamp()


async def test_priorities_and_their_order(backend):
    """ "A higher priority number runs first"; jobs take 0..9, one lane each."""
    jobs, order = JobQueue("q", backend), list[int]()

    @jobs.job(priority=5)
    async def fn(n: int) -> None:
        order.append(n)

    async with jobs:
        handles = [await fn.using(priority=n).enqueue(n) for n in (0, 9, 3, 7)]
        handles.append(await fn.enqueue(5))
        async with Worker(jobs, concurrency=1):
            await ended(*handles)
    assert order == [9, 7, 5, 3, 0]
    for wrong in (10, -1):
        with pytest.raises(ValueError, match="priority must be a whole number"):
            fn.using(priority=wrong)


async def test_limits(backend):
    """``Limits(rate=None, concurrency=None, key=None)``."""
    jobs = JobQueue("q", backend, limits=Limits(concurrency=3))
    running, most = Counter[str](), Counter[str]()

    @jobs.job(limits=Limits(concurrency=1, key="tenant:{tenant}"))
    async def fn(tenant: str) -> None:
        for each in (tenant, "all"):
            running[each] += 1
            most[each] = max(most[each], running[each])
        await sleep(0.01)
        running.subtract((tenant, "all"))

    @jobs.job(limits=Limits(rate=Rate(2, per=0.2)))
    async def rated() -> float:
        return monotonic()

    async with jobs, Worker(jobs):
        handles = await jobs.enqueue_many([fn.job(f"{n % 5}") for n in range(20)])
        await ended(*handles)
        assert 1 < most["all"] <= 3
        assert {most[f"{n}"] for n in range(5)} == {1}
        began = monotonic()
        spaced = await jobs.enqueue_many([rated.job() for _ in range(6)])
        times = [await each.result(timeout=5) for each in spaced]
        assert max(times) - began >= 0.35  # 6 with a burst of 2, one each 0.1 s


async def test_an_id_of_the_users_own_is_one_job(backend):
    jobs, ran = JobQueue("q", backend, partitions=2), list[int]()

    @jobs.job
    async def fn(x: int) -> int:
        ran.append(x)
        return x

    async with jobs, Worker(jobs):
        first = await fn.using(id="order-7").enqueue(1)
        again = await fn.using(id="order-7").enqueue(2)
        assert (first.created, again.created) == (True, False)
        assert await again.result(timeout=5) == 1
        assert await fn.handle("order-7").result(timeout=5) == 1
        assert await jobs.handle("order-7").status() is JobStatus.DONE
        assert (await fn.using(id="order-7").enqueue(3)).created is False  # its outcome is kept
    assert ran == [1]


async def test_results_that_are_not_there(backend):
    """``JobNotFoundError``: unknown id, or a result that is kept for 0 s."""
    jobs = JobQueue("q", backend)

    @jobs.job(result_ttl=0)
    async def fn() -> int:
        return 1

    async with jobs, Worker(jobs):
        handle = await fn.enqueue()
        with pytest.raises(JobNotFoundError):
            await handle.result(timeout=5)
        with pytest.raises(JobNotFoundError):
            await jobs.handle("nobody").result(timeout=5)


async def test_what_travels_with_a_job(backend):
    """ "contextvars that travel: call -> job"; hops count the jobs on the way."""
    jobs = JobQueue("q", backend)

    @jobs.job
    async def inner(ctx: Context) -> tuple[str | None, int, float | None]:
        assert ctx.correlation_id == correlation_id()
        at = deadline()
        return ctx.correlation_id, ctx.hops, None if at is None else at - monotonic()

    @jobs.job
    async def outer(ctx: Context) -> str:
        handle = await inner.using(id="inner").enqueue()
        return handle.job_id

    async with jobs, Worker(jobs):
        with bind_correlation("req-1"), bind_deadline(monotonic() + 100):
            await (await outer.enqueue()).result(timeout=5)
        correlation, hops, left = await inner.handle("inner").result(timeout=5)
        assert (correlation, hops) == ("req-1", 1)
        assert left is not None
        assert 90 < left <= 100
        assert await (await inner.enqueue()).result(timeout=5) == (None, 0, None)


async def test_a_deadline_that_has_passed_on_the_way_is_over(backend):
    jobs = JobQueue("q", backend)

    @jobs.job
    async def fn() -> None:
        await sleep(60)

    async with jobs:
        with bind_deadline(monotonic() + 0.05):
            handle = await fn.enqueue()
        async with Worker(jobs):
            with pytest.raises(JobFailedError) as info:
                await handle.result(timeout=5)
        assert info.value.type == "TimeoutExceededError"
        await jobs.purge()


async def test_signed_queues_refuse_what_is_foreign(backend):
    trusted = JobQueue("q", backend, signing=["a key of at least 16 bytes"])
    stranger = JobQueue("q", backend)

    def define(jobs):
        @jobs.job
        async def fn() -> int:
            return 1

        return fn

    ours, theirs = define(trusted), define(stranger)
    async with trusted, stranger, Worker(trusted):
        assert await (await ours.enqueue()).result(timeout=5) == 1
        forged = await theirs.enqueue()
        assert await ended(trusted.handle(forged.job_id)) == [JobStatus.DEAD]
        with pytest.raises(JobFailedError, match="is not signed, but this queue has keys"):
            await trusted.handle(forged.job_id).result(timeout=5)
        (letter,) = await trusted.dead_letters()
        assert letter.name == ""
        await trusted.purge()


async def test_results_by_reference(backend):
    """ "Results by reference are ``kv`` keys with a TTL"."""
    jobs = JobQueue("q", backend, max_bytes=1_000)

    @jobs.job
    async def render(job_id: str) -> str:
        await jobs.backend.kv.set(f"page:{job_id}", b"x" * 100_000, ttl=60)
        return f"page:{job_id}"

    async with jobs, Worker(jobs):
        key = await (await render.enqueue("7")).result(timeout=5)
        assert len(await jobs.backend.kv.get(key) or b"") == 100_000


async def test_after_a_drain_nothing_is_left(backend):
    """ "0 keys for jobs without results": the fixture looks for keys when the test is over."""
    jobs = JobQueue("q", backend, partitions=2)

    @jobs.job(result_ttl=0, unique=Unique("{x}"))
    async def fn(x: int) -> None: ...

    async with jobs, Worker(jobs):
        handles = await jobs.enqueue_many([fn.job(n) for n in range(50)])
        await ended(*handles)
        figures = await jobs.statistics()
        assert (figures.queued, figures.running, figures.dead) == (0, 0, 0)


async def test_many_wait_at_once(backend):
    jobs = JobQueue("q", backend)

    @jobs.job
    async def fn(x: int) -> int:
        return x

    async with jobs, Worker(jobs):
        handles = await jobs.enqueue_many([fn.job(n) for n in range(600)])
        found: dict[int, int] = {}

        async def wait(number, handle):
            found[number] = await handle.result(timeout=10)

        async with create_task_group() as tasks:
            for number, handle in enumerate(handles):
                tasks.start_soon(wait, number, handle)
        assert found == {number: number for number in range(600)}


async def test_two_queues_of_one_name_are_one_queue():
    backend = open_backend("memory://")
    producer, consumer = JobQueue("q", backend), JobQueue("q", backend)

    @producer.job(name="fn")
    async def stub(x: int) -> int:
        raise NotImplementedError

    @consumer.job(name="fn")
    async def real(x: int) -> int:
        return x + 1

    async with producer, Worker(consumer):
        assert await (await stub.enqueue(1)).result(timeout=5) == 2
