"""A saga: all of its steps, or what was done is undone in reverse order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import SagaError
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagasql import SqliteSagaStore
from aiopatterns.data.sagastore import MemorySagaStore
from aiopatterns.testing import simulate


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
