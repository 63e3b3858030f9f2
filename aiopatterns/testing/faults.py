"""Let every call of a user function fail once.

A pattern calls functions of its user, and each call may fail. The scenario says where by calling
``fault()`` in them; the first run counts the calls, and then each one fails in a run of its own::

    fault() fault() fault()         3 calls: 3 more runs
       X
               X
                       X

After each run the same must hold as after a cancellation: no task alive, no timer set, nothing
unseen, and the scenario's own check. The work may handle the error, or raise it: bare, in a group,
or as the cause or context of another. Any other error is a failure of the test.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from aiopatterns.core.notes import note
from aiopatterns.core.validate import count, function
from aiopatterns.testing.trial import Visited, ended, run_trial, small_heap

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.testing.trial import Work

__all__ = ["InjectedError", "fail_everywhere"]


class InjectedError(Exception):
    """The failure that :func:`fail_everywhere` injects."""


def fail_everywhere(
    factory: Callable[[Callable[[], None]], object], *, minimum: int = 1, seed: int = 0
) -> Visited:
    """Run a scenario once for every call of ``fault()``, and let that call raise InjectedError.

    Args:
        factory: Function of ``fault`` that returns a fresh coroutine, or a
            :class:`~aiopatterns.testing.Trial` with a check. It is called inside the loop, once
            a run, and must make everything afresh. User functions in the scenario call
            ``fault()`` where they might fail.
        minimum: The least number of calls; fewer means that the scenario tests less than its
            author believes.
        seed: Which schedule, for every run.

    Returns:
        How many calls there are and how many runs it took; also printed.

    Raises:
        AssertionError: Something was left behind, or there are too few calls. A note names the
            call and the seed.
        Exception: What the check raises, or the work if it is not the injected error.
        RuntimeError: Called from async code.

    Complexity: one run for each call, 0.5 ms each and its own steps.

    Example::

        def mapping(fault: Callable[[], None]) -> Coroutine[Any, Any, object]:
            async def double(number: int) -> int:
                fault()
                return 2 * number

            return amap(double, range(10), limit=3)


        fail_everywhere(mapping, minimum=10)
    """
    function("factory", factory)
    count("minimum", minimum, minimum=0)
    count("seed", seed, minimum=0)
    with small_heap():
        calls = _run(factory, _Fault(0), seed).calls
        for position in range(1, calls + 1):
            _run(factory, _Fault(position), seed)
    name = getattr(factory, "__qualname__", None) or repr(factory)
    print(f"fail_everywhere({name}): {calls} positions, {calls + 1} runs")
    if calls < minimum:
        msg = f"{name} called fault() {calls} times, expected at least {minimum}"
        raise AssertionError(msg)
    return Visited(calls, calls + 1)


@final
class _Fault:
    """Counts its calls and raises at one of them; at 0, at none."""

    __slots__ = ("_at", "calls")

    def __init__(self, at: int) -> None:
        self.calls = 0
        self._at = at

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            msg = f"call {self._at} of fault()"
            raise InjectedError(msg)

    def __str__(self) -> str:
        return f"call {self._at} of fault() failed" if self._at else "undisturbed"

    async def drive(self, work: Work) -> None:
        """Run ``work``, and let the injected error pass, in whatever guise."""
        error = await ended(work)
        if self.calls < self._at:
            msg = "fault() was called fewer times than before: the scenario must be made afresh"
            raise AssertionError(msg) from error
        if error is None or (self._at and _is_injected(error)):
            return
        cancelled = isinstance(error, asyncio.CancelledError)
        raise AssertionError("the work was cancelled, but not by this test") if cancelled else error


def _run(factory: Callable[[Callable[[], None]], object], fault: _Fault, seed: int) -> _Fault:
    try:
        run_trial(lambda: factory(fault), fault.drive, seed=seed)
    except BaseException as error:
        note(error, f"{fault}, seed {seed}")
        raise
    return fault


def _is_injected(error: BaseException | None) -> bool:
    """Whether an InjectedError is ``error`` itself, in its group, its cause or its context."""
    if error is None or isinstance(error, InjectedError):
        return error is not None
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return any(map(_is_injected, (*inner, error.__cause__, error.__context__)))
