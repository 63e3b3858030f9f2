"""One run of a scenario under one seed: its dice, its clock, and what must hold at every instant.

A scenario is an async function that is given a :class:`Run`. It does by chance what users do, lets
things go wrong, and says by ``run.always(check)`` what must be true after every turn of the loop;
what must be true in the end it asserts itself. The same seed is the same run in every process, as
long as strings hash alike (``PYTHONHASHSEED``), which the command sees to.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import traceback
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from anyio import fail_after

from aiopatterns.testing import SimLoop, leak_guard
from aiopatterns.testing.explore import run_on
from aiopatterns.testing.simloop import EPOCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

__all__ = ["FOREVER", "Inside", "Outcome", "Run", "Scenario", "play"]

FOREVER = math.inf  # the patience of who does not give up
HUNG = 3_600.0  # virtual seconds after which somebody must be waiting in vain


class Run:
    """What a scenario has of its run.

    Attributes:
        dice: Decides what happens; apart from the dice of the schedule and of the library.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(f"sweep {seed}")
        self._loop = SimLoop(seed)
        self._checks: list[Callable[[], object]] = []
        self._turn = self._loop._run_once
        self._skew = 0.0
        for name, value in {"_run_once": self._checked, "_wall": self._wall}.items():
            setattr(self._loop, name, value)

    def always(self, check: Callable[[], object]) -> None:
        """Call ``check`` after every turn of the loop, from now to the end of the run."""
        self._checks.append(check)

    def step_clock(self, seconds: float) -> None:
        """Move the wall clock; monotonic time goes on as it did."""
        self._skew += seconds

    def chance(self, share: float) -> bool:
        """Whether something happens that happens in that share of all cases."""
        return self.dice.random() < share

    def _wall(self) -> float:
        return EPOCH + self._loop.time() + self._skew

    def _checked(self) -> None:
        self._turn()
        try:
            for check in self._checks:
                check()
        except BaseException:
            self._checks.clear()  # what is cleaned up now need not be in order
            raise

    def play(self, scenario: Scenario) -> Outcome:
        """Run the scenario to its end, or to its first mistake."""

        async def guarded() -> None:
            async with leak_guard():
                with fail_after(HUNG):
                    await scenario(self)

        logging.disable()  # handlers that are to fail say so each time
        try:
            run_on(self._loop, guarded)
        except Exception as error:
            return Outcome(self._loop.trace, "".join(traceback.format_exception(error)))
        finally:
            logging.disable(logging.NOTSET)
        return Outcome(self._loop.trace, "")


class Inside:
    """The tasks that are in a place of which only one may be in at a time, by the place's key.

    A task that is being cancelled does not count: what it did is over for whoever comes now.
    """

    def __init__(self) -> None:
        self._tasks: defaultdict[Hashable, set[asyncio.Task[Any] | None]] = defaultdict(set)

    @contextmanager
    def __call__(self, key: Hashable) -> Iterator[None]:
        """Be inside for the block."""
        task = asyncio.current_task()
        self._tasks[key].add(task)
        try:
            yield
        finally:
            self._tasks[key].discard(task)

    def check(self) -> None:
        """No place has two."""
        for key, tasks in self._tasks.items():
            assert sum(task is not None and not task.cancelling() for task in tasks) <= 1, key

    def __bool__(self) -> bool:
        return any(self._tasks.values())


Scenario: TypeAlias = "Callable[[Run], Awaitable[None]]"


class Outcome(NamedTuple):
    """How a run has ended.

    Attributes:
        trace: Hash of all that ran and when: the same for the same run.
        error: The traceback of what was wrong, or nothing.
    """

    trace: str
    error: str


def play(scenario: Scenario, seed: int) -> Outcome:
    """Run a scenario once under a seed."""
    return Run(seed).play(scenario)
