"""Thread calls under the simulated loop: ``anyio.to_thread.run_sync`` without a thread.

asyncio sends thread calls through ``loop.run_in_executor``, which a loop answers as it likes.
anyio starts threads of its own instead. Its one entry point,
``AsyncIOBackend.run_sync_in_worker_thread`` (anyio 4), is therefore replaced while a simulated
loop runs and put back when it stops; loops in other threads go to the original.

A function that calls back into the loop by ``anyio.from_thread`` needs a real thread: called
inline it would wait for the loop that waits for it. anyio refuses that with its own clear error.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from anyio import CancelScope
from anyio._backends._asyncio import AsyncIOBackend
from anyio.lowlevel import checkpoint
from anyio.to_thread import current_default_thread_limiter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from anyio import CapacityLimiter

__all__ = ["inline_threads"]

ENTRY = "run_sync_in_worker_thread"


@contextmanager
def inline_threads(simulated: asyncio.AbstractEventLoop) -> Generator[None, None, None]:
    """Send anyio's thread calls on one loop to ``loop.run_in_executor``.

    Args:
        simulated: The loop; thread calls on any other are left alone.
    """
    original = AsyncIOBackend.__dict__[ENTRY]
    start_thread = AsyncIOBackend.run_sync_in_worker_thread

    async def run(
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,  # noqa: FBT001, FBT002 - anyio's signature
        limiter: CapacityLimiter | None = None,
    ) -> Any:
        if asyncio.get_running_loop() is not simulated:
            return await start_thread(func, args, abandon_on_cancel, limiter)
        await checkpoint()
        context = copy_context()
        async with limiter or current_default_thread_limiter():
            with CancelScope(shield=not abandon_on_cancel):
                return await simulated.run_in_executor(None, lambda: context.run(func, *args))

    setattr(AsyncIOBackend, ENTRY, staticmethod(run))
    try:
        yield
    finally:
        setattr(AsyncIOBackend, ENTRY, original)
