"""Replicas of a service as real processes: one is killed, one leaves, and the rest goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from aiopatterns import Broker, RemoteError, TimeoutExceededError
from aiopatterns.core.clock import sleep
from aiopatterns.messaging.remote import LOST

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "orders.py"
PATIENCE = 60.0


async def replicas(customer: Broker, wanted: int) -> set[str]:
    """Wait until so many answer; return their ids."""
    found: set[str] = set()
    with anyio.fail_after(PATIENCE):
        while len(found) < wanted:
            try:
                found.add((await customer.request("$SRV.PING.users", timeout=2))["id"])
            except Exception:
                await sleep(0.05)
    return found


@pytest.mark.real
@pytest.mark.promise("messaging-service-kill")
def test_a_replica_that_is_killed_takes_no_more_than_what_it_had_in_hand(redis_url):
    ended = asyncio.run(kill_one(redis_url))
    assert set(ended) <= {"answered", LOST, "late"}, ended
    assert ended[LOST] + ended["late"] <= 8, ended  # of those that the killed one had in hand


async def kill_one(redis_url: str) -> Counter[str | None]:
    """Ask three replicas all the time, kill one and let one leave; return how requests ended."""
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), redis_url, "users", stdout=asyncio.subprocess.DEVNULL
        )
        for _ in range(3)
    ]
    ended: Counter[str | None] = Counter()
    over = False

    async def ask(customer: Broker) -> None:
        while not over:
            try:
                user = await customer.request("user.get", {"id": 1}, timeout=4)
                assert user["name"] == "Ann"
                ended["answered"] += 1
            except RemoteError as error:
                assert error.retryable, error
                ended[error.code] += 1
            except TimeoutExceededError:
                ended["late"] += 1

    async def more(customer: Broker) -> None:
        wanted = ended["answered"] + 200
        with anyio.fail_after(PATIENCE):
            while ended["answered"] < wanted:
                await sleep(0.01)

    try:
        async with Broker(redis_url) as customer, anyio.create_task_group() as tasks:
            await replicas(customer, 3)
            for _ in range(8):
                tasks.start_soon(ask, customer)
            await more(customer)
            running[0].kill()
            await more(customer)
            running[1].send_signal(signal.SIGTERM)
            assert await running[1].wait() == 0
            await more(customer)
            over = True
    finally:
        for process in running:
            if process.returncode is None:
                process.kill()
            await process.wait()
    return ended
