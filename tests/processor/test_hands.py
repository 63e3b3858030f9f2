from __future__ import annotations

import os
import signal

import anyio
import pytest

from aiopatterns.core.errors import WorkerCrashedError
from aiopatterns.jobs import ChildCrashed
from aiopatterns.jobs import child as module
from aiopatterns.processor import hands
from aiopatterns.processor.hands import Hands
from aiopatterns.testing import capture_events
from tests.jobs.fleet import on_one_loop
from tests.processor.chaos import children, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(50)]


@on_one_loop
async def test_processes_are_replaced_and_end_with_the_block(redis_url, capfd):
    with capture_events() as events:
        async with Hands(redis_url, 2) as some:

            async def two() -> bool:
                return len(some.statistics().pids) == 2

            await until(two)
            victim = some.statistics().pids[0]
            os.kill(victim, signal.SIGKILL)

            async def replaced() -> bool:
                return await two() and victim not in some.statistics().pids

            await until(replaced)
            figures = some.statistics()
            assert (figures.processes, figures.restarts) == (2, 1)
        assert not children()
    assert [each.code for each in events if isinstance(each, ChildCrashed)] == [-signal.SIGKILL]
    assert capfd.readouterr() == ("", "")


@on_one_loop
async def test_a_process_that_does_not_obey_is_killed(redis_url, monkeypatch):
    monkeypatch.setattr("aiopatterns.processor.hands.MARGIN", -0.9)
    async with Hands(redis_url, 1):

        async def one() -> bool:
            return bool(children())

        await until(one)
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
    assert not children()


@on_one_loop
async def test_a_block_that_fails_leaves_none(redis_url, monkeypatch):
    monkeypatch.setattr(module, "MARGIN", 1.0)
    with pytest.raises(KeyError):
        async with Hands(redis_url, 1):
            await anyio.sleep(0.01)
            raise KeyError
    assert not children()


@on_one_loop
async def test_processes_that_cannot_work_end_the_block_by_an_error(monkeypatch):
    monkeypatch.setattr(hands, "_HOPELESS", 2)
    monkeypatch.setattr(hands, "_LOOK", 0.05)
    with pytest.raises(WorkerCrashedError, match="no worker process stays alive: each has ended"):
        async with Hands("nonsense://", 1):  # which no child can open
            await anyio.sleep(30)
    assert not children()
