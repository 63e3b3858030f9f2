"""What is ready and who runs it, seen through a worker over the memory queue."""

from __future__ import annotations

import re
from typing import Any, cast

import anyio
import pytest

from aiopatterns.backends.queue import NewJob, Turn
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import JobCancelledError, JobFailedError
from aiopatterns.jobs import Context, JobDead, JobQueue, Worker
from aiopatterns.jobs.crew import PARKED, Crew
from aiopatterns.jobs.handle import JobStatus
from aiopatterns.jobs.hold import Cut, Hold
from aiopatterns.jobs.slots import Slots
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import capture_events, simulate


async def ended(handle) -> object:
    try:
        return await handle.result(timeout=60)
    except JobCancelledError:
        return "cancelled"
    except Exception as error:
        return type(error).__name__


def test_batches_are_full_or_their_time_has_come():
    async def main() -> None:
        jobs = JobQueue("q")
        seen: list[tuple[float, list[int]]] = []

        @jobs.batch(size=3, within=0.5)
        async def square(items: list[int]) -> list[int]:
            seen.append((monotonic(), items))
            return [each * each for each in items]

        async with jobs:
            handles = await jobs.enqueue_many([square.job(each) for each in range(5)])
            async with Worker(jobs):
                assert [await ended(each) for each in handles] == [0, 1, 4, 9, 16]
        assert [(round(at, 3), items) for at, items in seen] == [(0, [0, 1, 2]), (0.5, [3, 4])]

    simulate(main)


def test_a_batch_is_never_larger_than_the_worker():
    async def main() -> None:
        jobs = JobQueue("q")
        seen: list[int] = []

        @jobs.batch(size=100, within=60)
        async def count(items: list[int]) -> None:
            seen.append(len(items))

        async with jobs:
            await jobs.enqueue_many([count.job(each) for each in range(9)])
            async with Worker(jobs, concurrency=4) as worker:
                await sleep(1)
                assert seen == [4, 4]
                assert worker.statistics().processed == 8
            assert seen == [4, 4, 1], "what waits is worked on when the worker ends"

    simulate(main)


def test_a_batch_that_fails_is_retried_job_by_job():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.batch(size=2, within=0.1, retry=Retry(on=OSError, attempts=2, backoff=Constant(1)))
        async def fails(ctx: Context, items: list[int]) -> None:
            if 1 in items:
                raise OSError

        async with jobs:
            one, two, three = await jobs.enqueue_many([fails.job(each) for each in (0, 1, 2)])
            async with Worker(jobs):
                assert await ended(three) is None
                assert {await ended(one), await ended(two)} == {"JobFailedError"}

    simulate(main)


def test_what_cannot_be_read_does_not_take_its_batch_along():
    async def main() -> None:
        jobs = JobQueue("q")
        seen: list[list[int]] = []

        @jobs.batch(size=3, within=0.1)
        async def add(items: list[int]) -> None:
            seen.append(items)

        other = JobQueue("q", jobs.backend)

        @other.batch(size=3, within=0.1, name=add.name)
        async def odd(items: list[str]) -> None: ...

        async with jobs, other:
            handles = [await add.enqueue(1), await odd.enqueue("x"), await add.enqueue(3)]
            async with Worker(jobs):
                assert [await ended(each) for each in handles] == [None, "JobFailedError", None]
            assert sorted(seen) == [[1], [3]]

    simulate(main)


def test_calls_from_before_a_job_was_a_batch_do_not_take_others_along():
    async def main() -> None:
        jobs = JobQueue("q")
        olds = [JobQueue("q", jobs.backend) for _ in range(3)]

        @jobs.batch(size=5, within=0.1, name="f")
        async def double(items: list[int]) -> list[int]:
            return [2 * each for each in items]

        @olds[0].job(name="f")
        async def of_nothing() -> None: ...

        @olds[1].job(name="f")
        async def of_two(one: int, two: int) -> None: ...

        @olds[2].job(name="f")
        async def of_a_keyword(one: int, *, two: int) -> None: ...

        async with jobs, olds[0], olds[1], olds[2]:
            bad = [await of_nothing.enqueue(), await of_two.enqueue(1, 2)]
            bad.append(await of_a_keyword.enqueue(1, two=2))
            good = [await double.enqueue(3), await double.enqueue(4)]
            async with Worker(jobs):
                assert [await each.result() for each in good] == [6, 8]
                for each, told in zip(bad, ("0 and []", "2 and []", "1 and ['two']"), strict=True):
                    text = f"CodecError: wrong arguments for the batch 'f': one item, not {told}"
                    with pytest.raises(JobFailedError, match=re.escape(text)):
                        await each.result()

    simulate(main)


def test_jobs_of_a_batch_are_cancelled_before_it_and_with_it_but_not_alone():
    async def main() -> None:
        jobs = JobQueue("q")
        log: list[object] = []

        @jobs.batch(size=3, within=5)
        async def slow(items: list[int]) -> None:
            log.append(items)
            await sleep(10)
            if 7 in items:
                raise ValueError

        async with jobs, Worker(jobs):
            waiting = [await slow.enqueue(each) for each in (1, 2)]
            await sleep(1)
            await waiting[0].cancel()
            await sleep(1)
            assert await waiting[0].status() is JobStatus.RUNNING  # until its batch begins
            assert [await ended(each) for each in waiting] == ["cancelled", None]
            assert log == [[2]]

            running = [await slow.enqueue(each) for each in (3, 4, 7)]
            await sleep(1)
            await running[0].cancel()
            await sleep(1)
            assert [await ended(each) for each in running] == [
                "cancelled", "JobFailedError", "JobFailedError"
            ]  # fmt: skip

            together = [await slow.enqueue(each) for each in (4, 5, 6)]
            await sleep(1)
            began = monotonic()
            for each in together:
                await each.cancel()
            assert [await ended(each) for each in together] == ["cancelled"] * 3
            assert monotonic() - began < 1

    simulate(main)


def test_a_whole_batch_that_is_cancelled_before_it_begins_does_not_run():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.batch(size=3, within=2)
        async def never(items: list[int]) -> None:
            raise AssertionError

        async with jobs, Worker(jobs):
            handle = await never.enqueue(1)
            await sleep(1)
            await handle.cancel()
            assert await ended(handle) == "cancelled"

    simulate(main)


async def die_with(jobs: JobQueue, count: int) -> None:
    """Be a worker that claims some jobs and is never heard of again."""
    (store,) = jobs.stores
    turned = await store.step(Turn("dead", 1, 1.0, free=count))
    assert len(turned.claimed) == count
    await sleep(2)


def test_a_suspect_runs_alone():
    async def main() -> None:
        jobs = JobQueue("q", lease=1.0)
        running: set[str] = set()
        beside: dict[str, set[str]] = {}

        async def work(name: str) -> None:
            running.add(name)
            for each in running:
                beside.setdefault(each, set()).update(running - {each})
            await sleep(1)
            running.discard(name)

        plain = jobs.job(name="plain")(work)

        @jobs.batch(size=5, within=30)
        async def batch(items: list[str]) -> None:
            await work(items[0])

        async with jobs:
            suspects = [await plain.enqueue("s0"), await batch.enqueue("s1")]
            await die_with(jobs, 2)
            others = [await plain.enqueue(f"o{each}") for each in range(6)]
            async with Worker(jobs, concurrency=3):
                for each in [*suspects, *others]:
                    assert await ended(each) is None
        assert beside["s0"] == beside["s1"] == set()
        assert any(beside[f"o{each}"] for each in range(6))

    simulate(main)


def test_a_suspect_waits_for_what_runs_in_other_partitions():
    async def main() -> None:
        one, two = JobQueue("one", lease=1.0), JobQueue("two", lease=1.0)
        running: set[str] = set()
        beside: dict[str, set[str]] = {}

        async def work(name: str) -> None:
            running.add(name)
            for each in running:
                beside.setdefault(each, set()).update(running - {each})
            await sleep(3)
            running.discard(name)

        first, second = one.job(name="work")(work), two.job(name="work")(work)
        async with one, two:
            suspects = [await first.enqueue("s0"), await second.enqueue("s1")]
            for queue in (one, two):
                await die_with(queue, 1)
            others = [await first.enqueue("o0"), await second.enqueue("o1")]
            async with Worker(one, two, concurrency=4):
                for each in [*suspects, *others]:
                    assert await ended(each) is None
        assert beside["s0"] == beside["s1"] == set()

    simulate(main)


def test_unknown_names_give_their_place_up():
    async def main() -> None:
        jobs = JobQueue("q")
        more = JobQueue("q", jobs.backend)
        unknown = more.job(name="unknown")(_nothing)
        known = jobs.job(name="known")(_nothing)
        async with jobs, more, Worker(jobs, concurrency=1):
            stays = await unknown.enqueue()
            assert await ended(await known.enqueue()) is None
            await sleep(3 * PARKED)
            assert await stays.status() is JobStatus.SCHEDULED
            (stored,) = (await jobs.stores[0].page("scheduled")).jobs
            assert stored.attempts == 0

    simulate(main)


async def _nothing() -> None: ...


def test_jobs_that_are_cancelled_before_their_turn_do_not_run():
    async def main() -> None:
        jobs = JobQueue("q", lease=1.0)

        @jobs.job
        async def never() -> None:
            raise AssertionError

        second = JobQueue("p")

        @second.job(name="other")
        async def beside() -> None:
            await sleep(3)

        async with jobs, second:
            handle = await never.enqueue()
            await die_with(jobs, 1)
            long = await beside.enqueue()
            await jobs.stores[0].pause()
            async with Worker(jobs, second, concurrency=4):
                await sleep(1)
                await jobs.stores[0].pause(paused=False)
                await sleep(1)  # the suspect is here, and waits for the other to end
                await handle.cancel()
                assert await ended(handle) == "cancelled"
                assert await ended(long) is None

    simulate(main)


def test_poison_costs_nobody_but_itself():
    async def main() -> None:
        jobs = JobQueue("q")
        known = jobs.job(name="known")(_nothing)
        async with jobs:
            await jobs.stores[0].enqueue([NewJob(f"p{each}", b"\x00" * each) for each in range(3)])
            handle = await known.enqueue()
            async with Worker(jobs, concurrency=1) as worker:
                assert await ended(handle) is None
                assert worker.statistics().failed == 3
            assert len((await jobs.stores[0].page("dead")).jobs) == 3

    simulate(main)


async def test_a_hundred_jobs_that_wait_have_a_hundred_running():
    jobs = JobQueue("q")
    running = 0
    all_there = anyio.Event()

    @jobs.job
    async def wait() -> None:
        nonlocal running
        running += 1
        if running == 100:
            all_there.set()
        await all_there.wait()

    async with jobs, Worker(jobs, concurrency=100) as worker:
        handles = await jobs.enqueue_many([wait.job() for _ in range(100)])
        for each in handles:
            await each.result(timeout=10)
        assert worker.statistics().processed == 100


async def test_a_seat_whose_runner_is_cancelled_is_passed_over():
    async with anyio.create_task_group() as tasks:
        crew = Crew(tasks, Slots(1), lambda _: None)
        left, there = crew.home.future(), crew.home.future()
        left.cancel()
        crew.idle.extend([there, left])
        crew._call_one()
        assert there.done()
        assert crew.idle == []
        crew._call_one()  # one is on its way
        assert crew.runners == {}


def test_poison_is_told_to_those_who_listen():
    async def main() -> None:
        jobs = JobQueue("q")
        async with jobs:
            await jobs.stores[0].enqueue([NewJob("p", b"?")])
            with capture_events() as events:
                await Worker(jobs).run_until_empty()
        (dead,) = events
        assert isinstance(dead, JobDead)
        assert (dead.job, dead.job_id) == ("", "p")

    simulate(main)


def test_a_job_that_gives_its_place_up_lets_a_suspect_run():
    async def main() -> None:
        jobs, other = JobQueue("q", lease=1.0), JobQueue("p")
        known = jobs.job(name="known")(_nothing)
        async with jobs, other:
            suspect = await known.enqueue()
            await die_with(jobs, 1)
            await other.stores[0].enqueue([NewJob("poison", b"?")])
            await jobs.stores[0].pause()
            async with Worker(jobs, other, concurrency=2) as worker:
                await jobs.stores[0].pause(paused=False)
                assert await ended(suspect) is None
                assert worker.statistics().failed == 1

    simulate(main)


async def test_a_job_that_is_lost_before_its_turn_is_not_settled():
    async with anyio.create_task_group() as tasks:
        slots = Slots(1)
        crew = Crew(tasks, slots, lambda _: None)
        hold = Hold(cast("Any", None), "1", b"", 1, alone=False)
        hold.interrupt(Cut.LOST)
        slots.used = 1
        crew.admit(hold)
        await sleep(0.001)
        assert slots.used == 0
        tasks.cancel_scope.cancel()
