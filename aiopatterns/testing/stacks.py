"""Where tasks stand: the whole chain of awaits of a suspended task, as text.

``Task.get_stack`` shows the outermost frame of a suspended task only, which is rarely the line
that waits. :func:`await_chain` goes down to the innermost frame that Python can see::

    fetch_all  ->  TaskGroup.__aexit__        what get_stack shows ends at fetch_all
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

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
    current: Any = awaitable
    while current is not None:
        frame_name, next_name = next(
            (names for names in LINKS if hasattr(current, names[0])), (None, None)
        )
        if frame_name is None or next_name is None:
            return
        frame, current = getattr(current, frame_name), getattr(current, next_name)
        if frame is None:
            return
        code = frame.f_code
        yield f"{_short(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}"
        stepped = frame.f_locals.get(STEPPED)
        if (
            current is None
            and code.co_flags & inspect.CO_GENERATOR
            and inspect.iscoroutine(stepped)
        ):
            current = stepped


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


def _short(filename: str) -> str:
    """Return the last two parts of a path: enough to find it, the same on every machine."""
    return "/".join(Path(filename).parts[-2:])
