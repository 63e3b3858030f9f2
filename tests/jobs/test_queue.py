"""The queue as an owner: defined anywhere, opened and opened again, closed with all that waits."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after, to_thread, wait_all_tasks_blocked

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    CodecError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    TimeoutExceededError,
)
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.core.rate import Rate
from aiopatterns.jobs import JobStatus, Limits, Unique, Worker
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate

# Jobs stay where no worker runs.
pytestmark = pytest.mark.leaves("{ap:q:*")


def make(backend="memory://", **options):
    jobs = JobQueue("q", backend, **options)

    @jobs.job
    async def double(x: int) -> int:
        return 2 * x

    @jobs.job
    async def broken() -> None:
        raise ValueError("no")

    return jobs, double, broken


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"name": 3}, TypeError, "name must be a non-empty string, not 3"),
        ({"name": "x" * 2_000}, ValueError, "name must be at most 1024 bytes"),
        ({"backend": "gopher://x"}, ValueError, "gopher"),
        ({"lease": 0}, ValueError, "lease must be a finite number > 0, not 0"),
        ({"lease": "1"}, TypeError, "lease must be a finite number > 0, not '1'"),
        ({"partitions": 0}, ValueError, "partitions must be a whole number >= 1, not 0"),
        ({"partitions": 1.0}, TypeError, "partitions must be a whole number >= 1"),
        ({"lifespan": 3}, TypeError, "lifespan must be a function, not 3"),
        ({"limits": 3}, TypeError, "limits must be Limits or None, not 3"),
        (
            {"limits": Limits(concurrency=1, key="{x}")},
            ValueError,
            "limits of a queue must have no",
        ),
        (
            {"limits": Limits(concurrency=1), "partitions": 2},
            ValueError,
            "limits of a queue must be None if it has partitions",
        ),
        ({"codec": "json"}, TypeError, "codec must be a codec"),
        ({"signing": ["short"]}, ValueError, "signing must hold keys of at least 16 bytes"),
        ({"max_bytes": 0}, ValueError, "max_bytes must be a whole number >= 1"),
        ({"speed": 9}, TypeError, "speed"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        JobQueue(**{"name": "q", **given})


def test_what_it_says_of_itself():
    backend = open_backend("memory://")
    jobs = JobQueue("q", backend, lease=3, partitions=2, codec=(MSGPACK, JSON))
    assert jobs.backend is backend
    assert (jobs.name, jobs.lease, jobs.partitions) == ("q", 3, 2)
    assert [each.name for each in jobs.stores] == ["q:0", "q:1"]
    assert jobs.envelopes.codec is MSGPACK
    assert [each.name for each in JobQueue("one").stores] == ["one"]
    assert jobs.state is OwnerState.CREATED


@pytest.mark.promise("jobs-bad-input")
async def test_every_use_of_a_closed_queue_names_the_line_to_add():
    jobs, double, _ = make()
    uses = [
        double.enqueue(1),
        double.using(delay=1).enqueue(1),
        jobs.enqueue_many([double.job(1)]),
        jobs.pause(),
        jobs.resume(),
        jobs.statistics(),
        jobs.dead_letters(),
        jobs.requeue(["a"]),
        jobs.cancel(["a"]),
        jobs.purge(),
        jobs.handle("a").result(),
        double.handle("a").status(),
        double.handle("a").cancel(),
        double.handle("a").progress(),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="JobQueue 'q' is not open; write 'async with jobs:'"):
            await use
    for use in (jobs.events, jobs.now, jobs.desk):
        with pytest.raises(ClosedError, match="async with jobs:"):
            use()


async def test_opened_used_closed_and_opened_again(backend_url):
    jobs, double, _ = make(backend_url)
    handles = []
    for _ in range(2):
        async with jobs as opened:
            assert opened is jobs
            handle = await double.enqueue(1)
            handles.append(handle)
            assert await handle.status() is JobStatus.QUEUED
            assert abs(jobs.now() - await jobs.backend.time()) < 1
        with pytest.raises(ClosedError):
            await handle.status()
        with pytest.raises(ClosedError):
            await jobs.backend.time()
    assert handles[0].job_id != handles[1].job_id
    async with jobs:
        assert (await jobs.statistics()).queued == 2
        assert await handles[0].status() is JobStatus.QUEUED


def test_opened_again_on_another_loop():
    jobs, double, _ = make()

    async def main():
        async with jobs:
            await double.enqueue(1)
            return (await jobs.statistics()).queued

    assert [anyio.run(main) for _ in range(2)] == [1, 2]


async def test_open_only_once():
    jobs, *_ = make()
    async with jobs:
        with pytest.raises(RuntimeError, match="is open already"):
            async with jobs:
                pytest.fail("never")
        await jobs.statistics()
    with pytest.raises(ClosedError):
        await jobs.backend.time()


async def test_the_bodys_own_error_leaves_bare():
    jobs, *_ = make()
    error = LookupError("mine")
    with pytest.raises(LookupError) as info:
        async with jobs:
            raise error
    assert info.value is error


async def test_a_backend_object_stays_open_for_others(backend):
    jobs, double, _ = make(backend)
    async with backend:
        async with jobs:
            await double.enqueue(1)
        assert await backend.time() > 0
        assert (await backend.queue("q").counts()).queued == 1


class Faulty:
    """A backend whose clock fails at opening."""

    def __init__(self):
        self.inner, self.open = open_backend("memory://"), 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def __aenter__(self):
        self.open += 1
        await self.inner.__aenter__()

    async def __aexit__(self, *args):
        self.open -= 1
        await self.inner.__aexit__(*args)

    async def time(self):
        raise BackendUnavailableError("away")


async def test_an_opening_that_fails_leaves_nothing_open():
    backend: Any = Faulty()
    jobs = JobQueue("q", backend)
    for _ in range(2):
        with pytest.raises(BackendUnavailableError):
            async with jobs:
                pytest.fail("never")
        assert backend.open == 0
    assert jobs.state is OwnerState.STOPPED


async def test_who_waits_while_the_queue_is_closed_is_told():
    jobs, double, _ = make()
    async with create_task_group() as tasks:

        async def wait(handle):
            with pytest.raises(ClosedError, match="was closed while waiting for a result"):
                await handle.result()

        async with jobs:
            handle = await double.enqueue(1)
            tasks.start_soon(wait, handle)
            await wait_all_tasks_blocked()


class Counting:
    """A store that notes what is enqueued, and may fail at the n-th time."""

    def __init__(self, store, fail_at=None):
        self.store, self.fail_at, self.sizes = store, fail_at, []

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def enqueue(self, jobs):
        if len(self.sizes) == self.fail_at:
            raise BackendUnavailableError("away")
        self.sizes.append(len(jobs))
        return await self.store.enqueue(jobs)


async def test_many_go_in_chunks_and_handles_keep_the_order(backend):
    jobs, double, _ = make(backend)
    store = Counting(jobs.stores[0])
    jobs._stores = (store,)
    async with jobs:
        handles = await jobs.enqueue_many(double.job(n) for n in range(1_201))
        assert store.sizes == [500, 500, 201]
        assert len({each.job_id for each in handles}) == 1_201
        page = await jobs.stores[0].page("queued", limit=500)
        assert [each.id for each in page.jobs] == [each.job_id for each in handles[:500]]
        assert await jobs.enqueue_many([]) == []
        assert len(store.sizes) == 3


async def test_many_over_partitions(backend):
    jobs, double, _ = make(backend, partitions=3)

    @jobs.job(unique=Unique("{x}"))
    async def once(x: int) -> None: ...

    async with jobs:
        unsent = [double.job(n) for n in range(30)] + [once.job(n % 5) for n in range(30)]
        handles = await jobs.enqueue_many(unsent)
        counts = [(await store.counts()).queued for store in jobs.stores]
        assert sum(counts) == 35
        assert min(counts) >= 10
        assert len({each.job_id for each in handles[30:]}) == 5
        assert [each.created for each in handles[30:]] == [True] * 5 + [False] * 25
        assert {await each.status() for each in handles[:5]} == {JobStatus.QUEUED}
        found = [jobs.handle(each.job_id) for each in handles[:4]]
        assert [each.partition for each in found] == [0, 1, 2, 0]
        assert [await each.cancel() for each in found] == [JobStatus.CANCELLED] * 4


async def test_all_of_one_job_are_encoded_before_the_first_is_sent():
    jobs, double, _ = make()
    wrong: Any = double.job
    async with jobs:
        with pytest.raises(CodecError):
            await jobs.enqueue_many([*(double.job(n) for n in range(600)), wrong(object())])
        assert (await jobs.statistics()).queued == 0


async def test_what_was_sent_before_an_error_is_told():
    jobs, double, _ = make()
    jobs._stores = (Counting(jobs.stores[0], fail_at=1),)
    async with jobs:
        with pytest.raises(BackendError) as info:
            await jobs.enqueue_many([double.job(n) for n in range(600)])
        assert info.value.__notes__ == ["500 of 600 jobs were enqueued before"]
        assert (await jobs.statistics()).queued == 500


@pytest.mark.promise("jobs-bad-input")
async def test_what_is_no_call_of_this_queue_is_refused():
    jobs, double, _ = make()
    other, foreign, _ = make()
    wrong: Any = 3
    async with jobs:
        with pytest.raises(
            TypeError, match=r"jobs must be calls made by job\.job\(\.\.\.\), not 3"
        ):
            await jobs.enqueue_many([double.job(1), wrong])
        with pytest.raises(ValueError, match="jobs must be calls of this queue 'q', not of 'q'"):
            await jobs.enqueue_many([double.job(1), foreign.job(1)])
        with pytest.raises(TypeError):
            await jobs.enqueue_many(wrong)
        with pytest.raises(ValueError, match="job_id must be a non-empty string"):
            jobs.handle("")
        assert (await jobs.statistics()).queued == 0
    assert other.state is OwnerState.CREATED


async def test_a_tick_is_one_job(backend):
    jobs, *_ = make(backend)

    @jobs.cron("* * * * *")
    async def tick() -> None: ...

    async with jobs:
        first, again = [await jobs.enqueue_tick(tick, 1_800_000_000.0, 60) for _ in range(2)]
        assert first.job_id == again.job_id == "cron:tick:1800000000"
        assert (first.created, again.created) == (True, False)


def test_results_are_waited_for_in_virtual_time():
    async def main():
        jobs, double, broken = make()
        async with jobs:
            handle = await double.using(delay=3600).enqueue(21)
            with pytest.raises(TimeoutExceededError):
                await handle.result(timeout=60)
            async with Worker(jobs):
                assert await handle.result() == 42
                assert 3600 <= monotonic() < 3601
                with pytest.raises(JobFailedError, match="ValueError: no"):
                    await (await broken.enqueue()).result()
            with pytest.raises(JobNotFoundError):
                await jobs.handle("nobody").result()

    simulate(main)


@pytest.mark.promise("jobs-cancel-everywhere")
def test_an_enqueue_and_a_wait_that_are_cancelled_anywhere_leave_nothing_behind():
    def scenario():
        jobs, double, _ = make()

        async def work():
            async with jobs:
                handles = await jobs.enqueue_many([double.job(n) for n in range(3)])
                handles.append(await double.enqueue(1))
                async with Worker(jobs):
                    await handles[-1].result()
                    await handles[0].result(timeout=5)
                await jobs.statistics()

        async def check():
            async with jobs:
                figures = await jobs.statistics()
                assert figures.queued in {0, 3, 4} or figures.running == 0
                assert figures.dead == figures.waiting == figures.scheduled == 0
                assert not any(each._waits for each in jobs._results)

        return Trial(work(), check)

    visited = cancel_everywhere(
        scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5
    )
    assert visited.runs > 20


def test_producers_and_those_who_wait_agree_under_any_schedule():
    async def main():
        jobs, double, broken = make()

        @jobs.job(unique=Unique("{x}"), result_ttl=0)
        async def once(x: int) -> None:
            await sleep(0.01)

        values: dict[int, int] = {}
        ids: set[str] = set()

        async def produce(start):
            handles = await jobs.enqueue_many([double.job(start + n) for n in range(3)])
            handles.append(await double.using(delay=0.5, after=handles).enqueue(start + 3))
            ids.add((await once.enqueue(7)).job_id)
            for number, handle in enumerate(handles):
                values[start + number] = await handle.result(timeout=30)
            cancelled = await double.using(delay=60).enqueue(0)
            assert await cancelled.cancel() is JobStatus.CANCELLED
            with pytest.raises(JobCancelledError):
                await cancelled.result()
            with pytest.raises(JobFailedError):
                await (await broken.enqueue()).result()

        async with jobs, Worker(jobs, concurrency=2):
            async with create_task_group() as tasks:
                for start in (0, 10, 20):
                    tasks.start_soon(produce, start)
            figures = await jobs.statistics()
        assert values == {start + n: 2 * (start + n) for start in (0, 10, 20) for n in range(4)}
        assert len(ids) in {1, 2, 3}
        assert (figures.queued, figures.scheduled, figures.waiting, figures.dead) == (0, 0, 0, 3)

    explore(main, range(200))


@pytest.mark.real
async def test_a_wait_outlasts_the_death_of_the_server():
    with RedisServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        jobs, double, _ = make(server.url)
        async with jobs, create_task_group() as tasks:
            found: list[int] = []

            async def wait(handle):
                found.append(await handle.result())

            tasks.start_soon(wait, await double.using(id="first").enqueue(1))
            await sleep(0.1)
            server.kill()
            with pytest.raises(BackendUnavailableError):
                await double.using(id="second").enqueue(2)
            await to_thread.run_sync(server.restart)
            tasks.start_soon(wait, await double.using(id="second").enqueue(2))
            assert not (await double.using(id="second").enqueue(2)).created
            async with Worker(jobs):
                with fail_after(8):
                    while len(found) < 2:
                        await sleep(0.02)
            assert sorted(found) == [2, 4]


async def test_middle_of_nowhere_is_fine():
    """A queue that is never opened is collected silently."""
    make(limits=Limits(rate=Rate(3)))
    await sleep(0)
