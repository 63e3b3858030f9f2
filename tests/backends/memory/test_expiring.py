from __future__ import annotations

import tracemalloc

import pytest

from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


def expiring() -> Expiring[object, int]:
    home = MemoryHome()
    home.enter()
    return Expiring(home)


def test_an_entry_is_gone_at_the_very_instant():
    async def scenario() -> None:
        entries = expiring()
        entries.put("a", 1, 10)
        entries.put("b", 2, None)
        await sleep(9.999)
        assert entries.get("a") == 1
        await sleep(0.001)
        assert (entries.get("a"), entries.get("b"), entries.get("c")) == (None, 2, None)
        assert len(entries) == 1
        await sleep(1e9)
        assert entries.get("b") == 2

    simulate(scenario)


def test_a_new_value_has_a_new_life_and_a_change_has_the_old_one():
    async def scenario() -> None:
        entries = expiring()
        entries.put("a", 1, 1)
        entries.put("a", 2, 10)
        entries.put("b", 1, 10)
        entries.change("b", 5)
        entries.put("c", 1, 10)
        entries.put("c", 2, None)
        await sleep(5)
        assert [entries.get(each) for each in "abc"] == [2, 5, 2]
        await sleep(5)
        assert [entries.get(each) for each in "abc"] == [None, None, 2]

    simulate(scenario)


def test_removing_tells_what_was_there():
    async def scenario() -> None:
        entries = expiring()
        entries.put("a", 1, 1)
        assert entries.pop("a") == 1
        assert entries.pop("a") is None
        entries.put("a", 2, 1)
        await sleep(1)
        assert entries.pop("a") is None
        assert len(entries) == 0

    simulate(scenario)


def test_keys_need_no_order():
    entries = expiring()
    for key in (1, "a", (2, "b"), None):
        entries.put(key, 1, 1)
    assert len(entries) == 4


def test_writes_sweep_what_has_expired():
    async def scenario() -> None:
        entries = expiring()
        for key in range(1_000):
            entries.put(key, key, 1)
        await sleep(2)
        assert len(entries) == 1_000
        for key in range(501):
            entries.put(("new", key), 1, 10)
        assert len(entries) == 501
        entries.put("kept", 1, None)
        assert len(entries) == 502

    simulate(scenario)


def test_rewriting_one_key_keeps_one_entry():
    entries = expiring()
    for number in range(10_000):
        entries.put("a", number, 1_000)
    assert entries.get("a") == 9_999
    assert len(entries._heap) < 200


def test_removed_keys_leave_no_heap():
    entries = expiring()
    for number in range(10_000):
        entries.put(number, number, 1_000)
        entries.pop(number)
    assert len(entries) == 0
    assert len(entries._heap) < 200


@pytest.mark.untraced
@pytest.mark.promise("backends-memory-flat")
def test_300_000_writes_with_a_life_stay_flat():
    """Keys that are never read again, each with a life of a hundred writes."""

    async def scenario() -> tuple[int, int]:
        entries = expiring()
        sizes = []
        for number in range(300_000):
            entries.put(number, number, 1.0)
            if not number % 100:
                await sleep(1)
            if number in (50_000, 299_999):
                sizes.append(tracemalloc.get_traced_memory()[0])
        assert len(entries) <= 400
        return sizes[0], sizes[1]

    tracemalloc.start()
    try:
        before, after = simulate(scenario)
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
