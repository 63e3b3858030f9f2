"""Conformance of settling: how jobs end, retries, the fence, what is kept, what a lost answer does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopatterns.backends.queue import DEAD_LIMIT, MAX_BATCH, NewJob, Settled
from aiopatterns.testing.conformance_base import Conformance, Hand, refusal, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import Queue

__all__ = ["SettlingConformance"]


class SettlingConformance(Conformance):
    """Tests of settlements; see :class:`Conformance` for what a subclass brings."""

    async def test_a_done_job_leaves_nothing(self, backend: Backend) -> None:
        """``keep``: "0 keeps nothing"; after the last job "nothing is left"."""
        queue, hand = await _held(backend, NewJob("a", b"1"))
        assert await queue.states(["a"]) == {"a": "running"}
        turned = await hand.settle("done", "a", data=b"result")
        assert turned.stale == []
        assert await queue.states(["a"]) == {"a": "unknown"}
        assert await queue.outcomes(["a"]) == {}
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)
        assert await queue.enqueue([NewJob("a", b"2")]) == [("a", True)]

    async def test_an_outcome_is_kept_if_asked(self, backend: Backend) -> None:
        """``keep``: "Seconds for which its outcome (done, cancelled) is kept"."""
        jobs = [NewJob(each, b"", keep=600) for each in ("a", "b", "c")]
        queue, hand = await _held(backend, *jobs)
        await hand.turn([Settled("a", "done", bytes(range(256))), Settled("b", "cancelled")])
        assert await queue.outcomes(["b", "a", "c", "other"]) == {
            "a": ("done", bytes(range(256)), 1),
            "b": ("cancelled", b"", 1),
        }
        assert await queue.states(["a", "b", "c"]) == {
            "a": "done",
            "b": "cancelled",
            "c": "running",
        }

    async def test_an_outcome_is_kept_no_longer(self, backend: Backend) -> None:
        """``keep`` is in seconds, from the end of the job on."""
        queue, hand = await _held(backend, NewJob("a", b"", keep=self.life(1)))
        await self.pause(2)
        await hand.settle("done", "a", data=b"result")
        await self.pause(2)
        assert await queue.outcomes(["a"]) == {}
        assert await queue.states(["a"]) == {"a": "unknown"}
        assert await queue.enqueue([NewJob("a", b"")]) == [("a", True)]

    async def test_a_retry_counts_the_attempt(self, backend: Backend) -> None:
        """``counted``: "Whether the attempt counts"."""
        queue, hand = await _held(backend, NewJob("a", b"1", keep=600))
        await hand.turn([Settled("a", "retry", b"why")])
        assert await self._claim(hand) == ("a", b"1", 2, False)
        await hand.turn([Settled("a", "retry", b"why", counted=False)])
        assert await self._claim(hand) == ("a", b"1", 2, False)
        await hand.turn([Settled("a", "retry", b"why", counted=True)])
        assert await self._claim(hand) == ("a", b"1", 3, False)
        await hand.settle("done", "a")
        assert await queue.outcomes(["a"]) == {"a": ("done", b"", 3)}

    @timely
    async def test_a_retry_waits_for_its_delay(self, backend: Backend) -> None:
        """``delay``: "Seconds until the retry."."""
        queue, hand = await _held(backend, NewJob("a", b"1"), name=self.name("q"))
        turned = await hand.turn([Settled("a", "retry", b"", self.life(2))], free=5)
        assert turned.claimed == []
        assert turned.next_due is not None
        assert 0 < turned.next_due <= self.life(2)
        assert await queue.states(["a"]) == {"a": "scheduled"}
        await self.pause(3)
        assert await hand.take_ids() == ["a"]

    async def test_a_demoted_job_comes_back_behind_those_of_its_priority(
        self, backend: Backend
    ) -> None:
        """``demote``: "the same with a priority that is one lower, if it is not 0"."""
        jobs = [NewJob("a", b"1", 1), NewJob("b", b"", 1), NewJob("c", b"", 0)]
        queue, hand = await _held(backend, *jobs, take=1)
        await hand.turn([Settled("a", "demote", b"why")])
        assert await hand.take_ids() == ["b"]
        assert await hand.take_ids() == ["c"]
        assert await self._claim(hand) == ("a", b"1", 2, False)
        await hand.turn([Settled("a", "demote", counted=False)])
        assert await self._claim(hand) == ("a", b"1", 2, False)
        await hand.settle("done", "a", "b", "c")
        assert (await queue.counts()).running == 0

    async def test_a_demoted_job_can_be_cancelled(self, backend: Backend) -> None:
        """It is found where it is, at its due time and in its lane."""
        queue, hand = await _held(backend, NewJob("a", b"", 5))
        await hand.turn([Settled("a", "demote", b"", 60)])
        assert await queue.cancel(["a"]) == {"a": "cancelled"}
        assert (await queue.counts()).scheduled == 0

    async def test_retries_do_not_use_up_attempts(self, backend: Backend) -> None:
        """``attempts``: "How often it may be started before a *crash* makes it a dead letter"."""
        _, hand = await _held(backend, NewJob("a", b"1", attempts=1))
        for attempt in range(2, 6):
            await hand.settle("retry", "a")
            assert (await self._claim(hand))[2] == attempt

    async def test_a_released_job_is_next(self, backend: Backend) -> None:
        """``release`` "gives it back to the head of its lane"; it "never" counts."""
        jobs = [NewJob("a", b"", 5), NewJob("b", b"", 5), NewJob("c", b"", 3)]
        queue, hand = await _held(backend, *jobs, take=1)
        await hand.turn([Settled("a", "release", counted=True)])
        assert await queue.states(["a"]) == {"a": "queued"}
        claimed = await Hand(queue, "v").take(3)
        assert [(job.id, job.attempt, job.alone) for job in claimed] == [
            ("a", 1, False),
            ("b", 1, False),
            ("c", 1, False),
        ]

    async def test_releasing_keeps_earlier_attempts(self, backend: Backend) -> None:
        """A release takes back its own attempt alone."""
        _, hand = await _held(backend, NewJob("a", b"1"))
        await hand.settle("retry", "a")
        assert (await self._claim(hand))[2] == 2
        await hand.settle("release", "a")
        assert (await self._claim(hand))[2] == 2

    async def test_a_dead_job_is_a_dead_letter(self, backend: Backend) -> None:
        """``dead`` "makes it a dead letter", with its error."""
        queue, hand = await _held(backend, NewJob("a", b"body"))
        await hand.settle("retry", "a", data=b"first")
        await self._claim(hand)
        await hand.settle("dead", "a", data=b"second")
        assert await queue.states(["a"]) == {"a": "dead"}
        assert await queue.outcomes(["a"]) == {"a": ("dead", b"second", 2)}
        (letter,) = (await queue.page("dead")).jobs
        assert letter[:5] == ("a", b"body", "dead", 2, b"second")
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 1)

    async def test_a_cancelled_job_leaves_nothing(self, backend: Backend) -> None:
        """``cancelled`` "ends it"; it is an outcome only if asked."""
        queue, hand = await _held(backend, NewJob("a", b""))
        assert (await hand.settle("cancelled", "a")).stale == []
        assert await queue.states(["a"]) == {"a": "unknown"}
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_settling_and_claiming_is_one_step(self, backend: Backend) -> None:
        """``step``: "Settle, renew, promote, take back, limit and claim, in this order, atomically."."""
        queue, hand = await _held(backend, NewJob("a", b""), NewJob("b", b""), take=1)
        turned = await hand.turn([Settled("a", "done")], free=1)
        assert [job.id for job in turned.claimed] == ["b"]
        assert (await queue.counts())[:4] == (0, 0, 0, 1)

    async def test_a_full_batch_is_settled_at_once(self, backend: Backend) -> None:
        """``settled``: "MAX_BATCH at most"; more is refused, and nothing is settled."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        jobs = [NewJob(str(number), b"") for number in range(MAX_BATCH)]
        await queue.enqueue(jobs)
        await queue.enqueue([NewJob("more", b"")])
        ids = await hand.take_ids(MAX_BATCH + 1)
        too_many = hand.turn([Settled(each, "done") for each in ids])
        await refusal(too_many, (ValueError,), str(MAX_BATCH))
        assert (await queue.counts()).running == MAX_BATCH + 1
        assert (await hand.settle("done", *ids[:MAX_BATCH])).stale == []
        assert (await queue.counts()).running == 1

    async def test_what_a_worker_does_not_hold_is_stale(self, backend: Backend) -> None:
        """``stale``: "Settled jobs that it did not hold; nothing was done for them."."""
        jobs = [NewJob(each, b"", keep=600) for each in ("a", "b", "c")]
        queue, hand = await _held(backend, *jobs, take=2)
        other = Hand(queue, "other")
        for how in ("done", "retry", "release", "dead", "cancelled"):
            turned = await other.settle(how, "a", "c", "never")
            assert sorted(turned.stale) == ["a", "c", "never"], how
        assert await queue.states(["a", "b", "c", "never"]) == {
            "a": "running",
            "b": "running",
            "c": "queued",
            "never": "unknown",
        }
        assert (await hand.settle("done", "a")).stale == []
        assert (await hand.settle("dead", "a")).stale == ["a"]
        assert await queue.states(["a"]) == {"a": "done"}

    async def test_the_fence_holds_in_the_plainest_turn(self, backend: Backend) -> None:
        """The fence: also when all that is said is that plain jobs are done."""
        queue, hand = await _held(backend, NewJob("a", b""), NewJob("b", b""))
        other = Hand(queue, "other")
        await other.turn()
        for _ in range(2):
            assert (await other.turn([Settled("a", "done")], free=5)).stale == ["a"]
            assert await queue.states(["a"]) == {"a": "running"}
        turned = await hand.turn([Settled("b", "done"), Settled("never", "done")])
        assert turned.stale == ["never"]
        assert await queue.states(["a", "b"]) == {"a": "running", "b": "unknown"}
        assert (await hand.settle("done", "b")).stale == ["b"]
        assert (await hand.settle("done", "a")).stale == []

    async def test_good_and_stale_in_one_turn(self, backend: Backend) -> None:
        """The fence holds for each job by itself."""
        queue, hand = await _held(backend, NewJob("a", b""), NewJob("b", b""))
        turned = await hand.turn([Settled("x", "done"), Settled("a", "done"), Settled("y", "dead")])
        assert sorted(turned.stale) == ["x", "y"]
        assert await queue.states(["a", "b"]) == {"a": "unknown", "b": "running"}

    async def test_held_is_what_a_worker_has(self, backend: Backend) -> None:
        """``held``: "Return what ``worker`` holds now."."""
        jobs = [NewJob("a", b"1"), NewJob("b", bytes(range(256)))]
        queue, hand = await _held(backend, *jobs, take=0)
        assert await queue.held("w") == []
        claimed = await hand.take(2)
        for _ in range(2):
            assert sorted(await queue.held("w")) == claimed
        assert await queue.held("other") == []
        await hand.settle("done", "a")
        assert await queue.held("w") == claimed[1:]

    async def test_a_lost_answer_applies_once(self, backend: Backend) -> None:
        """A lost answer: sent again "under the same number, with ``free=0``: they are applied once"."""
        jobs = [NewJob(each, b"", keep=600) for each in ("a", "b", "c", "d")]
        queue, hand = await _held(backend, *jobs, take=3)
        settled = [Settled("a", "done", b"1"), Settled("b", "retry"), Settled("c", "release")]
        await hand.turn(settled, free=2)  # the answer to this one is lost
        assert (await hand.again(settled)).stale == []
        assert (await hand.again(settled)).stale == []
        assert await queue.outcomes(["a"]) == {"a": ("done", b"1", 1)}
        held = {job.id: job.attempt for job in await queue.held("w")}
        others = {job.id: job.attempt for job in await Hand(queue, "v").take(5)}
        assert len(held) == 2
        assert {**held, **others} == {"b": 2, "c": 1, "d": 1}

    async def test_a_lost_answer_of_the_plainest_turn(self, backend: Backend) -> None:
        """A lost answer: also if all that it said was that plain jobs are done."""
        queue, hand = await _held(backend, *(NewJob(str(n), b"") for n in range(4)), take=2)
        settled = [Settled("0", "done"), Settled("1", "done")]
        claimed = (await hand.turn(settled, free=1)).claimed
        for _ in range(2):
            turned = await hand.again(settled)
            assert (turned.stale, turned.claimed) == ([], [])
        assert await queue.held("w") == claimed
        assert (await queue.counts())[:4] == (1, 0, 0, 1)

    async def test_a_lost_claim_is_in_held(self, backend: Backend) -> None:
        """A lost answer: it "asks ``held`` what it holds, for the lost turn may have claimed"."""
        queue, hand = await _held(backend, *(NewJob(str(n), b"") for n in range(5)), take=2)
        claimed = (await hand.turn([Settled("0", "done")], free=2)).claimed
        assert (await hand.again([Settled("0", "done")])).claimed == []
        assert {job.id for job in await queue.held("w")} == {"1", *(job.id for job in claimed)}
        assert (await queue.counts())[:4] == (1, 0, 0, 3)

    async def test_a_turn_that_comes_twice_gives_out_once(self, backend: Backend) -> None:
        """A lost answer: "A turn whose number is not new gives out nothing"."""
        queue, hand = await _held(backend, *(NewJob(str(n), b"") for n in range(6)), take=1)
        claimed = (await hand.turn([Settled("0", "done")], free=2)).claimed
        assert (await hand.again([Settled("0", "done")], free=2)).claimed == []
        assert await queue.held("w") == claimed
        again = (await hand.turn(free=2)).claimed
        assert sorted(await queue.held("w")) == sorted([*claimed, *again])
        assert (await queue.counts())[:4] == (1, 0, 0, 4)

    async def test_a_repeated_turn_spares_the_next_holder(self, backend: Backend) -> None:
        """Settlements under the same number "are applied once", whoever has the job now."""
        queue, hand = await _held(backend, NewJob("a", b""))
        await hand.settle("release", "a")
        other = Hand(queue, "v")
        assert await other.take_ids() == ["a"]
        assert (await hand.again([Settled("a", "release")])).stale == []
        assert [job.id for job in await queue.held("v")] == ["a"]

    async def test_a_repeated_turn_spares_its_own_next_claim(self, backend: Backend) -> None:
        """A job that was released and claimed again in the lost turn stays claimed."""
        queue, hand = await _held(backend, NewJob("a", b""))
        turned = await hand.turn([Settled("a", "release")], free=1)
        assert [job.id for job in turned.claimed] == ["a"]
        await hand.again([Settled("a", "release")])
        assert [job.id for job in await queue.held("w")] == ["a"]
        assert (await hand.settle("done", "a")).stale == []

    async def test_the_newest_dead_letters_are_kept(self, backend: Backend) -> None:
        """Dead letters: "10,000 at most"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        for start in range(0, DEAD_LIMIT + MAX_BATCH, MAX_BATCH):
            ids = [str(number) for number in range(start, start + MAX_BATCH)]
            await queue.enqueue([NewJob(each, b"") for each in ids])
            await hand.settle("dead", *await hand.take_ids(MAX_BATCH))
        await hand.turn(free=1)
        assert (await queue.counts()).dead == DEAD_LIMIT
        oldest, newest = "0", str(DEAD_LIMIT + MAX_BATCH - 1)
        assert await queue.states([oldest, newest]) == {oldest: "unknown", newest: "dead"}
        assert (await queue.page("dead", limit=1)).jobs[0].id == newest

    async def _claim(self, hand: Hand) -> tuple[str, bytes, int, bool]:
        """Claim the job whose retry is due about now."""
        await self.pause(0.2)
        (job,) = await hand.take()
        return job


async def _held(
    backend: Backend, *jobs: NewJob, take: int = MAX_BATCH, name: str = "q"
) -> tuple[Queue, Hand]:
    """Enqueue ``jobs``; a worker takes so many of them."""
    queue = backend.queue(name)
    await queue.enqueue(jobs)
    hand = Hand(queue, "w")
    assert len(await hand.take(take)) == min(take, len(jobs))
    return queue, hand
