"""Saga: what three steps in memory cost beside the three bare calls.

Goal: 60 us a saga.
"""

from __future__ import annotations

from typing import Any

from aiopatterns.data import MemorySagaStore, Saga
from benchmarks.harness import Bench

COUNT = 2_000

bench = Bench("data/saga")
three = bench.case("3 steps, memory", clock="cpu", unit="us/saga")


async def add(context: dict[str, int]) -> None:
    context["steps"] += 1


@three.ours("aiopatterns.Saga")
async def saga() -> int:
    sums: Saga[Any] = Saga("sums", MemorySagaStore())
    for name in "abc":
        sums.step(name=name, compensate=add)(add)
    for _ in range(COUNT):
        result = await sums.run({"steps": 0})
        assert result.context["steps"] == 3
    return COUNT


@three.limit("three calls")
async def bare() -> int:
    for _ in range(COUNT):
        context = {"steps": 0}
        for _ in range(3):
            await add(context)
        assert context["steps"] == 3
    return COUNT


three.under(60)

if __name__ == "__main__":
    bench.main()
