"""Run a scenario under one seed, or under many until one breaks it.

:func:`simulate` is ``asyncio.run`` in virtual time. :func:`explore` does the same once for each
seed; the first that fails is named in a note on the error, with the way to replay it::

    explore(scenario, range(200))
        seed 0: asyncio's own order ........ passed
        seed 1: another schedule ........... passed
        ...
        seed 17: AssertionError: sold 11 of 10 tickets
                 note: under seed 17 ...; replay it with simulate(scenario, seed=17)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from aiopatterns.core.notes import note
from aiopatterns.core.validate import function, instance
from aiopatterns.testing.simloop import SimLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["asked_seeds", "explore", "run_on", "simulate"]

T = TypeVar("T")

asked_seeds: ContextVar[range | None] = ContextVar("aiopatterns_asked_seeds", default=None)
"""The seeds that ``pytest --sim-seed`` or ``--sim-seeds`` asks for in place of those in the code."""


def simulate(fn: Callable[[], Coroutine[Any, Any, T]], seed: int = 0) -> T:
    """Run an async function to its end in virtual time, on a fresh simulated loop.

    Args:
        fn: Async function without arguments. Make what it uses inside it: only there are the
            library's clock and dice those of the simulation.
        seed: Which schedule, a whole number >= 0; 0 is asyncio's own order.

    Returns:
        What ``fn`` returns.

    Raises:
        DeadlockError: Nothing can run any more, and ``fn`` has not ended.
        LivelockError: A million callbacks ran, and ``fn`` has not ended.
        RealWorldError: ``fn`` asked for a socket, a pipe, a process or a signal.
        RuntimeError: Called from async code.
        Exception: What ``fn`` raises.

    Example::

        async def an_hour() -> float:
            await anyio.sleep(3600)
            return anyio.current_time()


        assert simulate(an_hour) == 3600
    """
    function("fn", fn)
    return run_on(SimLoop(seed), fn)


def explore(fn: Callable[[], Coroutine[Any, Any, object]], seeds: Iterable[int]) -> None:
    """Run an async function once under each seed, and stop at the first that breaks it.

    Args:
        fn: Async function without arguments that raises if something is wrong. It must make
            everything afresh, so that runs are independent of each other.
        seeds: Which schedules, for example ``range(200)``. Under pytest, ``--sim-seed=N`` and
            ``--sim-seeds=N`` take their place.

    Raises:
        Exception: What ``fn`` raises, with a note that names the seed.
        ValueError: No seeds.
        RuntimeError: Called from async code.

    Complexity: a run costs about 0.3 ms and its own steps.
    """
    function("fn", fn)
    instance("seeds", seeds, Iterable, "an iterable of whole numbers, for example range(200)")
    asked = asked_seeds.get()
    explored = False
    for seed in seeds if asked is None else asked:
        explored = True
        loop = SimLoop(seed)
        try:
            run_on(loop, fn)
        except BaseException as error:
            note(error, _replay(fn, loop))
            raise
    if not explored:
        msg = "seeds must hold at least one seed, for example range(200), not be empty"
        raise ValueError(msg)


def run_on(loop: SimLoop, fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``fn()`` to its end on ``loop`` and close the loop.

    Raises:
        RuntimeError: Called from async code.
        TypeError: ``fn`` is no async function without arguments.
    """
    if asyncio._get_running_loop() is not None:
        loop.close()
        msg = (
            "a simulation runs on a loop of its own; call it from a plain function "
            "(for example 'def test_...'), not from async code"
        )
        raise RuntimeError(msg)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()  # from here on the runner closes it, whatever happens
        work = fn()
        if not asyncio.iscoroutine(work):
            msg = f"fn must be an async function without arguments, not {fn!r}"
            raise TypeError(msg)
        return runner.run(work)


def _replay(fn: Callable[..., object], loop: SimLoop) -> str:
    name = getattr(fn, "__qualname__", None) or repr(fn)
    return (
        f"under seed {loop.seed} (trace {loop.trace}); replay it with "
        f"simulate({name}, seed={loop.seed}), or under pytest with --sim-seed={loop.seed}"
    )
