"""Every place in which records are kept, so that one test body runs in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from aiopatterns.core.clock import sleep, wall
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import LastWriteWins
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.record import Record, unpacked
from aiopatterns.data.sqlstore import SqlSyncStore
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from pathlib import Path

    from aiopatterns.data.conflict import Strategy
    from aiopatterns.data.draft import Draft
    from aiopatterns.data.record import Joined
    from aiopatterns.data.syncstore import SyncStore

PLACES: Final = [
    "memory",
    pytest.param("sqlite", marks=pytest.mark.real),
    pytest.param("postgres", marks=pytest.mark.real),
]


def made(kind: str, request: Any, tmp_path: Path, name: str = "a") -> SyncStore:
    """A store of that kind; each name has a place of its own."""
    if kind == "memory":
        return MemorySyncStore(name)
    if kind == "sqlite":
        return SqlSyncStore(f"sqlite:///{tmp_path}/{name}.db", name=name)
    server = request.getfixturevalue("postgres_server")  # tables are cheaper than databases
    return SqlSyncStore(server.dsn, name=name, table=f"records_{uuid4().hex}")


def foreign(key: str, value: Any, seq: int = 1, *, ahead: float = 0, **more: Any) -> Record:
    """A record as another store, ``z``, has it."""
    stamp = Stamp(int((wall() + ahead) * 1_000), 0, "z")
    vector = VersionVector({"z:0": seq})
    version = Versioned(key, value, stamp, stamp, vector, "z", **more)
    return Record(key, seq, (version,), {}, shared=False, changed_at=wall())


async def take(
    store: SyncStore, *records: Record, strategy: Strategy | None = None
) -> list[Joined | None]:
    """Make records of another store a part of this one."""
    way = LastWriteWins() if strategy is None else strategy

    def plan(draft: Draft) -> list[Joined | None]:
        return [draft.take(each, strategy=way) for each in records]

    return await store.transact([each.key for each in records], plan)


async def taken(store: SyncStore, record: Record, *, strategy: Strategy) -> Joined:
    """Make a record a part of this store that it lacks."""
    (found,) = await take(store, record, strategy=strategy)
    assert found is not None
    return found


async def move(source: SyncStore, target: SyncStore, *, strategy: Strategy) -> list[Joined | None]:
    """Bring all that the source has to the target, in one step; the source learns of it."""
    state = await source.state()
    heads = await source.changes(0, 1_000)
    rows = await source.fetch([each.key for each in heads])
    found = await take(target, *(unpacked(row) for row in rows.values()), strategy=strategy)
    await source.transact((), lambda draft: draft.passed(target.name, state.seq))
    return found


async def keys_of(store: SyncStore, *, tombstones: bool = False) -> list[str]:
    return [each.key async for each in store.records(tombstones=tombstones)]


async def value_of(store: SyncStore, key: str) -> Any:
    found = await store.get(key)
    assert found is not None
    return found.value


async def a_moment() -> None:
    """Long enough for the wall clock to show another time."""
    await sleep(0.002)
