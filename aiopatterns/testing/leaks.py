"""What a block of code leaves behind: tasks, timers, and errors that nobody saw.

A task that outlives its owner, a timer that nobody disarms and an error that nobody retrieves are
bugs that a test passes over in silence: the loop is closed, and they are gone. The leak guard
makes failures of them.

Not seen: timers on uvloop, which does not show them; and an error that nobody retrieved, as long
as something still refers to its task.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.clock import Alarms
from aiopatterns.core.notes import note
from aiopatterns.testing.stacks import describe_tasks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType
    from typing import Self

    Context = dict[str, Any]

__all__ = ["LeakGuard", "describe_context", "leak_guard", "open_timers", "report_leaks"]


@final
class LeakGuard:
    """What :func:`leak_guard` returns: an async context manager for one block."""

    __slots__ = ("_before", "_handler", "_unseen")

    def __init__(self) -> None:
        self._before: tuple[object, ...] = ()
        self._unseen: list[str] = []
        self._handler: Any = None

    async def __aenter__(self) -> Self:
        """Remember what is there already, and listen for errors that nobody retrieves."""
        loop = asyncio.get_running_loop()
        self._before = (*asyncio.all_tasks(loop), *open_timers(loop))
        self._unseen = []
        self._handler = loop.get_exception_handler()
        loop.set_exception_handler(self._note)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise AssertionError about what is new; the block's own error gets a note instead."""
        loop = asyncio.get_running_loop()
        gc.collect(1)  # the young: an error in a cycle is seen when the cycle goes
        loop.set_exception_handler(self._handler)
        known = {id(each) for each in (*self._before, asyncio.current_task(loop))}
        tasks = [task for task in asyncio.all_tasks(loop) if id(task) not in known]
        timers = [timer for timer in open_timers(loop) if id(timer) not in known]
        self._before = ()
        report = report_leaks(tasks, timers, self._unseen)
        if report and exc is not None:
            note(exc, report)
        elif report:
            raise AssertionError(report)

    def _note(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        del loop
        self._unseen.append(describe_context(context))


def leak_guard() -> LeakGuard:
    """Fail an ``async with`` block that leaves a task, a timer or an unseen error behind.

    Tasks and timers that were there before the block are not its business. If the block itself
    raises, its error goes on unchanged and gets a note about what was left.

    Returns:
        The async context manager; it may be entered once at a time, also in one task and left
        in another, as fixtures do.

    Raises:
        AssertionError: On leaving, with a line for each thing that is left: a task with its
            chain of awaits, a timer with its callback and its time, an error with its message.

    Example::

        async with leak_guard():
            async with WorkerPool(fetch) as pool:
                await pool.submit(url)
    """
    return LeakGuard()


def open_timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    """Return the timers that are set on ``loop``; none if the loop does not show them.

    A shared timer (:class:`~aiopatterns.core.clock.Alarms`) that no call waits for is left out:
    it rings once more and is gone.
    """
    timers: Iterable[asyncio.TimerHandle] = getattr(loop, "_scheduled", ())
    return [each for each in timers if not each.cancelled() and not _is_idle(each)]


def report_leaks(
    tasks: Collection[asyncio.Task[Any]],
    timers: Collection[asyncio.TimerHandle],
    unseen: Collection[str],
) -> str:
    """Say what was left behind; empty if nothing was."""
    parts = [
        f"{len(tasks)} task(s) left alive:\n{describe_tasks(tasks)}" if tasks else "",
        _listing("timer(s) left set", [_describe_timer(each) for each in timers]),
        _listing("complaint(s) that nobody saw", unseen),
    ]
    return "\n".join(filter(None, parts))


def describe_context(context: Context) -> str:
    """Return in one line what a loop tells its exception handler."""
    error = context.get("exception")
    message: str = context["message"]
    return message if error is None else f"{message}: {error!r}"


def _listing(title: str, lines: Collection[str]) -> str:
    return "\n    ".join([f"{len(lines)} {title}:", *lines]) if lines else ""


def _describe_timer(timer: asyncio.TimerHandle) -> str:
    callback: object = getattr(timer, "_callback", None)
    name = getattr(callback, "__qualname__", None) or repr(callback)
    arguments = ", ".join(map(repr, timer._args))
    return f"{name}({arguments}) at {timer.when():g}"


def _is_idle(timer: asyncio.TimerHandle) -> bool:
    owner = getattr(getattr(timer, "_callback", None), "__self__", None)
    return isinstance(owner, Alarms) and not owner._armed
