"""Threads: plain functions of users, called where they hold nothing up.

A handler may be an async function or a plain one. A plain one may block, so it is called in a
thread, with the context variables of whoever calls. Handlers that run at once are bounded
by whoever runs them, so the thread adds no second bound.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_in_thread"]


async def call_in_thread(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what ``fn(*args, **kwargs)`` returns in a thread; awaited here if it can be.

    Cancellation: no thread can be ended, so this waits for ``fn``; an awaitable that it returned
    is cancelled as any other.
    """
    value = await to_thread.run_sync(partial(fn, *args, **kwargs), limiter=CapacityLimiter(1))
    return await value if hasattr(value, "__await__") else value
