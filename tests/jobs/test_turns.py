"""The step loop against a store that answers as it is told."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.queue import MAX_BATCH, ClaimedJob, NewJob, Turn, Turned
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.jobs.hold import Cut, Hold
from aiopatterns.jobs.ledger import Ledger
from aiopatterns.jobs.slots import PATIENCE, Slots
from aiopatterns.jobs.turns import MAX_BYTES, WATCH, Turns
from aiopatterns.testing import capture_events, simulate

NOTHING = Turned([], [], [], False, False, False, False, None, 1_000.0)
LEASE = 9.0


def job(name: str, attempt: int = 1, *, alone: bool = False) -> ClaimedJob:
    return ClaimedJob(name, b"", attempt, alone)


def answer(*claimed: ClaimedJob, **more: Any) -> Turned:
    return NOTHING._replace(claimed=list(claimed), **more)


class Store:
    """Answers in order, then that nothing is there."""

    name = "store"

    def __init__(self, *answers: Turned | Exception) -> None:
        self.answers = deque(answers)
        self.turns: list[Turn] = []
        self.times: list[float] = []
        self.holds: deque[list[ClaimedJob] | Exception] = deque()
        self.waits = 0
        self.bell = anyio.Event()
        self.broken_waits = 0

    async def step(self, turn: Turn) -> Turned:
        self.turns.append(turn)
        self.times.append(monotonic())
        found = self.answers.popleft() if self.answers else NOTHING
        await sleep(0.001)
        if isinstance(found, Exception):
            raise found
        return found

    async def held(self, worker: str) -> list[ClaimedJob]:
        found = self.holds.popleft() if self.holds else []
        if isinstance(found, Exception):
            raise found
        return found

    async def wait(self, worker: str, *, timeout: float) -> bool:
        self.waits += 1
        if self.broken_waits:
            self.broken_waits -= 1
            raise BackendUnavailableError("away")
        with anyio.move_on_after(timeout):
            await self.bell.wait()
            self.bell = anyio.Event()
            return True
        return False

    def keeper(self, worker: str, *, lease: float) -> Any:
        return ("keeper", worker, lease)


class Shop:
    def __init__(self) -> None:
        self.ledger = Ledger("q")


class Desk:
    """A loop with all that it needs."""

    def __init__(self, store: Store, *, limit: int = 3, home: bool = True, slots=None) -> None:
        self.store = store
        self.slots = slots or Slots(limit)
        self.admitted: list[Hold] = []
        self.turns = Turns(
            cast("Any", store),
            worker="w",
            lease=LEASE,
            slots=self.slots,
            shop=cast("Any", Shop()),
            admit=self.admitted.append,
            home=home,
        )

    def done(self, hold: Hold, data: bytes = b"") -> bool:
        self.slots.used -= 1
        return self.turns.settle(hold, "done", data)

    @asynccontextmanager
    async def running(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.turns.run)
            tasks.start_soon(self.turns.listen)
            await sleep(0.01)
            yield self
            tasks.cancel_scope.cancel()


def test_the_first_step_asks_for_all_places_and_the_next_settles():
    async def main() -> None:
        store = Store(answer(job("a"), job("b")))
        async with Desk(store).running() as desk:
            assert [each.id for each in desk.admitted] == ["a", "b"]
            assert desk.slots.used == 2
            assert desk.turns.server_now() == pytest.approx(1_000.009)
            for hold in desk.admitted:
                assert desk.done(hold, b"x")
            await sleep(0.01)
            first, second = store.turns
            assert (first.number, first.free, first.settled, first.lease) == (1, 3, [], LEASE)
            assert (second.number, second.free) == (2, 3)
            assert [(each.id, each.how, each.data) for each in second.settled] == [
                ("a", "done", b"x"), ("b", "done", b"x")
            ]  # fmt: skip
            assert desk.turns.held == {}
            assert desk.turns.keeper() == ("keeper", "w", LEASE)

    simulate(main)


def test_an_idle_loop_looks_now_and_then_and_hears_the_store():
    async def main() -> None:
        store = Store()
        async with Desk(store).running():
            await sleep(3 * WATCH + 0.1)
            assert len(store.turns) == 4
            assert store.waits == 1
            store.answers.append(answer(job("a")))
            store.bell.set()
            await sleep(0.005)
            assert len(store.turns) == 5
            await sleep(25)
            assert store.waits >= 3, "a wait that ends is begun again"

    simulate(main)


def test_a_full_loop_renews_its_lease_and_does_not_wait_for_work():
    async def main() -> None:
        store = Store(answer(job("a")))
        async with Desk(store, limit=1).running() as desk:
            await sleep(2 * LEASE / 3 + 0.5)
            assert store.times == pytest.approx([0, 3.001, 6.002], abs=0.01)
            assert {each.free for each in store.turns[1:]} == {0}
            assert store.waits == 0
            desk.turns.tell(desk.admitted[0], 0.5)
            await sleep(0.01)
            assert store.turns[-1].progress == {"a": 0.5}

    simulate(main)


def test_what_is_due_is_asked_for_when_it_is():
    async def main() -> None:
        store = Store(answer(next_due=0.3))
        async with Desk(store).running():
            await sleep(0.5)
        assert store.times == pytest.approx([0.0, 0.301], abs=1e-6)

    simulate(main)


def test_what_is_due_while_all_places_are_taken_waits():
    async def main() -> None:
        store = Store(answer(job("a"), next_due=0.3))
        async with Desk(store, limit=1).running() as desk:
            await sleep(0.5)
            assert len(store.turns) == 1
            desk.done(desk.admitted[0])
            await sleep(0.01)
            assert store.turns[1].free == 1

    simulate(main)


def test_a_store_that_says_more_and_gives_nothing_is_asked_less_and_less():
    async def main() -> None:
        store = Store(*[answer(more=True)] * 100)
        async with Desk(store).running():
            await sleep(5)
        gaps = [after - before for before, after in zip(store.times, store.times[1:], strict=False)]
        assert gaps[0] < 0.01
        # It puts off 500 jobs a step, say, and 50,000 are before the one that may run.
        assert 0.03 < max(gaps[:99]) < 0.06
        assert store.times[99] < 5

    simulate(main)


def test_a_lost_answer_is_asked_for_again_and_what_it_claimed_is_adopted():
    async def main() -> None:
        store = Store(answer(job("a")), BackendUnavailableError("reset"), BackendError("odd"))
        store.holds.extend([BackendUnavailableError("again"), [job("b"), job("c", alone=True)]])
        with capture_events() as events:
            async with Desk(store).running() as desk:
                desk.done(desk.admitted[0], b"result")
                await sleep(5)
                # said again under the same number, with the same jobs, asking for nothing
                first, again, third = store.turns[1:4]
                assert first.free == 3
                assert again == third == first._replace(free=0)
                assert [each.id for each in desk.admitted] == ["a", "b", "c"]
                assert desk.slots.used == 2
                assert desk.turns in desk.slots.exclusive
                assert desk.turns.shop.ledger.outages == 1
        names = [each.name for each in events]
        assert names == ["aiopatterns.worker.troubled", "aiopatterns.worker.recovered"]
        assert cast("Any", events[1]).failures == 3

    simulate(main)


def test_jobs_that_are_not_held_any_more_are_lost():
    async def main() -> None:
        store = Store(answer(job("a"), job("b"), job("c")), answer(reaped=True))
        async with Desk(store, limit=5).running() as desk:
            one, two, three = desk.admitted
            await sleep(1)  # a step tells that the lease had ended
            assert [each.cut for each in desk.admitted] == [Cut.LOST] * 3
            assert not desk.turns.settle(one, "done")
            desk.turns.tell(two, 0.5)
            assert desk.turns.held == {}
            assert desk.turns.shop.ledger.lost == 3
            del three

    simulate(main)


def test_an_attempt_that_another_has_begun_is_not_ours():
    async def main() -> None:
        store = Store(answer(job("a"), job("b")))
        store.holds.append([job("a", 2), job("b")])
        async with Desk(store, limit=5).running() as desk:
            old = desk.admitted[0]
            desk.turns.settle(old, "done", b"late")
            store.answers.append(BackendUnavailableError("lost"))
            store.answers.append(BackendUnavailableError("lost"))
            await sleep(0.005)
            await sleep(2)
            del old

        store = Store(answer(job("a")), BackendUnavailableError("lost"))
        store.holds.append([job("a", 2)])
        async with Desk(store, limit=5).running() as desk:
            await sleep(2)
            first, second = desk.admitted
            assert first.cut is Cut.LOST
            assert (second.attempt, desk.turns.held) == (2, {"a": second})

    simulate(main)


def test_settlements_of_lost_jobs_are_dropped():
    async def main() -> None:
        store = Store(answer(job("a"), job("b")), answer(reaped=True))
        async with Desk(store, limit=5).running() as desk:
            desk.turns.tell(desk.admitted[0], 0.1)
            await sleep(0)
            await sleep(0.0005)  # the step is on its way
            desk.turns.settle(desk.admitted[1], "done", b"x" * 10)
            await sleep(0.01)
            assert store.turns[-1].settled == []

    simulate(main)


def test_cancels_are_passed_on_and_late_settlements_are_counted():
    async def main() -> None:
        store = Store(answer(job("a"), job("b")), answer(cancels=["a", "gone"], stale=["b"]))
        async with Desk(store).running() as desk:
            one, two = desk.admitted
            desk.done(two)
            await sleep(0.01)
            assert one.cut is Cut.CANCEL
            assert two.cut is None
            assert desk.turns.shop.ledger.stale == 1

    simulate(main)


def test_a_suspect_keeps_the_other_places_empty():
    async def main() -> None:
        store = Store(answer(job("a"), quarantine=True))
        async with Desk(store).running() as desk:
            assert desk.turns in desk.slots.exclusive
            assert store.waits == 0
            store.answers.append(answer(quarantine=True))
            await sleep(LEASE / 3 + 0.1)
            assert store.turns[-1].free == 0
            store.answers.append(answer(quarantine=True))
            desk.turns.tell(desk.admitted[0], 0.5)
            await sleep(0.01)
            store.answers.append(answer(job("s", 2, alone=True)))
            desk.done(desk.admitted[0])
            await sleep(0.01)
            assert store.turns[-1].free == 1
            suspect = desk.admitted[1]
            assert (suspect.alone, suspect.attempt) == (True, 2)
            await sleep(LEASE)
            assert store.turns[-1].free == 0, "nothing beside it"
            desk.done(suspect)
            await sleep(0.01)
            assert store.turns[-1].free == 1
            await sleep(1)
            assert desk.slots.exclusive == {}
            assert store.turns[-1].free == 3

    simulate(main)


def test_large_results_and_many_jobs_go_in_several_steps():
    async def main() -> None:
        many = [job(str(each)) for each in range(MAX_BATCH + 100)]
        store = Store(answer(*many[:MAX_BATCH]), answer(*many[MAX_BATCH:]))
        async with Desk(store, limit=1_000).running() as desk:
            for hold in desk.admitted[:-4]:
                desk.done(hold)
            await sleep(0.01)
            sizes = [len(each.settled) for each in store.turns]
            assert sizes[-2:] == [MAX_BATCH, 96]
            for hold in desk.admitted[-4:]:
                desk.done(hold, b"x" * (MAX_BYTES // 2 + 1))
            await sleep(0.02)
            assert [len(each.settled) for each in store.turns][-4:] == [1, 1, 1, 1]

    simulate(main)


def test_leaving_says_what_is_left_to_say():
    async def main() -> None:
        many = [job(str(each)) for each in range(MAX_BATCH)]
        store = Store(answer(*many), answer(job("x"), job("y")))
        async with Desk(store, limit=MAX_BATCH + 2).running() as desk:
            pass
        for hold in desk.admitted[:-1]:
            desk.done(hold)
        assert desk.admitted[-1].id == "y"
        await desk.turns.leave()
        *_, before, last = store.turns
        assert (len(before.settled), before.leave) == (MAX_BATCH, False)
        assert ([each.id for each in last.settled], last.free, last.leave) == (["x"], 0, True)

    simulate(main)


@pytest.mark.parametrize(("held", "steps"), [(0, 1), (1, 1), (MAX_BATCH + 1, 2)])
def test_leaving_gives_back_all_that_is_held(held, steps):
    async def main() -> None:
        async with MemoryBackend() as backend:
            store = backend.queue("q")
            jobs = [NewJob(str(each), b"") for each in range(held)]
            for start in range(0, held, MAX_BATCH):
                await store.enqueue(jobs[start : start + MAX_BATCH])
            desk = Desk(cast("Any", store), limit=2 * MAX_BATCH)
            async with desk.running():
                pass
            assert (await store.counts()).running == held
            number = desk.turns._number
            await desk.turns.leave()
            assert desk.turns._number == number + steps
            counts = await store.counts()
            assert (counts.queued, counts.running, counts.workers) == (held, 0, 0)

    simulate(main)


def test_leaving_ends_though_there_is_always_more_to_look_after():
    async def main() -> None:
        store = Store(answer(job("a")))
        async with Desk(store, limit=MAX_BATCH + 1).running() as desk:
            pass
        before = len(store.turns)
        store.answers.extend(answer(more=True) for _ in range(10))
        await desk.turns.leave()
        assert [each.leave for each in store.turns[before:]] == [True, True]

    simulate(main)


def test_leaving_repeats_a_step_whose_answer_is_lost():
    async def main() -> None:
        store = Store(answer(job("a")))
        async with Desk(store).running() as desk:
            desk.done(desk.admitted[0])
            await sleep(0.0005)  # and is cancelled while the step is on its way
        lost = store.turns[-1]
        assert len(lost.settled) == 1
        store.answers.append(BackendUnavailableError("away"))
        with pytest.raises(BackendUnavailableError):
            await desk.turns.leave()
        await desk.turns.leave()
        assert store.turns[-3:-1] == [lost._replace(free=0)] * 2
        assert store.turns[-1].leave

    simulate(main)


def test_a_closed_loop_ends_when_nothing_is_held():
    async def main() -> None:
        store = Store(answer(job("a")))
        desk = Desk(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.turns.run)
            await sleep(0.01)
            desk.slots.closed = True
            desk.turns.signal()
            await sleep(1)
            desk.done(desk.admitted[0])
        assert store.turns[-1].free == 0

    simulate(main)


def test_a_wait_that_fails_lets_the_loop_look_and_is_tried_again():
    async def main() -> None:
        store = Store()
        store.broken_waits = 3
        async with Desk(store).running():
            await sleep(4)
            assert store.waits == 4
            assert len(store.turns) > 4

    simulate(main)


def test_a_loop_away_from_home_waits_for_its_patience():
    async def main() -> None:
        slots = Slots(2)
        home = Desk(Store(*[answer(more=True)] * 100), slots=slots)
        away = Desk(Store(answer(more=True), answer()), slots=slots, home=False)
        slots.want(home.turns)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(away.turns.run)
            await sleep(PATIENCE * 2)
            tasks.cancel_scope.cancel()
        assert away.store.times == pytest.approx([0, PATIENCE], abs=0.01)
        assert [each.free for each in away.store.turns] == [0, 1]

    simulate(main)


def test_retries_are_remembered_until_they_come_back():
    async def main() -> None:
        store = Store(answer(job("a"), job("b")))
        async with Desk(store).running() as desk:
            turns = desk.turns
            assert turns.server_now() is not None
            for hold in desk.admitted:
                turns.note_retry(hold, 5.0)
                turns.settle(hold, "retry", delay=5.0)
            assert turns.retrying
            assert not turns.quiet
            store.answers.append(answer())
            store.answers.append(answer(job("a", 2), job("b", 2)))
            await sleep(1)
            assert not turns.retrying
            for number in range(MAX_BATCH + 1):
                turns.note_retry(Hold(turns, str(number), b"", 1, alone=False), 0.5)
            await sleep(1)
            turns.note_retry(Hold(turns, "last", b"", 1, alone=False), 5.0)
            assert [*turns._retries] == ["last"]

    simulate(main)


async def test_before_the_first_answer_the_servers_time_is_not_known():
    assert Desk(Store()).turns.server_now() is None
