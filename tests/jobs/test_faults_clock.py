"""The fault book, short form: the wall clock of a host jumps by an hour, forward and back.

Time that counts is the server's (Redis) or monotonic (memory), so no jump on a host of workers and
producers may end anything early, keep it longer, or run a job twice. A jump of the *server's* clock
is in the long form.
"""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core import clock
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline, remaining
from aiopatterns.core.errors import JobNotFoundError
from aiopatterns.core.rate import Rate
from aiopatterns.jobs import JobQueue, Limits, Unique, Worker
from aiopatterns.jobs.desk import TRUSTED
from aiopatterns.testing import explore, simulate
from tests.jobs.clockjobs import CRON
from tests.jobs.fleet import Fleet, Host, on_one_loop

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

HOUR = 3600.0


async def begun(handle) -> float:
    """When a ``work`` began, on the monotonic clock that processes of one host share."""
    at, _ = await handle.result(timeout=10)
    return at


@pytest.mark.promise("jobs-fault-clock")
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@on_one_loop
async def test_jobs_go_on_as_if_no_clock_had_jumped(redis_url, tmp_path, jump):
    host = Host(tmp_path / "clock")
    fleet = Fleet(redis_url, tmp_path, lease=0.6, module="tests.jobs.clockjobs", host=host)
    with host.jumping(), fleet:
        jobs = fleet.queue()
        work, limited, again = (jobs.jobs[each] for each in ("work", "limited", "again"))
        async with jobs:
            fleet.start(2)
            await fleet.until_there(jobs, 2)
            ticks, began = fleet.runs()[CRON], monotonic()
            held = [await work.enqueue(each, 1.5) for each in range(4)]
            late = await work.using(delay=1.0).enqueue(10, 0)
            with bind_deadline(began + 60):
                bound = await work.using(delay=0.8).enqueue(11, 0)
            short = await work.enqueue(12, 0)
            await again.enqueue(13)
            slow = [await limited.enqueue(each) for each in range(20, 25)]
            await short.result(timeout=10)
            await fleet.until(lambda: {*range(4), 13} <= fleet.runs().keys())

            host.jump(jump)
            seen = await (await jobs.jobs["wall"].enqueue(14)).result(timeout=10)
            assert seen == pytest.approx(clock.wall(), abs=2), "the workers' clock has jumped, too"
            with bind_deadline(monotonic() + 60):
                after = await work.enqueue(15, 0)
            assert 58 < (await after.result(timeout=10))[1] <= 60
            await anyio.sleep(0.3)
            host.jump(-2 * jump)

            for each in held:
                assert await begun(each) - began < 0.9
            assert 0.99 < await begun(late) - began < 1.9
            assert 57 < (await bound.result(timeout=10))[1] < 59.3
            for number, at in enumerate(sorted([await each.result(timeout=10) for each in slow])):
                assert 0.3 * number <= at - began < 0.3 * number + 1
            assert await begun(short) >= began, "its result is kept"
            await fleet.until(lambda: fleet.runs()[13] == 2)
            passed = monotonic() - began
            assert passed - 1 <= fleet.runs()[CRON] - ticks <= passed + 2
            await fleet.stop()
        runs = fleet.runs()
        del runs[CRON], runs[13]
        assert set(runs.values()) == {1}


@pytest.mark.promise("jobs-fault-clock")
async def test_leases_lives_and_rates_do_not_see_the_clock_of_a_host(backend, tmp_path):
    host = Host(tmp_path / "clock")
    with host.jumping():
        async with backend:
            lease, kv, rate = backend.lease("l"), backend.kv, Rate(1, per=60)
            limiter, directory = backend.limiter("r"), backend.directory("d")
            held = await lease.try_acquire(ttl=5)
            await kv.set("k", b"v", ttl=5)
            await directory.put("m", b"", ttl=5)
            assert (await limiter.acquire("u", rate)).allowed
            for jump in (HOUR, -2 * HOUR):
                host.jump(jump)
                assert await lease.try_acquire(ttl=5) is None
                assert await held.renew()
                assert await kv.get("k") == b"v"
                assert (await directory.snapshot()).members == {"m": b""}
                assert 55 < (await limiter.acquire("u", rate)).retry_after <= 60
                await kv.set("s", b"v", ttl=0.1)
                short = await backend.lease(f"s{jump}").try_acquire(ttl=0.1)
                assert short is not None
                host.jump(-jump)
                await sleep(0.15)
                assert await kv.get("s") is None, "nor does anything stay longer"
                taken = await backend.lease(f"s{jump}").try_acquire(ttl=0.1)
                assert taken is not None
                assert taken.token > short.token
                host.jump(jump)
            assert await held.release()
            await directory.remove("m")


@pytest.mark.promise("jobs-fault-clock")
def test_jobs_in_memory_keep_their_times_to_the_tick():
    explore(jumping, range(20))


async def jumping() -> None:
    """A day of jobs in a few seconds of virtual time, while the clock jumps all the time."""
    source, dice, off = clock._source, clock.rng(), [0.0]
    clock.set_source(replace(source, wall=lambda: source.wall() + off[0]))
    try:
        async with anyio.create_task_group() as tasks:

            async def jump() -> None:
                while True:
                    await sleep(dice.random() * 20)
                    off[0] = dice.choice((-HOUR, 0.0, HOUR))

            tasks.start_soon(jump)
            await a_few_minutes()
            tasks.cancel_scope.cancel()
    finally:
        clock.set_source(source)


async def a_few_minutes() -> None:
    jobs, begins, ticks = JobQueue("clocks", lease=2.0), dict[int, list[float]](), list[float]()

    def note(number: int) -> None:
        begins.setdefault(number, []).append(monotonic())

    @jobs.job(result_ttl=115)
    async def work(number: int, seconds: float = 0.0) -> float | None:
        note(number)
        left = remaining()
        await sleep(seconds)
        return left

    @jobs.job(limits=Limits(rate=Rate(1, per=10)))
    async def limited(number: int) -> None:
        note(number)

    @jobs.job(unique=Unique("one", mode="throttle", window=60))
    async def throttled(number: int) -> None:
        note(number)

    @jobs.cron("*/30 * * * * *")
    async def tick() -> None:
        ticks.append(await jobs.backend.time())

    async with jobs, Worker(jobs), Worker(jobs):
        began = monotonic()
        long = await work.enqueue(0, 90.0)
        late = [await work.using(delay=10.0 * each).enqueue(each) for each in range(1, 10)]
        with bind_deadline(began + 120):
            bound = [await work.using(delay=20.0 * n).enqueue(10 + n) for n in range(5)]
        for number in range(20, 26):
            await limited.enqueue(number)
        made = []
        for number in range(30, 40):
            made.append((await throttled.enqueue(number)).created)
            await sleep(11)
        assert made == [True, *[False] * 5, True, *[False] * 3]
        assert [await each.result() for each in bound] == [
            pytest.approx(120 - 20 * n, abs=0.1) for n in range(5)
        ]
        await long.result()
        for each in late:
            await each.result()
        await sleep(60)
        with pytest.raises(JobNotFoundError):
            await bound[0].result()
    assert all(len(each) == 1 for each in begins.values())
    for number in range(1, 10):
        assert begins[number][0] - began == pytest.approx(10 * number, abs=0.1)
    assert [begins[20 + n][0] - began for n in range(6)] == [
        pytest.approx(10 * n, abs=0.1) for n in range(6)
    ]
    assert len({round(at) // 30 for at in ticks}) == len(ticks) in range(5, 7)


class OtherClockQueue:
    """A queue on that server."""

    def __init__(self, queue, server) -> None:
        self.queue, self.server = queue, server

    def __getattr__(self, name):
        return getattr(self.queue, name)

    async def step(self, turn):
        answer = await self.queue.step(turn)
        return answer._replace(now=answer.now + self.server.by)


class OtherClock:
    """A backend whose server has been replaced by one with another clock, off by ``by``."""

    def __init__(self, backend) -> None:
        self.backend, self.by = backend, 0.0

    def __getattr__(self, name):
        return getattr(self.backend, name)

    async def time(self) -> float:
        return await self.backend.time() + self.by

    def queue(self, name):
        return OtherClockQueue(self.backend.queue(name), self)

    async def __aenter__(self):
        await self.backend.__aenter__()
        return self

    async def __aexit__(self, *error) -> None:
        await self.backend.__aexit__(*error)


@pytest.mark.promise("jobs-fault-clock")
@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_producer_learns_that_the_server_has_another_clock(by):
    """As after a failover, or when this host was suspended: else no deadline would be right."""

    async def scenario() -> None:
        backend = OtherClock(open_backend("memory://"))
        jobs = JobQueue("clocks", backend)

        @jobs.job
        async def left() -> float | None:
            return remaining()

        async with jobs, Worker(jobs):
            backend.by = by
            await sleep(TRUSTED)
            with bind_deadline(monotonic() + 60):
                one, two = await left.enqueue(), await left.using(delay=20).enqueue()
                (three,) = await jobs.enqueue_many([left.job()])
            assert await one.result() == pytest.approx(60, abs=0.1)
            assert await two.result() == pytest.approx(40, abs=0.1)
            assert await three.result() == pytest.approx(60, abs=0.1)
            assert jobs.now() == pytest.approx(await backend.time())

    simulate(scenario)
