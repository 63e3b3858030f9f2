from __future__ import annotations

import asyncio
import threading

import pytest

from aiopatterns.backends.errand import Errand
from aiopatterns.testing import Trial, cancel_everywhere


async def test_what_a_call_returns_or_raises():
    assert await Errand(divmod, 7, 2).run() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await Errand(divmod, 7, 0).run()


@pytest.mark.real
async def test_a_call_that_has_begun_is_waited_for():
    started, go = threading.Event(), threading.Event()
    done: list[int] = []

    def slow() -> None:
        started.set()
        assert go.wait(10)
        done.append(1)

    task = asyncio.create_task(Errand(slow).run())
    while not started.is_set():
        await asyncio.sleep(0.001)
    threading.Timer(0.1, go.set).start()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


def test_a_call_that_has_not_begun_never_does():
    ran: list[int] = []

    async def work() -> None:
        given_up = Errand(ran.append, 2)
        running = given_up.run()
        running.send(None)
        with pytest.raises(ValueError, match="stop"):
            running.throw(ValueError("stop"))
        given_up._call()

    asyncio.run(work())
    assert ran == []


def test_cancellation_anywhere_leaves_nothing_running():
    def scenario() -> Trial:
        calls: list[int] = []
        seen: list[int] = []

        async def work() -> None:
            try:
                for each in range(3):
                    await Errand(calls.append, each).run()
            finally:
                seen.append(len(calls))

        def check() -> None:
            assert seen == [len(calls)]

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=3)
