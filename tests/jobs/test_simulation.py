"""Workers over a store that fails, under many schedules: nothing lost, nothing run too often."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import AsyncExitStack

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, rng, seeded, sleep
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.handle import Handle, JobStatus
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import explore
from tests.jobs.unreliable import Faults, UnreliableBackend

LEASE = 6.0


class World:
    """A queue, some workers that see it through faults of their own, and what was run."""

    def __init__(
        self, *, workers: int, concurrency: int = 3, partitions: int = 1, **faults
    ) -> None:
        self.backend = MemoryBackend("sim")
        self.faults = [Faults(seeded(rng().getrandbits(32)), **faults) for _ in range(workers)]
        self.runs: Counter[int] = Counter()
        self.ends: defaultdict[int, list[str]] = defaultdict(list)
        self.running = self.peak = 0
        self.partitions = partitions
        self.queues = [self.define(UnreliableBackend(self.backend, each)) for each in self.faults]
        self.jobs = self.define(self.backend)
        self.workers = [Worker(queue, concurrency=concurrency, grace=2.0) for queue in self.queues]

    def define(self, backend) -> JobQueue:
        jobs = JobQueue("sim", backend, lease=LEASE, partitions=self.partitions)

        @jobs.job(name="work", retry=Retry(on=OSError, attempts=5, backoff=Constant(0.3)))
        async def work(ctx: Context, number: int, seconds: float, failures: int) -> str:
            self.runs[number] += 1
            token = f"{number}-{self.runs[number]}"
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                if seconds:
                    await sleep(seconds)
            finally:
                self.running -= 1
            if ctx.attempt <= failures:
                raise OSError(token)
            self.ends[number].append(token)
            return token

        self.work = work
        return jobs

    async def enqueue(self, count: int, *, failing: float = 0.2, longest: float = 0.5):
        dice = rng()
        self.planned: dict[int, int] = {}
        handles: list[Handle[str]] = []
        for number in range(count):
            seconds = dice.random() * longest if dice.random() < 0.7 else 0.0
            failures = dice.randrange(1, 3) if dice.random() < failing else 0
            self.planned[number] = failures
            after = (
                [handles[-1]] if handles and self.partitions == 1 and dice.random() < 0.2 else []
            )
            handles.append(await self.work.using(after=after).enqueue(number, seconds, failures))
        return handles

    async def check_empty(self) -> None:
        for store in self.jobs.stores:
            counts = await store.counts()
            assert counts[:5] == (0, 0, 0, 0, 0), counts  # a last step may be lost: a lease ends


def lossy(**faults):
    """Lost and late answers, but never for longer than the lease: each job runs as planned."""

    async def scenario() -> None:
        world = World(workers=2, **faults)
        async with world.jobs:
            handles = await world.enqueue(25)
            async with AsyncExitStack() as stack:
                for each in world.workers:
                    await stack.enter_async_context(each)
                for number, handle in enumerate(handles):
                    assert await handle.result(timeout=200) in world.ends[number]
            for number in range(25):
                assert world.runs[number] == world.planned[number] + 1, number
                assert len(world.ends[number]) == 1
            assert world.peak <= 6
            await world.check_empty()

    return scenario


@pytest.mark.promise("jobs-seeds")
@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"before": 0.2},
        {"after": 0.2},
        {"late": 0.3},
        {"doubled": 0.2},
        {"before": 0.1, "after": 0.1, "late": 0.1, "doubled": 0.1},
    ],
    ids=["none", "before", "after", "late", "doubled", "all"],
)
def test_lost_answers_neither_lose_nor_repeat_a_job(faults):
    explore(lossy(**faults), range(40))


async def partitioned() -> None:
    """A worker is cut off for longer than its lease, works on, and comes back."""
    world = World(workers=3, before=0.05, after=0.05)
    async with world.jobs:
        handles = await world.enqueue(20, longest=3.0)
        async with AsyncExitStack() as stack:
            for each in world.workers:
                await stack.enter_async_context(each)
            await sleep(rng().random())
            world.faults[0].away = True
            await sleep(LEASE + 3.0)
            world.faults[0].away = False
            for number, handle in enumerate(handles):
                assert await handle.result(timeout=200) in world.ends[number]
            again = sum(world.runs.values()) - sum(world.planned.values()) - 20
            assert again <= 3  # as many as it held
        await world.check_empty()


@pytest.mark.promise("jobs-seeds")
def test_a_worker_that_is_cut_off_costs_what_it_held():
    explore(partitioned, range(40))


async def changing() -> None:
    """Workers come and go, by leaving and by being cancelled; jobs are handed back."""
    world = World(workers=4, before=0.05, after=0.05)
    async with world.jobs:
        handles = await world.enqueue(30, longest=1.0)

        async def come_and_go(worker: Worker) -> None:
            for _ in range(2):
                with anyio.move_on_after(0.5 + rng().random()):
                    async with worker:
                        await sleep(0.3 + rng().random() * 2)

        async with anyio.create_task_group() as tasks:
            for each in world.workers[1:]:
                tasks.start_soon(come_and_go, each)
        async with world.workers[0]:
            for number, handle in enumerate(handles):
                assert await handle.result(timeout=200) in world.ends[number]
        await world.check_empty()


@pytest.mark.promise("jobs-seeds")
def test_workers_come_and_go():
    explore(changing, range(40))


async def cancelled() -> None:
    """Some jobs are cancelled wherever they are; each ends as its handle says."""
    world = World(workers=2, before=0.1, after=0.1)
    async with world.jobs:
        handles = await world.enqueue(20)
        async with AsyncExitStack() as stack:
            for each in world.workers:
                await stack.enter_async_context(each)
            for handle in handles[::3]:
                await sleep(rng().random() * 0.3)
                await handle.cancel()
            pending = {JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.WAITING}
            deadline = monotonic() + 100
            while pending & {await handle.status() for handle in handles}:
                assert monotonic() < deadline
                await sleep(0.5)
            for number, handle in enumerate(handles):
                if await handle.status() is JobStatus.DONE:
                    assert len(world.ends[number]) == 1
        await world.check_empty()


@pytest.mark.promise("jobs-seeds")
def test_cancelled_jobs_end():
    explore(cancelled, range(40))


async def spread() -> None:
    """Partitions share the places of a worker."""
    world = World(workers=2, partitions=3, before=0.05, after=0.05)
    async with world.jobs:
        handles = await world.enqueue(30)
        async with AsyncExitStack() as stack:
            for each in world.workers:
                await stack.enter_async_context(each)
            for number, handle in enumerate(handles):
                assert await handle.result(timeout=200) in world.ends[number]
        assert world.peak <= 6
        for number in range(30):
            assert world.runs[number] == world.planned[number] + 1
        await world.check_empty()


@pytest.mark.promise("jobs-seeds")
def test_partitions():
    explore(spread, range(40))
