"""Conformance of waiting for work and of watching: who is woken, and what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CancelScope, create_task_group, fail_after

from aiopatterns.backends.queue import NewJob, QueueEvent
from aiopatterns.testing.conformance_base import PATIENCE, Conformance, Hand, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import Queue

__all__ = ["EventsConformance"]


class EventsConformance(Conformance):
    """Tests of wake-ups and events; see :class:`Conformance` for what a subclass brings."""

    async def test_a_wait_in_vain(self, backend: Backend) -> None:
        """``wait``: "False after ``timeout`` seconds"."""
        queue = backend.queue("q")
        hand = Hand(queue, "w")
        await _drain(hand)
        with fail_after(PATIENCE):
            assert not await queue.wait("w", timeout=self.life(1))

    async def test_a_wait_for_what_is_there(self, backend: Backend) -> None:
        """``wait``: "until there may be work"; it "claims nothing"."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob("a", b"")])
        with fail_after(PATIENCE / 2):
            assert await queue.wait("w", timeout=PATIENCE)
        assert await queue.states(["a"]) == {"a": "queued"}
        assert await Hand(queue, "w").take_ids() == ["a"]

    async def test_an_enqueue_wakes_a_worker(self, backend: Backend) -> None:
        """``enqueue``: "A worker is woken if there is something to run."."""
        queue, got = backend.queue("q"), list[str]()
        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                group.start_soon(self._work, queue, "w", got, 3)
                for number in range(3):
                    await self.pause(0.5)
                    await queue.enqueue([NewJob(str(number), b"")])
        assert got == ["0", "1", "2"]

    async def test_one_step_wakes_the_next(self, backend: Backend) -> None:
        """``wait``: "its next step wakes another if work remains"."""
        queue, hands = backend.queue("q"), [Hand(backend.queue("q"), f"w{n}") for n in range(4)]
        got: list[str] = []

        async def once(hand: Hand) -> None:
            while not (claimed := await hand.take_ids()):
                assert await queue.wait(hand.worker, timeout=PATIENCE)
            got.extend(claimed)

        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                for hand in hands:
                    group.start_soon(once, hand)
                await self.pause(1)
                await queue.enqueue([NewJob(str(number), b"") for number in range(4)])
        assert sorted(got) == ["0", "1", "2", "3"]

    async def test_a_cancelled_wait_hands_its_wake_up_on(self, backend: Backend) -> None:
        """``wait``: "a cancelled wait hands its wake-up on"."""
        queue = backend.queue("q")
        for number, delay in enumerate((0.0, 0.0, 0.01, 0.1)):
            await _drain(Hand(queue, f"drain-{number}"))
            doomed, got = Hand(queue, f"doomed-{number}"), list[str]()
            with fail_after(PATIENCE / 2):
                async with create_task_group() as group, create_task_group() as short:
                    short.start_soon(self._wait_once, doomed)
                    await self.pause(0.5)
                    group.start_soon(self._work, queue, f"w-{number}", got, 1)
                    await self.pause(0.5)
                    await queue.enqueue([NewJob("a", b"")])
                    await self.pause(delay)
                    short.cancel_scope.cancel()
            assert got == ["a"]

    async def test_leaving_wakes_another(self, backend: Backend) -> None:
        """``leave``: what it holds is released, "and another worker is woken"."""
        queue, hand, got = backend.queue("q"), Hand(backend.queue("q"), "w"), list[str]()
        await queue.enqueue([NewJob("a", b"")])
        await hand.take()
        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                group.start_soon(self._work, queue, "v", got, 1)
                await self.pause(1)
                await hand.turn(leave=True)
        assert got == ["a"]

    async def test_a_cancel_wakes_the_worker_that_is_wanted(self, backend: Backend) -> None:
        """``cancel``: "For one that runs its worker is asked, and woken"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("a", b"")])
        await hand.take()
        cancels: list[str] = []

        async def work() -> None:
            while not cancels:
                await queue.wait("w", timeout=PATIENCE)
                cancels.extend((await hand.turn(free=1)).cancels)

        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                group.start_soon(work)
                await self.pause(1)
                await queue.cancel(["a"])
        assert cancels == ["a"]

    async def test_going_on_wakes_a_worker(self, backend: Backend) -> None:
        """``pause``: "or go on": what has waited is found without a new enqueue."""
        queue, got = backend.queue("q"), list[str]()
        await queue.pause()
        await queue.enqueue([NewJob("a", b"")])
        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                group.start_soon(self._work, queue, "w", got, 1)
                await self.pause(1)
                assert got == []
                await queue.pause(paused=False)
        assert got == ["a"]

    async def test_a_released_dependent_wakes_a_worker(self, backend: Backend) -> None:
        """A step that leaves something to run "wakes the next idle worker if work remains"."""
        queue, hand, got = backend.queue("q"), Hand(backend.queue("q"), "w"), list[str]()
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", after=("a",))])
        await hand.take()
        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                group.start_soon(self._work, queue, "v", got, 1)
                await self.pause(1)
                await hand.settle("done", "a")
        assert got == ["b"]

    async def test_a_job_is_told_from_its_start_to_its_end(self, backend: Backend) -> None:
        """``watch``: "Iterate over what happens to jobs from now on"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        await queue.enqueue([NewJob("before", b"", delay=600)])
        async with queue.watch() as events:
            await queue.enqueue([NewJob("a", b"")])
            await hand.take()
            await hand.turn(progress={"a": 0.5})
            await hand.settle("done", "a", data=b"result")
            told = [await _next(events) for _ in range(4)]
        assert [(event.kind, event.id) for event in told] == [
            ("queued", "a"),
            ("started", "a"),
            ("progress", "a"),
            ("done", "a"),
        ]
        assert float(told[2].data) == 0.5
        assert told[0].data == told[1].data == told[3].data == b""

    async def test_failures_are_told_with_their_error(self, backend: Backend) -> None:
        """QueueEvent: "``data`` is the error of retrying and dead"."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        async with queue.watch() as events:
            await queue.enqueue([NewJob("a", b""), NewJob("b", b"")])
            await hand.take(2)
            await hand.settle("retry", "a", data=bytes(range(256)), delay=600)
            await hand.settle("dead", "b", data=b"why")
            await queue.cancel(["a"])
            told = [await _next(events) for _ in range(7)]
        assert sorted(told[:2]) == [("queued", "a", b""), ("queued", "b", b"")]
        assert sorted(told[2:4]) == [("started", "a", b""), ("started", "b", b"")]
        assert told[4:] == [
            ("retrying", "a", bytes(range(256))),
            ("dead", "b", b"why"),
            ("cancelled", "a", b""),
        ]

    async def test_all_watchers_are_told(self, backend: Backend) -> None:
        """``watch``: each iterates by itself; other queues are not its affair."""
        queue = backend.queue("q")
        async with queue.watch() as first, queue.watch() as second:
            await backend.queue("other").enqueue([NewJob("x", b"")])
            async with queue.watch() as third:
                await queue.enqueue([NewJob("a", b"")])
                for each in (first, second, third):
                    assert await _next(each) == QueueEvent("queued", "a")
            await queue.enqueue([NewJob("b", b"")])
            for each in (first, second):
                assert await _next(each) == QueueEvent("queued", "b")

    async def test_dependents_that_are_cancelled_are_told(self, backend: Backend) -> None:
        """Steps "tell all that happened in them"."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob("a", b""), NewJob("b", b"", after=("a",))])
        async with queue.watch() as events:
            await queue.cancel(["a"])
            told = {await _next(events), await _next(events)}
        assert told == {QueueEvent("cancelled", "a"), QueueEvent("cancelled", "b")}

    async def test_watching_costs_the_queue_nothing_afterwards(self, backend: Backend) -> None:
        """``watch``: "While nobody watches, the queue says nothing"; work goes on as before."""
        queue, hand = backend.queue("q"), Hand(backend.queue("q"), "w")
        async with queue.watch():
            await queue.enqueue([NewJob("a", b"")])
        assert await hand.work_off() == ["a"]

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """A worker is text of 1 to 1,024 bytes; a timeout is no less than 0."""
        queue = backend.queue("q")
        for bad in ("", "x" * 1025):
            await refusal(queue.wait(bad, timeout=1), (ValueError,), "worker")
        for timeout in (-1, float("nan")):
            await refusal(queue.wait("w", timeout=timeout), (ValueError,), "timeout")

    async def _work(self, queue: Queue, worker: str, got: list[str], number: int) -> None:
        """Work as a worker does, until so many jobs are done."""
        hand = Hand(queue, worker)
        while len(got) < number:
            finished = await hand.work_off()
            got.extend(finished)
            if not finished:
                await queue.wait(worker, timeout=PATIENCE)

    async def _wait_once(self, hand: Hand) -> None:
        """Wait as a worker does; what has woken it is its affair then."""
        await hand.queue.wait(hand.worker, timeout=PATIENCE)
        with CancelScope(shield=True):
            await hand.turn()


async def _drain(hand: Hand) -> None:
    """Let a wake-up of before be over."""
    await hand.queue.wait(hand.worker, timeout=0.01)
    await hand.turn()


async def _next(events: AsyncIterator[QueueEvent]) -> QueueEvent:
    with fail_after(PATIENCE):
        return await anext(events)
