"""Conformance of unique keys: drop, throttle, debounce and keep_last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import create_task_group

from aiopatterns.backends.queue import NewJob, Settled, UniqueKey
from aiopatterns.testing.conformance_base import Conformance, Hand, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import Enqueued, How, Queue, UniqueMode

__all__ = ["UniqueConformance"]

MODES: tuple[UniqueMode, ...] = ("drop", "throttle", "debounce", "keep_last")


class UniqueConformance(Conformance):
    """Tests of unique keys; see :class:`Conformance` for what a subclass brings."""

    async def test_a_taken_key_makes_no_second_job(self, backend: Backend) -> None:
        """Unique keys: "an enqueue under it makes no second job but returns the id of the first"."""
        for mode in MODES:
            queue = backend.queue(mode)
            assert await _add(queue, "a", mode) == ("a", True), mode
            assert await _add(queue, "b", mode) == ("a", False), mode
            assert await _add(queue, "other", mode, key="l") == ("other", True), mode
            assert sum((await queue.counts())[:3]) == 2, mode
            assert await queue.states(["b"]) == {"b": "unknown"}, mode
            assert await backend.queue(f"{mode}-2").states(["a"]) == {"a": "unknown"}

    async def test_of_many_at_once_one_is_made(self, backend: Backend) -> None:
        """``enqueue`` is an atomic step, also for its keys."""
        for mode in MODES:
            answers = await _race(backend.queue(mode), mode)
            assert sum(answer.created for answer in answers) == 1, mode
            assert len({answer.id for answer in answers}) == 1, mode

    async def test_within_one_call(self, backend: Backend) -> None:
        """``enqueue`` adds "in order": the second of one call finds the key taken."""
        queue, unique = backend.queue("q"), UniqueKey("k")
        jobs = [NewJob("a", b"1", unique=unique), NewJob("b", b"2", unique=unique)]
        assert await queue.enqueue(jobs) == [("a", True), ("a", False)]

    async def test_drop_holds_until_the_job_ends(self, backend: Backend) -> None:
        """``drop`` until the job ends: through retries, and while it runs."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await _add(queue, "a", "drop", body=b"1")
        assert [job.body for job in await hand.take()] == [b"1"]
        assert await _add(queue, "b", "drop", body=b"2") == ("a", False)
        await hand.settle("retry", "a")
        assert await _add(queue, "b", "drop", body=b"2") == ("a", False)
        await self.pause(1)
        assert [job.body for job in await hand.take()] == [b"1"]
        await hand.settle("release", "a")
        assert await _add(queue, "b", "drop", body=b"2") == ("a", False)
        assert await hand.work_off() == ["a"]
        assert await _add(queue, "b", "drop", body=b"2") == ("b", True)

    async def test_every_end_frees_the_key(self, backend: Backend) -> None:
        """Unique keys: "A key is free again when its job is dead or cancelled"."""
        hows: tuple[How, ...] = ("done", "dead", "cancelled")
        modes: tuple[UniqueMode, ...] = ("drop", "debounce", "keep_last")
        for mode in modes:
            for how in hows:
                queue = backend.queue(f"{mode}-{how}")
                hand = Hand(queue, "w")
                await _add(queue, "a", mode)
                while not await hand.take():
                    await self.pause(0.1)
                await hand.settle(how, "a")
                assert await _add(queue, "b", mode) == ("b", True), (mode, how)
                assert await queue.cancel(["b"]) == {"b": "cancelled"}
                assert await _add(queue, "c", mode) == ("c", True), (mode, how)

    async def test_a_crash_to_death_frees_the_key(self, backend: Backend) -> None:
        """A dead letter made by a crash is dead as any other."""
        queue = backend.queue("q")
        await _add(queue, "a", "drop")
        await Hand(queue, "dead", lease=self.life(1)).take()
        await self.pause(2)
        await Hand(queue, "w").turn()
        assert await queue.states(["a"]) == {"a": "dead"}
        assert await _add(queue, "b", "drop") == ("b", True)

    async def test_throttle_holds_for_its_window(self, backend: Backend) -> None:
        """``throttle`` for the window after the enqueue", however the job ended."""
        hows: tuple[How, ...] = ("done", "dead", "cancelled")
        for how in hows:
            queue = backend.queue(how)
            hand = Hand(queue, "w")
            await _add(queue, "a", "throttle", window=600)
            await hand.take()
            await hand.settle(how, "a")
            assert await _add(queue, "b", "throttle", window=600) == ("a", False), how
            assert await hand.take() == [], how
        await _add(backend.queue("q"), "a", "throttle", window=600)
        await backend.queue("q").cancel(["a"])
        assert await _add(backend.queue("q"), "b", "throttle", window=600) == ("a", False)

    async def test_a_throttle_window_ends(self, backend: Backend) -> None:
        """``throttle``: after the window and the end of the job the key is free."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        window = self.life(1)
        await _add(queue, "a", "throttle", window=window)
        await hand.take()
        await self.pause(2)
        assert await _add(queue, "b", "throttle", window=window) == ("a", False)
        await hand.settle("done", "a")
        assert await _add(queue, "b", "throttle", window=window) == ("b", True)
        await hand.work_off()
        await self.pause(2)
        assert await _add(queue, "c", "throttle", window=window) == ("c", True)

    @timely
    async def test_debounce_starts_the_delay_anew(self, backend: Backend) -> None:
        """``debounce``: "its body becomes the new one, its delay starts anew"."""
        queue = backend.queue(self.name("q"))
        hand, delay = Hand(queue, "w"), self.life(3)
        for number in range(3):
            job = NewJob(str(number), b"%d" % number, delay=delay)
            unique = UniqueKey("k", "debounce", delay)
            assert await queue.enqueue([job._replace(unique=unique)]) == [("0", number == 0)]
            await self.pause(2)
            assert await hand.take() == []
        await self.pause(2)
        assert [(job.id, job.body) for job in await hand.take(5)] == [("0", b"2")]

    async def test_debounce_lets_go_at_the_start(self, backend: Backend) -> None:
        """``debounce`` while it is not started": what comes later is a new job."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await _add(queue, "a", "debounce", window=self.life(0.1))
        await self.pause(1)
        assert await hand.take_ids() == ["a"]
        assert await _add(queue, "b", "debounce", window=600) == ("b", True)
        assert await _add(queue, "c", "debounce", window=600) == ("b", False)
        await hand.settle("done", "a")
        assert await _add(queue, "d", "debounce", window=600) == ("b", False)

    async def test_keep_last_takes_the_newest_body(self, backend: Backend) -> None:
        """``keep_last`` while it is not started (its body becomes the new one)"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        for number in range(3):
            answer = await _add(queue, str(number), "keep_last", body=b"%d" % number)
            assert answer == ("0", number == 0)
        assert [(job.id, job.body) for job in await hand.take(5)] == [("0", b"2")]

    async def test_keep_last_waits_for_the_one_that_runs(self, backend: Backend) -> None:
        """A keep_last job "enqueued while one of its key runs waits for that one to end"."""
        hows: tuple[How, ...] = ("done", "dead", "cancelled")
        for how in hows:
            queue = backend.queue(how)
            hand = Hand(queue, "w")
            await _add(queue, "a", "keep_last", body=b"1")
            await hand.take()
            assert await _add(queue, "b", "keep_last", body=b"2") == ("b", True), how
            assert await hand.take(5) == [], how
            assert await _add(queue, "c", "keep_last", body=b"3") == ("b", False), how
            turned = await hand.turn([Settled("a", how)], free=5)
            assert [(job.id, job.body) for job in turned.claimed] == [("b", b"3")], how
            await hand.settle("done", "b")
            assert await _add(queue, "d", "keep_last", body=b"4") == ("d", True), how

    async def test_keep_last_does_not_overtake_a_retry(self, backend: Backend) -> None:
        """``keep_last``: a job that waits for its retry has not ended."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await _add(queue, "a", "keep_last")
        await hand.take()
        await _add(queue, "b", "keep_last")
        await hand.settle("retry", "a")
        await self.pause(1)
        assert await hand.take_ids(5) == ["a"]
        await hand.settle("done", "a")
        assert await hand.take_ids(5) == ["b"]

    async def test_a_waiting_keep_last_may_be_cancelled(self, backend: Backend) -> None:
        """A job that waits for another has not started: cancelled, it ends at once."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await _add(queue, "a", "keep_last")
        await hand.take()
        await _add(queue, "b", "keep_last")
        assert await queue.cancel(["b"]) == {"b": "cancelled"}
        assert await _add(queue, "c", "keep_last") == ("c", True)
        await hand.settle("done", "a")
        assert await hand.work_off(5) == ["c"]
        assert (await queue.counts())[:5] == (0, 0, 0, 0, 0)

    async def test_keep_last_after_a_crash(self, backend: Backend) -> None:
        """A job that died of a crash has ended."""
        queue, dead = backend.queue("q"), Hand(backend.queue("q"), "dead", lease=self.life(1))
        await _add(queue, "a", "keep_last")
        await dead.take()
        await _add(queue, "b", "keep_last")
        await self.pause(2)
        assert await Hand(queue, "w").take_ids(5) == ["b"]


async def _add(
    queue: Queue,
    id: str,
    mode: UniqueMode,
    *,
    key: str = "k",
    body: bytes = b"",
    window: float | None = None,
) -> Enqueued:
    """Enqueue one job under a key; a debounced one is delayed by its window."""
    if window is None:
        window = 0.001 if mode == "debounce" else 600.0
    delay = window if mode == "debounce" else 0.0
    job = NewJob(id, body, delay=delay, unique=UniqueKey(key, mode, window))
    (answer,) = await queue.enqueue([job])
    return answer


async def _race(queue: Queue, mode: UniqueMode) -> list[Enqueued]:
    """Enqueue twenty jobs under one key at the same time."""
    answers: list[Enqueued] = []

    async def add(number: int) -> None:
        answers.append(await _add(queue, str(number), mode))

    async with create_task_group() as group:
        for number in range(20):
            group.start_soon(add, number)
    return answers
