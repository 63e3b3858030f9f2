"""Recovery: what other processes leave is brought to its end, by one of those that are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendUnavailableError, ConflictError
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagaevents import (
    SagaMigrationNeeded,
    SagaRecoveryInterrupted,
    SagaRecoveryResumed,
    SagaTakenOver,
)
from aiopatterns.data.sagajournal import SagaState
from aiopatterns.data.sagastore import MemorySagaStore
from aiopatterns.testing import capture_events, simulate
from tests.data.sagaplaces import PLACES, filed, opened
from tests.data.sagaprocess import POINTS, STEPS, trip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]


def saga_of(store: Any, log: list[str], *, version: int = 1, seconds: float = 0.0) -> Saga[Any]:
    saga: Saga[Any] = Saga("trip", store, version=version, lease=1)

    async def undo(_: Any) -> None:
        log.append("undone")
        await sleep(seconds)

    @saga.step(compensate=undo)
    async def pay(_: Any) -> None:
        log.append("paid")

    return saga


async def abandon(saga: Saga[Any], store: Any, id: str = "1") -> None:
    """Leave a saga as a process does that dies in its first step."""
    run_of = saga._new(saga._steps.plan(), {}, id)
    journal = run_of[1]
    journal.start("pay")

    record = msgspec.structs.replace(run_of[0], body=MSGPACK.encode(journal))
    assert await store.create(record, lease=0)


@pytest.fixture(params=PLACES)
async def store(request, tmp_path) -> AsyncIterator[Any]:
    async with opened(request, tmp_path) as found:
        yield found


@pytest.mark.real
@pytest.mark.promise("data-saga-crash")
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_another_process_goes_on(tmp_path, point):
    path, log = str(tmp_path / "sagas.db"), tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "tests.data.sagaprocess", path, str(log), point]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9

    async def recover() -> None:
        other = trip(path, str(log), "-")
        await anyio.sleep(0.06)
        assert (await other.recover_once()).compensated == ("1",)
        found = await other.find("1")
        assert found is not None
        assert found.state is SagaState.COMPENSATED

    anyio.run(recover)
    lines = log.read_text().split()
    done = [each for each in STEPS if each in lines]
    undone = list(dict.fromkeys(each for each in lines if each.startswith("-")))
    known = [each for each in undone if each[1:] in done]
    wanted = [f"-{each}" for each in reversed(done)]
    # The last step says for sure that it has failed where a compensation is the point.
    assert known == [each for each in wanted if each != "-c" or "-" not in point]


async def test_the_loop_ends_what_was_left(store):
    log: list[str] = []
    saga = saga_of(store, log)
    await abandon(saga, store)
    with capture_events() as events:
        async with saga.recovery(interval=0.01) as recovery:
            while not recovery.statistics().compensated:
                await sleep(0.005)
    assert log == ["undone"]
    assert [each.id for each in events if isinstance(each, SagaTakenOver)] == ["1"]
    assert recovery.statistics().running == 0


async def test_of_two_loops_one_gets_it(store):
    log: list[str] = []
    saga = saga_of(store, log)
    for each in range(5):
        await abandon(saga, store, str(each))
    async with anyio.create_task_group() as group:
        group.start_soon(saga.recover_once)
        group.start_soon(saga.recover_once)
    assert log == ["undone"] * 5
    assert not await saga.unfinished()


async def test_sagas_of_other_steps_are_left_alone_and_told(store):
    log: list[str] = []
    older, newer = saga_of(store, log), saga_of(store, log, version=2)
    await abandon(older, store)
    assert (await newer.recover_once()).needs_migration == ("1",)
    with pytest.raises(ConflictError):
        await newer.run({}, id="1")
    with capture_events() as events:
        async with newer.recovery(interval=0.01):
            while not any(isinstance(each, SagaMigrationNeeded) for each in events):
                await sleep(0.005)
    assert log == []


async def test_a_record_that_cannot_be_read_becomes_stuck(store):
    saga = saga_of(store, [])
    definition = saga._steps.plan().definition
    await store.create(filed(definition=definition, body=b"\xc1"), lease=0)
    await saga.recover_once()
    assert [each.state for each in await saga.unfinished()] == [SagaState.STUCK]


async def test_who_asks_for_an_id_takes_it_over(store):
    log: list[str] = []
    saga = saga_of(store, log)
    await abandon(saga, store)
    with pytest.raises(Exception, match="was compensated"):
        await saga.run({}, id="1")
    assert log == ["undone"]


class Outage:
    """A store that does not answer while it is told so."""

    def __init__(self) -> None:
        self.inner = MemorySagaStore()
        self.down = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def due(self, *given: Any, **options: Any) -> list[str]:
        if self.down:
            raise BackendUnavailableError("down")
        return await self.inner.due(*given, **options)


def test_an_outage_is_told_once_and_survived():
    async def scenario() -> None:
        store: Any = Outage()
        saga = saga_of(store, [])
        await abandon(saga, store)
        with capture_events() as events:
            async with saga.recovery(interval=1) as recovery:
                await sleep(30)
                assert recovery.statistics().interrupted
                store.down = False
                await sleep(30)
                assert recovery.statistics().compensated == 1
                assert not recovery.statistics().interrupted
        kinds = [type(each) for each in events]
        assert kinds.count(SagaRecoveryInterrupted) == 1
        assert kinds.count(SagaRecoveryResumed) == 1

    simulate(scenario)


def test_an_outage_is_survived_also_when_nobody_listens():
    class Failing:
        """A store that can be down."""

        def __init__(self) -> None:
            self.inner, self.down = MemorySagaStore(), False

        def __getattr__(self, name: str) -> Any:
            if self.down:
                raise BackendUnavailableError("down")
            return getattr(self.inner, name)

    async def scenario() -> None:
        store = Failing()
        saga = saga_of(store, [], seconds=5)
        await abandon(saga, store)
        async with saga.recovery(interval=1) as recovery:
            await sleep(2)
            store.down = True  # while one is being undone
            await sleep(60)
            assert recovery.statistics().pending == 1
            store.down = False
            await sleep(60)
            assert recovery.statistics().compensated == 1

    simulate(scenario)


@pytest.mark.parametrize("by_error", [False, True])
def test_leaving_gives_everything_back(by_error):
    async def scenario() -> None:
        store, log = MemorySagaStore(), list[str]()
        saga = saga_of(store, log, seconds=5)
        await abandon(saga, store)
        try:
            async with saga.recovery(interval=1):
                await sleep(2)
                if by_error:
                    raise ValueError
        except ValueError:
            pass
        assert log == ["undone"]
        report = await saga.recover_once()
        assert len(report.compensated) == 1
        assert not await saga.unfinished()
        assert len(log) == (2 if by_error else 1)

    simulate(scenario)


def test_bad_input_is_refused():
    saga = saga_of(MemorySagaStore(), [])
    with pytest.raises(ValueError, match="interval"):
        saga.recovery(interval=0)
    with pytest.raises(ValueError, match="limit"):
        saga.recovery(limit=0)
    with pytest.raises(ValueError, match="lease"):
        saga.recovery(lease=0)
