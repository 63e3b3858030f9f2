"""The types of the decorators are protocols; what they say is checked in tests/typing."""

from __future__ import annotations

from aiopatterns.jobs.decorators import BatchDecorator, CronDecorator, JobDecorator
from aiopatterns.jobs.queue import JobQueue


def test_what_the_queue_returns_can_be_called_with_a_function():
    jobs = JobQueue("decorators")
    job: JobDecorator = jobs.job(timeout=1)
    batch: BatchDecorator = jobs.batch(size=2, within=1)
    cron: CronDecorator = jobs.cron("* * * * *")

    async def one(x: int) -> int:
        return x

    async def many(xs: list[int]) -> None: ...

    async def tick() -> None: ...

    assert [made.name for made in (job(one), batch(many), cron(tick))] == ["one", "many", "tick"]
    assert set(jobs.jobs) == {"one", "many", "tick"}
