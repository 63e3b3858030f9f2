"""A store in memory: what it keeps is its own. The suite of all stores is test_syncstore.py."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.data.memorystore import MemorySyncStore


async def test_nobody_changes_a_record_by_changing_a_value():
    store = MemorySyncStore("phone")
    value = {"lines": ["milk"]}
    await store.put("note", value)
    value["lines"].append("eggs")
    found = await store.get("note")
    assert found is not None
    found.value["lines"].append("bread")
    again = await store.get("note")
    assert again is not None
    assert again.value == {"lines": ["milk"]}


async def test_its_length_is_how_many_records_there_are():
    store = MemorySyncStore("phone")
    async with store, store:
        for key in "abc":
            await store.put(key, 1)
        await store.delete("a")
    assert len(store) == 2
    assert repr(store) == "MemorySyncStore(name='phone')"


def test_bad_input_is_refused():
    unfit: Any = 7
    with pytest.raises(TypeError, match="name"):
        MemorySyncStore(unfit)
    with pytest.raises(ValueError, match="name"):
        MemorySyncStore("")
    with pytest.raises(ValueError, match="max_drift"):
        MemorySyncStore("a", max_drift=0)
