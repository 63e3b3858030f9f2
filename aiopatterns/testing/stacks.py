"""Where tasks stand: the whole chain of awaits of a suspended task, as text.

``Task.get_stack`` shows the outermost frame of a suspended task only, which is rarely the line
that waits. :func:`await_chain` follows the chain down to the innermost frame that Python can see.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["await_chain", "describe_task", "describe_tasks", "innermost"]

_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def await_chain(awaitable: object) -> Iterator[str]:
    """Yield ``file:line in function`` for every frame of a suspended awaitable, outermost first."""
    current: Any = awaitable
    while current is not None:
        frame, current = _frame_and_next(current)
        if frame is not None:
            code = frame.f_code
            yield f"{_short(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}"


def innermost(awaitable: object) -> str:
    """Return the last line of :func:`await_chain`: where the awaitable really waits."""
    place = "its end"
    for place in await_chain(awaitable):  # noqa: B007 - the last one is wanted
        pass
    return place


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return a task's name and chain of awaits, one frame a line."""
    chain = "".join(f"\n      {place}" for place in await_chain(task.get_coro()))
    return f"    {task.get_name()}{chain or ' (at its end)'}"


def describe_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return :func:`describe_task` of each, in the order of their names."""
    found = sorted(tasks, key=lambda task: (len(task.get_name()), task.get_name()))
    return "\n".join(map(describe_task, found)) or "    none"


def _frame_and_next(awaitable: object) -> tuple[FrameType | None, object]:
    for frame, following in _LINKS:
        if hasattr(awaitable, frame):
            return getattr(awaitable, frame), getattr(awaitable, following)
    return None, None


def _short(filename: str) -> str:
    """Return the last two parts of a path: enough to find it, and the same on every machine."""
    return "/".join(Path(filename).parts[-2:])
