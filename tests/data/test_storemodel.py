"""Stores against a plain model: whatever is done to them, and whoever reads their log."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiopatterns.core.errors import CheckpointExpiredError
from aiopatterns.data.changelog import ChangeLog
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.sqlstore import SqlSyncStore
from aiopatterns.testing import simulate

if TYPE_CHECKING:
    from aiopatterns.data.syncstore import SyncStore

KEYS = st.sampled_from("abcd")
OPS = st.lists(
    st.tuples(st.just("put"), KEYS)
    | st.tuples(st.just("delete"), KEYS)
    | st.tuples(st.sampled_from(("purge", "read", "read one", "forget")), st.just("")),
    max_size=30,
)


class Index:
    """What follows from the records: kept by a log, of which it may see a part at a time."""

    def __init__(self, store: SyncStore) -> None:
        self.store = store
        self.log = ChangeLog(store, consumer="index")
        self.checkpoint: str | None = None
        self.held: dict[str, Any] = {}

    async def read(self, most: int) -> None:
        seen = 0
        try:
            async for change in self.log.since(self.checkpoint):
                if change.deleted:
                    self.held.pop(change.key, None)
                else:
                    self.held[change.key] = change.value
                self.checkpoint = change.checkpoint
                await self.log.acknowledge(change.checkpoint)
                seen += 1
                if seen == most:
                    return
        except CheckpointExpiredError:  # it was forgotten, and what it had not read was purged
            self.checkpoint = None
            self.held.clear()
            await self.read(100)


class Model:
    """The least that can be said of a store."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.places: dict[str, int] = {}  # also of tombstones
        self.seq = 0

    def write(self, key: str, value: int | None) -> None:
        self.seq += 1
        self.places[key] = self.seq
        if value is None:
            del self.values[key]
        else:
            self.values[key] = value


async def play(store: SyncStore, ops: list[tuple[str, str]]) -> None:
    model, index, values = Model(), Index(store), count()
    for op, key in ops:
        if op == "put":
            value = next(values)
            await store.put(key, value)
            model.write(key, value)
        elif op == "delete" and await store.delete(key) is not None:
            model.write(key, None)
        elif op == "purge":
            await store.purge()
            left = [each.key async for each in store.records(tombstones=True)]
            model.places = {each: at for each, at in model.places.items() if each in left}
        elif op == "forget":
            await store.forget("index")
        elif op.startswith("read"):
            await index.read(1 if op == "read one" else 100)
        await agree(store, model)
    await index.read(100)
    assert index.held == model.values


async def agree(store: SyncStore, model: Model) -> None:
    assert {each.key: each.value async for each in store.records()} == model.values
    places = sorted((at, key) for key, at in model.places.items())
    assert [(each.seq, each.key) for each in await store.changes(0, 100)] == places
    state = await store.state()
    assert state.seq == model.seq
    half = model.seq // 2
    later = [key for at, key in places if at > half]
    assert [each.key for each in await store.changes(half, 100)] == later
    rows = await store.fetch(model.places)
    sums: dict[int, int] = {}
    for row in rows.values():
        sums[row.bucket] = sums.get(row.bucket, 0) + row.digest
    assert dict(await store.digests()) == sums


@pytest.mark.untraced
@settings(max_examples=60, deadline=None)
@given(OPS)
def test_a_store_in_memory_does_what_the_model_does(ops):
    simulate(lambda: play(MemorySyncStore("a"), ops))


@pytest.mark.untraced
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(OPS)
def test_a_store_in_a_file_does_what_the_model_does(tmp_path_factory, ops):
    path = tmp_path_factory.mktemp("model")

    async def run() -> None:
        async with SqlSyncStore(f"sqlite:///{path}/a.db", name="a") as store:
            await play(store, ops)

    simulate(run)
