"""Events on the wire, and to those who watch."""

from __future__ import annotations

from typing import get_args

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.pubsub import MemoryPubSub
from aiopatterns.backends.queue import EventKind, QueueEvent
from aiopatterns.backends.queueevents import WATCH_LIFE, Watch, _unpack, pack_events
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import Trial, cancel_everywhere, simulate

events = st.builds(
    QueueEvent,
    st.sampled_from([each for each in get_args(EventKind) if each != "gap"]),
    st.text(min_size=1, max_size=9).filter(lambda name: name.isprintable()),
    st.binary(max_size=9),
)


@given(st.lists(events))
def test_what_is_packed_is_read(some):
    assert list(_unpack(pack_events(some))) == some


def test_the_wire_format_stays():
    message = pack_events([QueueEvent("queued", "a"), QueueEvent("dead", "é", b"why")])
    assert message == b"\x01\x00\x01\x00\x00\x00\x00a\x06\x00\x02\x00\x00\x00\x03\xc3\xa9why"


class Rig:
    """A watch over a channel of its own, and how it told that it watches."""

    def __init__(self) -> None:
        self.home = MemoryHome()
        self.pubsub = MemoryPubSub(self.home)
        self.told = 0
        self.refuses = False
        self.home.enter()
        self.watch = Watch(self.pubsub, "events", self.keep)

    async def keep(self) -> None:
        if self.refuses:
            raise BackendUnavailableError("away")
        self.told += 1

    def tell(self, *some: QueueEvent) -> None:
        self.pubsub.publish_nowait("events", pack_events(some))


async def test_events_come_in_order():
    rig = Rig()
    async with rig.watch as watch:
        rig.tell(QueueEvent("queued", "a"), QueueEvent("started", "a"))
        rig.tell(QueueEvent("done", "a"))
        assert [(await anext(watch)).kind for _ in range(3)] == ["queued", "started", "done"]
    assert rig.told == 1


def test_who_waits_goes_on_saying_so():
    async def scenario() -> None:
        rig = Rig()
        async with rig.watch as watch, anyio.create_task_group() as group:
            group.start_soon(anext, watch)
            await sleep(16.0)
            assert rig.told == 4
            group.cancel_scope.cancel()

    simulate(scenario)


def test_who_reads_too_late_is_told_of_a_gap():
    async def scenario() -> None:
        rig = Rig()
        async with rig.watch as watch:
            rig.tell(QueueEvent("queued", "a"))
            await sleep(WATCH_LIFE)
            assert [(await anext(watch)).kind for _ in range(2)] == ["gap", "queued"]

    simulate(scenario)


async def test_an_overflow_is_a_gap():
    rig = Rig()
    async with rig.watch as watch:
        for n in range(1_001):
            rig.tell(QueueEvent("queued", f"j{n}"))
        await sleep(0.0)
        await sleep(0.001)
        assert (await anext(watch)).kind == "gap"
        assert (await anext(watch)).id == "j1"


async def test_iterating_is_by_async_for():
    rig = Rig()
    async with rig.watch as watch:
        rig.tell(QueueEvent("progress", "a", b"0.5"))
        async for event in watch:
            assert event == QueueEvent("progress", "a", b"0.5")
            break


async def test_closing_the_backend_ends_the_iteration():
    rig = Rig()
    async with rig.watch as watch:
        rig.home.leave()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_a_watch_that_cannot_be_told_of_does_not_stay_open():
    rig = Rig()
    rig.refuses = True
    with pytest.raises(BackendUnavailableError):
        async with rig.watch:
            raise AssertionError("entered")
    assert rig.pubsub.publish_nowait("events", b"") == 0


def test_a_cancelled_reader_loses_nothing():
    def scenario() -> Trial:
        rig = Rig()

        async def work() -> None:
            async with rig.watch as watch:
                with anyio.move_on_after(0.1):
                    await anext(watch)
                rig.tell(QueueEvent("done", "a"))
                assert (await anext(watch)).id == "a"

        return Trial(work())

    cancel_everywhere(scenario, minimum=1)
