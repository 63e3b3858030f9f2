"""Coordinators as processes that are killed: one is forked for each line on standard input.

``transfer VERB NAME WHEN`` makes one transfer and is killed at that point; ``storm`` makes transfers,
fifty at once, until somebody kills it. It is imported once and forked many times, which is cheap.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio

from aiopatterns.core.clock import rng
from aiopatterns.data import PostgresParticipant, SqliteLog, TwoPhaseCommit
from tests.data.twophaseplaces import Life, Mortal

AT_ONCE = 50
ACCOUNTS = 40
TAKE = "UPDATE accounts SET balance = balance - %s WHERE id = %s"
GIVE = "UPDATE accounts SET balance = balance + %s WHERE id = %s"


def places(dsns: list[str]) -> list[PostgresParticipant]:
    return [PostgresParticipant(name, dsn) for name, dsn in zip("ab", dsns, strict=True)]


async def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def transfer(log: str, dsns: list[str], point: tuple[str, str, str]) -> None:
    """Make one transfer, and be killed at a point of it."""
    life = Life(point, killed)
    seen: list[Any] = [Mortal(each, life, each.name) for each in places(dsns)]
    mortal: Any = Mortal(SqliteLog(log), life, "log")
    transfers = TwoPhaseCommit(mortal, seen)
    async with transfers.transaction() as tx:
        await tx[seen[0]].execute(TAKE, (10, 1))
        await tx[seen[1]].execute(GIVE, (10, 1))


async def storm(log: str, dsns: list[str]) -> None:
    """Make transfers for ever; each is counted in a file when it has committed."""
    a, b = places(dsns)
    transfers = TwoPhaseCommit(SqliteLog(log), [a, b], timeout=3)
    counter = os.open(f"{log}-count", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def work() -> None:
        while True:
            source, target = rng().sample([a, b], 2)
            amount, account = rng().randrange(1, 100), rng().randrange(ACCOUNTS)
            try:
                async with transfers.transaction() as tx:
                    await tx[source].execute(TAKE, (amount, account))
                    await tx[target].execute(GIVE, (amount, account))
                os.write(counter, b".")
            except Exception:  # deadlocks, and a server that is away
                await anyio.sleep(0.05)

    async with transfers.recovery(interval=0.5, lease=1.5), anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)


def main(log: str, *dsns: str) -> None:
    for line in sys.stdin:
        verb, *point = line.split()
        child = os.fork()
        if not child:
            if verb == "storm":
                anyio.run(storm, log, [*dsns])
            else:
                anyio.run(transfer, log, [*dsns], tuple(point))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(-os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    Path(sys.argv[1]).touch()
    main(*sys.argv[1:])
