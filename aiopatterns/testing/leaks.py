"""What a block of code leaves behind: tasks, timers, and errors that nobody saw.

A task that outlives its owner, a timer that nobody disarmed and an exception that was never
retrieved are bugs that a test passes over silently: the loop closes and they are gone. The leak
guard makes them failures.

On uvloop timers cannot be seen, so only tasks and unseen errors are checked there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.clock import Alarms
from aiopatterns.testing.stacks import describe_tasks

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType
    from typing import Self

__all__ = ["describe_context", "leak_guard", "open_timers", "report_of"]


@final
class leak_guard:  # noqa: N801 - used like a function, in an async with statement
    """Fail a block that leaves a task, a timer or an unseen error behind."""

    __slots__ = ("_handler", "_tasks", "_timers", "_unseen")

    def __init__(self) -> None:
        self._unseen: list[str] = []

    async def __aenter__(self) -> Self:
        """Remember what is there already."""
        loop = asyncio.get_running_loop()
        self._tasks = set(asyncio.all_tasks(loop))
        self._timers = set(map(id, open_timers(loop)))
        self._handler = loop.get_exception_handler()
        loop.set_exception_handler(
            lambda _, context: self._unseen.append(describe_context(context))
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise AssertionError about what is new; the block's own error gets a note instead."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handler)
        current = asyncio.current_task()
        tasks = {task for task in asyncio.all_tasks(loop) - self._tasks if task is not current}
        timers = [each for each in open_timers(loop) if id(each) not in self._timers]
        report = report_of(tasks, timers, self._unseen)
        if report and exc is not None:
            exc.add_note(report)
        elif report:
            raise AssertionError(report)


def open_timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    """Return the timers that are set on ``loop``; none on a loop that does not show them.

    The shared timer of :class:`~aiopatterns.core.clock.Alarms` with no call under way is left
    out: it rings once and goes.
    """
    timers: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    return [each for each in timers if not each.cancelled() and not _idle(each)]


def report_of(
    tasks: Collection[asyncio.Task[Any]],
    timers: Collection[asyncio.TimerHandle],
    unseen: Collection[str],
) -> str:
    """Say what was left behind; empty if nothing was."""
    parts: list[str] = []
    if tasks:
        parts.append(f"{len(tasks)} task(s) left alive:\n{describe_tasks(tasks)}")
    if timers:
        lines = "\n".join(f"    {_describe_timer(each)}" for each in timers)
        parts.append(f"{len(timers)} timer(s) left set:\n{lines}")
    if unseen:
        lines = "\n".join(f"    {each}" for each in unseen)
        parts.append(f"{len(unseen)} error(s) that nobody saw:\n{lines}")
    return "\n".join(parts)


def describe_context(context: dict[str, Any]) -> str:
    """Return what a loop told its exception handler, in one line."""
    error = context.get("exception")
    return context["message"] if error is None else f"{context['message']}: {error!r}"


def _describe_timer(handle: asyncio.TimerHandle) -> str:
    callback = handle._callback
    name = getattr(callback, "__qualname__", None) or repr(callback)
    return f"{name} due at {handle.when():g}"


def _idle(handle: asyncio.TimerHandle) -> bool:
    owner = getattr(handle._callback, "__self__", None)
    return isinstance(owner, Alarms) and not owner._armed
