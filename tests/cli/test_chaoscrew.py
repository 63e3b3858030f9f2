from __future__ import annotations

import sys

import anyio
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.cli import chaoscrew
from aiopatterns.cli.chaoscrew import ProcessPlace, TaskPlace
from aiopatterns.cli.chaosjobs import Ledger, define
from aiopatterns.core.clock import sleep


async def test_a_task_that_is_killed_hands_its_jobs_to_the_next(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    backend = open_backend("memory://")
    queue = define(backend, ledger.path)
    place = TaskPlace(backend, ledger.path, 7)
    async with queue, anyio.create_task_group() as tasks:
        await queue.enqueue_many([queue.jobs["work"].job(each, 0.05) for each in range(3)])
        tasks.start_soon(place.run)
        await sleep(0.02)
        assert place.kill()
        while len(ledger.ended) < 3:
            await sleep(0.05)
            ledger.look()
        tasks.cancel_scope.cancel()
    assert place.marks == [7]
    assert ledger.by[7] >= 3


@pytest.mark.real
async def test_a_process_that_is_killed_has_a_successor_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(chaoscrew, "_COMMAND", (sys.executable, "-S", "-c", "input()"))
    with (tmp_path / "log").open("ab") as log:
        place = ProcessPlace("unix:///nowhere", tmp_path / "ledger", log)
        assert not place.kill()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.run)
            while not place.marks:
                await sleep(0.01)
            assert place.kill()
            while len(place.marks) < 2:
                await sleep(0.01)
            tasks.cancel_scope.cancel()
        assert not place.kill()
    first, second = place.marks
    assert first != second


@pytest.mark.real
async def test_a_process_that_cannot_begin_is_not_started_all_the_time(monkeypatch, tmp_path):
    monkeypatch.setattr(chaoscrew, "_COMMAND", (sys.executable, "-S", "-c", "print('no')"))
    with (tmp_path / "log").open("ab") as log:
        place = ProcessPlace("unix:///nowhere", tmp_path / "ledger", log)
        with anyio.move_on_after(0.5):
            await place.run()
    assert len(place.marks) == 1
    assert (tmp_path / "log").read_text() == "no\n"
