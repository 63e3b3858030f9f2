"""Conformance of workers: leases that end, jobs taken back, suspects given out alone, leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from aiopatterns.backends.queue import NewJob, Settled
from aiopatterns.testing.conformance_base import Conformance, Hand, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import Queue

__all__ = ["WorkersConformance"]


class WorkersConformance(Conformance):
    """Tests of workers that live and die; see :class:`Conformance` for what a subclass brings."""

    async def test_jobs_of_a_dead_worker_are_taken_back(self, backend: Backend) -> None:
        """Whoever takes a step "takes back the jobs of workers whose lease has ended"."""
        queue = await self._crash(backend, NewJob("a", b"1", attempts=2))
        assert await Hand(queue, "w").take() == [("a", b"1", 2, True)]

    async def test_a_crash_too_many_makes_a_dead_letter(self, backend: Backend) -> None:
        """``attempts``: "How often it may be started before a crash makes it a dead letter"."""
        queue = await self._crash(backend, NewJob("once", b""), NewJob("twice", b"", attempts=2))
        hand = Hand(queue, "second", lease=self.life(1))
        assert await hand.take_ids(5) == ["twice"]
        assert await queue.states(["once", "twice"]) == {"once": "dead", "twice": "running"}
        await self.pause(2)
        assert await Hand(queue, "third").take() == []
        assert (await queue.outcomes(["twice"]))["twice"][::2] == ("dead", 2)
        assert (await queue.outcomes(["once"]))["once"][::2] == ("dead", 1)
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 2)

    async def test_a_late_worker_learns_it_and_settles_nothing(self, backend: Backend) -> None:
        """``reaped``: "its jobs were taken back: it holds nothing but ``claimed``"."""
        queue = backend.queue("q")
        late = Hand(queue, "late", lease=self.life(1))
        await queue.enqueue([NewJob("a", b"", attempts=5)])
        await late.take()
        await self.pause(2)
        hand = Hand(queue, "w")
        assert [job.attempt for job in await hand.take()] == [2]
        turned = await late.settle("done", "a")
        assert turned.reaped
        assert turned.stale == ["a"]
        assert await queue.held("late") == []
        assert await queue.states(["a"]) == {"a": "running"}
        assert not (await late.turn()).reaped
        assert (await hand.settle("done", "a")).stale == []

    async def test_a_late_worker_that_nobody_missed_goes_on(self, backend: Backend) -> None:
        """The fence: a settlement counts "while the job is in the set of the worker"."""
        queue = backend.queue("q")
        late = Hand(queue, "late", lease=self.life(1))
        await queue.enqueue([NewJob("a", b"", keep=600), NewJob("b", b"", keep=600)])
        await late.take(2)
        await self.pause(2)
        turned = await late.settle("done", "a")
        assert turned.stale == []
        assert not turned.reaped
        assert await queue.states(["a", "b"]) == {"a": "done", "b": "running"}

    @timely
    async def test_a_turn_renews_the_lease(self, backend: Backend) -> None:
        """``lease``: "Seconds for which the worker counts as alive from now."."""
        queue = backend.queue(self.name("q"))
        slow, other = Hand(queue, "slow", lease=self.life(3)), Hand(queue, "other")
        await queue.enqueue([NewJob("a", b"", attempts=5)])
        await slow.take()
        for _ in range(4):
            await self.pause(1.5)
            assert not (await slow.turn()).reaped
            assert await other.take() == []
        assert (await slow.settle("done", "a")).stale == []

    @timely
    async def test_the_keeper_renews_from_a_thread(self, backend: Backend) -> None:
        """``keeper``: "a function for another *thread* that renews the lease", or None."""
        queue = backend.queue(self.name("q"))
        slow, other = Hand(queue, "slow", lease=self.life(3)), Hand(queue, "other")
        keep = queue.keeper("slow", lease=self.life(3))
        if keep is None:  # "if no other process could take the jobs"
            return
        await queue.enqueue([NewJob("a", b"", attempts=5)])
        await slow.take()
        for _ in range(4):
            await self.pause(1.5)
            assert await run_sync(keep)
            assert await other.take() == []
        await slow.turn(leave=True)
        assert not await run_sync(keep)
        assert (await queue.counts()).workers == 1

    async def test_workers_are_counted(self, backend: Backend) -> None:
        """Counts: how many workers are alive."""
        queue = backend.queue("q")
        assert (await queue.counts()).workers == 0
        await Hand(queue, "a").turn()
        await Hand(queue, "b", lease=self.life(1)).turn()
        await self.pause(2)
        await Hand(queue, "c").turn()
        counts = await queue.counts()
        assert (counts.workers, counts.alive) == (2, frozenset("ac"))

    async def test_suspects_are_given_out_alone(self, backend: Backend) -> None:
        """Suspects: each is "given out *alone*: only to a worker that holds nothing"."""
        jobs = [NewJob(each, b"", attempts=2) for each in ("a", "b", "c")]
        queue = await self._crash(backend, *jobs)
        await queue.enqueue([NewJob("new", b"", 9)])
        hand, seen = Hand(queue, "w"), set[str]()
        for _ in range(3):
            (suspect,) = await hand.take(10)
            seen.add(suspect.id)
            assert (suspect.attempt, suspect.alone) == (2, True)
            assert (await hand.turn(free=10)).claimed == []
            await hand.settle("done", suspect.id)
        assert seen == {"a", "b", "c"}
        assert await hand.take() == [("new", b"", 1, False)]

    async def test_the_others_go_on(self, backend: Backend) -> None:
        """Suspects: "one worker at a time is asked ... to run dry for them; the others go on"."""
        queue, hands = await self._busy(backend)
        turns = [await hand.turn(free=1) for hand in hands]
        assert sorted(turned.quarantine for turned in turns) == [False, False, True]
        assert [len(turned.claimed) for turned in turns] == [
            0 if turned.quarantine else 1 for turned in turns
        ]
        chosen = next(hand for hand, turned in zip(hands, turns, strict=True) if turned.quarantine)
        assert (await chosen.turn(free=1)).quarantine
        (mine,) = await queue.held(chosen.worker)
        turned = await chosen.turn([Settled(mine.id, "done")], free=10)
        assert turned.claimed == [("suspect", b"", 2, True)]
        assert not turned.quarantine
        others = [hand for hand in hands if hand is not chosen]
        assert [len((await hand.turn(free=1)).claimed) for hand in others] == [1, 1]

    async def test_another_is_asked_if_the_chosen_one_leaves(self, backend: Backend) -> None:
        """``quarantine``: a worker that is gone runs dry for nobody."""
        queue, hands = await self._busy(backend)
        turns = [await hand.turn(free=1) for hand in hands]
        chosen = next(hand for hand, turned in zip(hands, turns, strict=True) if turned.quarantine)
        await chosen.turn(leave=True)
        rest = [hand for hand in hands if hand is not chosen]
        turns = [await hand.turn() for hand in rest] + [await hand.turn() for hand in rest]
        assert any(turned.quarantine for turned in turns)
        assert (await queue.states(["suspect"])) == {"suspect": "queued"}

    async def test_an_idle_worker_takes_the_suspect(self, backend: Backend) -> None:
        """A worker that holds nothing need not run dry."""
        queue, _ = await self._busy(backend)
        assert (await Hand(queue, "idle").turn(free=5)).claimed == [("suspect", b"", 2, True)]

    async def test_after_the_suspects_all_is_as_before(self, backend: Backend) -> None:
        """A suspect that was settled is none any more."""
        queue = await self._crash(backend, NewJob("a", b"", attempts=5))
        hand = Hand(queue, "w")
        await hand.take()
        await hand.settle("retry", "a")
        await queue.enqueue([NewJob("b", b""), NewJob("c", b"")])
        await self.pause(1)
        claimed = await hand.take(5)
        assert sorted((job.id, job.attempt, job.alone) for job in claimed) == [
            ("a", 3, False),
            ("b", 1, False),
            ("c", 1, False),
        ]

    async def test_leaving_gives_back_what_is_held(self, backend: Backend) -> None:
        """``leave``: "what it still holds is released ..., its lease ends"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"", keep=600), NewJob("b", b""), NewJob("c", b"")])
        await hand.take(2)
        turned = await hand.turn([Settled("a", "done")], leave=True, free=5)
        assert turned.claimed == []
        assert (await queue.counts()) == (2, 0, 0, 0, 0, frozenset(), False)
        assert await queue.states(["a"]) == {"a": "done"}
        claimed = await Hand(queue, "v").take(5)
        assert [(job.id, job.attempt, job.alone) for job in claimed] == [
            ("b", 1, False),
            ("c", 1, False),
        ]
        assert (await hand.settle("done", "b")).stale == ["b"]

    async def test_a_suspect_that_is_given_back_stays_one(self, backend: Backend) -> None:
        """``leave``: "(suspects stay suspects)"."""
        queue = await self._crash(backend, NewJob("a", b"", attempts=2))
        await queue.enqueue([NewJob("b", b"")])
        hand = Hand(queue, "w")
        await hand.take()
        await hand.turn(leave=True)
        assert await Hand(queue, "v").take(5) == [("a", b"", 2, True)]

    async def test_a_later_turn_makes_it_a_worker_again(self, backend: Backend) -> None:
        """``leave``: "A later turn makes it a worker again."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await hand.turn(leave=True)
        assert (await queue.counts()).workers == 0
        await queue.enqueue([NewJob("a", b"")])
        turned = await hand.turn(free=1)
        assert [job.id for job in turned.claimed] == ["a"]
        assert (await queue.counts()).workers == 1

    async def test_a_crowd_of_dead_workers(self, backend: Backend) -> None:
        """Every loop is bounded, "and what is left over is told by ``more``"."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob(str(number), b"", attempts=9) for number in range(120)])
        for number in range(30):
            await Hand(queue, f"dead-{number}", lease=self.life(1)).take(4)
        await self.pause(2)
        hand, seen = Hand(queue, "w"), set[str]()
        while claimed := await hand.take_ids():
            await hand.settle("done", *claimed)
            seen.update(claimed)
        assert len(seen) == 120
        assert (await queue.counts()) == (0, 0, 0, 0, 0, frozenset("w"), False)

    async def _crash(self, backend: Backend, *jobs: NewJob) -> Queue:
        """A queue whose jobs were all held by a worker whose lease has ended."""
        queue = backend.queue("q")
        await queue.enqueue(jobs)
        await Hand(queue, "dead", lease=self.life(1)).take(len(jobs))
        await self.pause(2)
        return queue

    async def _busy(self, backend: Backend) -> tuple[Queue, list[Hand]]:
        """Three workers with a job each, a suspect, and plenty to do besides."""
        queue = backend.queue("q")
        hands = [Hand(queue, worker) for worker in ("w1", "w2", "w3")]
        await queue.enqueue([NewJob(str(number), b"") for number in range(3)])
        for hand in hands:
            await hand.take()
        await queue.enqueue([NewJob("suspect", b"", attempts=2)])
        await Hand(queue, "dead", lease=self.life(1)).take()
        await queue.enqueue([NewJob(f"next-{number}", b"") for number in range(20)])
        await self.pause(2)
        return queue, hands
