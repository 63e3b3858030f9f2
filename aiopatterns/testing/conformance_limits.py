"""Conformance of limits: buckets with a concurrency or a rate that jobs share by naming them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import create_task_group

from aiopatterns.backends.queue import Bucket, NewJob, Settled
from aiopatterns.core.rate import Rate
from aiopatterns.testing.conformance_base import Conformance, Hand, timely

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import How, Queue

__all__ = ["LimitsConformance"]


class LimitsConformance(Conformance):
    """Tests of limits; see :class:`Conformance` for what a subclass brings."""

    async def test_no_more_run_than_may(self, backend: Backend) -> None:
        """``concurrency``: "How many may run at once"; the jobs "keep their order"."""
        queue = await _queue(backend, range(5), Bucket("db", concurrency=2))
        one, other = Hand(queue, "w"), Hand(queue, "v")
        assert await one.take_ids(1) == ["0"]
        assert await other.take_ids(5) == ["1"]
        assert await one.take_ids(5) == []
        await other.settle("done", "1")
        assert await one.take_ids(5) == ["2"]
        await one.settle("done", "0", "2")
        assert await other.take_ids(5) == ["3", "4"]

    async def test_held_back_jobs_are_queued(self, backend: Backend) -> None:
        """Counts: "a job held back by a limit's concurrency counts as queued"."""
        queue = await _queue(backend, range(4), Bucket("db", concurrency=1))
        await Hand(queue, "w").take(4)
        assert (await queue.counts())[:4] == (3, 0, 0, 1)
        assert await queue.states(["3"]) == {"3": "queued"}
        page = await queue.page("queued")
        assert sorted(job.id for job in page.jobs) == ["1", "2", "3"]

    async def test_every_end_frees_the_place(self, backend: Backend) -> None:
        """A place is free again when its job does not run any more."""
        hows: tuple[How, ...] = ("done", "retry", "dead", "cancelled")
        for how in hows:
            queue = await _queue(backend, range(2), Bucket("db", concurrency=1), name=how)
            hand = Hand(queue, "w")
            await hand.take()
            turned = await hand.turn([Settled("0", how, delay=600)], free=5)
            assert [job.id for job in turned.claimed] == ["1"], how

    async def test_a_released_job_has_its_place_first(self, backend: Backend) -> None:
        """``release`` gives it back "to the head of its lane", before those held back."""
        queue = await _queue(backend, range(3), Bucket("db", concurrency=1))
        hand = Hand(queue, "w")
        assert await hand.take_ids(3) == ["0"]
        await hand.settle("release", "0")
        assert await hand.take_ids(3) == ["0"]
        assert await hand.work_off(3) == []
        await hand.settle("done", "0")
        assert await hand.work_off(3) == ["1", "2"]

    async def test_leaving_and_dying_free_the_place(self, backend: Backend) -> None:
        """What a worker gives back, or loses, does not run any more."""
        queue = await _queue(backend, range(2), Bucket("db", concurrency=1), attempts=1)
        dead, gone = Hand(queue, "dead", lease=self.life(1)), Hand(queue, "gone")
        await dead.take(2)
        await self.pause(2)
        assert await gone.take_ids(2) == ["1"]
        assert await queue.states(["0"]) == {"0": "dead"}
        await gone.turn(leave=True)
        assert await Hand(queue, "w").take_ids(2) == ["1"]

    async def test_a_full_bucket_holds_up_nobody_else(self, backend: Backend) -> None:
        """A bucket "holds back the job", and no other."""
        queue = await _queue(backend, range(50), Bucket("db", concurrency=1))
        await queue.enqueue([NewJob("free", b""), NewJob("other", b"", limits=(_one("web"),))])
        assert await Hand(queue, "w").take_ids(60) == ["0", "free", "other"]

    async def test_a_job_needs_a_place_in_each_bucket(self, backend: Backend) -> None:
        """``limits``: "Buckets that it needs a place in"; one held back takes none."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue(
            [
                NewJob("a", b"", limits=(_one("db"),)),
                NewJob("both", b"", limits=(_one("db"), _one("web"))),
                NewJob("b", b"", limits=(_one("web"),)),
            ]
        )
        claimed = await hand.take_ids(5)
        assert claimed[0] == "a"
        assert "both" not in claimed
        await hand.settle("done", *claimed)
        rest = await hand.work_off(5)
        assert sorted([*claimed, *rest]) == ["a", "b", "both"]

    async def test_four_buckets_and_their_order(self, backend: Backend) -> None:
        """``limits``: "4 at most"; the order in which jobs name them blocks nobody for ever."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        buckets = [_one(each) for each in "abcd"]
        jobs = [
            NewJob(f"{shift}-{turn}", b"", limits=(*buckets[shift:], *buckets[:shift]))
            for turn in range(3)
            for shift in range(4)
        ]
        await queue.enqueue(jobs)
        assert len(await hand.take(20)) == 1
        (running,) = await queue.held("w")
        await hand.settle("done", running.id)
        assert len(await hand.work_off(20)) == 11

    async def test_queues_do_not_share_buckets(self, backend: Backend) -> None:
        """``key``: "Name of the bucket within the queue."."""
        for name in ("q", "r"):
            queue = await _queue(backend, range(2), Bucket("db", concurrency=1), name=name)
            assert await Hand(queue, "w").take_ids(2) == ["0"]

    async def test_a_cancelled_job_waits_for_no_place(self, backend: Backend) -> None:
        """A job that is held back has not started: it ends at once when cancelled."""
        queue = await _queue(backend, range(4), Bucket("db", concurrency=1))
        hand = Hand(queue, "w")
        await hand.take(4)
        assert await queue.cancel(["1", "2"]) == {"1": "cancelled", "2": "cancelled"}
        assert (await queue.counts())[:4] == (1, 0, 0, 1)
        await hand.settle("done", "0")
        assert await hand.take_ids(4) == ["3"]
        assert (await queue.counts())[:4] == (0, 0, 0, 1)

    async def test_many_workers_keep_the_limit_and_finish(self, backend: Backend) -> None:
        """However the turns fall, at most that many run, and in the end all have run."""
        queue = await _queue(backend, range(60), Bucket("db", concurrency=3))
        running, peak, finished = set[str](), [0], set[str]()

        async def work(worker: str) -> None:
            hand = Hand(queue, worker)
            while len(finished) < 60:
                claimed = await hand.take_ids(2)
                running.update(claimed)
                peak.append(len(running))
                await self.pause(0.02)
                running.difference_update(claimed)
                finished.update(claimed)
                await hand.settle("done", *claimed)

        async with create_task_group() as group:
            for number in range(4):
                group.start_soon(work, f"w{number}")
        assert max(peak) == 3
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_a_rate_schedules_what_is_too_early(self, backend: Backend) -> None:
        """Limits: "one with a rate schedules it for its turn"."""
        queue = await _queue(backend, range(4), Bucket("api", Rate(2, per=3600)))
        hand = Hand(queue, "w")
        assert await hand.take_ids(4) == ["0", "1"]
        assert (await queue.counts())[:4] == (0, 2, 0, 2)
        assert await queue.states(["2"]) == {"2": "scheduled"}
        due = (await hand.turn()).next_due
        assert due is not None
        assert 1700 < due <= 1800

    @timely
    async def test_a_rate_lets_them_through_in_turn(self, backend: Backend) -> None:
        """``rate``: "How many may start in how long, spaced evenly (GCRA ...)"."""
        bucket = Bucket("api", Rate(1, per=self.life(2)))
        queue = await _queue(backend, range(4), bucket, name=self.name("q"))
        hand = Hand(queue, "w")
        seen = [len(await hand.take(4))]
        for _ in range(7):
            await self.pause(1)
            seen.append(len(await hand.take(4)))
        assert seen[0] == 1
        assert sum(seen) in {3, 4}
        assert max(seen) == 1

    async def test_a_rate_counts_no_attempt_and_keeps_the_order(self, backend: Backend) -> None:
        """A job that was scheduled for its turn has not been started."""
        queue = await _queue(backend, range(6), Bucket("api", Rate(2, per=self.life(1))))
        hand, seen = Hand(queue, "w"), list[tuple[str, int]]()
        while len(seen) < 6:
            seen += [(job.id, job.attempt) for job in await hand.take(6)]
            await self.pause(0.3)
        assert seen == [(str(number), 1) for number in range(6)]

    async def test_a_rate_and_a_concurrency(self, backend: Backend) -> None:
        """A bucket may have both."""
        bucket = Bucket("api", Rate(3, per=3600), concurrency=2)
        queue = await _queue(backend, range(5), bucket)
        hand = Hand(queue, "w")
        assert await hand.take_ids(5) == ["0", "1"]
        await hand.settle("done", "0", "1")
        assert await hand.take_ids(5) == ["2"]
        await hand.settle("done", "2")
        assert await hand.take_ids(5) == []
        assert sum((await queue.counts())[:2]) == 2


def _one(key: str) -> Bucket:
    return Bucket(key, concurrency=1)


async def _queue(
    backend: Backend,
    numbers: Iterable[int],
    bucket: Bucket,
    *,
    name: str = "q",
    attempts: int = 5,
) -> Queue:
    """A queue with so many jobs that share a bucket."""
    queue = backend.queue(name)
    await queue.enqueue(
        [NewJob(str(number), b"", attempts=attempts, limits=(bucket,)) for number in numbers]
    )
    return queue
