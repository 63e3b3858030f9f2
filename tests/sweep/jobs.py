"""Producers, workers and an operator on one queue, whose server answers late or not at all."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, seeded, sleep
from aiopatterns.core.errors import BackendError, JobCancelledError, JobFailedError
from aiopatterns.jobs import Context, JobQueue, JobStatus, Limits, Unique, Worker
from aiopatterns.resilience import Retry
from aiopatterns.resilience.backoff import Constant
from tests.jobs.unreliable import Faults, UnreliableBackend

if TYPE_CHECKING:
    from tests.sweep.run import Run

__all__ = ["jobs"]

JOBS = 24
LEASE = 6.0
ATTEMPTS = 3
AT_ONCE = 2  # jobs with a limit
LONG = 60.0  # a job that is cancelled while it runs
ENDED = {JobStatus.DONE, JobStatus.DEAD, JobStatus.CANCELLED}
HOUR = 3_600.0


class World:
    """One queue as its producer and each of its workers see it, and what was run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.partitions = run.dice.choice([1, 1, 2])
        server = MemoryBackend("sweep")
        self.jobs = self.define(server)
        self.runs: Counter[int] = Counter()
        self.ends: Counter[int] = Counter()
        self.running: Counter[int] = Counter()
        self.limited = 0
        # How often each fails before it goes well; some never do.
        self.failing = {n: run.dice.choice([0, 0, 0, 1, 2, 99]) for n in range(JOBS)} | {JOBS: 0}
        shares = {kind: run.dice.choice([0.0, 0.05, 0.15]) for kind in ("before", "after", "late")}
        self.faults = [Faults(seeded(run.dice.getrandbits(32)), **shares) for _ in range(3)]
        ways = [UnreliableBackend(server, each) for each in self.faults]
        self.workers = [Worker(self.define(way), concurrency=3, grace=2.0) for way in ways]

    def define(self, backend: Any) -> JobQueue:
        """The queue with its jobs, as one process has it."""
        jobs = JobQueue("sweep", backend, lease=LEASE, partitions=self.partitions)
        retry = Retry(on=OSError, attempts=ATTEMPTS, backoff=Constant(0.3))

        @jobs.job(name="work", retry=retry)
        async def work(ctx: Context, number: int, seconds: float) -> int:
            return await self.work(ctx, number, seconds)

        @jobs.job(name="limited", retry=retry, limits=Limits(concurrency=AT_ONCE))
        async def limited(ctx: Context, number: int, seconds: float) -> int:
            self.limited += 1
            try:
                return await self.work(ctx, number, seconds)
            finally:
                self.limited -= 1

        @jobs.job(name="unique", retry=retry, unique=Unique("one"))
        async def unique(ctx: Context, number: int, seconds: float) -> int:
            return await self.work(ctx, number, seconds)

        return jobs

    async def work(self, ctx: Context, number: int, seconds: float) -> int:
        """Take a while, and fail as often as this job is to fail."""
        self.runs[number] += 1
        self.running[number] += 1
        try:
            await sleep(seconds)
        finally:
            self.running[number] -= 1
        if ctx.attempt <= self.failing[number]:
            raise OSError(number)
        self.ends[number] += 1
        return number

    def check(self) -> None:
        """No job runs twice at a time: no worker is away for longer than the lease."""
        assert not self.running or max(self.running.values()) <= 1
        assert self.limited <= (AT_ONCE if self.partitions == 1 else AT_ONCE * self.partitions)

    async def enqueue(self) -> dict[int, Any]:
        """Enqueue jobs of all kinds; the handles of those that are new."""
        dice, handles = self.run.dice, dict[int, Any]()
        for number in range(JOBS):
            await sleep(dice.choice([0.0, 0.1, 0.5]))
            job = self.jobs.jobs[dice.choice(["work", "work", "work", "limited", "unique"])]
            after = []
            if job.name == "work" and handles and self.partitions == 1 and self.run.chance(0.2):
                after = [dice.choice([*handles.values()])]
            made = job.using(
                id=f"job-{number}",
                delay=dice.choice([0.0, 0.0, 1.0]),
                priority=dice.randrange(3),
                after=after,
            )
            handle = await made.enqueue(number, dice.random() * 0.5)
            if handle.created:
                handles[number] = handle
            if self.run.chance(0.2):  # the answer was lost, so it is sent again
                again = await made.enqueue(number, 0.0)
                assert not again.created
        return handles

    async def operate(self) -> None:
        """Pause, resume and look; the clocks of the hosts jump meanwhile."""
        for _ in range(3):
            await sleep(self.run.dice.random() * 2)
            self.run.step_clock(self.run.dice.choice([-HOUR, HOUR]))
            await self.jobs.pause()
            await sleep(self.run.dice.random())
            await self.jobs.statistics()
            await self.jobs.resume()

    async def come_and_go(self, worker: Worker) -> None:
        """A worker that is left, or given up, and begins again."""
        for _ in range(3):
            with move_on_after(0.5 + self.run.dice.random() * 3):
                async with worker:
                    await sleep(self.run.dice.random() * 3)
            await sleep(self.run.dice.random())


async def jobs(run: Run) -> None:
    """Every job ends once, as it was to end, whatever happens to workers and answers."""
    world = World(run)
    run.always(world.check)
    restless = run.chance(0.4)
    async with world.jobs:
        async with AsyncExitStack() as stack:
            for each in world.workers[restless:]:
                await stack.enter_async_context(each)
            async with create_task_group() as tasks:
                tasks.start_soon(world.operate)
                if restless:
                    tasks.start_soon(world.come_and_go, world.workers[0])
                handles = await world.enqueue()
                work = world.jobs.jobs["work"]
                handles[JOBS] = await work.using(id=f"job-{JOBS}").enqueue(JOBS, LONG)
                await sleep(run.dice.random() * 2)
                cancelled = {n for n in handles if run.chance(0.1)} | {JOBS}
                for number in cancelled:
                    await handles[number].cancel()
            found = await states(world, handles)
            assert found[JOBS] is JobStatus.CANCELLED
            dead = {n for n, state in found.items() if state is JobStatus.DEAD}
            for number, state in found.items():
                expect(world, number, state, number in cancelled, restless)
                await settled(handles[number], number, state)
            await requeue(world, handles, dead)
        for store in world.jobs.stores:
            counts = await store.counts()
            assert counts[:4] == (0, 0, 0, 0), counts


async def states(world: World, handles: dict[int, Any]) -> dict[int, JobStatus]:
    """Wait until all jobs have ended; those after one that is dead or cancelled never begin."""
    deadline = monotonic() + 200
    while True:
        found = {number: await handle.status() for number, handle in handles.items()}
        if ENDED.issuperset(found.values()):
            return found
        assert monotonic() < deadline, found
        await sleep(0.5)


def expect(world: World, number: int, state: JobStatus, cancelled: bool, restless: bool) -> None:
    """What has been run of a job fits how it ended."""
    runs, ends, failing = world.runs[number], world.ends[number], world.failing[number]
    if state is JobStatus.CANCELLED:
        assert ends == 0
        return
    if not (runs == ends == 0 and state is JobStatus.DEAD):  # else it was after one that died
        assert (state is JobStatus.DEAD) == (failing >= ATTEMPTS) or cancelled
        assert ends == 1 if state is JobStatus.DONE else ends == 0
        if not restless and not cancelled:
            assert runs == min(failing + 1, ATTEMPTS)


async def settled(handle: Any, number: int, state: JobStatus) -> None:
    """The result says what the state says."""
    try:
        assert await handle.result(timeout=5) == number
        assert state is JobStatus.DONE
    except JobFailedError:
        assert state is JobStatus.DEAD
    except JobCancelledError:
        assert state is JobStatus.CANCELLED


async def requeue(world: World, handles: dict[int, Any], dead: set[int]) -> None:
    """What is mended and put back goes well."""
    letters = await world.jobs.dead_letters()
    assert {each.job_id for each in letters} == {f"job-{number}" for number in dead}
    world.failing = dict.fromkeys(world.failing, 0)
    with suppress(BackendError):
        assert await world.jobs.requeue([handles[number] for number in dead]) == len(dead)
    for number in dead:
        assert await handles[number].result(timeout=100) == number
