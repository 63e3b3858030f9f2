"""Where tasks stand: the whole chain of awaits of a suspended task, as text.

``Task.get_stack`` shows the outermost frame of a suspended task only, which is rarely the line
that waits. :func:`await_chain` goes down to the innermost frame that Python can see::

    fetch_all  ->  TaskGroup.__aexit__        what get_stack shows ends at fetch_all
"""

from __future__ import annotations

import gc
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["await_chain", "describe_tasks", "innermost"]

LINKS: Final = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
"""Frame and next link of a coroutine, a generator and an async generator."""

STEPPED: Final = "work"
"""Local variable in which a generator that steps a coroutine by hand keeps it."""


def await_chain(awaitable: object) -> Iterator[str]:
    """Yield ``file:line in function`` for each frame of a suspended awaitable, outermost first.

    Coroutines that are stepped by hand (``aiopatterns.core.context.run_in`` and this kit's own
    drivers) are followed too.
    """
    current = awaitable
    while (names := _links(current)) is not None:
        frame: FrameType | None = getattr(current, names[0])
        if frame is None:
            return
        code = frame.f_code
        yield f"{_short(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}"
        current = _next(getattr(current, names[1]), frame)


def innermost(awaitable: object) -> str:
    """Return where an awaitable really waits: the last line of :func:`await_chain`."""
    return ([*await_chain(awaitable)] or ["its end"])[-1]


def describe_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return the name and the chain of awaits of each task, in the order of their names."""
    found = sorted(tasks, key=lambda task: (len(task.get_name()), task.get_name()))
    return "\n".join(map(_describe, found)) or "    none"


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    chain = [*await_chain(coroutine)] or [repr(coroutine)]
    return "\n      ".join([f"    {task.get_name()}", *chain])


def _next(awaited: object, frame: FrameType) -> object:
    """Return the link below ``frame``, which waits for ``awaited``."""
    if awaited is None:
        stepped = frame.f_locals.get(STEPPED)
        return stepped if frame.f_code.co_flags & inspect.CO_GENERATOR else None
    if _links(awaited) is None:
        # What `async for` and `__await__` return, hides its generator or coroutine: ask for it.
        return next((each for each in gc.get_referents(awaited) if _links(each)), None)
    return awaited


def _links(awaitable: object) -> tuple[str, str] | None:
    """Return the names of the frame and of the next link, or None if it has none."""
    return next((names for names in LINKS if hasattr(awaitable, names[0])), None)


def _short(filename: str) -> str:
    """Return the last two parts of a path: enough to find it, the same on every machine."""
    return "/".join(Path(filename).parts[-2:])
