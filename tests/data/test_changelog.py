"""The change log: read on from where one stopped, and nothing is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core.errors import CheckpointExpiredError, CodecError
from aiopatterns.data import changelog
from aiopatterns.data.changelog import ChangeLog
from aiopatterns.data.memorystore import MemorySyncStore
from tests.data.recordplaces import PLACES, made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=PLACES)
async def store(request, tmp_path) -> AsyncIterator[Any]:
    async with made(request.param, request, tmp_path) as found:
        yield found


async def read(log: ChangeLog, checkpoint: str | None = None) -> list[tuple[str, Any]]:
    return [(each.key, each.value) async for each in log.since(checkpoint)]


async def test_changes_are_read_on_from_a_checkpoint(store):
    log = ChangeLog(store)
    assert await read(log) == []
    await log.record("a", 1)
    second = await log.record("b", 2)
    await log.record("a", 3)
    await store.delete("b")
    assert await read(log) == [("a", 3), ("b", None)]
    assert await read(log, second) == [("a", 3), ("b", None)]
    changes = [each async for each in log.since(second)]
    assert [each.deleted for each in changes] == [False, True]
    assert await read(log, changes[0].checkpoint) == [("b", None)]
    assert await read(log, changes[1].checkpoint) == []


async def test_what_changes_while_it_is_read_comes_once_more_or_later(store, monkeypatch):
    monkeypatch.setattr(changelog, "PAGE", 2)
    log = ChangeLog(store)
    for key in "abcd":
        await log.record(key, 1)
    found = []
    async for each in log.since():
        found.append((each.key, each.value))
        if each.value == 1 and each.key in "ad":
            await log.record("b", 2)
            await log.record("d", 2)
    assert found == [("a", 1), ("b", 1), ("c", 1), ("b", 2), ("d", 2)]


async def test_one_that_is_written_between_two_looks_is_not_read_twice(store, monkeypatch):
    log = ChangeLog(store)
    await log.record("a", 1)
    fetch, written = type(store).fetch, list[str]()

    async def fetched(self: Any, keys: Any) -> Any:
        if not written:
            written.append(await log.record("a", 2))
        return await fetch(self, keys)

    monkeypatch.setattr(type(store), "fetch", fetched)
    assert await read(log) == [("a", 2)]


async def test_tombstones_wait_for_a_consumer(store):
    log = ChangeLog(store, consumer="search")
    assert await log.acknowledged() is None
    first = await log.record("a", 1)
    await log.acknowledge(first)
    assert await log.acknowledged() == first
    await store.delete("a")
    assert await store.purge() == 0
    (change,) = [each async for each in log.since(first)]
    await log.acknowledge(change.checkpoint)
    await log.acknowledge(first)  # late, and changes nothing
    assert await log.acknowledged() == change.checkpoint
    assert await store.purge() == 1
    assert await read(log, change.checkpoint) == []


@pytest.mark.promise("data-changelog-expired")
async def test_a_checkpoint_from_before_a_purge_has_expired(store):
    log = ChangeLog(store)
    first = await log.record("a", 1)
    await log.record("b", 1)
    await store.delete("a")
    await store.purge()
    with pytest.raises(CheckpointExpiredError) as caught:
        await read(log, first)
    assert caught.value.checkpoint == first
    assert await read(log) == [("b", 1)]  # from the beginning there is nothing to miss
    await log.acknowledge(first)  # one who has read all else may say so


async def test_a_purge_while_somebody_reads_is_no_hole(store, monkeypatch):
    monkeypatch.setattr(changelog, "PAGE", 1)
    log = ChangeLog(store)
    await log.record("a", 1)
    await log.record("b", 1)
    seen = []
    with pytest.raises(CheckpointExpiredError):
        async for each in log.since():
            seen.append(each.key)
            await store.delete("a")
            await store.purge()
    assert seen == ["a"]


async def test_a_checkpoint_of_another_store_or_of_the_future_has_expired(store):
    log, other = ChangeLog(store), ChangeLog(MemorySyncStore("b"))
    foreign = await other.record("a", 1)
    for checkpoint in (foreign, f"{(await store.state()).epoch}:9"):
        with pytest.raises(CheckpointExpiredError):
            await read(log, checkpoint)
        with pytest.raises(CheckpointExpiredError):
            await log.acknowledge(checkpoint)
    assert await log.acknowledged() is None


async def test_bad_input_is_refused(store):
    unfit: Any = 7
    log = ChangeLog(store)
    assert "consumer='consumer'" in repr(log)
    for checkpoint in ("", "x", "12", "ab:-1", "ab:" + "9" * 20):
        with pytest.raises(ValueError, match="checkpoint"):
            await read(log, checkpoint)
    with pytest.raises(TypeError, match="checkpoint"):
        await log.acknowledge(unfit)
    with pytest.raises(TypeError, match="store"):
        ChangeLog(unfit)
    with pytest.raises(ValueError, match="consumer"):
        ChangeLog(store, consumer="")
    with pytest.raises(ValueError, match="key"):
        await log.record("", 1)
    with pytest.raises(CodecError):
        await log.record("a", object())
