from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest

from aiopatterns.backends.memory.queue import MemoryQueue
from aiopatterns.backends.opening import open_backend
from aiopatterns.cli import chaos, chaoscrew
from aiopatterns.cli.chaos import ChaosAct
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import simulate
from tests.jobs.fleet import on_one_loop


@pytest.mark.parametrize("seed", [0, 1])
def test_in_memory_nothing_is_lost_either(seed):
    act = ChaosAct(jobs=300, every=0.5, seed=seed, memory=True)
    simulate(act.run, seed=seed)
    facts: dict[str, Any] = {**act.facts()}
    assert act.well()
    assert (facts["done"], facts["lost"], facts["store"]) == (300, 0, "memory")
    assert facts["workers_killed"]
    assert facts["redis_killed"] == 0
    told = act.scene()
    assert [each.label for each in told.bars] == ["done", *(f"worker {n}" for n in range(1, 5))]
    assert "cancelled instead of killed" in told.notes[0]
    assert "300 of 300 jobs done, 0 lost" in act.ending()


def test_what_takes_too_long_is_no_success():
    act = ChaosAct(jobs=300, every=0.5, within=0.3, memory=True)
    simulate(act.run)
    assert not act.well()


@pytest.mark.parametrize("error", [BackendUnavailableError("none installed"), ImportError("redis")])
def test_where_there_is_no_redis_it_is_played_in_memory(monkeypatch, error):
    def refuse(**_):
        raise error

    monkeypatch.setattr(chaos, "RedisServer", refuse)
    act = ChaosAct(jobs=10)
    simulate(act.run)
    assert act.well()
    assert act.facts()["store"] == "memory"


def test_without_the_extra_it_is_played_in_memory_too(monkeypatch):
    """A server program is there, and no client of it."""
    opened = open_backend

    def refuse(url):
        if url.startswith("unix"):
            raise ImportError("unix:// needs redis")
        return opened(url)

    class Server:
        url = "unix:///socket"

        def __init__(self, **_: object) -> None:
            """Need nothing."""

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            return None

    monkeypatch.setattr(chaos, "open_backend", refuse)
    monkeypatch.setattr(chaos, "RedisServer", Server)
    act = ChaosAct(jobs=10)
    simulate(act.run)
    assert act.well()
    assert "Redis" not in act.ending()


def test_while_nobody_answers_nothing_counts_as_lost(monkeypatch):
    asked = 0
    states = MemoryQueue.states

    async def sometimes(self, ids):
        nonlocal asked
        asked += 1
        if asked % 2:
            raise BackendUnavailableError("away")
        return await states(self, ids)

    monkeypatch.setattr(MemoryQueue, "states", sometimes)
    act = ChaosAct(jobs=100, memory=True)
    assert simulate(lambda: lost_on_screen(act)) == {"0"}
    assert asked >= 2


async def lost_on_screen(act: ChaosAct) -> set[str]:
    """Play an act to a good end; returns what was to be seen as lost on the way."""
    seen: set[str] = set()

    async def look() -> None:
        while True:
            seen.update(each.value for each in act.scene().figures if each.label == "lost")
            await sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await act.run()
        tasks.cancel_scope.cancel()
    assert act.well(), (act.facts(), act.scene().notes)
    return seen


def test_a_job_of_which_nobody_knows_is_lost(monkeypatch):
    """The store forgets one job: the act must say so."""
    enqueue = ChaosAct._enqueue

    async def forget(act, queue):
        await enqueue(act, queue)
        await queue.stores[0].cancel(["job-59"])

    monkeypatch.setattr(ChaosAct, "_enqueue", forget)
    act = ChaosAct(jobs=60, every=5.0, memory=True)
    simulate(act.run)
    assert act.facts()["lost"] == 1
    assert not act.well()
    assert ("lost", "1", "bad") in [(f.label, f.value, f.tone) for f in act.scene().figures]


@pytest.mark.real
@on_one_loop
async def test_if_no_worker_can_begin_its_last_words_are_told(monkeypatch):
    words = (sys.executable, "-S", "-c", "print('no such module')")
    monkeypatch.setattr(chaoscrew, "_COMMAND", words)
    act = ChaosAct(jobs=5, within=0.7)
    await act.run()
    assert not act.well()
    assert "a worker said: no such module" in act.scene().notes[-1]


@pytest.mark.real
@pytest.mark.timeout(60)
@pytest.mark.promise("cli-chaos")
@on_one_loop
async def test_killed_workers_and_a_killed_redis_lose_nothing():
    act = ChaosAct(jobs=200, every=1.0, seed=3, within=50.0)
    assert await lost_on_screen(act) == {"0"}
    facts: dict[str, Any] = {**act.facts()}
    assert (facts["done"], facts["lost"]) == (200, 0)
    assert facts["redis_killed"] >= 1
    assert act.scene().bars[-1].label == "Redis"
