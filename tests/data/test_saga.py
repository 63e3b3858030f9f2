"""A saga: all of its steps, or what was done is undone in reverse order."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendUnavailableError, SagaError
from aiopatterns.data.saga import Saga, SagaStatistics
from aiopatterns.data.sagaevents import SagaStuck
from aiopatterns.data.sagajournal import Journal, SagaState
from aiopatterns.data.sagasql import SqliteSagaStore
from aiopatterns.data.sagastore import Filed, MemorySagaStore
from aiopatterns.testing import capture_events, simulate
from tests.data.sagaplaces import filed


def made(store: Any, log: list[str], fails: str = "") -> Saga[Any]:
    saga = Saga("checkout", store)

    def add(name: str, after: list[str] | None = None) -> None:
        async def act(_: Any) -> None:
            log.append(name)
            if name == fails:
                raise ValueError(name)

        async def undo(_: Any) -> None:
            log.append(f"-{name}")

        saga.step(name=name, after=after, compensate=undo)(act)

    add("a")
    add("b", ["a"])
    add("c", ["a"])
    add("d", ["b", "c"])
    return saga


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path) -> Any:
    return MemorySagaStore() if request.param == "memory" else SqliteSagaStore(tmp_path / "s.db")


async def test_all_steps_are_done_and_a_finished_id_repeats_nothing(store):
    log: list[str] = []
    saga = made(store, log)
    first = await saga.run({}, id="1")
    assert first.state == "completed"
    assert sorted(log) == ["a", "b", "c", "d"]
    assert log[0] == "a"
    assert log[-1] == "d"
    assert (await saga.run({}, id="1")).state == "completed"
    assert len(log) == 4


async def test_what_was_done_is_undone_in_reverse_order(store):
    log: list[str] = []
    saga = made(store, log, fails="d")
    with pytest.raises(SagaError) as caught:
        await saga.run({}, id="1")
    assert isinstance(caught.value.__cause__, ValueError)
    assert sorted(log[4:6]) == ["-b", "-c"]
    assert log[6:] == ["-a"]
    with pytest.raises(SagaError):
        await saga.run({}, id="1")
    assert len(log) == 7


def test_one_that_was_forgotten_before_its_end_was_seen_is_waited_for_no_longer():
    async def scenario() -> None:
        store = MemorySagaStore(keep=0.001)
        saga: Saga[Any] = Saga("short", store)

        @saga.step()
        async def wait(_: Any) -> None:
            await sleep(1.0)

        async def join() -> None:
            await sleep(0.5)
            with pytest.raises(SagaError, match="forgotten"):
                await saga.run({}, id="1")

        async with anyio.create_task_group() as group:
            group.start_soon(join)
            await saga.run({}, id="1")

    simulate(scenario)


def test_declarations_are_checked():
    saga: Saga[Any] = Saga("trip", MemorySagaStore())

    @saga.step
    async def a(_: Any) -> None: ...

    with pytest.raises(ValueError, match="a step 'a' already"):
        saga.step(a)
    wrong: list[tuple[Any, type[Exception]]] = [
        ("a", TypeError),
        (7, TypeError),
        (["b"], ValueError),
        ([len], ValueError),
    ]
    for after, error in wrong:
        with pytest.raises(error, match="after"):
            saga.step(name="b", after=after)(a)
    unfit: Any = object()
    make: Any = Saga
    with pytest.raises(TypeError, match="store must be a store of sagas"):
        make("trip", unfit)
    assert repr(saga) == "Saga('trip', 1 steps)"


async def test_a_context_that_would_come_back_as_something_else_is_refused(store):
    saga = made(store, [])
    unfit: Any = {1, 2}
    with pytest.raises(TypeError, match="context must be plain data"):
        await saga.run(unfit, id="1")
    assert saga.statistics() == SagaStatistics(running=0, completed=0, failed=0)


async def test_a_stuck_one_that_another_has_taken_is_told_by_resume(store):
    """Between the look at it and the claim."""
    saga = made(store, [])
    record = filed(saga=saga.name, definition=saga._steps.plan().definition, state=SagaState.STUCK)
    journal = Journal(MSGPACK.encode({}), {})
    await store.create(msgspec.structs.replace(record, body=MSGPACK.encode(journal)), lease=60)
    with pytest.raises(SagaError, match="is stuck"):
        await saga.resume("1")


async def test_one_that_is_not_stuck_is_waited_for_by_resume(store):
    saga = made(store, [])
    await saga.run({}, id="1")
    assert (await saga.resume("1")).state == "completed"


def test_one_that_was_forgotten_before_it_was_read_is_run_again():
    class Forgetful(Delegate):
        async def create(self, filed: Filed, *, lease: float) -> bool:
            return bool(self.told.pop(0)) and await self.inner.create(filed, lease=lease)

    async def scenario() -> None:
        store = Forgetful(told=[False, True])
        log: list[str] = []
        assert (await made(store, log).run({}, id="1")).state == "completed"
        assert len(log) == 4

    simulate(scenario)


def test_one_that_is_lost_and_forgotten_is_waited_for_no_longer():
    class Lost(Delegate):
        async def save(self, filed: Filed, *, lease: float) -> bool:
            self.inner = MemorySagaStore()
            return False

    async def scenario() -> None:
        with pytest.raises(SagaError, match="forgotten"):
            await made(Lost(), []).run({}, id="1")

    simulate(scenario)


def test_a_store_that_refuses_to_file_one_calls_nothing():
    class Refusing(Delegate):
        async def create(self, filed: Filed, *, lease: float) -> bool:
            raise BackendUnavailableError("gone")

    async def scenario() -> None:
        log: list[str] = []
        with pytest.raises(BackendUnavailableError):
            await made(Refusing(), log).run({}, id="1")
        assert not log

    simulate(scenario)


async def test_a_record_that_cannot_be_read_becomes_stuck_also_when_nobody_listens():
    store = MemorySagaStore()
    saga = made(store, [])
    definition = saga._steps.plan().definition
    record = filed(saga=saga.name, definition=definition, body=b"nonsense")
    await store.create(record, lease=0)
    await saga.recover_once()
    assert [each.state for each in await saga.unfinished()] == ["stuck"]
    await store.create(msgspec.structs.replace(record, id="2"), lease=0)
    with capture_events() as events:
        await saga.recover_once()
    assert [type(each) for each in events] == [SagaStuck]


class Delegate:
    """A store in memory, some of whose answers are others."""

    def __init__(self, told: list[bool] | None = None) -> None:
        self.inner = MemorySagaStore()
        self.told = told or []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
