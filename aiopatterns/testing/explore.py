"""Run a scenario under one seed, or under many until one breaks it.

``simulate`` is ``asyncio.run`` in virtual time. ``explore`` is the same for many seeds; the first
that fails is named in a note on the error, together with the way to replay it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

from aiopatterns.core.validate import function
from aiopatterns.testing.simloop import SimLoop

__all__ = ["explore", "run_on", "simulate", "sweep"]

T = TypeVar("T")

sweep: ContextVar[range | None] = ContextVar("aiopatterns_sweep", default=None)
"""Seeds that ``pytest --sim-seed`` or ``--sim-seeds`` asks for instead of those in the code."""


def simulate(fn: Callable[[], Coroutine[Any, Any, T]], seed: int = 0) -> T:
    """Run an async function to its end on a fresh simulated loop."""
    function("fn", fn)
    return run_on(SimLoop(seed), fn)


def explore(fn: Callable[[], Coroutine[Any, Any, object]], seeds: Iterable[int]) -> None:
    """Run an async function once under each seed, each time on a fresh simulated loop."""
    function("fn", fn)
    asked = sweep.get()
    ran = 0
    for seed in seeds if asked is None else asked:
        loop = SimLoop(seed)
        ran += 1
        try:
            run_on(loop, fn)
        except BaseException as error:
            name = getattr(fn, "__qualname__", repr(fn))
            error.add_note(
                f"under seed {seed} (run {ran}, trace {loop.trace}); replay it with "
                f"simulate({name}, seed={seed}) or pytest --sim-seed={seed}"
            )
            raise
    if not ran:
        msg = "seeds must hold at least one seed, for example range(200), not an empty iterable"
        raise ValueError(msg)


def run_on(loop: SimLoop, fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``fn()`` to its end on ``loop`` and close the loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        loop.close()
        msg = "the simulated loop runs by itself: call this from a plain function, not from async code"
        raise RuntimeError(msg)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        work = fn()
        if not asyncio.iscoroutine(work):
            msg = f"fn must be an async function without arguments, not {fn!r}"
            raise TypeError(msg)
        return runner.run(work)
