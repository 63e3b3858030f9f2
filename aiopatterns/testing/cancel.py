"""Cancel a coroutine at every one of its awaits, in every way that Python has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, Literal, TypeAlias, final

from anyio import CancelScope

from aiopatterns.core.validate import choice, count, function
from aiopatterns.testing.stacks import innermost
from aiopatterns.testing.trial import Visited, Work, run_trial

__all__ = ["CancelKind", "cancel_everywhere"]

CancelKind: TypeAlias = Literal["native", "scope", "timeout", "native-twice"]

KINDS: tuple[CancelKind, ...] = ("native", "scope", "timeout", "native-twice")


def cancel_everywhere(
    factory: Callable[[], object],
    *,
    kinds: Iterable[CancelKind] = ("native", "scope", "timeout"),
    minimum: int = 1,
    seed: int = 0,
) -> Visited:
    """Cancel a coroutine at every suspension, once for each kind of cancellation."""
    function("factory", factory)
    count("minimum", minimum)
    wanted = [choice("kinds", kind, KINDS) for kind in kinds]
    plain = _Driver("none", (), late=False)
    run_trial(factory, plain.run, seed=seed)
    positions, runs = plain.suspensions, 1
    for kind in wanted:
        for position in range(1, positions + 1):
            for late in (False, True) if position in plain.on_future else (False,):
                runs += _visit(factory, kind, position, late=late, seed=seed)
    print(f"cancel_everywhere: {positions} positions, {runs} runs")
    if positions < minimum:
        msg = f"only {positions} positions were visited, at least {minimum} were expected"
        raise AssertionError(msg)
    return Visited(positions, runs)


def _visit(
    factory: Callable[[], object], kind: CancelKind, position: int, *, late: bool, seed: int
) -> int:
    """Cancel at one position; twice also at every suspension of the cleanup. Returns the runs."""
    if kind != "native-twice":
        _strike(factory, _Driver(kind, (position,), late=late), seed)
        return 1
    first = _strike(factory, _Driver("native", (position,), late=late), seed)
    again = range(position + 1, first.suspensions + 1)
    for second in again:
        _strike(factory, _Driver("native", (position, second), late=late), seed)
    return 1 + len(again)


def _strike(factory: Callable[[], object], driver: _Driver, seed: int) -> _Driver:
    try:
        run_trial(factory, driver.run, seed=seed)
    except BaseException as error:
        error.add_note(f"{driver}, seed {seed}")
        raise
    return driver


class _Gate(asyncio.Future[None]):
    """Stands for a future on which the work waits, and opens after a blow was prepared."""

    def __init__(self, awaited: asyncio.Future[Any], strike: Callable[[], object]) -> None:
        super().__init__(loop=awaited.get_loop())
        self._awaited = awaited
        self._strike = strike
        awaited._asyncio_future_blocking = False
        self._asyncio_future_blocking = True
        awaited.add_done_callback(self._open)

    def cancel(self, msg: Any | None = None) -> bool:
        return self._awaited.cancel(msg)

    def _open(self, _: asyncio.Future[Any]) -> None:
        self._strike()
        self.set_result(None)


@final
class _Driver:
    """Steps a coroutine by hand inside a task and cancels that task at chosen suspensions."""

    def __init__(self, kind: str, at: tuple[int, ...], *, late: bool) -> None:
        self.kind = kind
        self.suspensions = 0
        self.on_future: set[int] = set()
        self._at = at
        self._late = late
        self._place = ""
        self._thrown = False
        self._caught = False
        self._cancel: Callable[[], object] = int
        self._mark = ""

    def __str__(self) -> str:
        moment = "resumed" if self._late else "suspended"
        return f"{self.kind} cancel when {moment} at position {self._at} ({self._place})"

    async def run(self, work: Work) -> None:
        """Run ``work`` in a task of its own; see what became of the cancellation."""
        task = asyncio.get_running_loop().create_task(self._host(work))
        await asyncio.wait([task])
        caught = self._caught or task.cancelled()
        error = None if task.cancelled() else task.exception()
        if self._thrown and error is not None:
            msg = f"the work raised {error!r} in place of its cancellation"
            raise AssertionError(msg) from error
        if error is not None:
            raise error
        if self._thrown and not caught:
            raise AssertionError("the work swallowed its cancellation")

    async def _host(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        if self.kind == "scope":
            with CancelScope() as scope:
                self._cancel = partial(loop.call_soon, scope.cancel)
                self._mark = f"{id(scope):x}"
                await self._drive(work)
            self._caught = scope.cancelled_caught
        elif self.kind == "timeout":
            try:
                async with asyncio.timeout(None) as timeout:
                    self._cancel = lambda: timeout.reschedule(loop.time())
                    await self._drive(work)
            except TimeoutError:
                self._caught = timeout.expired()
                if not self._caught:
                    raise
        else:
            task = asyncio.current_task()
            assert task is not None
            self._cancel = partial(loop.call_soon, task.cancel) if self._late else task.cancel
            await self._drive(work)

    async def _drive(self, work: Work) -> None:
        await _Steps(self, work)

    def suspended(self, work: Work, awaited: Any) -> Any:
        """Called at each suspension with what the work waits for; returns what to wait for."""
        self.suspensions += 1
        future = isinstance(awaited, asyncio.Future)
        if future:
            self.on_future.add(self.suspensions)
        if self.suspensions not in self._at:
            return awaited
        self._place = innermost(work)
        self._struck = True
        if self._late and future and self.suspensions == self._at[0]:
            return _Gate(awaited, self._cancel)
        self._cancel()
        return awaited

    def thrown(self, error: BaseException) -> None:
        """Called with what is thrown into the work."""
        if (
            isinstance(error, asyncio.CancelledError)
            and self._at
            and self.suspensions >= self._at[0]
        ):
            text = str(error)
            if "cancel scope" not in text or (self._mark and self._mark in text):
                self._thrown = True


class _Steps:
    def __init__(self, driver: _Driver, work: Work) -> None:
        self._driver = driver
        self._work = work

    def __await__(self) -> Generator[Any, Any, object]:
        work, driver = self._work, self._driver
        step: Callable[[Any], Any] = work.send
        argument: Any = None
        while True:
            try:
                awaited = step(argument)
            except StopIteration as end:
                return end.value
            awaited = driver.suspended(work, awaited)
            try:
                argument = yield awaited
                step = work.send
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                driver.thrown(error)
                step, argument = work.throw, error
