"""Synchronisation: what a record costs on its way to a store that lacks it, and a run to no end.

Beside it stands what only the necessary writes cost: in memory, values are decoded and encoded
again; in SQLite, the same rows are read and written by hand, in batches of the same size, each of
which is flushed to the disk.
"""

from __future__ import annotations

import sqlite3
import tempfile
from itertools import count
from pathlib import Path
from shutil import copyfile

import msgspec

from aiopatterns.data import LastWriteWins, MemorySyncStore, SqlSyncStore, Synchronizer
from benchmarks.harness import Bench

COUNT = 2_000
BATCH = 500
RUNS = 50
VALUE = {"name": "Ann", "city": "Rome", "visits": 17, "tags": ["new", "north"]}

bench = Bench("data/sync")
numbers = count()


class Source:
    """A full store in memory, and one in a file; made once."""

    def __init__(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.file = Path(self.home.name) / "source.db"
        self.memory = MemorySyncStore("source")
        self.filled = False

    async def fill(self) -> None:
        if self.filled:
            return
        keys = [f"key{number:06}" for number in range(COUNT)]
        async with SqlSyncStore(f"sqlite:///{self.file}", name="source") as store:
            for each in (self.memory, store):
                await each.transact(keys, lambda draft: [draft.put(key, VALUE) for key in keys])
        self.filled = True


source = Source()

memory = bench.case(f"{COUNT:,} records, memory to memory", clock="cpu", unit="us/record")


@memory.ours("aiopatterns.Synchronizer")
async def in_memory() -> int:
    await source.fill()
    target = MemorySyncStore(f"target{next(numbers)}")
    sync = Synchronizer(source.memory, target, strategy=LastWriteWins(), batch=BATCH)
    assert (await sync.run("push")).pushed == COUNT
    return COUNT


@memory.limit("decode, encode, keep")
async def bare_memory() -> int:
    await source.fill()
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    target = {}
    for key, row in (await source.memory.fetch([*source.memory._rows])).items():
        target[key] = encode(decode(row.body))
    assert len(target) == COUNT
    return COUNT


files = bench.case(f"{COUNT:,} records, SQLite to SQLite", clock="wall", unit="us/record")


@files.ours("aiopatterns.Synchronizer")
async def in_files() -> int:
    await source.fill()
    with tempfile.TemporaryDirectory() as home:
        copyfile(source.file, f"{home}/left.db")
        left = SqlSyncStore(f"sqlite:///{home}/left.db", name="source")
        right = SqlSyncStore(f"sqlite:///{home}/right.db", name="target")
        async with left, right:
            sync = Synchronizer(left, right, strategy=LastWriteWins(), batch=BATCH)
            assert (await sync.run("push")).pushed == COUNT
    return COUNT


@files.limit("SELECT, INSERT, by hand")
async def bare_files() -> int:
    await source.fill()
    with tempfile.TemporaryDirectory() as home:
        copyfile(source.file, f"{home}/left.db")
        left, right = sqlite3.connect(f"{home}/left.db"), sqlite3.connect(f"{home}/right.db")
        right.execute("PRAGMA journal_mode = WAL")
        right.execute("PRAGMA synchronous = FULL")
        right.execute(
            "CREATE TABLE records (key TEXT PRIMARY KEY, seq INT, deleted INT, changed_at REAL,"
            " bucket INT, digest INT, vectors BLOB, body BLOB)"
        )
        right.execute("CREATE UNIQUE INDEX by_seq ON records (seq)")
        right.execute("CREATE INDEX by_bucket ON records (bucket, key)")
        rows = left.execute("SELECT * FROM aiopatterns_records ORDER BY seq")
        while batch := rows.fetchmany(BATCH):
            with right:
                right.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", batch)
        assert right.execute("SELECT count(*) FROM records").fetchone() == (COUNT,)
        left.close()
        right.close()
    return COUNT


nothing = bench.case("a run that finds nothing, both ways", clock="wall", unit="us/run")


async def rest(left: MemorySyncStore | SqlSyncStore, right: MemorySyncStore | SqlSyncStore) -> int:
    sync = Synchronizer(left, right, strategy=LastWriteWins())
    await left.put("key", VALUE)
    await sync.run()
    for _ in range(RUNS):
        report = await sync.run()
        assert (report.pushed, report.pulled) == (0, 0)
    return RUNS


@nothing.ours("aiopatterns.Synchronizer, memory")
async def rest_in_memory() -> int:
    return await rest(MemorySyncStore("left"), MemorySyncStore("right"))


@nothing.peer("the same, SQLite", follows="Synchronizer, over SqlSyncStore")
async def rest_in_files() -> int:
    with tempfile.TemporaryDirectory() as home:
        left = SqlSyncStore(f"sqlite:///{home}/left.db", name="left")
        right = SqlSyncStore(f"sqlite:///{home}/right.db", name="right")
        async with left, right:
            return await rest(left, right)


if __name__ == "__main__":
    bench.main()
