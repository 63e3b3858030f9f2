"""How the cost of data grows: transactions that have been, and records that are there."""

from __future__ import annotations

import asyncio
from typing import Any

from aiopatterns.data import (
    LastWriteWins,
    MemoryLog,
    MemoryParticipant,
    MemorySagaStore,
    MemorySyncStore,
    Saga,
    Synchronizer,
    TwoPhaseCommit,
)
from benchmarks.growing import Growth, Meter

AT_ONCE = 32
RUNS = 20
VALUE = {"name": "Ann", "city": "Rome", "visits": 17}

growth = Growth("growth/data")


async def add(context: dict[str, int]) -> None:
    context["steps"] += 1


@growth.pattern("Saga, 3 steps, in memory", load="sagas", once=100, operation="saga")
async def sagas(load: int, meter: Meter) -> None:
    sums: Saga[Any] = Saga("sums", MemorySagaStore())
    for name in "abc":
        sums.step(name=name, compensate=add)(add)
    with meter.over(load):
        for _ in range(load):
            await sums.run({"steps": 0})


async def transact(total: int, at_once: int, meter: Meter) -> None:
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = TwoPhaseCommit(MemoryLog(), [a, b])

    async def work(key: str) -> None:
        for number in range(total // at_once):
            async with transfers.transaction() as tx:
                await tx[a].execute(key, number)
                await tx[b].execute(key, number)

    with meter.over(total):
        await asyncio.gather(*(work(str(number)) for number in range(at_once)))
    assert transfers.statistics().committed == total


@growth.pattern("TwoPhaseCommit in memory", load="transactions", once=32, operation="transaction")
async def transactions(load: int, meter: Meter) -> None:
    await transact(load, AT_ONCE, meter)


@growth.pattern(
    "TwoPhaseCommit in memory, at once", load="transactions", once=10, operation="transaction"
)
async def together(load: int, meter: Meter) -> None:
    await transact(1_000, load, meter)


async def filled(name: str, count: int) -> MemorySyncStore:
    store = MemorySyncStore(name)
    keys = [f"key{number:06}" for number in range(count)]
    await store.transact(keys, lambda draft: [draft.put(key, VALUE) for key in keys])
    return store


@growth.pattern("Synchronizer, all are new", load="records", once=200, operation="record")
async def synchronised(load: int, meter: Meter) -> None:
    source = await filled("source", load)
    sync = Synchronizer(source, MemorySyncStore("target"), strategy=LastWriteWins())
    with meter.over(load):
        assert (await sync.run("push")).pushed == load


@growth.pattern("Synchronizer, one has changed", load="records", once=200, operation="run")
async def one_changed(load: int, meter: Meter) -> None:
    source = await filled("source", load)
    sync = Synchronizer(source, MemorySyncStore("target"), strategy=LastWriteWins())
    await sync.run("push")
    with meter.over(RUNS):
        for _ in range(RUNS):
            await source.put("key000007", VALUE)
            assert (await sync.run("push")).pushed == 1


if __name__ == "__main__":
    growth.main()
