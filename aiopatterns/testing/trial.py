"""One run of a scenario on a fresh simulated loop, and what must hold when it has ended.

:func:`~aiopatterns.testing.cancel_everywhere` and :func:`~aiopatterns.testing.fail_everywhere`
repeat a scenario many times, each time with another disturbance. What a run is, and what it must
not leave behind, is the same for both::

    factory() -> Trial(work, check)
        drive(work)            the disturbance; the work runs in a task of its own
        nothing left?          no task alive, no timer set
        check()                the scenario's own opinion
        nothing unseen?        no error never retrieved, no ResourceWarning, no coroutine
                               never awaited, also after a garbage collection
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Coroutine
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from aiopatterns.core.notes import note
from aiopatterns.core.validate import function
from aiopatterns.testing.explore import run_on
from aiopatterns.testing.leaks import describe_context, open_timers, report_leaks
from aiopatterns.testing.simloop import SimLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["Trial", "Visited", "ended", "run_trial", "small_heap"]

Work: TypeAlias = Coroutine[Any, Any, object]


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario: a coroutine to disturb, and what must hold when it has ended.

    Args:
        work: A fresh coroutine. Undisturbed, it comes to its end without an error.
        check: Function without arguments, plain or async, that raises if something is wrong.

    Raises:
        TypeError: ``work`` is no coroutine, or ``check`` no function.
    """

    work: Work
    check: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if not inspect.iscoroutine(self.work):
            msg = f"work must be a fresh coroutine, not {self.work!r}"
            raise TypeError(msg)
        if self.check is not None:
            function("check", self.check)


@dataclass(frozen=True, slots=True)
class Visited:
    """What was tried.

    Args:
        positions: Places at which the scenario can be disturbed.
        runs: How many times it ran.
    """

    positions: int
    runs: int


def run_trial(
    factory: Callable[[], object], drive: Callable[[Work], Awaitable[None]], *, seed: int
) -> None:
    """Make a scenario, let ``drive`` disturb its work, and see to it that nothing is left.

    Args:
        factory: Returns a Trial or a fresh coroutine; called inside the loop.
        drive: Runs the work to its end and disturbs it.
        seed: Which schedule.

    Raises:
        AssertionError: Something was left behind.
        Exception: What ``drive`` or the check raises.
    """
    loop = SimLoop(seed)
    unseen: list[str] = []
    loop.set_exception_handler(lambda _, context: unseen.append(describe_context(context)))
    try:
        with _complaints(unseen):
            run_on(loop, lambda: _run(factory, drive))
            gc.collect()
    except BaseException as error:
        if unseen:
            note(error, report_leaks((), (), unseen))
        raise
    if unseen:
        raise AssertionError(report_leaks((), (), unseen))


async def ended(work: Work) -> BaseException | None:
    """Run ``work`` in a task of its own; returns its error, or None.

    Raises:
        asyncio.CancelledError: Never on behalf of the work: its own comes back as a result.
    """
    task = asyncio.get_running_loop().create_task(work, name="work")
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@contextmanager
def small_heap() -> Generator[None, None, None]:
    """Keep what exists now out of garbage collections, so that one after each run is cheap."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _run(factory: Callable[[], object], drive: Callable[[Work], Awaitable[None]]) -> None:
    me = asyncio.current_task()
    made = factory()
    trial = made if isinstance(made, Trial) else _bare(made)
    await drive(trial.work)
    tasks = [task for task in asyncio.all_tasks() if task is not me]
    report = report_leaks(tasks, open_timers(asyncio.get_running_loop()), ())
    if report:
        raise AssertionError(report)
    checked = trial.check() if trial.check is not None else None
    if inspect.isawaitable(checked):
        await checked


def _bare(made: object) -> Trial:
    if inspect.iscoroutine(made):
        return Trial(made)
    msg = f"factory must return a fresh coroutine or a Trial(work, check), not {made!r}"
    raise TypeError(msg)


@contextmanager
def _complaints(unseen: list[str]) -> Generator[None, None, None]:
    """Collect ResourceWarnings and coroutines never awaited; other warnings go their way."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", category=ResourceWarning)
            warnings.filterwarnings("always", ".*was never awaited", RuntimeWarning)
            yield
    finally:
        for each in caught:
            if each.category is ResourceWarning or "was never awaited" in str(each.message):
                unseen.append(f"{each.category.__name__}: {each.message}")
            else:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
