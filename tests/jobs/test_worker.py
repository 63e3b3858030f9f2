from __future__ import annotations

import asyncio
import signal
from typing import Any, cast

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, seeded, sleep
from aiopatterns.core.context import bind_correlation, correlation_id
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    JobCancelledError,
    JobFailedError,
    Reject,
    RetryLater,
)
from aiopatterns.core.rate import Rate
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.handle import JobStatus
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    fail_everywhere,
    simulate,
)
from tests.jobs.unreliable import Faults, UnreliableBackend

AGAIN = Retry(on=OSError, attempts=3, backoff=Constant(1.0))


async def failed(handle) -> JobFailedError:
    with pytest.raises(JobFailedError) as caught:
        await handle.result(timeout=60)
    return caught.value


# ------------------------------------------------------------------------------------ the basics


@pytest.mark.parametrize("demote", [True, False])
async def test_what_fails_may_go_behind_what_has_not(demote):
    jobs = JobQueue("q")
    begun: list[str] = []

    @jobs.job(retry=Retry(on=OSError, attempts=3, backoff=Constant(0.0)), demote=demote)
    async def work(name: str) -> None:
        begun.append(name)
        if begun == ["later", "fails"]:
            raise RetryLater  # which lowers nothing
        if begun == ["later", "fails", "fails"]:
            raise OSError

    async with jobs:
        await work.using(priority=9).enqueue("later")
        await work.using(priority=5).enqueue("fails")
        for priority in (4, 4, 3):
            await work.using(priority=priority).enqueue(str(priority))
        await Worker(jobs, concurrency=1).run_until_empty()
    again = ["4", "4", "fails", "3"] if demote else ["fails", "4", "4", "3"]
    assert begun == ["later", "fails", "fails", *again]


async def test_runs_jobs_and_keeps_their_results():
    jobs = JobQueue("q")

    @jobs.job
    async def double(value: int) -> int:
        return 2 * value

    async with jobs, Worker(jobs) as worker:
        handles = await jobs.enqueue_many([double.job(each) for each in range(250)])
        assert [await each.result(timeout=5) for each in handles] == [*range(0, 500, 2)]
        figures = worker.statistics()
    assert (figures.processed, figures.failed, figures.retried) == (250, 0, 0)
    assert figures.queues["q"].processed == 250
    assert figures.p50 is not None
    assert figures.p95 is not None
    assert figures.p99 is not None
    assert figures.p99 >= figures.p95 >= figures.p50
    assert figures.steps < 20


async def test_opens_a_queue_that_is_closed_and_closes_it_again():
    jobs = JobQueue("q")

    @jobs.job
    async def nothing() -> None: ...

    async with Worker(jobs):
        await (await nothing.enqueue()).result(timeout=5)
    with pytest.raises(ClosedError):
        await nothing.enqueue()
    async with Worker(jobs):  # again
        await (await nothing.enqueue()).result(timeout=5)


async def test_several_workers_share_a_queue():
    jobs = JobQueue("q")
    started = []

    @jobs.job
    async def wait() -> None:
        started.append(monotonic())
        await both.wait()

    both = anyio.Event()
    async with jobs, Worker(jobs, concurrency=1), Worker(jobs, concurrency=1):
        handles = [await wait.enqueue() for _ in range(2)]
        while len(started) < 2:
            await sleep(0.001)
        both.set()
        for each in handles:
            await each.result(timeout=5)


async def test_one_worker_serves_several_queues_within_its_concurrency():
    one, two = JobQueue("one"), JobQueue("two", partitions=3)
    running = peak = 0

    async def work() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await sleep(0.001)
        running -= 1

    first, second = one.job(name="work")(work), two.job(name="work")(work)
    async with one, two, Worker(one, two, concurrency=4) as worker:
        handles = [await first.enqueue() for _ in range(20)]
        handles += [await second.enqueue() for _ in range(20)]
        for each in handles:
            await each.result(timeout=10)
        assert {name: each.processed for name, each in worker.statistics().queues.items()} == {
            "one": 20,
            "two": 20,
        }
    assert peak == 4


async def test_the_context_tells_about_the_attempt():
    jobs = JobQueue("q", lifespan=lambda: _lifespan(log, {"db": 17}))
    log: list[str] = []
    seen: dict[str, object] = {}

    @jobs.job(timeout=30)
    async def look(ctx: Context) -> None:
        seen.update(
            id=ctx.job_id,
            attempt=ctx.attempt,
            db=ctx.state["db"],
            left=ctx.remaining,
            bound=correlation_id(),
            given=ctx.correlation_id,
        )

    async with jobs:
        async with Worker(jobs):
            assert log == ["enter"]
            with bind_correlation("abc"):
                handle = await look.enqueue()
            await handle.result(timeout=5)
        assert log == ["enter", "exit"]
    assert seen.pop("left") == pytest.approx(30, abs=1)
    assert seen == {
        "id": handle.job_id, "attempt": 1, "db": 17, "bound": "abc", "given": "abc"
    }  # fmt: skip


class _lifespan:
    def __init__(self, log, state) -> None:
        self.log, self.state = log, state

    async def __aenter__(self):
        self.log.append("enter")
        return self.state

    async def __aexit__(self, *error) -> None:
        self.log.append("exit")


async def test_a_lifespan_that_yields_nothing_gives_an_empty_state():
    jobs = JobQueue("q", lifespan=lambda: _lifespan([], None))

    @jobs.job
    async def look(ctx: Context) -> int:
        return len(ctx.state)

    async with Worker(jobs):
        assert await (await look.enqueue()).result(timeout=5) == 0


async def test_a_lifespan_that_fails_leaves_bare_and_nothing_is_open():
    def broken():
        raise OSError("no database")

    jobs = JobQueue("q", lifespan=broken)
    with pytest.raises(OSError, match="no database"):
        async with Worker(jobs):
            pytest.fail("entered")
    async with jobs:
        pass


async def test_the_error_of_the_body_leaves_bare():
    with pytest.raises(KeyError):
        async with Worker(JobQueue("q")):
            raise KeyError


@pytest.mark.promise("jobs-worker-input")
def test_bad_input():
    jobs = JobQueue("q")
    for wrong, kind, text in [
        (Worker, ValueError, "queues"),
        (lambda: Worker(jobs, JobQueue("q")), ValueError, "different names"),
        (lambda: Worker(cast("Any", "q")), TypeError, "queues"),
        (lambda: Worker(jobs, concurrency=0), ValueError, "concurrency"),
        (lambda: Worker(jobs, grace=-1), ValueError, "grace"),
        (lambda: Worker(jobs, grace=float("nan")), ValueError, "grace"),
        (lambda: Worker(jobs, max_jobs=0), ValueError, "max_jobs"),
    ]:
        with pytest.raises(kind, match=text):
            wrong()
    assert Worker(jobs).statistics().processed == 0


async def test_a_worker_cannot_be_entered_twice():
    worker = Worker(JobQueue("q"))
    async with worker:
        with pytest.raises(RuntimeError, match="open already"):
            await worker.__aenter__()


# ---------------------------------------------------------------------------------------- ends


def test_errors_are_retried_and_counted():
    async def main() -> None:
        jobs = JobQueue("q")
        seen = []

        @jobs.job(retry=AGAIN)
        async def flaky(ctx: Context, good: int) -> int:
            seen.append((ctx.attempt, monotonic()))
            if ctx.attempt < good:
                raise OSError("not yet")
            return ctx.attempt

        async with Worker(jobs) as worker:
            assert await (await flaky.enqueue(3)).result(timeout=60) == 3
            assert seen == [(1, 0), (2, 1.0), (3, 2.0)]
            error = await failed(await flaky.enqueue(4))
            assert (error.type, error.message, error.attempts) == ("OSError", "not yet", 3)
            figures = worker.statistics()
            assert (figures.processed, figures.failed, figures.retried) == (1, 1, 4)

    simulate(main)


def test_a_result_that_is_not_wanted_is_tried_again():
    async def main() -> None:
        jobs = JobQueue("q")
        retry = Retry(on=OSError, attempts=3, on_result=lambda value: value < 3)

        @jobs.job(retry=retry, timeout=1.0)
        async def count(ctx: Context, more: int) -> int:
            return ctx.attempt + more

        async with Worker(jobs) as worker:
            assert await (await count.enqueue(1)).result(timeout=60) == 3 - 1 + 1
            assert await (await count.enqueue(-9)).result(timeout=60) == 3 - 9
            assert worker.statistics().retried == 3

    simulate(main)


def test_reject_is_dead_and_retry_later_costs_no_attempt():
    async def main() -> None:
        jobs = JobQueue("q")
        times = []

        @jobs.job(retry=AGAIN)
        async def reject() -> None:
            raise Reject("never")

        @jobs.job
        async def later(ctx: Context) -> int:
            times.append(monotonic())
            if len(times) < 4:
                raise RetryLater(2.0)
            return ctx.attempt

        async with Worker(jobs):
            error = await failed(await reject.enqueue())
            assert (error.type, error.message, error.attempts) == ("Reject", "never", 1)
            assert await (await later.enqueue()).result(timeout=60) == 1
        assert times == pytest.approx([0, 2, 4, 6])

    simulate(main)


def test_a_timeout_counts_as_an_error():
    async def main() -> None:
        jobs = JobQueue("q")
        seen = []

        @jobs.job(timeout=2.0, retry=AGAIN)
        async def slow(ctx: Context) -> int:
            seen.append(monotonic())
            if ctx.attempt < 2:
                await sleep(100)
            return ctx.attempt

        @jobs.job(timeout=1.0)
        async def stubborn() -> str:
            try:
                await sleep(100)
            except BaseException:
                return "what the function does last counts"
            return "?"

        @jobs.job(timeout=1.0)
        async def hang() -> None:
            await sleep(100)

        async with Worker(jobs):
            assert await (await slow.enqueue()).result(timeout=60) == 2
            assert seen == [0, 3.0]
            assert "last counts" in await (await stubborn.enqueue()).result(timeout=60)
            error = await failed(await hang.enqueue())
            assert error.type == "TimeoutExceededError"
            assert error.message == "job 'hang' took longer than its 1.0 s"

    simulate(main)


def test_a_deadline_that_came_with_the_job_bounds_it():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job(timeout=50.0)
        async def hang() -> None:
            await sleep(100)

        async with jobs:
            from aiopatterns.core.context import bind_deadline

            with bind_deadline(monotonic() + 3):
                handle, late = await hang.enqueue(), await hang.using(delay=10).enqueue()
            async with Worker(jobs):
                error = await failed(handle)
                assert monotonic() == pytest.approx(3, abs=0.01)
                assert error.message == "the deadline of job 'hang' has passed"
                assert "deadline" in (await failed(late)).message
                assert monotonic() == pytest.approx(10, abs=0.01)

    simulate(main)


def test_a_function_that_cancels_itself_has_failed():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def raises() -> None:
            raise asyncio.CancelledError

        @jobs.job
        async def cancels() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await sleep(1)

        @jobs.job
        async def fine() -> int:
            return 1

        async with Worker(jobs, concurrency=1):
            for each in (raises, cancels, raises):
                error = await failed(await each.enqueue())
                assert error.type == "JobCancelledError"
                assert "cancelled itself" in error.message
            assert await (await fine.enqueue()).result(timeout=5) == 1

    simulate(main)


def test_what_cannot_be_read_or_kept_is_dead_and_others_go_on():
    async def main() -> None:
        jobs = JobQueue("q", max_bytes=2000)
        dead = []

        @jobs.job
        async def odd() -> object:
            return object()

        @jobs.job
        async def huge() -> str:
            return "x" * 3000

        @jobs.job(result_ttl=0)
        async def unkept() -> object:
            return object()

        @jobs.job
        async def loud() -> None:
            raise ValueError("y" * 5000)

        async with Worker(jobs) as worker:
            from aiopatterns.backends.queue import NewJob

            await jobs.stores[0].enqueue([NewJob("poison", b"\xff\x00")])
            error = await failed(await odd.enqueue())
            assert error.type == "CodecError"
            assert "max_bytes" in (await failed(await huge.enqueue())).message
            assert (await failed(await loud.enqueue())).type == "ValueError"
            await unkept.enqueue()
            await worker.run_until_empty()
            page = await jobs.stores[0].page("dead")
            dead = [each.id for each in page.jobs]
            assert worker.statistics().processed == 1
        assert len(dead) == 4
        assert "poison" in dead

    simulate(main)


def test_names_that_nobody_knows_stay_parked():
    async def main() -> None:
        backend = MemoryBackend("here")
        old, new = JobQueue("q", backend), JobQueue("q", backend)

        @new.job(name="fresh")
        async def fresh() -> str:
            return "run"

        async with old, new:
            handle = await fresh.enqueue()
            async with Worker(old) as worker:
                await sleep(12)
                assert await handle.status() is JobStatus.SCHEDULED
                assert worker.statistics().failed == 0
            async with Worker(new):
                assert await handle.result(timeout=10) == "run"

    simulate(main)


def test_a_running_job_is_cancelled():
    async def main() -> None:
        jobs = JobQueue("q")
        log = []

        @jobs.job
        async def forever(ctx: Context) -> None:
            await ctx.progress(0.25)
            try:
                await sleep(1000)
            finally:
                log.append(monotonic())

        @jobs.job
        async def wrapped() -> None:
            try:
                await sleep(1000)
            except BaseException:
                raise ValueError("made of a cancellation") from None

        async with Worker(jobs, concurrency=3) as worker:
            handle, other = await forever.enqueue(), await wrapped.enqueue()
            await sleep(5)
            assert worker.statistics().running == 2
            assert await handle.progress() == 0.25
            assert await handle.cancel() is JobStatus.RUNNING
            await other.cancel()
            for each in (handle, other):
                with pytest.raises(JobCancelledError):
                    await each.result(timeout=5)
            assert log == [5.0]
            assert worker.statistics().queues["q"].cancelled == 2
            assert worker.statistics().running == 0

    simulate(main)


async def test_synchronous_functions_run_in_threads():
    jobs = JobQueue("q")

    @jobs.job
    def add(left: int, right: int) -> int:
        return left + right

    async with Worker(jobs):
        assert await (await add.enqueue(1, 2)).result(timeout=5) == 3


async def test_a_base_exception_leaves_the_worker():
    jobs = JobQueue("q")

    class StopEverything(BaseException):  # asyncio itself deals with KeyboardInterrupt
        pass

    @jobs.job
    async def stop() -> None:
        raise StopEverything

    with pytest.raises(StopEverything):
        async with Worker(jobs, grace=0.1):
            await stop.enqueue()
            await sleep(5)


def test_events_are_told_to_those_who_listen():
    async def main() -> list[str]:
        jobs = JobQueue("q")

        @jobs.job(retry=AGAIN)
        async def flaky(ctx: Context) -> None:
            if ctx.attempt < 2:
                raise OSError("once")

        @jobs.job
        async def reject() -> None:
            raise Reject("no")

        @jobs.job
        async def forever() -> None:
            await sleep(1000)

        with capture_events() as events:
            async with Worker(jobs, grace=0.5):
                from aiopatterns.backends.queue import NewJob

                await (await flaky.enqueue()).result(timeout=5)
                await failed(await reject.enqueue())
                handle = await forever.enqueue()
                await sleep(1)
                await handle.cancel()
                with pytest.raises(JobCancelledError):
                    await handle.result(timeout=5)
                await jobs.stores[0].enqueue([NewJob("poison", b"?")])
                await forever.enqueue()
                await sleep(1)
        return [each.name.removeprefix("aiopatterns.job.") for each in events]

    found = simulate(main)
    assert [each for each in found if "." not in each] == [
        "started", "retrying", "started", "done",
        "started", "dead",
        "started", "cancelled",
        "dead", "started", "released",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- leaving


def test_leaving_finishes_what_runs_within_the_grace():
    async def main() -> None:
        jobs = JobQueue("q")
        log = []

        @jobs.job
        async def some(seconds: float) -> float:
            await sleep(seconds)
            log.append(seconds)
            return seconds

        async with jobs:
            async with Worker(jobs, grace=10):
                handles = [await some.enqueue(each) for each in (1, 5, 100)]
                await sleep(0.5)
                late = await some.using(delay=1).enqueue(0)
            assert log == [1, 5]
            assert monotonic() == pytest.approx(9.5)  # a second is left for those cancelled
            assert await late.status() is JobStatus.QUEUED  # nothing is begun any more
            assert await handles[2].status() is JobStatus.QUEUED
            (stored,) = [
                each
                for each in (await jobs.stores[0].page("queued")).jobs
                if each.id == handles[2].job_id
            ]
            assert stored.attempts == 0  # handing back costs none
            assert (await jobs.stores[0].counts()).workers == 0

    simulate(main)


@pytest.mark.promise("jobs-grace")
def test_a_function_that_swallows_its_cancellation_is_abandoned():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def swallows() -> None:
            while True:
                try:
                    await sleep(1000)
                except asyncio.CancelledError:
                    continue

        @jobs.job
        async def shields() -> None:
            with anyio.CancelScope(shield=True):
                await sleep(1000)

        async with jobs:
            for grace in (0.0, 5.0):
                began = monotonic()
                async with Worker(jobs, grace=grace):
                    handles = [await each.enqueue() for each in (swallows, shields)]
                    await sleep(1)
                assert monotonic() - began <= 1 + grace
                for each in handles:
                    assert await each.status() is JobStatus.QUEUED

    simulate(main)


def test_leaving_by_an_error_hands_everything_back_at_once():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def long() -> None:
            await sleep(100)

        async with jobs:
            with pytest.raises(KeyError):
                async with Worker(jobs):
                    handle = await long.enqueue()
                    await sleep(1)
                    raise KeyError
            assert await handle.status() is JobStatus.QUEUED
            assert monotonic() == 1

    simulate(main)


def test_leaving_while_nobody_answers_takes_two_seconds_at_most():
    async def main() -> None:
        backend = MemoryBackend("here")
        faults = Faults(seeded(1))
        jobs = JobQueue("q", UnreliableBackend(backend, faults))

        @jobs.job
        async def quick() -> int:
            return 1

        async with backend:
            async with jobs:
                async with Worker(jobs, grace=3):
                    handle = await quick.enqueue()
                    faults.away = True
                assert monotonic() <= 5
            faults.away = False
            async with Worker(jobs):
                assert await handle.result(timeout=60) == 1  # once its lease has ended

    simulate(main)


def scenario() -> Trial:
    backend = MemoryBackend("here")
    jobs = JobQueue("q", backend)
    runs = []

    @jobs.job
    async def short(number: int) -> None:
        runs.append(number)
        await sleep(0.1)

    async def work() -> None:
        async with Worker(jobs, concurrency=2, grace=1, publish=False):
            handles = [await short.enqueue(each) for each in range(3)]
            await handles[0].result(timeout=10)

    async def check() -> None:
        async with jobs:
            counts = await jobs.stores[0].counts()
            assert counts.running == 0, "everything was settled or handed back"
            assert counts.workers == 0

    return Trial(work(), check)


@pytest.mark.promise("jobs-cancel-worker")
def test_cancelled_at_every_await():
    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


@pytest.mark.promise("jobs-fail-worker")
def test_every_function_of_the_user_may_fail_at_any_call():
    def failing(fault) -> Trial:
        backend = MemoryBackend("here")

        class lifespan:
            async def __aenter__(self):
                fault()

            async def __aexit__(self, *error: object) -> None:
                fault()

        jobs = JobQueue("q", backend, lifespan=lifespan)
        handles = []

        def want(error: Exception) -> bool:
            fault()
            return True

        @jobs.middleware
        async def around(ctx, call_next):
            fault()
            return await call_next(ctx)

        @jobs.job(retry=Retry(on=want, attempts=2, backoff=Constant(0.1)))
        async def work(number: int) -> None:
            fault()
            if number == 2:
                raise OSError

        @jobs.batch(size=2, within=0.1)
        async def batch(items: list[int]) -> None:
            fault()

        async def main() -> None:
            async with backend, jobs:
                handles.extend([await work.enqueue(each) for each in (1, 2)])
                handles.extend([await batch.enqueue(each) for each in (1, 2)])
                async with Worker(jobs, publish=False, grace=1) as worker:
                    await worker.run_until_empty()
                    for each in handles:
                        assert await each.status() in {JobStatus.DONE, JobStatus.DEAD}

        async def check() -> None:
            async with backend, jobs:
                counts = await jobs.stores[0].counts()
                assert (counts.running, counts.workers) == (0, 0)

        return Trial(main(), check)

    fail_everywhere(failing, minimum=8)


# ------------------------------------------------------------------------------- until empty


def test_run_until_empty_waits_for_retries_dependents_and_rates_but_not_for_delays():
    async def main() -> None:
        jobs = JobQueue("q")
        log = []

        @jobs.job(retry=AGAIN)
        async def flaky(ctx: Context) -> None:
            if ctx.attempt < 3:
                raise OSError
            log.append("flaky")

        @jobs.job
        async def later() -> None:
            if "later" not in log:
                log.append("later")
                raise RetryLater(4)
            log.append("again")

        @jobs.job
        async def step(name: str) -> None:
            log.append(name)

        @jobs.job(limits=Limits(rate=Rate(1, per=3)))
        async def limited() -> None:
            log.append("limited")

        async with jobs:
            first = await flaky.enqueue()
            await step.using(after=[first]).enqueue("dependent")
            await later.enqueue()
            delayed = await step.using(delay=1000).enqueue("delayed")
            await step.using(after=[delayed]).enqueue("of the delayed")
            for _ in range(3):
                await limited.enqueue()
            await Worker(jobs).run_until_empty()
            assert sorted(log) == [
                "again", "dependent", "flaky", "later", "limited", "limited", "limited"
            ]  # fmt: skip
            assert monotonic() < 10
            async with Worker(jobs) as worker:
                await worker.run_until_empty()
            assert (await jobs.stores[0].counts()).scheduled == 1

    simulate(main)


# ------------------------------------------------------------------------------------- signals


@pytest.mark.real
async def test_serves_until_a_signal():
    jobs = JobQueue("q")
    done = []

    @jobs.job
    async def work() -> None:
        await anyio.sleep(0.2)
        done.append(1)

    async def interrupt() -> None:
        await anyio.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    async with jobs:
        await work.enqueue()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            await Worker(jobs).serve()
    assert done == [1]


@pytest.mark.real
async def test_a_second_signal_forces():
    jobs = JobQueue("q")

    @jobs.job
    async def work() -> None:
        while True:
            try:
                await anyio.sleep(100)
            except asyncio.CancelledError:
                continue

    async def interrupt() -> None:
        for _ in range(2):
            await anyio.sleep(0.1)
            signal.raise_signal(signal.SIGINT)

    async with jobs:
        handle = await work.enqueue()
        began = monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            await Worker(jobs, grace=30).serve()
        assert monotonic() - began < 2
        assert await handle.status() is JobStatus.QUEUED


@pytest.mark.real
async def test_serve_ends_after_max_jobs():
    jobs = JobQueue("q")

    @jobs.job
    async def work() -> None: ...

    async with jobs:
        for _ in range(30):
            await work.enqueue()
        worker = Worker(jobs, concurrency=5, max_jobs=10)
        await worker.serve()
        assert 10 <= worker.statistics().processed <= 20


async def test_a_backend_that_is_away_at_the_beginning_is_an_error():
    class Away:
        scheme = "redis"
        url = "redis://nowhere"

        def __getattr__(self, name):
            return lambda *args, **more: None

        async def __aenter__(self):
            raise BackendUnavailableError("nobody answers")

        async def __aexit__(self, *error):
            pytest.fail("was never entered")

    with pytest.raises(BackendUnavailableError):
        async with Worker(JobQueue("q", cast("Any", Away()))):
            pytest.fail("entered")
