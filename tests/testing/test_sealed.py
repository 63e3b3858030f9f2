from __future__ import annotations

import asyncio
import signal
import socket

import anyio
import pytest

from aiopatterns.testing import RealWorldError, SimLoop, SimulationError, simulate
from aiopatterns.testing.sealed import REFUSED


def refused(name):
    return pytest.raises(RealWorldError, match=rf"loop\.{name} needs the real world.*mark\.real")


def test_every_method_that_reaches_outside_is_refused():
    loop = SimLoop()
    for name in REFUSED:
        assert hasattr(asyncio.AbstractEventLoop, name)
        with refused(name):
            getattr(loop, name)(1, two=2)
    loop.close()
    assert issubclass(RealWorldError, SimulationError)


def test_no_method_that_reaches_outside_is_forgotten():
    ours = {
        "call_at", "call_exception_handler", "call_later", "call_soon", "call_soon_threadsafe",
        "close", "create_future", "create_task", "default_exception_handler", "get_debug",
        "get_exception_handler", "get_task_factory", "is_closed", "is_running", "run_forever",
        "run_in_executor", "run_until_complete", "set_debug", "set_default_executor",
        "set_exception_handler", "set_task_factory", "shutdown_asyncgens",
        "shutdown_default_executor", "stop", "time",
    }  # fmt: skip
    public = {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")}
    assert public == ours | set(REFUSED)


def test_sockets_processes_and_signals_give_the_one_clear_error():
    async def scenario():
        loop = asyncio.get_running_loop()
        with refused("create_connection"):
            await asyncio.open_connection("127.0.0.1", 1)
        with refused("create_server"):
            await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        with refused("getaddrinfo"):
            await anyio.getaddrinfo("localhost", 1)
        with refused("subprocess_exec"):
            await anyio.run_process(["true"])
        with refused("add_signal_handler"), anyio.open_signal_receiver(signal.SIGTERM):
            pass
        with socket.socket() as plain:
            plain.setblocking(False)
            with refused("sock_connect"):
                await loop.sock_connect(plain, ("127.0.0.1", 1))
            with refused("add_reader"):
                await anyio.wait_readable(plain)

    simulate(scenario)


def test_a_call_from_another_thread_needs_no_waking():
    async def scenario():
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        loop.call_soon_threadsafe(called.set)
        await called.wait()

    simulate(scenario)
