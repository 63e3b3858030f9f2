"""Import: what ``import aiopatterns`` adds to the start of a program, in fresh interpreters.

Goal: at most 20 ms over ``import anyio``. The front door loads nothing until a name is used, so
what using one costs is measured besides.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.harness import Bench

STARTS = 5
bench = Bench("core/import")


async def start(code: str) -> int:
    """Start interpreters one after the other; each must end well."""
    for _ in range(STARTS):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        assert await child.wait() == 0
    return STARTS


front = bench.case("start with import aiopatterns, goal 20 ms more", clock="wall", unit="ms/start")


@front.ours("import anyio, aiopatterns")
async def front_door() -> int:
    return await start("import anyio, aiopatterns")


@front.limit("import anyio")
async def anyio_alone() -> int:
    return await start("import anyio")


core = bench.case("start with a name of core", clock="wall", unit="ms/start")


@core.ours("import anyio; from aiopatterns import Ok, log_events")
async def a_name_of_core() -> int:
    return await start("import anyio; from aiopatterns import Ok, log_events")


@core.limit("import anyio, anyio.abc, asyncio")
async def its_needs() -> int:
    return await start("import anyio, anyio.abc, asyncio")


if __name__ == "__main__":
    bench.main()
