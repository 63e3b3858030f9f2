from __future__ import annotations

from typing import Any, cast

import pytest

from aiopatterns.backends.queue import NewJob
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.jobs.emptiness import is_empty
from aiopatterns.testing import simulate


def test_jobs_that_nobody_can_read_or_knows_are_not_waited_for():
    async def main() -> None:
        jobs = JobQueue("q")
        other = JobQueue("q", jobs.backend)

        @other.job(name="unknown")
        async def unknown() -> None: ...

        async with jobs, other:
            await jobs.stores[0].enqueue([NewJob("poison", b"?", delay=100)])
            await unknown.using(delay=100).enqueue()
            await unknown.enqueue()
            await Worker(jobs).run_until_empty()
        assert monotonic() < 3

    simulate(main)


def test_jobs_in_other_workers_are_waited_for():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def long() -> None:
            await sleep(5)

        async with jobs, Worker(jobs):
            await long.enqueue()
            await sleep(1)
            await Worker(jobs, grace=0).run_until_empty()
            assert monotonic() == pytest.approx(5, abs=0.3)

    simulate(main)


async def test_a_store_that_does_not_answer_is_not_empty():
    class Away:
        quiet = True

        @property
        def store(self):
            return self

        async def counts(self):
            raise BackendUnavailableError("away")

    assert await is_empty([]) is True
    assert await is_empty([cast("Any", Away())]) is False
