from __future__ import annotations

from typing import Annotated, Any, cast

import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient

from aiopatterns.contrib.asgi import lifespan, provide
from aiopatterns.jobs import JobQueue, Worker


class Owner:
    def __init__(self, name, log, *, fails=False) -> None:
        self.name, self.log, self.fails = name, log, fails

    async def __aenter__(self):
        if self.fails:
            raise OSError(self.name)
        self.log.append(f"open {self.name}")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.log.append(f"close {self.name}")


async def test_owners_are_opened_in_order_and_closed_in_reverse():
    log: list[str] = []
    enter = lifespan(Owner("a", log), Owner("b", log))
    for _ in range(2):  # may be entered again
        async with enter(None) as state:
            assert state is None
            assert log == ["open a", "open b"]
        assert log == ["open a", "open b", "close b", "close a"]
        log.clear()


async def test_one_that_fails_closes_those_before_it():
    log: list[str] = []
    with pytest.raises(OSError, match="b"):
        async with lifespan(Owner("a", log), Owner("b", log, fails=True))(None):
            pytest.fail("entered")
    assert log == ["open a", "close a"]


def test_what_cannot_be_entered_is_refused():
    for wrong in (5, JobQueue, object()):
        with pytest.raises(TypeError, match="owners must be async context managers"):
            lifespan(cast("Any", wrong))


jobs = JobQueue("app")
get_jobs = provide(jobs)
app = FastAPI(lifespan=lifespan(jobs, Worker(jobs)))


@jobs.job
async def double(value: int) -> int:
    return 2 * value


@app.post("/double/{value}")
async def create(value: int, queue: Annotated[JobQueue, Depends(get_jobs)]) -> int:
    assert queue is jobs
    handle = await double.enqueue(value)
    return await handle.result(timeout=5)


@pytest.mark.real
async def test_a_fastapi_application_enqueues_and_its_worker_runs():
    for _ in range(2):  # two lifespans in one process
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app), base_url="http://app") as client,
        ):
            assert (await client.post("/double/21")).json() == 42
