"""Events: live, from all partitions, gaps told, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group, fail_after

from aiopatterns.backends import open_backend
from aiopatterns.backends.queue import NewJob, QueueEvent, Settled, Turn
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError, ClosedError
from aiopatterns.jobs.envelope import Envelopes, ErrorRecord
from aiopatterns.jobs.events import JobEvent, JobEvents
from aiopatterns.testing import Trial, cancel_everywhere

# Jobs and dead letters stay on purpose.
pytestmark = pytest.mark.leaves("{ap:q:*")
ENVELOPES = Envelopes()
RECORD = ErrorRecord("E", "m")


async def work(store, job_id):
    """Enqueue a job that tells progress, fails, and fails again."""
    error = ENVELOPES.encode_error(RECORD)
    await store.enqueue([NewJob(job_id, b"")])
    await store.step(Turn("w", 1, 60, free=1))
    await store.step(Turn("w", 2, 60, progress={job_id: 0.5}))
    await store.step(Turn("w", 3, 60, [Settled(job_id, "retry", error)]))
    await store.step(Turn("w", 4, 60, free=1))
    await store.step(Turn("w", 5, 60, [Settled(job_id, "dead", error)]))


async def take(events, until, count=1):
    found = []
    with fail_after(5):
        async for event in events:
            found.append(event)
            count -= event.kind == until
            if not count:
                break
    return found


async def test_what_happens_is_told_in_order(backend):
    async with backend:
        store = backend.queue("q")
        async with JobEvents("q", [store], ENVELOPES) as events:
            await work(store, "a")
            assert await take(events, "dead") == [
                JobEvent("queued", "a"),
                JobEvent("started", "a"),
                JobEvent("progress", "a", progress=0.5),
                JobEvent("retrying", "a", error=RECORD),
                JobEvent("started", "a"),
                JobEvent("dead", "a", error=RECORD),
            ]
            await store.enqueue([NewJob("b", b""), NewJob("c", b"")])
            await store.step(Turn("w", 6, 60, free=1))
            await store.step(Turn("w", 7, 60, [Settled("b", "done")]))
            await store.cancel(["c"])
            kinds = [(each.kind, each.job_id) for each in await take(events, "cancelled")]
            assert kinds[-2:] == [("done", "b"), ("cancelled", "c")]
            assert events.statistics().gaps == 0
            assert events.statistics().events == 6 + len(kinds)


async def test_all_partitions_are_told(backend):
    async with backend:
        stores = [backend.queue(f"q{n}") for n in range(3)]
        async with JobEvents("q", stores, ENVELOPES) as events:
            for number, store in enumerate(stores):
                await work(store, f"job{number}")
            found = await take(events, "dead", 3)
        assert {each.job_id for each in found} == {"job0", "job1", "job2"}


async def test_they_are_there_only_inside_the_block(backend):
    async with backend:
        events = JobEvents("q", [backend.queue("q")], ENVELOPES)
        message = "write 'async with jobs.events\\(\\) as events:'"
        with pytest.raises(ClosedError, match=message):
            await anext(aiter(events))
        async with events:
            pass
        with pytest.raises(ClosedError, match=message):
            await anext(events)


class Told:
    """A store that tells what a test says."""

    def __init__(self, *told, error=None):
        self.told, self.error = told, error

    def watch(self):
        return self

    async def __aenter__(self):
        return self.iterate()

    async def __aexit__(self, *args):
        return None

    async def iterate(self):
        for kind in self.told:
            await sleep(0)
            yield QueueEvent(kind, "" if kind == "gap" else "a")
        if self.error:
            raise self.error


async def test_gaps_are_told_and_counted():
    told: Any = Told("queued", "gap", "done")
    async with JobEvents("q", [told], ENVELOPES) as events:
        found = [each async for each in events]
        assert found == [JobEvent("queued", "a"), JobEvent("gap", ""), JobEvent("done", "a")]
        assert events.statistics().gaps == 1


async def test_a_backend_that_refuses_ends_the_block_with_its_error():
    told: Any = Told(error=BackendError("no"))
    with pytest.raises(BackendError, match="no"):
        async with JobEvents("q", [told], ENVELOPES) as events:
            async for _ in events:
                pass


async def test_a_reader_that_is_slow_holds_nothing_up(backend):
    async with backend:
        store = backend.queue("q")
        async with JobEvents("q", [store], ENVELOPES) as events:
            for start in range(0, 3_000, 500):
                await store.enqueue([NewJob(f"{n}", b"") for n in range(start, start + 500)])
            first = await take(events, "queued", 100)
            assert first[0] == JobEvent("queued", "0")


@pytest.mark.promise("jobs-cancel-everywhere")
def test_a_look_that_is_cancelled_anywhere_leaves_nothing_behind():
    def scenario():
        async def look():
            async with open_backend("memory://") as backend:
                store = backend.queue("q")
                async with (
                    create_task_group() as tasks,
                    JobEvents("q", [store], ENVELOPES) as events,
                ):
                    tasks.start_soon(later, store)
                    await take(events, "dead")

        async def later(store):
            await sleep(0.01)
            await work(store, "a")

        return Trial(look())

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=3)
