from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.queue import NewJob, Settled, Turn
from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_correlation
from aiopatterns.dashboard import jobsview
from aiopatterns.dashboard.jobsview import Jobs
from aiopatterns.dashboard.queues import Queues
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.testing import simulate


@pytest.fixture
def backend():
    return open_backend("memory://")


def defined(backend, **options):
    jobs = JobQueue("q", backend, **options)

    @jobs.job(retry=None, result_ttl=60)
    async def send(to: str, *, password: str = "", n: int = 0) -> str:
        if to == "bad":
            raise ValueError(f"no {to}: password={password}")
        return to

    @jobs.job
    async def other(ctx: Context) -> None:
        await ctx.progress(0.25)
        await sleep(1e6)

    return jobs, send, other


async def known(jobs):
    (found,) = await Queues(jobs.backend, [jobs]).meet({})
    return found


@pytest.mark.parametrize("partitions", [1, 3])
async def test_pages_go_through_all_jobs_of_all_parts(backend, partitions):
    jobs, send, other = defined(backend, partitions=partitions)
    async with jobs:
        ids = {each.job_id for each in await jobs.enqueue_many(send.job(f"{n}") for n in range(23))}
        ids.add((await other.enqueue()).job_id)
        queue, seen, after, pages = await known(jobs), set(), None, 0
        while True:
            page = await Jobs(arguments=False).page(queue, "queued", name="", after=after, limit=5)
            assert len(page.jobs) <= 5
            seen |= {each.id for each in page.jobs}
            after, pages = page.after, pages + 1
            if after is None:
                break
        assert seen == ids
        assert pages >= 5


async def test_jobs_of_one_name(backend, monkeypatch):
    monkeypatch.setattr(jobsview, "_READ", 10)
    monkeypatch.setattr(jobsview, "_AT_ONCE", 10)
    jobs, send, other = defined(backend)
    async with jobs:
        await jobs.enqueue_many(send.job(f"{n}") for n in range(15))
        handle = await other.enqueue()
        queue, view = await known(jobs), Jobs(arguments=False)
        first = await view.page(queue, "queued", name="other", after=None, limit=5)
        assert first.jobs == []
        assert first.after is not None, "it goes on where it has stopped reading"
        second = await view.page(queue, "queued", name="other", after=first.after, limit=5)
        assert [each.id for each in second.jobs] == [handle.job_id]
        assert second.after is None


async def test_a_row_says_when_it_was_enqueued_and_is_due(backend):
    jobs, send, _ = defined(backend)
    async with jobs:
        await send.using(delay=60).enqueue("a")
        queue = await known(jobs)
        page = await Jobs(arguments=False).page(queue, "scheduled", name="", after=None, limit=5)
        (row,) = page.jobs
        assert (row.name, row.state, row.attempts) == ("send", "scheduled", 0)
        assert row.at is not None
        assert row.enqueued_at is not None
        assert 59 < row.at - row.enqueued_at < 61


async def test_a_job_that_waits(backend):
    jobs, send, _ = defined(backend)
    async with jobs:
        with bind_correlation("request-17"):
            handle = await send.enqueue("bob", password="geheim", n=3)
        queue = await known(jobs)
        hidden = await Jobs(arguments=False).detail(queue, handle.job_id)
        assert hidden is not None
        assert hidden.arguments == "str[3], password=str[6], n=int"
        assert hidden.correlation_id == "request-17"
        assert hidden.age is not None
        assert (hidden.name, hidden.state, hidden.error) == ("send", "queued", None)
        shown = await Jobs(arguments=True).detail(queue, handle.job_id)
        assert shown is not None
        assert shown.arguments == "'bob', password=***, n=3"
        assert await Jobs(arguments=True).detail(queue, "nobody") is None


async def test_a_job_that_runs_and_one_that_is_done(backend):
    jobs, send, other = defined(backend)
    async with jobs, Worker(jobs, grace=0):
        done, running = await send.enqueue("bob"), await other.enqueue()
        await done.result()
        while await running.progress() is None:
            await sleep(0.01)
        queue, view = await known(jobs), Jobs(arguments=True)
        found = await view.detail(queue, done.job_id)
        assert found is not None
        assert (found.state, found.attempts, found.arguments, found.name) == ("done", 1, None, "")
        found = await view.detail(queue, running.job_id)
        assert found is not None
        assert (found.state, found.progress, found.name) == ("running", 0.25, "other")


@pytest.mark.parametrize("partitions", [1, 2])
async def test_dead_letters_say_why_without_secrets(backend, partitions):
    jobs, send, _ = defined(backend, partitions=partitions)
    async with jobs:
        for number in range(4):
            await send.enqueue("bad", password="geheim", n=number)
        async with Worker(jobs) as worker:
            await worker.run_until_empty()
        queue, view = await known(jobs), Jobs(arguments=True)
        letters = await view.letters(queue, 3)
        assert len(letters) == 3
        assert [each.died_at for each in letters] == sorted(
            (each.died_at for each in letters), reverse=True
        )
        one = letters[0]
        assert one.error.type == "ValueError"
        assert one.error.message == "no bad: password=***"
        assert "geheim" not in one.error.traceback + one.arguments
        found = await view.detail(queue, one.id)
        assert found is not None
        assert found.error == one.error
        assert (found.state, found.attempts) == ("dead", 1)


async def test_what_cannot_be_read_is_listed_without_a_name(backend):
    jobs, send, _ = defined(backend, signing=["k" * 16])
    async with jobs:
        bad, good = await send.enqueue("bad"), await send.enqueue("good")
        async with Worker(jobs) as worker:
            await worker.run_until_empty()
            queued = await send.using(delay=60).enqueue("late")
            (queue,) = await Queues(backend, ["q"]).meet({})
        view = Jobs(arguments=True)
        (letter,) = await view.letters(queue, 9)
        assert (letter.name, letter.arguments, letter.error.type) == ("", "", "CodecError")
        (row,) = (await view.page(queue, "scheduled", name="", after=None, limit=9)).jobs
        assert (row.name, row.enqueued_at) == ("", None)
        found = await view.detail(queue, queued.job_id)
        assert found is not None
        assert (found.name, found.arguments, found.age) == ("", None, None)
        for handle, state in ((bad, "dead"), (good, "done")):
            found = await view.detail(queue, handle.job_id)
            assert found is not None
            assert found.state == state


async def test_a_job_too_far_behind_has_no_arguments(backend, monkeypatch):
    monkeypatch.setattr(jobsview, "_READ", 4)
    monkeypatch.setattr(jobsview, "_AT_ONCE", 2)
    jobs, send, _ = defined(backend)
    async with jobs:
        handles = await jobs.enqueue_many(send.job(f"{n}") for n in range(9))
        queue, view = await known(jobs), Jobs(arguments=True)
        found = await view.detail(queue, handles[2].job_id)
        assert found is not None
        assert found.arguments == "'2'"
        found = await view.detail(queue, handles[-1].job_id)
        assert found is not None
        assert (found.state, found.arguments) == ("queued", None)


async def test_a_job_that_left_its_state_meanwhile(backend, monkeypatch):
    jobs, send, _ = defined(backend)
    async with jobs:
        handle = await send.enqueue("a")
        queue = await known(jobs)
        (store,) = queue.stores
        states = type(store).states

        async def moved(self, ids):
            found = await states(self, ids)
            await self.cancel(ids)
            return found

        monkeypatch.setattr(type(store), "states", moved)
        found = await Jobs(arguments=True).detail(queue, handle.job_id)
        assert found is not None
        assert (found.state, found.arguments, found.attempts) == ("queued", None, 0)


@pytest.mark.parametrize("after", ["x", "1", ".5", "7.5", "-1.x", "²."])
async def test_places_are_those_of_pages(backend, after):
    jobs, *_ = defined(backend)
    async with jobs:
        with pytest.raises(ValueError, match="after must be what the page before said"):
            await Jobs(arguments=True).page(
                await known(jobs), "queued", name="", after=after, limit=1
            )


@pytest.mark.untraced
@settings(max_examples=30)
@given(st.binary(max_size=60), st.binary(max_size=40))
def test_whatever_lies_in_a_queue_is_shown(body, error):
    async def run():
        async with open_backend("memory://") as backend:
            (queue,) = await Queues(backend, ["q"]).meet({})
            (store,) = queue.stores
            await store.enqueue([NewJob("dead", body), NewJob("late", body, delay=60)])
            await store.step(Turn("w", 1, 15, free=1))
            await store.step(Turn("w", 2, 15, settled=[Settled("dead", "dead", error)]))
            view = Jobs(arguments=True)
            return [
                await view.letters(queue, 5),
                await view.page(queue, "scheduled", name="", after=None, limit=5),
                await view.detail(queue, "dead"),
                await view.detail(queue, "late"),
            ]

    letters, page, dead, late = simulate(run)
    assert len(letters) == len(page.jobs) == 1
    assert (dead.state, late.state) == ("dead", "scheduled")
    assert msgspec.json.encode([letters, page, dead, late])
