"""Schedules: ticks of expressions, nonsense refused, and a runner that fires each tick once."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from anyio import create_task_group
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.schedule import CronRunner, Schedule, instant
from aiopatterns.testing import simulate


def at(year, month, day, hour=0, minute=0, second=0):
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("expression", "zone", "now", "tick"),
    [
        ("*/5 * * * *", "UTC", at(2024, 1, 1, 10, 1, 3), at(2024, 1, 1, 10, 5)),
        ("*/5 * * * *", "UTC", at(2024, 1, 1, 10, 5), at(2024, 1, 1, 10, 10)),
        ("*/15 * * * * *", "UTC", at(2024, 1, 1, 10, 5, 1), at(2024, 1, 1, 10, 5, 15)),
        ("0 9 * * 1", "UTC", at(2024, 1, 2), at(2024, 1, 8, 9)),
        ("0 9 * * *", "Europe/Berlin", at(2024, 1, 2), at(2024, 1, 2, 8)),
        ("0 9 * * *", "Europe/Berlin", at(2024, 7, 2), at(2024, 7, 2, 7)),
        ("0 0 29 2 *", "UTC", at(2024, 3, 1), at(2028, 2, 29)),
    ],
)
def test_the_next_tick(expression, zone, now, tick):
    assert Schedule(expression, timezone=zone).next(now) == tick


@given(st.floats(0, 4e9), st.sampled_from(["* * * * *", "7 */2 * * *", "*/10 * * * * *"]))
def test_ticks_are_always_later(now, expression):
    schedule = Schedule(expression)
    tick = schedule.next(now)
    assert tick > now
    assert schedule.next(tick) > tick


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("expression", "zone", "error", "message"),
    [
        ("", "UTC", ValueError, "expression must be a non-empty string"),
        (None, "UTC", TypeError, "expression must be a non-empty string, not None"),
        ("* * * *", "UTC", ValueError, "neither five fields nor six"),
        ("* * * * * * *", "UTC", ValueError, "neither five fields nor six"),
        ("@hourly", "UTC", ValueError, "neither five fields nor six"),
        ("61 * * * *", "UTC", ValueError, "expression must be a cron expression, not '61"),
        ("x * * * *", "UTC", ValueError, "expression must be a cron expression, not 'x"),
        ("* * * * mon-xyz", "UTC", ValueError, "expression must be a cron expression"),
        ("0 0 30 2 *", "UTC", ValueError, "expression must be a cron expression"),
        ("*/0 * * * *", "UTC", ValueError, "expression must be a cron expression"),
        ("* * * * *", "Nowhere/City", ValueError, "timezone must be the name of a zone"),
        ("* * * * *", "../etc", ValueError, "timezone must be the name of a zone"),
        ("* * * * *", "", ValueError, "timezone must be a non-empty string"),
        ("* * * * *", UTC, TypeError, "timezone must be a non-empty string"),
    ],
)
def test_nonsense_is_refused(expression, zone, error, message):
    with pytest.raises(error, match=message):
        Schedule(expression, timezone=zone)


def test_a_missing_extra_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "croniter", None)
    with pytest.raises(ImportError, match=r"pip install 'aiopatterns\[cron\]'"):
        Schedule("* * * * *")


def test_instants():
    wrong: Any = "2024"
    naive = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    assert instant("at", datetime(2024, 1, 1, tzinfo=UTC)) == at(2024, 1, 1)
    with pytest.raises(ValueError, match="at must have a time zone"):
        instant("at", naive)
    with pytest.raises(TypeError, match="at must be a datetime with a time zone, not '2024'"):
        instant("at", wrong)


def queue(backend="memory://", *expressions):
    jobs = JobQueue("crons", backend)

    def define(number, expression):
        @jobs.cron(expression, name=f"cron{number}")
        async def job() -> None: ...

    for number, expression in enumerate(expressions):
        define(number, expression)
    return jobs


async def fired(jobs):
    """The ticks for which jobs were made, by number of the cron."""
    (store,) = jobs.stores
    page = await store.page("queued", limit=1_000)
    found = [each.id.split(":") for each in page.jobs]
    return sorted((int(name[4:]), float(tick)) for _, name, tick in found)


async def run_for(seconds, jobs, *, runners=1):
    async with jobs, create_task_group() as tasks:
        for _ in range(runners):
            tasks.start_soon(CronRunner(jobs).run)
        await sleep(seconds)
        tasks.cancel_scope.cancel()


async def test_without_cron_jobs_there_is_nothing_to_run():
    async with queue() as jobs:
        await CronRunner(jobs).run()


def test_each_tick_fires_once_however_many_workers_there_are():
    async def main():
        jobs = queue("memory://", "*/10 * * * *", "30 * * * * *")
        async with jobs.backend:
            began = await jobs.backend.time()
            await run_for(3600, jobs, runners=3)
            ended = await jobs.backend.time()
            found = await fired(jobs)
        assert len(found) == len(set(found))
        for number, cron in enumerate(jobs.crons):
            ticks, now = [], began
            while (now := cron.schedule.next(now)) < ended:
                ticks.append(now)
            assert [tick for which, tick in found if which == number] == ticks
        assert len(found) in range(64, 69)

    for seed in range(5):
        simulate(main, seed)


@pytest.mark.promise("jobs-cron-once")
def test_fleets_fire_each_tick_once():
    """Two queues of one name on one backend are two processes; they start apart."""

    async def main():
        backend = open_backend("memory://")
        first, second = (queue(backend, "* * * * *") for _ in range(2))
        async with backend:
            async with create_task_group() as tasks:
                tasks.start_soon(run_for, 600, first)
                await sleep(95)
                tasks.start_soon(run_for, 600, second)
            found = await fired(first)
        assert len(found) == len(set(found)) in range(11, 13)

    for seed in range(5):
        simulate(main, seed)


@pytest.mark.promise("jobs-cron-once")
def test_a_tick_that_has_begun_is_never_fired():
    async def main():
        jobs = queue("memory://", "* * * * *")
        async with jobs.backend:
            now = await jobs.backend.time()
            await sleep(60 - now % 60)  # exactly at a tick, or a rounding error beside it
            began = await jobs.backend.time()
            await run_for(61, jobs)
            found = await fired(jobs)
        assert all(tick > began for _, tick in found)
        assert len(found) in {1, 2}

    simulate(main)


class Outage:
    """A backend that is away for a while, or whose enqueue is."""

    def __init__(self, backend, away):
        self.backend, self.away, self.asked = backend, away, 0

    def __getattr__(self, name):
        return getattr(self.backend, name)

    async def __aenter__(self):
        return await self.backend.__aenter__()

    async def __aexit__(self, *args):
        return await self.backend.__aexit__(*args)

    async def time(self):
        self.asked += 1
        if self.asked > 1 and self.asked - 1 in self.away:
            raise BackendUnavailableError("away")
        return await self.backend.time()


def test_an_outage_of_the_clock_is_waited_out():
    async def main():
        jobs = queue(Outage(open_backend("memory://"), {1, 2, 5}), "* * * * *")
        async with jobs.backend:
            await run_for(130, jobs)
            assert len(await fired(jobs)) == 2

    simulate(main)


class Broken:
    """A store that takes nothing for a while after it was first asked."""

    def __init__(self, store, seconds):
        self.store, self.seconds, self.first = store, seconds, None

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def enqueue(self, jobs):
        self.first = self.first or monotonic()
        if monotonic() - self.first < self.seconds:
            raise BackendUnavailableError("away")
        return await self.store.enqueue(jobs)


@pytest.mark.parametrize(("seconds", "ticks"), [(40, 5), (80, 4)])
def test_an_outage_of_the_queue_delays_a_tick_or_leaves_it_out(seconds, ticks):
    """The key of a tick each minute lives two minutes; who is a minute late leaves it out."""

    async def main():
        jobs = queue("memory://", "* * * * *")
        jobs._stores = (Broken(jobs.stores[0], seconds),)
        async with jobs.backend:
            await run_for(300, jobs)
            assert len(await fired(jobs)) == ticks

    simulate(main)
