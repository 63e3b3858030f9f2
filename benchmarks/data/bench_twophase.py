"""Two-phase commit: how many decisions reach the disk, 32 at once and one after the other.

Goal: 32 at once, five times as many as one after the other, for those share a flush of the disk.
What the disk does without SQLite, ``write`` and ``fsync`` one after the other, stands beside.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from itertools import count
from pathlib import Path

from aiopatterns.data import Decision, MemoryParticipant, Proposal, SqliteLog, TwoPhaseCommit
from benchmarks.harness import Bench

AT_ONCE = 32
EACH = 8
COUNT = AT_ONCE * EACH
RECORD = b"x" * 200

bench = Bench("data/twophase")
decisions = bench.case("decisions, 32 at once", clock="wall", unit="us/decision")
numbers = count()


def proposal() -> Proposal:
    return Proposal(f"g{next(numbers)}", Decision.COMMIT)


@decisions.ours("aiopatterns.SqliteLog")
async def together() -> int:
    with tempfile.TemporaryDirectory() as home:
        async with SqliteLog(Path(home) / "log.db") as log:
            await log.identity()

            async def decide() -> None:
                for _ in range(EACH):
                    record = await log.decide(proposal())
                    assert record.decision is Decision.COMMIT

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(decide())
            assert len(await log.unfinished()) == COUNT
    return COUNT


@decisions.peer("the same, one after the other", follows="SqliteLog, without company")
async def alone() -> int:
    with tempfile.TemporaryDirectory() as home:
        async with SqliteLog(Path(home) / "log.db") as log:
            await log.identity()
            for _ in range(COUNT):
                record = await log.decide(proposal())
                assert record.decision is Decision.COMMIT
            assert len(await log.unfinished()) == COUNT
    return COUNT


@decisions.limit("write, fsync, one after the other")
async def serial() -> int:
    with tempfile.TemporaryFile() as file:
        for _ in range(COUNT):
            file.write(RECORD)
            file.flush()
            os.fsync(file.fileno())
        assert file.tell() == COUNT * len(RECORD)
    return COUNT


decisions.at_most(0.2, of="the same, one after the other")

whole = bench.case("transactions over 2 in memory, 32 at once", clock="wall", unit="us/transaction")


async def transact(at_once: int, each: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        async with SqliteLog(Path(home) / "log.db") as log:
            a, b = MemoryParticipant("a"), MemoryParticipant("b")
            transfers = TwoPhaseCommit(log, [a, b])

            async def work(key: str) -> None:
                for number in range(each):
                    async with transfers.transaction() as tx:
                        await tx[a].execute(key, number)
                        await tx[b].execute(key, number)

            async with asyncio.TaskGroup() as group:
                for number in range(at_once):
                    group.create_task(work(str(number)))
            assert transfers.statistics().committed == at_once * each
    return at_once * each


@whole.ours("aiopatterns.TwoPhaseCommit")
async def transactions() -> int:
    return await transact(AT_ONCE, EACH)


@whole.peer("the same, one after the other", follows="TwoPhaseCommit, without company")
async def transactions_alone() -> int:
    return await transact(1, COUNT)


if __name__ == "__main__":
    bench.main()
