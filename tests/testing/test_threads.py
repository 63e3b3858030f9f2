from __future__ import annotations

import asyncio
import threading

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio._backends._asyncio import AsyncIOBackend

from aiopatterns.testing import explore, simulate
from aiopatterns.testing.threads import ENTRY


def test_a_thread_call_of_anyio_runs_inline():
    async def scenario():
        def name(prefix):
            return prefix + threading.current_thread().name

        assert await anyio.to_thread.run_sync(name, "in ") == "in MainThread"
        with pytest.raises(ZeroDivisionError):
            await anyio.to_thread.run_sync(lambda: 1 / 0)

    explore(scenario, range(20))


def test_the_limiter_is_respected():
    async def scenario():
        limiter = anyio.CapacityLimiter(1)
        limiter.acquire_on_behalf_of_nowait("somebody")
        with anyio.move_on_after(5) as scope:
            await anyio.to_thread.run_sync(print, limiter=limiter)
        assert scope.cancelled_caught
        limiter.release_on_behalf_of("somebody")
        await anyio.to_thread.run_sync(lambda: None, limiter=limiter)
        assert limiter.borrowed_tokens == 0

    explore(scenario, range(20))


def test_a_call_is_shielded_unless_it_may_be_abandoned():
    async def scenario():
        loop = asyncio.get_running_loop()
        ran: list[str] = []
        with anyio.CancelScope() as scope:
            loop.call_soon(scope.cancel)
            await anyio.to_thread.run_sync(ran.append, "kept")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.to_thread.run_sync(ran.append, "given up", abandon_on_cancel=True)
        return ran

    for seed in range(20):
        ran = simulate(scenario, seed)
        assert ran in (["kept"], [])  # cancelled before its turn, or kept until it was over


def test_a_call_back_into_the_loop_is_refused():
    async def scenario():
        with pytest.raises(RuntimeError, match="Not running inside an AnyIO worker thread"):
            await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 0)

    simulate(scenario)


def test_other_loops_have_threads_as_before():
    async def thread_name():
        return await anyio.to_thread.run_sync(lambda: threading.current_thread().name)

    async def scenario():
        # The inline "thread" runs a real loop of its own, whose thread calls are real.
        return await asyncio.to_thread(lambda: asyncio.run(thread_name()))

    assert "MainThread" not in simulate(scenario)


def test_anyio_is_left_as_it_was():
    before = AsyncIOBackend.__dict__[ENTRY]

    async def scenario():
        assert AsyncIOBackend.__dict__[ENTRY] is not before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        simulate(scenario)
    assert AsyncIOBackend.__dict__[ENTRY] is before
