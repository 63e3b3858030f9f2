"""Primes below N, twice: one number at a time, and in batches over processes.

One at a time shows a pool: a bounded queue, handles, statistics. In batches shows why a border
should be crossed with much in hand: one call to another process tests five thousand numbers.

Run: python docs/examples/primes.py [N]
"""

from __future__ import annotations

import asyncio
import sys
from math import isqrt

from aiopatterns import WorkerPool, map_reduce
from aiopatterns.flow import Processes

BATCH = 5_000
KNOWN = {1_000: 168, 20_000: 2_262, 100_000: 9_592, 1_000_000: 78_498}


def is_prime(number: int) -> bool:
    """Trial division by odd numbers."""
    if number < 4:
        return number > 1
    return number % 2 > 0 and all(number % each for each in range(3, isqrt(number) + 1, 2))


def primes_in(batch: range) -> list[int]:
    """All primes of one batch; runs in a worker process."""
    return [number for number in batch if is_prime(number)]


async def one_by_one(below: int) -> list[int]:
    """Every number is an item of its own."""

    async def check(number: int) -> int | None:
        return number if is_prime(number) else None

    async with WorkerPool(check, workers=4) as pool:
        async with pool.stream(range(below), ordered=True) as outcomes:
            answers = [outcome.unwrap() async for outcome in outcomes]
        statistics = pool.statistics()
    print(f"one by one: {statistics.done:,} items, p99 {statistics.p99 or 0:.6f} s an item")
    return [number for number in answers if number is not None]


async def in_batches(below: int) -> list[int]:
    """Every batch is an item, and runs in one of two processes."""
    batches = [range(start, min(start + BATCH, below)) for start in range(0, below, BATCH)]

    def collect(found: list[int], primes: list[int]) -> list[int]:
        return found + primes

    found = await map_reduce(
        batches, primes_in, collect, initial=list[int], chunk=1, executor=Processes(2)
    )
    print(f"in batches: {len(batches):,} items of up to {BATCH:,} numbers")
    return found


async def main(below: int) -> None:
    """Find them both ways and compare."""
    singly = await one_by_one(below)
    batched = await in_batches(below)
    assert singly == batched
    assert len(singly) == KNOWN.get(below, len(singly))
    print(f"{len(singly):,} primes below {below:,}; the last is {singly[-1]:,}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
