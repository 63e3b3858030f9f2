"""What the benchmarks of backends share: one server for a run, and a clock that skips preparation."""

from __future__ import annotations

import atexit
import time
from collections.abc import Awaitable, Callable
from functools import cache

from aiopatterns.backends.redis.embedded import RedisServer
from benchmarks.harness import Figure


@cache
def server() -> RedisServer:
    """Return a private server on a unix socket, stopped with the interpreter."""
    started = RedisServer(private=True)
    started.start()
    atexit.register(started.stop)
    return started


async def timed(work: Callable[[], Awaitable[object]], operations: int, *, scale: float) -> Figure:
    """Run ``work`` and return what one of its operations took: wall time, 1e6 for us."""
    start = time.perf_counter()
    await work()
    return Figure((time.perf_counter() - start) / operations * scale)
