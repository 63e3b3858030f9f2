"""Conformance of looking after a queue: cancel, states, progress, pages, requeue, purge, pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import create_task_group

from aiopatterns.backends.queue import NewJob
from aiopatterns.testing.conformance_base import Conformance, Hand, refusal

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import JobState, Queue, StoredJob

__all__ = ["PagesConformance"]


class PagesConformance(Conformance):
    """Tests of administration; see :class:`Conformance` for what a subclass brings."""

    async def test_what_has_not_started_ends_at_once(self, backend: Backend) -> None:
        """``cancel``: "One that has not started ends at once (``cancelled``)"."""
        queue = backend.queue("q")
        jobs = [NewJob("a", b""), NewJob("b", b"", delay=600), NewJob("c", b"", after=("a",))]
        await queue.enqueue([*jobs, NewJob("d", b"", keep=600), NewJob("e", b"")])
        answer = await queue.cancel(["b", "c", "d", "a"])
        assert answer == dict.fromkeys("abcd", "cancelled")
        assert await queue.states(list("abcd")) == {
            "a": "unknown",
            "b": "unknown",
            "c": "unknown",
            "d": "cancelled",
        }
        assert await Hand(queue, "w").work_off(5) == ["e"]
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_what_runs_is_asked_for(self, backend: Backend) -> None:
        """``cancels``: "told again in every turn until settled"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"", keep=600), NewJob("b", b"")])
        await hand.take(2)
        assert await queue.cancel(["a"]) == {"a": "running"}
        for _ in range(3):
            assert (await hand.turn(free=1)).cancels == ["a"]
        assert (await Hand(queue, "other").turn()).cancels == []
        assert await queue.states(["a"]) == {"a": "running"}
        await hand.settle("cancelled", "a")
        assert (await hand.turn()).cancels == []
        assert await queue.states(["a"]) == {"a": "cancelled"}

    async def test_what_has_ended_stays_as_it_is(self, backend: Backend) -> None:
        """``cancel``: "Others stay as they are. Repeated safely."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob(each, b"", keep=600) for each in ("done", "dead", "left")])
        await hand.take(2)
        await hand.settle("done", "done")
        await hand.settle("dead", "dead", data=b"why")
        expected = {"done": "done", "dead": "dead", "never": "unknown", "left": "cancelled"}
        for _ in range(2):
            assert await queue.cancel(list(expected)) == expected
        assert (await queue.outcomes(["dead"]))["dead"].data == b"why"
        assert await queue.cancel([]) == {}

    async def test_a_cancel_that_is_ignored_changes_nothing(self, backend: Backend) -> None:
        """A worker that is asked may finish all the same."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"", keep=600)])
        await hand.take()
        await queue.cancel(["a"])
        assert (await hand.settle("done", "a", data=b"1")).stale == []
        assert await queue.outcomes(["a"]) == {"a": ("done", b"1", 1)}

    async def test_a_job_is_claimed_or_cancelled(self, backend: Backend) -> None:
        """``cancel`` and step are atomic: a job that is cancelled at once is given to nobody."""
        queue, ids = backend.queue("q"), [str(number) for number in range(60)]
        await queue.enqueue([NewJob(each, b"") for each in ids])
        claimed: list[str] = []
        states: dict[str, JobState] = {}

        async def claim(worker: str) -> None:
            claimed.extend(await Hand(queue, worker).take_ids(10))

        async def cancel(start: int) -> None:
            states.update(await queue.cancel(ids[start : start + 10]))

        async with create_task_group() as group:
            for number in range(6):
                group.start_soon(claim, f"w{number}")
                group.start_soon(cancel, 50 - 10 * number)
        cancelled = {each for each, state in states.items() if state == "cancelled"}
        assert cancelled.isdisjoint(claimed)
        assert len(claimed) + len(cancelled) == 60

    async def test_a_thousand_ids(self, backend: Backend) -> None:
        """cancel, states and outcomes take any number of ids."""
        queue = backend.queue("q")
        for start in range(0, 1_200, 400):
            ids = range(start, start + 400)
            await queue.enqueue([NewJob(str(each), b"", keep=600) for each in ids])
        every = [str(number) for number in range(1_200)]
        assert set((await queue.states(every)).values()) == {"queued"}
        assert set((await queue.cancel(every)).values()) == {"cancelled"}
        assert len(await queue.outcomes(every)) == 1_200

    async def test_states_tell_where_a_job_is(self, backend: Backend) -> None:
        """``states``: "Return the state of each of ``ids``."."""
        queue, hand = await _everywhere(backend)
        assert await queue.states([*"gfedcba"]) == {
            "a": "running",
            "b": "queued",
            "c": "scheduled",
            "d": "waiting",
            "e": "dead",
            "f": "done",
            "g": "unknown",
        }
        assert await queue.states([]) == {}
        assert await queue.counts() == (1, 1, 1, 1, 1, frozenset("w"), False)
        assert hand.worker == "w"

    async def test_pages_show_jobs_by_state(self, backend: Backend) -> None:
        """``page``: "jobs that are queued, scheduled, waiting, running or dead"."""
        queue, _ = await _everywhere(backend)
        now = await backend.time()
        states: dict[JobState, str] = {
            "running": "a",
            "queued": "b",
            "scheduled": "c",
            "waiting": "d",
            "dead": "e",
        }
        for state, here in states.items():
            page = await queue.page(state)
            assert [(job.id, job.body, job.state) for job in page.jobs] == [(here, b"body", state)]
            assert page.cursor is None
            assert isinstance(page.jobs[0].at, float)
        (scheduled,) = (await queue.page("scheduled")).jobs
        assert now + 500 < scheduled.at < now + 700

    async def test_pages_go_on_at_their_cursor(self, backend: Backend) -> None:
        """``page``: "page by page"; queued jobs "as they will run"."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob(f"low-{number:02}", b"") for number in range(25)])
        await queue.enqueue([NewJob(f"high-{number:02}", b"", 9) for number in range(12)])
        await queue.enqueue([NewJob(f"due-{n:02}", b"", delay=900 - n) for n in range(25)])
        queued = await _pages(queue, "queued")
        assert [job.id for job in queued] == await _in_order(queue, 40)
        assert [job.id for job in await _pages(queue, "scheduled")] == [
            f"due-{number:02}" for number in reversed(range(25))
        ]
        assert len(await _pages(queue, "running")) == 37

    async def test_dead_letters_come_newest_first(self, backend: Backend) -> None:
        """``page``: "Dead letters come newest first"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        ids = [f"job-{number:02}" for number in range(23)]
        await queue.enqueue([NewJob(each, b"") for each in ids])
        await hand.take(30)
        for each in reversed(ids):
            await hand.settle("dead", each, data=each.encode())
        letters = await _pages(queue, "dead")
        assert [job.id for job in letters] == ids
        assert [job.error for job in letters] == [each.encode() for each in ids]

    async def test_requeued_jobs_start_anew(self, backend: Backend) -> None:
        """``requeue``: "Queue dead letters again, under their ids, attempts counted anew"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        jobs = [NewJob("a", b"1", 3), NewJob("b", b"2", keep=600)]
        await queue.enqueue([*jobs, NewJob("alive", b"3", delay=600)])
        await hand.take(2)
        await hand.settle("retry", "a", "b")
        await self.pause(0.2)
        await hand.take(2)
        await hand.settle("dead", "a", "b", data=b"why")
        assert await queue.requeue(["a", "never", "alive"]) == 1
        assert await queue.requeue(["a"]) == 0
        assert await queue.states(["a", "b"]) == {"a": "queued", "b": "dead"}
        assert await queue.outcomes(["a"]) == {}
        assert (await queue.counts()).dead == 1
        assert await queue.requeue(["b"]) == 1
        assert await hand.take(5) == [("a", b"1", 1, False), ("b", b"2", 1, False)]
        await hand.settle("done", "a", "b", data=b"r")
        assert await queue.outcomes(["a", "b"]) == {"b": ("done", b"r", 1)}
        assert await queue.requeue([]) == 0

    async def test_a_requeued_job_may_die_again(self, backend: Backend) -> None:
        """``requeue`` brings back a job like any other."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"1")])
        for reason in (b"first", b"second"):
            await hand.take()
            await hand.settle("dead", "a", data=reason)
            assert (await queue.outcomes(["a"]))["a"] == ("dead", reason, 1)
            assert await queue.requeue(["a"]) == 1

    async def test_purging_removes_dead_letters(self, backend: Backend) -> None:
        """``purge``: "Remove dead letters, by default all"; "return how many there were"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        assert await queue.purge() == 0
        ids = [str(number) for number in range(700)]
        for start in (0, 350):
            await queue.enqueue([NewJob(each, b"") for each in ids[start : start + 350]])
            await hand.settle("dead", *await hand.take_ids(350))
        await queue.enqueue([NewJob("alive", b"")])
        assert await queue.purge(["0", "1", "alive", "never"]) == 2
        assert await queue.purge(["0"]) == 0
        assert await queue.purge([]) == 0
        assert (await queue.counts()).dead == 698
        assert await queue.purge() == 698
        assert (await queue.counts())[:5] == (1, 0, 0, 0, 0)
        assert await queue.outcomes(ids[:5]) == {}
        assert await queue.enqueue([NewJob("0", b"")]) == [("0", True)]

    async def test_progress_is_that_of_the_running_job(self, backend: Backend) -> None:
        """``progress``: "the fraction that the running job last told, or None"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"")])
        await hand.take()
        assert await queue.progress("a") is None
        await hand.turn(progress={"a": 0.25, "b": 0.5, "never": 0.5})
        assert await queue.progress("a") == 0.25
        assert await queue.progress("b") is None
        assert await queue.progress("never") is None
        await Hand(queue, "other").turn(progress={"a": 0.75})
        assert await queue.progress("a") == 0.25
        await hand.turn(progress={"a": 1.0})
        assert await queue.progress("a") == 1.0
        await hand.settle("done", "a")
        assert await queue.progress("a") is None

    async def test_progress_starts_anew_with_each_attempt(self, backend: Backend) -> None:
        """``progress`` is that of the job that runs, not of an attempt before."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"")])
        await hand.take()
        await hand.turn(progress={"a": 0.5})
        await hand.settle("release", "a")
        assert await queue.progress("a") is None
        await hand.take()
        assert await queue.progress("a") is None

    async def test_a_paused_queue_gives_out_nothing(self, backend: Backend) -> None:
        """``pause``: "Give out nothing, or go on; what runs goes on either way."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"", keep=600), NewJob("b", b"")])
        await hand.take()
        for _ in range(2):
            await queue.pause()
            assert (await queue.counts()).paused
            turned = await hand.turn(free=5)
            assert (turned.claimed, turned.paused) == ([], True)
        assert not (await backend.queue("other").counts()).paused
        assert (await hand.settle("done", "a")).stale == []
        assert await queue.enqueue([NewJob("c", b"")]) == [("c", True)]
        for _ in range(2):
            await queue.pause(paused=False)
            assert not (await queue.counts()).paused
        turned = await hand.turn(free=5)
        assert not turned.paused
        assert [job.id for job in turned.claimed] == ["b", "c"]

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """Ids and workers are text of 1 to 1,024 bytes; a page has a limit of 1 or more."""
        queue = backend.queue("q")
        for bad in ("", "x" * 1025):
            for call in (queue.states([bad]), queue.cancel([bad]), queue.outcomes([bad])):
                await refusal(call, (ValueError,), "id")
            for number in (queue.requeue([bad]), queue.purge([bad])):
                await refusal(number, (ValueError,), "id")
            await refusal(queue.progress(bad), (ValueError,), "id")
            await refusal(queue.held(bad), (ValueError,), "worker")
        await refusal(queue.page("queued", limit=0), (ValueError,), "limit")


async def _everywhere(backend: Backend) -> tuple[Queue, Hand]:
    """A job in every state: a runs, b is queued, c scheduled, d waits, e is dead, f is done."""
    queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
    await queue.enqueue([NewJob(each, b"body", keep=600) for each in ("e", "f", "a", "b")])
    later = [NewJob("c", b"body", delay=600), NewJob("d", b"body", after=("a",))]
    await queue.enqueue(later)
    assert await hand.take_ids(3) == ["e", "f", "a"]
    await hand.settle("dead", "e", data=b"why")
    await hand.settle("done", "f")
    return queue, hand


async def _pages(queue: Queue, state: JobState, limit: int = 10) -> list[StoredJob]:
    """All jobs of a state, ten at a time."""
    jobs: list[StoredJob] = []
    cursor = None
    while True:
        page = await queue.page(state, cursor=cursor, limit=limit)
        assert len(page.jobs) <= limit
        jobs += page.jobs
        assert len(jobs) < 100, "the pages go round in circles"
        if (cursor := page.cursor) is None:
            return jobs


async def _in_order(queue: Queue, number: int) -> list[str]:
    """The ids as they are given out."""
    return await Hand(queue, "w").take_ids(number)
