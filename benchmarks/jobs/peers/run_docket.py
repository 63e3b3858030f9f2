"""docket behind the common contract.

Tuned as its documentation says: "Docket in Production, Core Settings": ``concurrency``, and
``minimum_check_interval`` (polling frequency), since its worker sleeps that long whenever no slot
is free; "Redis Connection Pools": connections to "match or exceed worker concurrency", or jobs
fail with "Too many connections"; ``add_many`` for batches, one pipeline for 1,000 jobs. Results
are stored for ``execution_ttl``, 15 minutes by default.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import contract
from docket import Docket, Worker
from docket.execution import ExecutionState

TUNED = f"{contract.URL}/0?max_connections={2 * contract.CONCURRENCY + 50}"
POLL = timedelta(milliseconds=10)
LIVE = {ExecutionState.SCHEDULED, ExecutionState.QUEUED, ExecutionState.RUNNING}

logging.getLogger("docket").setLevel(logging.WARNING)


async def noop(key: str) -> int:
    return await contract.noop(key)


async def work(key: str) -> int:
    return await contract.work(key)


async def probe(key: str) -> int:
    return await contract.probe(key)


tasks = [noop, work, probe]  # read by the worker command
TASKS = {each.__name__: each for each in tasks}


class OfDocket:
    """The adapter."""

    async def open(self) -> None:
        self.docket = await Docket(url=TUNED).__aenter__()
        for task in tasks:
            self.docket.register(task)

    async def one(self, task: str, key: str, delay: float) -> None:
        when = datetime.now(UTC) + timedelta(seconds=delay) if delay else None
        await self.docket.add(TASKS[task], when=when, key=key)(key)

    async def many(self, task: str, keys: Sequence[str]) -> None:
        call = self.docket.call
        done = await self.docket.add_many([call(TASKS[task], key=key)(key) for key in keys])
        assert len(done) == len(keys)

    async def work(self) -> None:
        worker = Worker(self.docket, concurrency=contract.CONCURRENCY, minimum_check_interval=POLL)
        async with worker:
            await worker.run_forever()

    def command(self) -> list[str]:
        at_once = ["--concurrency", str(contract.CONCURRENCY)]
        where = ["--url", contract.URL, "--tasks", "run_docket:tasks"]
        return [sys.executable, "-m", "docket", "worker", *where, *at_once]

    async def stored(self, keys: Sequence[str]) -> int:
        ready = 0
        for key in keys:
            execution = await self.docket.get_execution(key)
            if execution is None or execution.state != ExecutionState.COMPLETED:
                break
            ready += await execution.get_result() == 1
        return ready

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """Those whose record says that they have not ended."""
        found = [await self.docket.get_execution(key) for key in keys]
        return [each.key for each in found if each is not None and each.state in LIVE]


if __name__ == "__main__":
    contract.main(OfDocket())
