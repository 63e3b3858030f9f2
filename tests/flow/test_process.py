"""The parent's view of one worker process, with a process and a connection that are fakes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from typing import Any

import pytest

from aiopatterns.core.clock import yield_now
from aiopatterns.flow.child import HEADER, _framed
from aiopatterns.flow.process import WorkerProcess, processors, start_methods
from aiopatterns.testing import Trial, cancel_everywhere


class FakeProcess:
    def __init__(self, exitcode=-9):
        self.exitcode = exitcode
        self.log = []

    def start(self):
        self.log.append("start")

    def kill(self):
        self.log.append("kill")

    def join(self, timeout):
        self.log.append("join")


def fake_process(exitcode: int | None = -9) -> Any:
    return FakeProcess(exitcode)


class FakeTransport:
    def __init__(self):
        self.log = []

    def write(self, data):
        self.log.append(data)

    def write_eof(self):
        self.log.append("eof")

    def abort(self):
        self.log.append("abort")


def reply(value, *, done=True):
    return memoryview(_framed((done, value)))[HEADER.size :]


@pytest.fixture
def made():
    buried: list[object] = []
    worker = WorkerProcess(ended=buried.append)
    process, transport = fake_process(), FakeTransport()
    worker.connected(transport)
    worker.start(process)
    return worker, process, transport, buried


async def test_an_answer_reaches_the_call(made):
    worker, _, transport, _ = made
    call = asyncio.get_running_loop().create_task(worker.answer(b"call"))
    await yield_now()
    await yield_now()
    assert transport.log == []
    worker.answered(reply(None))
    await yield_now()
    await yield_now()
    assert transport.log == [b"call"]
    worker.answered(memoryview(b"answer"))
    assert await call == b"answer"
    assert worker.takes(None)
    assert worker.takes(2)
    assert not worker.takes(1)
    assert transport.log[-1] == "eof"


async def test_a_death_under_a_call_is_none(made):
    worker, process, _, buried = made
    worker.answered(reply(None))
    call = asyncio.get_running_loop().create_task(worker.answer(b"call"))
    await yield_now()
    await yield_now()
    worker.lost()
    assert await call is None
    assert process.log == ["start", "kill", "join"]
    assert worker.ending == "was killed by signal 9"
    assert buried == [worker]
    assert not worker.takes(None)
    assert await worker.answer(b"other") is None
    await worker.gone()


async def test_an_initializer_that_failed_is_raised(made):
    worker, _, transport, _ = made
    worker.answered(reply(LookupError("no licence"), done=False))
    with pytest.raises(LookupError, match="no licence"):
        await worker.answer(b"call")
    assert transport.log == ["abort"]


async def test_hanging_up(made):
    worker, process, transport, _ = made
    worker.hang_up()
    assert process.log == ["start", "kill"]
    worker.hang_up()
    assert transport.log == ["abort"]
    waiting = asyncio.get_running_loop().create_task(worker.gone())
    await waiting


async def test_waiting_for_one_that_leaves(made):
    worker, _, transport, _ = made
    worker.answered(reply(None))
    worker.hang_up()
    assert transport.log == ["eof"]
    waiting = asyncio.get_running_loop().create_task(worker.gone())
    await yield_now()
    await yield_now()
    assert not waiting.done()
    worker.lost()
    await waiting


def test_dismissed_before_it_was_started():
    worker = WorkerProcess(ended=lambda _: None)
    worker.dismiss()
    process = fake_process()
    worker.start(process)
    assert process.log == []
    worker.bury()
    assert worker.ending == "did not start"


def test_dismissed_while_it_was_being_started():
    worker = WorkerProcess(ended=lambda _: None)
    process = fake_process(exitcode=None)
    process.start = worker.dismiss
    worker.start(process)
    assert process.log == ["kill", "join"]
    assert worker.ending == "did not end"


def test_a_connection_made_too_late_is_closed_at_once():
    worker = WorkerProcess(ended=lambda _: None)
    worker.dismiss()
    transport = FakeTransport()
    worker.connected(transport)
    assert transport.log == ["abort"]


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_ctrl_c_is_held_back_while_a_process_is_started(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    masks = []
    process = fake_process()
    process.start = lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    WorkerProcess(ended=lambda _: None).start(process)
    assert masks == [before | ({signal.SIGINT} if system == "linux" else set())]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_how_it_died_is_told():
    worker = WorkerProcess(ended=lambda _: None)
    worker.start(fake_process(exitcode=3))
    worker.answered(reply(None))
    worker.lost()
    assert worker.death("resize") == "the worker process ended with exit code 3 under resize"
    unborn = WorkerProcess(ended=lambda _: None)
    unborn.start(fake_process(exitcode=1))
    unborn.lost()
    assert "for resize ended with exit code 1 before it took calls: " in unborn.death("resize")
    killed = WorkerProcess(ended=lambda _: None)
    killed.start(fake_process())
    killed.lost()
    assert killed.death("resize").endswith("was killed by signal 9 before it took calls")


def test_exit_codes_are_told():
    worker = WorkerProcess(ended=lambda _: None)
    worker.start(fake_process(exitcode=3))
    worker.lost()
    assert worker.ending == "ended with exit code 3"


def scenario():
    loop = asyncio.get_running_loop()
    worker = WorkerProcess(ended=lambda _: None)
    process: Any = fake_process()
    transport: Any = FakeTransport()
    worker.connected(transport)
    worker.start(process)
    sent: list[object] = []

    def write(data):
        transport.log.append(data)
        loop.call_soon(worker.answered, memoryview(b"answer"))

    transport.write = write

    async def work():
        loop.call_soon(worker.answered, reply(None))
        sent.append(await worker.answer(b"call"))

    def check():
        if not sent and transport.log:
            assert transport.log == [b"call", "abort"], "a call under way was abandoned, not killed"
            assert "kill" in process.log
        elif not sent:
            assert worker.takes(None)

    return Trial(work(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_cancelled_anywhere_it_is_used_again_or_killed():
    cancel_everywhere(scenario, minimum=2)


def test_processors_are_counted_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


def test_spawn_where_there_is_no_fork_server(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn", "forkserver"])
    assert start_methods() == ("forkserver", "spawn")
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert start_methods() == ("spawn",)
