"""Let every call of a user function fail once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from aiopatterns.core.validate import count, function
from aiopatterns.testing.trial import Visited, Work, run_trial

__all__ = ["InjectedError", "fail_everywhere"]


class InjectedError(Exception):
    """What :func:`fail_everywhere` raises inside the scenario."""


@final
class _Fault:
    """Counts its calls and raises at one of them."""

    __slots__ = ("_at", "calls")

    def __init__(self, at: int) -> None:
        self.calls = 0
        self._at = at

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            raise InjectedError(f"injected at call {self._at}")


def fail_everywhere(
    factory: Callable[[Callable[[], None]], object], *, minimum: int = 1, seed: int = 0
) -> Visited:
    """Run a scenario once for every call of ``fault()``, and let that call fail."""
    function("factory", factory)
    count("minimum", minimum)
    plain = _Fault(0)
    run_trial(lambda: factory(plain), _finish, seed=seed)
    for position in range(1, plain.calls + 1):
        fault = _Fault(position)
        try:
            run_trial(lambda: factory(fault), _fail, seed=seed)
        except BaseException as error:
            error.add_note(f"with call {position} of {plain.calls} of fault() failing, seed {seed}")
            raise
    print(f"fail_everywhere: {plain.calls} positions, {plain.calls + 1} runs")
    if plain.calls < minimum:
        msg = f"only {plain.calls} positions were visited, at least {minimum} were expected"
        raise AssertionError(msg)
    return Visited(plain.calls, plain.calls + 1)


async def _finish(work: Work) -> None:
    await asyncio.get_running_loop().create_task(work)


async def _fail(work: Work) -> None:
    try:
        await asyncio.get_running_loop().create_task(work)
    except Exception as error:
        if not _injected(error):
            raise


def _injected(error: BaseException | None) -> bool:
    if error is None:
        return False
    if isinstance(error, InjectedError):
        return True
    if isinstance(error, BaseExceptionGroup) and any(map(_injected, error.exceptions)):
        return True
    return _injected(error.__cause__) or _injected(error.__context__)
