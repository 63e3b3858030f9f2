"""One run of a scenario on a fresh simulated loop, and what must hold afterwards.

:func:`~aiopatterns.testing.cancel_everywhere` and :func:`~aiopatterns.testing.fail_everywhere`
repeat a scenario many times, each time with another disturbance. What a run is, and what it must
not leave behind, is the same for both and stands here.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiopatterns.testing.explore import run_on
from aiopatterns.testing.leaks import describe_context, open_timers, report_of
from aiopatterns.testing.simloop import SimLoop

__all__ = ["Trial", "Visited", "run_trial", "trial_of"]

Work: TypeAlias = "Coroutine[Any, Any, object]"


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario: the coroutine to disturb, and what must hold when it has ended.

    Args:
        work: A fresh coroutine.
        check: Function (or async function) without arguments that raises if something is wrong.
    """

    work: Work
    check: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Visited:
    """What a driver has seen.

    Args:
        positions: Places at which the scenario was disturbed.
        runs: How many times the scenario ran.
    """

    positions: int
    runs: int


def trial_of(made: object) -> Trial:
    """Return what a factory made as a Trial."""
    if asyncio.iscoroutine(made):
        return Trial(made)
    if isinstance(made, Trial) and asyncio.iscoroutine(made.work):
        return made
    msg = f"factory must return a coroutine or Trial(coroutine, check), not {made!r}"
    raise TypeError(msg)


def run_trial(
    factory: Callable[[], object],
    drive: Callable[[Work], Awaitable[None]],
    *,
    seed: int,
) -> None:
    """Make a scenario, let ``drive`` disturb it, and see that nothing is left behind."""
    loop = SimLoop(seed)
    unseen: list[str] = []
    loop.set_exception_handler(lambda _, context: unseen.append(describe_context(context)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=ResourceWarning)
        warnings.filterwarnings("always", message=".*was never awaited", category=RuntimeWarning)
        run_on(loop, lambda: _run(factory, drive))
        gc.collect(1)
    unseen += [f"{each.category.__name__}: {each.message}" for each in caught]
    if unseen:
        raise AssertionError(report_of((), (), unseen))


async def _run(factory: Callable[[], object], drive: Callable[[Work], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    trial = trial_of(factory())
    await drive(trial.work)
    report = report_of(asyncio.all_tasks() - before, open_timers(loop), ())
    if report:
        raise AssertionError(report)
    if trial.check is not None:
        checked = trial.check()
        if isinstance(checked, Awaitable):
            await checked
