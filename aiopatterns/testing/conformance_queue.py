"""Conformance of :class:`~aiopatterns.backends.queue.Queue`: enqueueing, and who gets what when."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from anyio import create_task_group

from aiopatterns.backends.queue import MAX_BATCH, PRIORITIES, Bucket, NewJob, Turn
from aiopatterns.testing.conformance_base import Conformance, Hand, refusal, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["QueueConformance"]


class QueueConformance(Conformance):
    """Tests of enqueueing and claiming; see :class:`Conformance` for what a subclass brings."""

    async def test_a_queue_has_its_name(self, backend: Backend) -> None:
        """``name``: "The queue's name."; two names are two queues, one name is one."""
        queue = backend.queue("mail")
        assert queue.name == "mail"
        await queue.enqueue([NewJob("a", b"1")])
        assert (await backend.queue("mail").counts()).queued == 1
        assert (await backend.queue("other").counts()).queued == 0
        assert await Hand(backend.queue("other"), "w").take() == []
        assert await Hand(backend.queue("mail"), "w").take_ids() == ["a"]

    async def test_each_job_is_answered_in_order(self, backend: Backend) -> None:
        """``enqueue``: "Add ``jobs`` ... in order; each is added or recognised."."""
        queue = backend.queue("q")
        assert await queue.enqueue([NewJob("a", b"1"), NewJob("b", b"2")]) == [
            ("a", True),
            ("b", True),
        ]
        assert await queue.enqueue([]) == []
        assert (await queue.counts()).queued == 2

    async def test_a_claimed_job_is_what_was_enqueued(self, backend: Backend) -> None:
        """ClaimedJob: ``body`` as given, "``attempt`` counts from 1"."""
        queue, bodies = backend.queue("q"), {"a": b"", "b": bytes(range(256)), "c": b"x" * 100_000}
        await queue.enqueue([NewJob(each, body) for each, body in bodies.items()])
        claimed = await Hand(queue, "w").take(3)
        assert [tuple(job) for job in claimed] == [
            (each, body, 1, False) for each, body in bodies.items()
        ]

    async def test_a_known_job_is_recognised(self, backend: Backend) -> None:
        """NewJob: "a second enqueue of an id that is known ... changes nothing"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        first, second = NewJob("a", b"1"), NewJob("a", b"2", priority=9)
        assert await queue.enqueue([first, second]) == [("a", True), ("a", False)]
        assert await queue.enqueue([second]) == [("a", False)]
        (job,) = await hand.take(5)
        assert job.body == b"1"
        assert await queue.enqueue([second]) == [("a", False)]
        await hand.settle("retry", "a", delay=600)
        assert await queue.enqueue([second]) == [("a", False)]
        assert await hand.take(5) == []
        assert (await queue.counts())[:4] == (0, 1, 0, 0)

    async def test_a_dead_letter_is_known(self, backend: Backend) -> None:
        """NewJob: a dead letter is still known by its id."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"1")])
        await hand.take()
        await hand.settle("dead", "a")
        assert await queue.enqueue([NewJob("a", b"2")]) == [("a", False)]
        assert (await queue.counts()).dead == 1

    async def test_a_kept_outcome_is_known(self, backend: Backend) -> None:
        """NewJob: "(or whose outcome is kept) changes nothing"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("kept", b"1", keep=600), NewJob("gone", b"1")])
        assert await hand.work_off(2) == ["kept", "gone"]
        assert await queue.enqueue([NewJob("kept", b"2"), NewJob("gone", b"2")]) == [
            ("kept", False),
            ("gone", True),
        ]
        assert await hand.take_ids(2) == ["gone"]

    async def test_too_much_is_refused_as_a_whole(self, backend: Backend) -> None:
        """``enqueue`` raises ValueError for "more than MAX_BATCH jobs, a priority outside 0..9, ..."."""
        queue, good = backend.queue("q"), NewJob("good", b"")
        many = [NewJob(f"{number}", b"") for number in range(MAX_BATCH + 1)]
        await refusal(queue.enqueue(many), (ValueError,), str(MAX_BATCH))
        buckets = tuple(Bucket(f"b{number}", concurrency=1) for number in range(5))
        bad = {
            "priority": [good._replace(priority=-1), good._replace(priority=10)],
            "id": [good._replace(id=""), good._replace(id="x" * 1025)],
            "attempts": [good._replace(attempts=0)],
            "limits": [good._replace(limits=buckets)],
            "concurrency": [good._replace(limits=(Bucket("b", concurrency=0),))],
        }
        for word, jobs in bad.items():
            for job in jobs:
                await refusal(queue.enqueue([good, job]), (ValueError,), word)
        assert (await queue.states(["good"])) == {"good": "unknown"}

    async def test_wrong_types_are_refused(self, backend: Backend) -> None:
        """Ids are text and bodies are ``bytes``."""
        queue, good = backend.queue("q"), NewJob("good", b"")
        wrong = good._replace(body=cast("bytes", "text"))
        await refusal(queue.enqueue([good, wrong]), (TypeError,), "body")
        await refusal(queue.enqueue([good._replace(id=cast("str", 7))]), (TypeError,), "id")
        assert (await queue.counts()).queued == 0

    async def test_bad_turns_are_refused(self, backend: Backend) -> None:
        """Turn: ``free`` is "0 to MAX_BATCH"; a worker is a name; a lease is a life."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob("a", b"")])
        for free in (-1, MAX_BATCH + 1):
            await refusal(queue.step(Turn("w", 1, 600, free=free)), (ValueError,), "free")
        await refusal(queue.step(Turn("", 1, 600, free=1)), (ValueError,), "worker")
        for lease in (0, -1, float("nan")):
            await refusal(queue.step(Turn("w", 1, lease, free=1)), (ValueError,), "lease")
        assert await queue.states(["a"]) == {"a": "queued"}

    async def test_jobs_of_one_priority_keep_their_order(self, backend: Backend) -> None:
        """``enqueue``: "in order"."""
        queue = backend.queue("q")
        for start in range(0, 60, 20):
            await queue.enqueue([NewJob(str(number), b"") for number in range(start, start + 20)])
        hand = Hand(queue, "w")
        claimed = [*await hand.take_ids(7), *await hand.take_ids(100)]
        assert claimed == [str(number) for number in range(60)]

    async def test_a_higher_priority_goes_first(self, backend: Backend) -> None:
        """PRIORITIES: "a higher one is claimed first, whatever waits below"."""
        queue, order = backend.queue("q"), [3, 0, 9, 5, 1, 9, 0, 7, 2, 8, 4, 6]
        jobs = [NewJob(f"{place}", b"", priority) for place, priority in enumerate(order)]
        await queue.enqueue(jobs)
        claimed = await Hand(queue, "w").take_ids(20)
        assert claimed == [job.id for job in sorted(jobs, key=lambda job: -job.priority)]
        assert set(order) == set(PRIORITIES)

    async def test_a_higher_priority_goes_first_a_few_at_a_time(self, backend: Backend) -> None:
        """PRIORITIES: the same for a worker that takes few jobs and finishes some meanwhile."""
        for size in (1, 2, 5):
            queue, order = backend.queue(f"q{size}"), [3, 0, 9, 5, 1, 9, 0, 7, 2, 8, 4, 6]
            hand, finished = Hand(queue, "w"), list[str]()
            await hand.turn()
            jobs = [NewJob(f"{place}", b"", priority) for place, priority in enumerate(order)]
            await queue.enqueue(jobs)
            while claimed := await hand.take_ids(size):
                finished += claimed
                await hand.settle("done", *claimed)
            assert finished == [job.id for job in sorted(jobs, key=lambda job: -job.priority)]

    async def test_a_worker_gets_what_it_can_take(self, backend: Backend) -> None:
        """``free``: "How many jobs it can take, 0 to MAX_BATCH."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob(str(number), b"") for number in range(MAX_BATCH)])
        await queue.enqueue([NewJob(f"more-{number}", b"") for number in range(10)])
        assert (await hand.turn()).claimed == []
        assert len((await hand.turn(free=3)).claimed) == 3
        assert len(await hand.take(MAX_BATCH)) == MAX_BATCH
        assert len(await hand.take(MAX_BATCH)) == 7
        assert (await queue.counts())[:4] == (0, 0, 0, 510)

    async def test_a_turn_says_whether_there_is_more(self, backend: Backend) -> None:
        """``more``: "There is more to claim, or to look after, right now."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        assert not (await hand.turn(free=5)).more
        await queue.enqueue([NewJob("a", b""), NewJob("b", b""), NewJob("c", b"", delay=600)])
        assert (await hand.turn(free=1)).more
        assert not (await hand.turn(free=5)).more

    async def test_a_job_is_given_to_one_worker(self, backend: Backend) -> None:
        """A job "is in exactly one place at every instant"."""
        queue, got = backend.queue("q"), list[str]()
        await queue.enqueue([NewJob(str(number), b"") for number in range(200)])

        async def work(worker: str) -> None:
            got.extend(await Hand(queue, worker).work_off(7))

        async with create_task_group() as group:
            for number in range(10):
                group.start_soon(work, f"w{number}")
        assert sorted(got, key=int) == [str(number) for number in range(200)]

    async def test_of_many_enqueues_of_an_id_one_makes_it(self, backend: Backend) -> None:
        """``enqueue``: "One atomic step"."""
        queue, made = backend.queue("q"), list[int]()

        async def enqueue(number: int) -> None:
            (answer,) = await queue.enqueue([NewJob("a", b"%d" % number)])
            made.extend([number] * answer.created)

        async with create_task_group() as group:
            for number in range(20):
                group.start_soon(enqueue, number)
        assert len(made) == 1
        assert [job.body for job in await Hand(queue, "w").take(5)] == [b"%d" % made[0]]

    async def test_a_delayed_job_waits(self, backend: Backend) -> None:
        """``delay``: "Seconds until it may run, from now."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("later", b"", delay=600), NewJob("soon", b"", delay=300)])
        turned = await hand.turn(free=5)
        assert turned.claimed == []
        assert turned.next_due is not None
        assert 240 < turned.next_due <= 300
        assert await queue.states(["later", "soon"]) == {"later": "scheduled", "soon": "scheduled"}

    async def test_without_delays_nothing_is_due(self, backend: Backend) -> None:
        """``next_due``: "Seconds until the next scheduled job, or None."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        assert (await hand.turn(free=5)).next_due is None
        await queue.enqueue([NewJob("a", b"")])
        assert (await hand.turn(free=5)).next_due is None

    @timely
    async def test_a_due_job_is_promoted(self, backend: Backend) -> None:
        """Whoever takes a step "promotes what is due", and may claim it in that step."""
        queue = backend.queue(self.name("q"))
        hand = Hand(queue, "w")
        jobs = [NewJob("b", b"2", delay=self.life(2)), NewJob("a", b"1", delay=self.life(1))]
        await queue.enqueue([*jobs, NewJob("high", b"3", 5, delay=self.life(2))])
        assert (await hand.turn(free=5)).claimed == []
        await self.pause(3)
        assert [job.id for job in (await hand.turn(free=5)).claimed] == ["high", "a", "b"]

    @timely
    async def test_a_time_may_be_given(self, backend: Backend) -> None:
        """``at``: "The server's time from which on it may run, instead of a delay."."""
        queue, now = backend.queue(self.name("q")), await backend.time()
        hand = Hand(queue, "w")
        past, soon = NewJob("past", b"", at=now - 100), NewJob("soon", b"", at=now + self.life(3))
        await queue.enqueue([soon, past])
        assert await hand.take_ids(5) == ["past"]
        await self.pause(4)
        assert await hand.take_ids(5) == ["soon"]

    async def test_a_turn_tells_the_servers_time(self, backend: Backend) -> None:
        """``now``: "The server's time, in seconds since 1970."."""
        before = await backend.time()
        now = (await Hand(backend.queue("q"), "w").turn()).now
        after = await backend.time()
        assert before - 0.002 <= now <= after + 0.002

    async def test_many_scheduled_jobs_come_due_at_once(self, backend: Backend) -> None:
        """Every loop is bounded, "and what is left over is told by ``more``"."""
        queue = backend.queue("q")
        for start in range(0, 1_200, 400):
            ids = range(start, start + 400)
            await queue.enqueue([NewJob(str(each), b"", delay=self.life(1)) for each in ids])
        await self.pause(2)
        assert len(await Hand(queue, "w").take(1_200)) == 1_200
