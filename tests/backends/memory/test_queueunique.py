"""Who has a key, and for how long."""

from __future__ import annotations

import pytest

from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.queuejob import Job
from aiopatterns.backends.memory.queueunique import UniqueKeys
from aiopatterns.backends.queue import NewJob, UniqueKey, UniqueMode
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


def job(name: str, mode: UniqueMode, window: float = 0.0) -> Job:
    return Job(NewJob(name, b"", unique=UniqueKey("k", mode, window)), 0)


@pytest.mark.parametrize("mode", ["drop", "throttle"])
def test_drop_and_throttle_hold_the_key_to_the_end(mode):
    keys, one = UniqueKeys(MemoryHome()), job("one", mode)
    keys.take(one)
    keys.start(one)
    assert keys.holder("k") is one
    keys.end(one)
    assert keys.holder("k") is None
    assert keys.window("k") is None


@pytest.mark.parametrize("mode", ["debounce", "keep_last"])
def test_debounce_and_keep_last_hold_it_to_the_start(mode):
    keys, one, two = UniqueKeys(MemoryHome()), job("one", mode), job("two", mode)
    keys.take(one)
    assert keys.holder("k") is one
    keys.start(one)
    assert keys.holder("k") is None
    assert keys.running(UniqueKey("k", mode)) == ("one" if mode == "keep_last" else None)
    keys.take(two)
    keys.start(one)  # again, after a retry: the second one keeps the key
    assert keys.holder("k") is two
    keys.end(one)
    assert keys.running(UniqueKey("k", "keep_last")) is None
    assert keys.holder("k") is two


def test_only_keep_last_waits_for_the_one_that_runs():
    keys, one = UniqueKeys(MemoryHome()), job("one", "keep_last")
    keys.take(one)
    keys.start(one)
    assert keys.running(UniqueKey("k", "drop")) is None


def test_a_window_outlives_its_job():
    async def scenario() -> None:
        keys, one = UniqueKeys(MemoryHome()), job("one", "throttle", 10.0)
        keys.take(one)
        keys.end(one)
        assert keys.window("k") == "one"
        await sleep(10.0)
        assert keys.window("k") is None

    simulate(scenario)


def test_a_job_without_a_key_has_none():
    keys = UniqueKeys(MemoryHome())
    plain = Job(NewJob("plain", b""), 0)
    keys.start(plain)
    keys.end(plain)
    assert keys.holder("k") is None
