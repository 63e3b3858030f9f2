"""Definitions: jobs, batches, cron jobs and middleware, at module level, refused at once if wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from aiopatterns.core.rate import Rate
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.options import Batching, JobOptions, Options
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.unique import Unique
from aiopatterns.resilience.retry import Retry


async def plain(x: int) -> int:
    """Say what it does."""
    return x


def threaded(x: int) -> int:
    return x


async def load(rows: list[int]) -> None: ...


async def tick() -> None: ...


def lines():
    yield 1


async def stream():
    yield 1


def test_a_job_has_the_name_and_the_text_of_its_function():
    jobs = JobQueue("q")
    job = jobs.job(plain)
    assert (job.name, job.kind, job.__doc__, job.fn.__name__) == (
        "plain",
        "async",
        "Say what it does.",
        "plain",
    )
    assert job.fn is plain
    assert job.options == JobOptions()
    assert repr(job) == "<Job 'plain' of 'q'>"
    assert jobs.jobs == {"plain": job}
    assert jobs.crons == ()


def test_options():
    jobs = JobQueue("q")
    retry = Retry(on=OSError, attempts=7)
    job = jobs.job(name="mail.send", retry=retry, timeout=3, priority=5, result_ttl=0)(threaded)
    assert (job.name, job.kind, job.attempts, job.batching) == ("mail.send", "sync", 7, None)
    assert job.options == JobOptions(retry=retry, timeout=3, priority=5, result_ttl=0)
    assert jobs.job(name=None)(plain).name == "plain"


def test_a_batch():
    job = JobQueue("q").batch(size=3, within=0.5, timeout=9)(load)
    assert (job.kind, job.batching) == ("batch", Batching(3, 0.5))
    assert job.options.timeout == 9


def test_a_cron_job():
    jobs = JobQueue("q")
    job = jobs.cron("*/5 * * * *", timezone="Europe/Berlin", name="sweep")(tick)
    assert [(each.job, each.schedule.expression) for each in jobs.crons] == [(job, "*/5 * * * *")]
    assert jobs.jobs["sweep"] is job

    @jobs.cron("0 0 * * * *")
    def hourly(ctx: Context, days: int = 3) -> None: ...

    assert [each.job.name for each in jobs.crons] == ["sweep", "hourly"]


def test_middleware_is_kept_in_order_and_stays_a_function():
    jobs = JobQueue("q")

    @jobs.middleware
    async def first(ctx, call_next): ...

    @jobs.middleware
    async def second(ctx, call_next): ...

    assert jobs.middlewares == (first, second)


def test_what_is_defined_is_read_only():
    found: Any = JobQueue("q").jobs
    with pytest.raises(TypeError):
        found["x"] = None


def define(**options):
    return JobQueue("q").job(**options)(plain)


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda jobs: jobs.job(3), TypeError, "fn must be a function, not 3"),
        (lambda jobs: jobs.job(timeout=-1), ValueError, "timeout must be"),
        (lambda jobs: jobs.job(name=""), ValueError, "name must be a non-empty string"),
        (lambda jobs: jobs.job(name=7), TypeError, "name must be a non-empty string, not 7"),
        (lambda jobs: jobs.job(name="a\x1fb"), ValueError, "name must be printable text"),
        (lambda jobs: jobs.job(speed=3), TypeError, "speed"),
        (lambda jobs: jobs.job(name="p")(partial(plain)).attempts, None, ""),
        (lambda jobs: jobs.job(partial(plain)), ValueError, "name must be a non-empty string"),
        (lambda jobs: jobs.job(unique=Unique("{y}"))(plain), ValueError, "unique.key names 'y'"),
        (lambda jobs: [jobs.job(plain), jobs.job(plain)], ValueError, "name must be new in queue"),
        (lambda jobs: jobs.batch(size=0, within=1), ValueError, "size must be"),
        (lambda jobs: jobs.batch(size=1, within=1, priority=11), ValueError, "priority must be"),
        (lambda jobs: jobs.batch(size=1, within=1)(tick), TypeError, "a batch function takes one"),
        (lambda jobs: jobs.cron("nonsense"), ValueError, "expression must be a cron expression"),
        (lambda jobs: jobs.cron("* * * * *", timezone="x/y"), ValueError, "timezone must be"),
        (lambda jobs: jobs.cron("* * * * *", timeout=0), ValueError, "timeout must be"),
        (
            lambda jobs: jobs.cron("* * * * *", unique=Unique("k")),
            ValueError,
            "unique must be None for a cron job",
        ),
        (lambda jobs: jobs.cron("* * * * *")(plain), TypeError, "wrong arguments for plain"),
        (lambda jobs: jobs.middleware(threaded), TypeError, "middleware must be an async function"),
        (lambda jobs: jobs.middleware(None), TypeError, "middleware must be a function"),
        (lambda jobs: jobs.job(lines), TypeError, "fn must be a function that returns its result"),
        (lambda jobs: jobs.job(stream), TypeError, "fn must be a function that returns its result"),
    ],
    ids=range(22),
)
def test_bad_input_defines_nothing(make, error, message):
    jobs = JobQueue("q")
    if error is None:
        assert make(jobs) == 3
        return
    with pytest.raises(error, match=message):
        make(jobs)
    assert set(jobs.jobs) <= {"plain"}
    assert not jobs.crons
    assert not jobs.middlewares


@pytest.mark.promise("jobs-bad-input")
def test_keys_that_partitions_would_part_are_refused():
    limits = Limits(rate=Rate(3), key="b{x}")
    options: Options = {"unique": Unique("a{x}"), "limits": limits}
    JobQueue("q").job(**options)(plain)
    jobs = JobQueue("q", partitions=2)
    with pytest.raises(ValueError, match=r"unique\.key and limits\.key must be the same"):
        jobs.job(**options)(plain)
    assert not jobs.jobs
    jobs.job(unique=Unique("b{x}"), limits=limits)(plain)
