from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.core.clock import sleep
from aiopatterns.gateway.pump import Pump
from aiopatterns.testing import Trial, cancel_everywhere, simulate


class Sink:
    """Takes so many chunks, then no more until the test opens it."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.writable = True
        self.data: list[bytes] = []
        self.opened = anyio.Event()
        self.ends: list[object] = []
        self.gives_up: Callable[[], object] = list

    def put(self, data: bytes) -> None:
        self.data.append(data)
        self.writable = len(self.data) < self.room

    async def drained(self) -> None:
        await self.opened.wait()
        self.writable = True

    def sent(self) -> None:
        self.ends.append("sent")

    def late(self) -> None:
        self.ends.append("late")
        self.gives_up()

    def spoilt(self, error: Exception) -> None:
        self.ends.append(error)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await sleep(0)
        yield part


@pytest.mark.parametrize(
    ("chunked", "wire"),
    [
        (False, b"he" + b"x" * 16),
        (True, b"2\r\nhe\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_is_written_to_its_end(chunked: bool, wire: bytes):
    sink = Sink()
    pump = Pump(sink, chunks(b"he", b"x" * 16), chunked=chunked, idle=60)
    await pump.run()
    await pump.settled()
    assert b"".join(sink.data) == wire
    assert sink.ends == ["sent"]


async def test_no_chunk_is_read_while_the_service_takes_none():
    read: list[int] = []

    async def counted() -> AsyncIterator[bytes]:
        for number in range(5):
            read.append(number)
            yield b"x"

    sink = Sink(room=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Pump(sink, counted(), chunked=False, idle=60).run)
        await wait_all_tasks_blocked()
        assert read == [0, 1]
        sink.room = 1000
        sink.opened.set()
    assert read == [0, 1, 2, 3, 4]
    assert sink.ends == ["sent"]


def test_a_service_that_takes_nothing_is_late():
    async def scenario() -> None:
        sink = Sink(room=1)
        pump = Pump(sink, chunks(b"one", b"two"), chunked=False, idle=2)
        sink.gives_up = pump.cancel
        with anyio.fail_after(10):
            await pump.run()
        assert anyio.current_time() == 2.0
        assert sink.ends == ["late"]
        assert sink.data == [b"one"]

    simulate(scenario)


async def test_a_body_that_breaks_spoils_the_request():
    error = LookupError("the client has gone")

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise error

    sink = Sink()
    await Pump(sink, broken(), chunked=True, idle=60).run()
    assert sink.data == [b"4\r\nhalf\r\n"]  # and no end, which would make it look whole
    assert sink.ends == [error]


async def test_cancelled_it_reads_no_more():
    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        await anyio.sleep_forever()

    sink = Sink()
    pump = Pump(sink, endless(), chunked=True, idle=60)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump.run)
        await wait_all_tasks_blocked()
        pump.cancel()
        await pump.settled()
    assert sink.ends == []
    assert sink.data == [b"3\r\none\r\n"]


def test_cancelled_anywhere_a_body_never_looks_whole():
    def scenario() -> Trial:
        sink = Sink()
        pump = Pump(sink, chunks(b"one", b"two", b"three"), chunked=True, idle=60)

        async def check() -> None:
            await pump.settled()
            assert (sink.ends == ["sent"]) == (sink.data[-1:] == [b"0\r\n\r\n"])

        return Trial(pump.run(), check)

    cancel_everywhere(scenario, minimum=3)
