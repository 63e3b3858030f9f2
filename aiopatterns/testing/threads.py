"""Thread calls under the simulated loop: ``anyio.to_thread.run_sync`` without a thread.

asyncio sends thread calls through ``loop.run_in_executor``, which a loop can answer as it likes.
anyio 4 starts threads of its own instead, so its one entry point,
``AsyncIOBackend.run_sync_in_worker_thread``, is replaced while a simulated loop runs and put back
when it stops. Other loops, in other threads, go to the original.
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
    from collections.abc import Callable, Iterator

    from anyio import CapacityLimiter

__all__ = ["inline_threads"]


@contextmanager
def inline_threads(simulated: Callable[[asyncio.AbstractEventLoop], bool]) -> Iterator[None]:
    """Send anyio's thread calls on simulated loops to ``loop.run_in_executor``.

    Args:
        simulated: Whether a loop is simulated; thread calls on others are left alone.
    """
    original = AsyncIOBackend.__dict__["run_sync_in_worker_thread"]
    start_thread = AsyncIOBackend.run_sync_in_worker_thread

    async def run(
        cls: type[AsyncIOBackend],
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,  # noqa: FBT001, FBT002 - anyio's signature
        limiter: CapacityLimiter | None = None,
    ) -> Any:
        del cls
        loop = asyncio.get_running_loop()
        if not simulated(loop):
            return await start_thread(func, args, abandon_on_cancel, limiter)
        await checkpoint()
        async with limiter or current_default_thread_limiter():
            with CancelScope(shield=not abandon_on_cancel):
                return await loop.run_in_executor(None, copy_context().run, func, *args)

    AsyncIOBackend.run_sync_in_worker_thread = classmethod(run)
    try:
        yield
    finally:
        AsyncIOBackend.run_sync_in_worker_thread = original
