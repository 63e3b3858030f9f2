"""One saga under way: outcomes, time, leases, and being cancelled anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group, move_on_after

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError, SagaError
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagajournal import SagaState, StepState
from aiopatterns.data.sagastore import Filed, MemorySagaStore
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate

ONCE = Retry(attempts=1, on=Exception)


def trip(store: Any, log: list[str], acts: Any = None, **options: Any) -> Saga[Any]:
    """A saga of four steps, two of them side by side; ``acts`` is called by all of them."""
    saga: Saga[Any] = Saga("trip", store, **options)

    def add(name: str, *after: str) -> None:
        async def act(_: Any) -> None:
            log.append(name)
            await sleep(0.01)
            if acts is not None:
                acts()

        async def undo(_: Any) -> None:
            log.append(f"-{name}")
            await sleep(0.01)

        saga.step(name=name, after=after, compensate=undo)(act)

    add("a")
    add("b", "a")
    add("c", "a")
    add("d", "b", "c")
    return saga


def is_all_or_undone(log: list[str]) -> bool:
    done = [each for each in log if not each.startswith("-")]
    return len(done) == 4 or all(f"-{each}" in log for each in done)


@pytest.mark.promise("data-saga-all-or-undone")
def test_cancelled_anywhere_what_was_started_is_undone_or_left_to_recovery():
    def scenario() -> Trial:
        store, log = MemorySagaStore(), list[str]()
        saga = trip(store, log)

        async def check() -> None:
            report = await saga.recover_once()
            assert not report.stuck
            assert not report.pending
            assert not await saga.unfinished()
            found = await saga.find("1")
            if found is not None and found.state is SagaState.COMPLETED:
                assert sorted(log) == list("abcd")
            else:
                assert all(f"-{each}" in log for each in log if not each.startswith("-"))

        return Trial(saga.run({}, id="1"), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=3)


@pytest.mark.promise("data-saga-all-or-undone")
def test_any_step_may_fail():
    def scenario(fault: Any) -> Trial:
        log: list[str] = []
        saga = trip(MemorySagaStore(), log, fault)

        async def check() -> None:
            assert not await saga.unfinished()
            found = await saga.find("1")
            assert found is not None
            for each in found.outcomes:
                if each.state is StepState.COMPENSATED:
                    assert f"-{each.step}" in log

        return Trial(saga.run({}, id="1"), check)

    fail_everywhere(scenario, minimum=4)


def test_two_callers_of_one_id_run_it_once_under_any_order():
    async def scenario() -> None:
        import anyio

        log: list[str] = []
        saga = trip(MemorySagaStore(), log)
        states: list[SagaState] = []

        async def call() -> None:
            states.append((await saga.run({}, id="1")).state)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
        assert states == [SagaState.COMPLETED] * 3
        assert sorted(log) == list("abcd")

    explore(scenario, range(50))


def test_a_step_that_takes_too_long_has_no_known_outcome_and_is_undone():
    async def scenario() -> None:
        log: list[str] = []
        saga: Saga[Any] = Saga("trip", MemorySagaStore())

        async def undo(_: Any) -> None:
            log.append("undone")

        @saga.step(compensate=undo, timeout=1)
        async def pay(_: Any) -> None:
            await sleep(60)

        with pytest.raises(SagaError) as caught:
            await saga.run({}, id="1")
        assert log == ["undone"]
        assert isinstance(caught.value.__cause__, TimeoutError)

    simulate(scenario)


def test_a_saga_that_takes_too_long_is_undone():
    async def scenario() -> None:
        log: list[str] = []
        saga = trip(MemorySagaStore(), log, timeout=0.015)
        with pytest.raises(SagaError):
            await saga.run({}, id="1")
        assert "d" not in log
        assert log[-1] == "-a"

    simulate(scenario)


def test_a_step_longer_than_the_lease_keeps_it():
    async def scenario() -> None:
        saga: Saga[Any] = Saga("trip", MemorySagaStore(), lease=3)

        @saga.step
        async def pay(_: Any) -> None:
            for _ in range(20):
                await sleep(1)
                assert not (await saga.recover_once()).completed

        assert (await saga.run({}, id="1")).state is SagaState.COMPLETED

    simulate(scenario)


class Faulty:
    """A store that does not answer while it is told so."""

    def __init__(self) -> None:
        self.inner = MemorySagaStore()
        self.down = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def save(self, filed: Filed, *, lease: float) -> bool:
        if self.down:
            raise BackendUnavailableError("down")
        return await self.inner.save(filed, lease=lease)


@pytest.mark.promise("data-saga-fencing")
def test_who_has_lost_its_saga_stops_and_gives_the_result_of_the_other():
    async def scenario() -> None:
        store, log = MemorySagaStore(), list[str]()
        saga: Saga[Any] = Saga("trip", store, lease=3)

        async def undo(_: Any) -> None:
            log.append("undone")

        @saga.step(compensate=undo)
        async def pay(_: Any) -> None:
            key = ("trip", "1")
            store._open[key].until = 0.0  # as if this process had stood still
            assert (await saga.recover_once()).compensated == ("1",)
            await sleep(60)
            log.append("never")

        with pytest.raises(SagaError):
            await saga.run({}, id="1")
        assert log == ["undone"]

    simulate(scenario)


def test_a_short_outage_of_the_store_is_survived_and_a_long_one_leaves():
    async def scenario() -> None:
        store: Any = Faulty()
        saga: Saga[Any] = Saga("trip", store, lease=3)
        seconds = 1.0

        @saga.step
        async def pay(_: Any) -> None:
            from aiopatterns.core.clock import call_later

            store.down = True
            call_later(seconds, lambda: setattr(store, "down", False))

        assert (await saga.run({}, id="1")).state is SagaState.COMPLETED
        seconds = 60.0
        with pytest.raises(BackendUnavailableError):
            await saga.run({}, id="2")
        await sleep(100)
        assert (await saga.recover_once()).compensated == ("2",)

    simulate(scenario)


def test_behind_the_pivot_there_is_no_way_back():
    async def scenario() -> None:
        fails, log = [True] * 3, list[str]()
        saga: Saga[Any] = Saga("trip", MemorySagaStore())

        @saga.step(pivot=True)
        async def pay(_: Any) -> None:
            log.append("pay")

        @saga.step
        async def ship(_: Any) -> None:
            log.append("ship")
            if fails:
                fails.pop()
                raise ValueError("no")

        assert (await saga.run({}, id="1")).state is SagaState.COMPLETED
        assert log == ["pay", "ship", "ship", "ship", "ship"]

    simulate(scenario)


async def test_what_is_given_up_is_stuck_until_somebody_resumes_it():
    broken = True
    saga: Saga[Any] = Saga("trip", MemorySagaStore(), retry=ONCE)

    async def undo(_: Any) -> None:
        if broken:
            raise OSError("no way")

    @saga.step(compensate=undo)
    async def pay(_: Any) -> None:
        """Succeed."""

    @saga.step
    async def ship(_: Any) -> None:
        raise ValueError("no")

    with pytest.raises(SagaError, match="is stuck"):
        await saga.run({}, id="1")
    assert (await saga.recover_once()).stuck == ()
    with pytest.raises(SagaError, match="is stuck"):
        await saga.resume("1")
    broken = False
    with pytest.raises(SagaError, match="was compensated"):
        await saga.resume("1")
    with pytest.raises(ValueError, match="no saga"):
        await saga.resume("2")


def paid_late(store: Any, log: list[str], outcomes: list[Any], **options: Any) -> Saga[Any]:
    """Reserve, then pay: nothing can be undone once it is paid, and it may be paid twice."""
    saga: Saga[Any] = Saga("pay", store, timeout=5.0, lease=1.0, **options)

    @saga.step(compensate=lambda _: log.append("-reserve"))
    async def reserve(_: Any) -> None:
        log.append("reserve")

    @saga.step(pivot=True)
    async def pay(_: Any) -> None:
        log.append("pay")
        outcome = outcomes.pop(0) if outcomes else None
        if isinstance(outcome, float):
            await sleep(outcome)
        elif outcome is not None:
            raise outcome

    return saga


def test_a_pivot_that_nobody_knows_of_is_not_undone_when_its_time_is_over():
    log: list[str] = []
    outcomes: list[Any] = [TimeoutError() for _ in range(8)]

    async def scenario() -> None:
        saga = paid_late(MemorySagaStore(), log, outcomes)
        with pytest.raises(SagaError, match="stuck"):
            await saga.run({}, id="1")
        await sleep(60)
        assert (await saga.resume("1")).state is SagaState.COMPLETED

    simulate(scenario)
    assert "-reserve" not in log


def test_a_pivot_that_its_process_left_is_done_again_also_when_its_time_is_over():
    log: list[str] = []
    outcomes: list[Any] = [30.0]

    async def scenario() -> None:
        store = MemorySagaStore()
        saga = paid_late(store, log, outcomes)
        with move_on_after(1.0):
            await saga.run({}, id="1")
        await sleep(60)
        assert (await saga.recover_once()).completed == ("1",)

    simulate(scenario)
    assert log == ["reserve", "pay", "pay"]


class SlowStore:
    """A store whose answer to some saves takes long."""

    def __init__(self) -> None:
        self.inner = MemorySagaStore()
        self.slow: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def save(self, filed: Filed, *, lease: float) -> bool:
        kept = await self.inner.save(filed, lease=lease)
        if self.slow:
            await sleep(self.slow.pop())
        return kept


def test_nothing_is_called_on_an_answer_that_is_older_than_the_lease():
    log: list[str] = []

    async def scenario() -> None:
        store = SlowStore()
        saga = trip(store, log, lease=1.0)
        store.slow = [5.0]

        async def rival() -> None:
            await sleep(2.0)
            await saga.recover_once()
            log.append("recovered")

        async with create_task_group() as group:
            group.start_soon(rival)
            with pytest.raises(SagaError):
                await saga.run({}, id="1")

    simulate(scenario)
    assert log[0] == "a"
    assert set(log[1:3]) == {"-b", "-c"}
    assert log[3:] == ["-a", "recovered"]


def test_a_store_that_always_answers_too_late_is_unavailable():
    async def scenario() -> None:
        store = SlowStore()
        saga = trip(store, [], lease=1.0)
        store.slow = [5.0] * 20
        with pytest.raises(BackendUnavailableError, match="lease"):
            await saga.run({}, id="1")

    simulate(scenario)


def test_a_step_that_ends_while_the_store_writes_is_not_waited_for():
    async def scenario() -> None:
        store = SlowStore()
        saga: Saga[Any] = Saga("trip", store)

        def add(name: str, seconds: float, *after: str) -> None:
            async def act(_: Any) -> None:
                await sleep(seconds)
                store.slow = [0.5]

            saga.step(name=name, after=after)(act)

        add("a", 0.0)
        add("b", 0.1, "a")
        add("c", 0.3, "a")
        add("d", 0.1, "b")
        add("e", 0.1, "b")
        assert (await saga.run({}, id="1")).state is SagaState.COMPLETED

    simulate(scenario)


def test_a_renewal_that_is_refused_stops_the_step_that_takes_its_time():
    log: list[str] = []

    async def scenario() -> None:
        store = SlowStore()
        saga: Saga[Any] = Saga("long", store, lease=1.0)

        @saga.step(compensate=lambda _: log.append("undone"))
        async def work(_: Any) -> None:
            await sleep(10.0)
            log.append("done")

        async def steal() -> None:
            await sleep(2.0)
            for slot in store.inner._open.values():
                slot.until = 0.0
            await saga.recover_once()

        async with create_task_group() as group:
            group.start_soon(steal)
            with pytest.raises(SagaError, match="compensated"):
                await saga.run({}, id="1")

    simulate(scenario)
    assert log == ["undone"]
