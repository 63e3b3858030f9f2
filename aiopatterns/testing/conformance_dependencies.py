"""Conformance of dependencies: jobs that wait for others, and share their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopatterns.backends.queue import NewJob, Settled
from aiopatterns.testing.conformance_base import Conformance, Hand, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["DependenciesConformance"]


class DependenciesConformance(Conformance):
    """Tests of ``after=``; see :class:`Conformance` for what a subclass brings."""

    async def test_a_job_waits_for_all_it_names(self, backend: Backend) -> None:
        """Dependencies: "waits until all of them are done"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        jobs = [NewJob("a", b""), NewJob("b", b""), NewJob("c", b"3", 9, after=("a", "b"))]
        assert await queue.enqueue(jobs) == [("a", True), ("b", True), ("c", True)]
        assert await queue.states(["c"]) == {"c": "waiting"}
        assert (await queue.counts())[:4] == (2, 0, 1, 0)
        assert await hand.take_ids(5) == ["a", "b"]
        await hand.settle("done", "b")
        assert await hand.take(5) == []
        assert await queue.states(["c"]) == {"c": "waiting"}
        await hand.settle("done", "a")
        assert await queue.states(["c"]) == {"c": "queued"}
        assert await hand.take(5) == [("c", b"3", 1, False)]

    async def test_it_is_released_in_the_same_step(self, backend: Backend) -> None:
        """Dependencies: it "is released in the same step as the last of them"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", after=("a",))])
        await hand.take()
        turned = await hand.turn([Settled("a", "done")], free=5)
        assert [job.id for job in turned.claimed] == ["b"]

    async def test_a_chain_and_a_diamond(self, backend: Backend) -> None:
        """``enqueue``: "The jobs of one call may name each other in ``after``, in order."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue(
            [
                NewJob("top", b""),
                NewJob("left", b"", after=("top",)),
                NewJob("right", b"", after=("top",)),
                NewJob("bottom", b"", after=("left", "right", "left")),
                NewJob("end", b"", after=("bottom",)),
            ]
        )
        finished = await hand.work_off(1)
        assert finished[0] == "top"
        assert sorted(finished[1:3]) == ["left", "right"]
        assert finished[3:] == ["bottom", "end"]
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_what_is_unknown_or_done_counts_as_done(self, backend: Backend) -> None:
        """Dependencies: "One that is unknown, or done already, counts as done."."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("kept", b"", keep=600), NewJob("gone", b"")])
        await hand.work_off(5)
        await queue.enqueue([NewJob("a", b"", after=("kept", "gone", "never"))])
        assert await queue.states(["a"]) == {"a": "queued"}
        assert await hand.take_ids() == ["a"]

    async def test_a_retry_releases_nobody(self, backend: Backend) -> None:
        """Only done is done: neither a retry nor a release is."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", after=("a",))])
        await hand.take()
        await hand.settle("release", "a")
        assert await hand.take_ids(5) == ["a"]
        await hand.settle("retry", "a", delay=600)
        assert await hand.take_ids(5) == []
        assert (await queue.counts())[:4] == (0, 1, 1, 0)

    @timely
    async def test_a_delay_holds_also_after_the_others(self, backend: Backend) -> None:
        """``delay``: "Seconds until it may run, from now."; WAITING may lead to SCHEDULED."""
        queue = backend.queue(self.name("q"))
        hand = Hand(queue, "w")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", delay=self.life(3), after=("a",))])
        assert await hand.work_off(5) == ["a"]
        assert await queue.states(["b"]) == {"b": "scheduled"}
        await self.pause(4)
        assert await hand.take_ids(5) == ["b"]

    async def test_a_delay_may_be_over_before(self, backend: Backend) -> None:
        """A delay counts from the enqueue, not from the end of the others."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", delay=self.life(1), after=("a",))])
        await hand.take()
        await self.pause(2)
        assert await hand.take() == []
        await hand.settle("done", "a")
        assert await hand.take_ids(5) == ["b"]

    async def test_a_dead_one_cancels_all_that_depend_on_it(self, backend: Backend) -> None:
        """Dependencies: "cancelled with all that depends on it if one is dead or cancelled"."""
        for how in ("dead", "cancelled"):
            queue = backend.queue(how)
            hand = Hand(queue, "w")
            await queue.enqueue(
                [
                    NewJob("a", b"", keep=600),
                    NewJob("other", b""),
                    NewJob("b", b"", keep=600, after=("a", "other")),
                    NewJob("c", b"", after=("b",)),
                    NewJob("d", b"", keep=600, after=("c",)),
                    NewJob("free", b"", after=("other",)),
                ]
            )
            await hand.take()
            await hand.settle("dead" if how == "dead" else "cancelled", "a")
            states = await queue.states(["a", "b", "c", "d"])
            assert states == {"a": how, "b": "cancelled", "c": "unknown", "d": "cancelled"}
            assert (await queue.outcomes(["d"]))["d"][:2] == ("cancelled", b"")
            assert await hand.work_off(5) == ["other", "free"]
            assert (await queue.counts())[:4] == (0, 0, 0, 0)

    async def test_cancelling_cancels_all_that_depend_on_it(self, backend: Backend) -> None:
        """``cancel``: one that has not started ends at once, "and so do its dependents"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue(
            [
                NewJob("a", b""),
                NewJob("b", b"", keep=600, after=("a",)),
                NewJob("c", b"", keep=600, delay=600, after=("b",)),
            ]
        )
        assert await queue.cancel(["a"]) == {"a": "cancelled"}
        assert await queue.states(["b", "c"]) == {"b": "cancelled", "c": "cancelled"}
        assert await hand.take(5) == []
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_a_cancelled_dependent_leaves_the_others(self, backend: Backend) -> None:
        """Whoever waits may be cancelled; what it waited for goes on."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue(
            [NewJob("a", b""), NewJob("b", b"", after=("a",)), NewJob("c", b"", after=("a",))]
        )
        assert await queue.cancel(["b"]) == {"b": "cancelled"}
        assert await hand.work_off(5) == ["a", "c"]
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_who_comes_too_late_is_cancelled(self, backend: Backend) -> None:
        """A job that names one that is dead or cancelled is cancelled itself."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("dead", b""), NewJob("cancelled", b"", keep=600)])
        await hand.take(2)
        await hand.turn([Settled("dead", "dead"), Settled("cancelled", "cancelled")])
        for first in ("dead", "cancelled"):
            jobs = [NewJob(f"{first}-1", b"", keep=600, after=(first,))]
            jobs.append(NewJob(f"{first}-2", b"", keep=600, after=(f"{first}-1",)))
            await queue.enqueue(jobs)
            assert set((await queue.states([job.id for job in jobs])).values()) == {"cancelled"}
        assert await hand.take(5) == []

    async def test_a_crash_to_death_cancels_as_well(self, backend: Backend) -> None:
        """A dead letter made by a crash is dead as any other."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", keep=600, after=("a",))])
        await Hand(queue, "dead", lease=self.life(1)).take(2)
        await self.pause(2)
        await Hand(queue, "w").take(5)
        assert await queue.states(["a", "b"]) == {"a": "dead", "b": "cancelled"}

    async def test_a_wide_tree(self, backend: Backend) -> None:
        """Every loop is bounded, and nobody is forgotten: 900 jobs wait for one."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("top", b"")])
        for start in range(0, 900, 300):
            ids = range(start, start + 300)
            await queue.enqueue([NewJob(str(each), b"", after=("top",)) for each in ids])
        await hand.take()
        await hand.settle("done", "top")
        assert len(await hand.take(1_000)) == 900

    async def test_a_wide_tree_that_is_cancelled(self, backend: Backend) -> None:
        """The same, when the one is cancelled."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("top", b"")])
        for start in range(0, 900, 300):
            ids = range(start, start + 300)
            await queue.enqueue([NewJob(str(each), b"", after=("top",)) for each in ids])
        assert await queue.cancel(["top"]) == {"top": "cancelled"}
        assert await hand.take() == []
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_a_long_chain(self, backend: Backend) -> None:
        """A chain of 300, worked off and cancelled."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        chain = [NewJob("0", b"")]
        chain += [NewJob(str(each), b"", after=(str(each - 1),)) for each in range(1, 300)]
        await queue.enqueue(chain)
        assert await hand.work_off(1) == [job.id for job in chain]
        await queue.enqueue(chain)
        await queue.cancel(["0"])
        assert await hand.take() == []
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)
