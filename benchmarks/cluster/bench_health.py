"""Health checks: an answer from the last results, and one check.

The limit of an answer is a look into a dict. A check that does nothing is made CHECKS times one after
the other, by ``check_now``, beside the least that makes a check safe: a timeout around the call, in
a task that is told to begin and tells that it has ended.
"""

from __future__ import annotations

import anyio

from aiopatterns.cluster import Check, HealthChecker
from benchmarks.harness import Bench

CALLS = 50_000
CHECKS = 2_000
TARGETS = 100

bench = Bench("cluster/health")
report = bench.case("a report of 100 checks", clock="cpu", unit="us/call")
check = bench.case("a check that does nothing", clock="cpu", unit="us/check")


async def nothing() -> None: ...


@report.ours("aiopatterns.HealthChecker")
async def ask() -> int:
    async with HealthChecker({str(at): nothing for at in range(TARGETS)}) as checker:
        await checker.check_now("0")
        while not checker.report().ok:
            await anyio.sleep(0)
        ok = sum(checker.report("readiness").ok for _ in range(CALLS))
    assert ok == CALLS
    return CALLS


@report.limit("a look into a dict")
async def look() -> int:
    reports = {"readiness": True}
    ok = sum(reports["readiness"] for _ in range(CALLS))
    assert ok == CALLS
    return CALLS


@check.ours("aiopatterns.HealthChecker.check_now")
async def check_now() -> int:
    once = Check(nothing, interval=3600)
    async with HealthChecker({"it": once}) as checker:
        for _ in range(CHECKS):
            await checker.check_now("it")
        assert checker.health("it").total == CHECKS
    return CHECKS


@check.limit("anyio.fail_after in a task, and two events")
async def bare() -> int:
    wanted, done, made = anyio.Event(), anyio.Event(), 0

    async def loop() -> None:
        nonlocal wanted, made
        while True:
            await wanted.wait()
            wanted = anyio.Event()
            with anyio.fail_after(1):
                await nothing()
            made += 1
            done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(loop)
        for _ in range(CHECKS):
            done = anyio.Event()
            wanted.set()
            await done.wait()
        group.cancel_scope.cancel()
    assert made == CHECKS
    return CHECKS


if __name__ == "__main__":
    bench.main()
