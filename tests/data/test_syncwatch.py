"""A watch: goes on synchronising, outlives outages, and rests when there is nothing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.data import LastWriteWins
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.sync import Synchronizer, SyncProgress
from aiopatterns.data.syncevents import SyncInterrupted, SyncResumed
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, simulate
from tests.data.syncplaces import Frail, assert_equal, filled, values

if TYPE_CHECKING:
    from aiopatterns.data.syncwatch import SyncWatch

LAST = LastWriteWins()


class Line:
    """What may be cut: as the fault of a store."""

    def __init__(self) -> None:
        self.cut = False
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.cut:
            raise BackendUnavailableError("the line is cut")


async def until_equal(left: MemorySyncStore, right: MemorySyncStore) -> None:
    with anyio.fail_after(60):
        while await values(left) != await values(right):
            await sleep(0.005)


@pytest.mark.promise("data-sync-watch")
async def test_what_is_written_comes_over_without_waiting_for_the_interval():
    left, right = await filled("left", a=1), MemorySyncStore("right")
    async with Synchronizer(left, right, strategy=LAST).watch(interval=3_600) as watch:
        await until_equal(left, right)
        await left.put("b", 2)
        await until_equal(left, right)
        await right.put("c", 3)
        await until_equal(left, right)
        assert await values(left) == {"a": 1, "b": 2, "c": 3}
        figures = watch.statistics()
        assert (figures.pushed, figures.pulled, figures.interrupted) == (2, 1, False)
    assert watch.state is OwnerState.STOPPED


async def test_what_was_written_in_the_block_is_on_the_other_side_after_it():
    left, right = MemorySyncStore("left"), MemorySyncStore("right")
    watch = Synchronizer(left, right, strategy=LAST).watch("push", interval=3_600)
    for number in range(3):
        async with watch:
            await left.put(f"k{number}", number)
        await assert_equal(left, right)
    assert watch.name == "left and right"


def test_the_interval_finds_what_others_have_written():
    async def scenario() -> None:
        left, right = await filled("left", a=1), MemorySyncStore("right")
        far = Frail(right, lambda: None)  # another process writes to the same place
        async with Synchronizer(left, far, strategy=LAST).watch(interval=10):
            await sleep(1)
            await right.put("b", 2)
            await sleep(5)
            assert "b" not in await values(left)
            await sleep(10)
            assert await values(left) == {"a": 1, "b": 2}

    simulate(scenario)


@pytest.mark.promise("data-sync-watch")
def test_two_stores_that_are_equal_are_at_rest():
    async def scenario() -> None:
        line = Line()
        left, right = await filled("left", a=1), Frail(await filled("right", b=2), line)
        async with Synchronizer(left, right, strategy=LAST).watch(interval=1_000_000) as watch:
            await sleep(10)
            calls, runs = line.calls, watch.statistics().runs
            assert runs <= 3
            await sleep(900_000)
            assert (line.calls, watch.statistics().runs) == (calls, runs)

    simulate(scenario)


@pytest.mark.promise("data-sync-watch")
def test_an_outage_is_outlived_and_told_once():
    async def scenario() -> None:
        line = Line()
        left, inner = await filled("left", a=1), MemorySyncStore("right")
        sync = Synchronizer(left, Frail(inner, line), strategy=LAST)
        with capture_events() as events:
            async with sync.watch(interval=5) as watch:
                await sleep(1)
                line.cut, line.calls = True, 0
                await left.put("b", 2)
                await sleep(600)
                assert watch.statistics().interrupted
                assert 100 < line.calls < 700  # it goes on asking, and does not run hot
                line.cut = False
                await sleep(10)
                assert not watch.statistics().interrupted
                await assert_equal(left, inner)
        assert events == [
            SyncInterrupted("left and right", "the line is cut"),
            SyncResumed("left and right"),
        ]

    simulate(scenario)


def test_writes_during_an_outage_do_not_shorten_the_pauses():
    async def scenario() -> None:
        line = Line()
        line.cut = True
        left = MemorySyncStore("left")
        sync = Synchronizer(left, Frail(MemorySyncStore("right"), line), strategy=LAST)
        async with sync.watch(interval=60) as watch:
            await sleep(100)
            assert watch.statistics().interrupted
            line.calls = 0
            for number in range(100):
                await left.put("k", number)
                await sleep(0.1)
            assert line.calls <= 2
            line.cut = False
            await sleep(100)
            assert not watch.statistics().interrupted

    simulate(scenario)


def test_it_ends_also_during_an_outage():
    async def scenario() -> float:
        line = Line()
        line.cut = True
        sync = Synchronizer(
            MemorySyncStore("left"), Frail(MemorySyncStore("right"), line), strategy=LAST
        )
        async with sync.watch(interval=60):
            await sleep(100)
            start = monotonic()
        return monotonic() - start

    assert simulate(scenario) < 1


async def test_an_error_that_is_no_outage_ends_the_block():
    def fail(_: SyncProgress) -> None:
        raise ZeroDivisionError("a bug")

    left, right = await filled("left", a=1), MemorySyncStore("right")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        async with Synchronizer(left, right, strategy=LAST, progress=fail).watch():
            await anyio.sleep_forever()


async def test_leaving_by_an_error_stops_at_once():
    left, right = MemorySyncStore("left"), MemorySyncStore("right")
    with pytest.raises(RuntimeError, match="mine"):
        async with Synchronizer(left, right, strategy=LAST).watch():
            raise RuntimeError("mine")


async def test_conflicts_and_quarantine_are_counted():
    left, right = await filled("left", a=1), await filled("right", a=2)
    async with Synchronizer(left, right, strategy=LAST).watch() as watch:
        await until_equal(left, right)
    assert watch.statistics().conflicts == 1
    assert watch.statistics().quarantined == 0


def test_it_is_an_owner():
    watch: SyncWatch = Synchronizer(
        MemorySyncStore("left"), MemorySyncStore("right"), strategy=LAST
    ).watch()
    assert watch.state is OwnerState.CREATED
    with pytest.raises(ClosedError):
        watch._open_group()


@pytest.mark.promise("data-sync-cancel")
def test_a_watch_that_is_cancelled_at_any_await_leaves_nothing_behind():
    def scenario() -> Trial:
        stores: list[Any] = []

        async def work() -> None:
            left, right = await filled("left", a=1), await filled("right", b=2)
            stores.extend((left, right))
            async with Synchronizer(left, right, strategy=LAST).watch(interval=1):
                await sleep(0.1)
                await left.put("c", 3)

        async def check() -> None:
            if stores:
                await Synchronizer(*stores, strategy=LAST).run()
                await assert_equal(*stores)

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=5)
