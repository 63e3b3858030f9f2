"""Cancel a coroutine at every one of its awaits, in every way that Python has.

Code that is right when it runs to its end is often wrong when it is cancelled: an item is lost
between two awaits, a permit is never given back, a task stays behind. There are few places where
this can happen, one for each suspension, so all of them can be tried::

    work  ----o---------o--------------o-------> end        o  a suspension
              1         2              3
             | |
             | `- "resumed": what it waited for has happened, and it has not run yet
             `--- "suspended": it has just begun to wait

The first run, undisturbed, counts the suspensions of the work. Then, for every kind, suspension
and moment, the scenario is made afresh on a new simulated loop and disturbed once. The moment
"resumed" is the narrow one: a hand-over has taken place, and its receiver is cancelled before it
can know. Bare yields (``sleep(0)``) have one moment, not two.

Kinds:

* ``"native"``: ``Task.cancel()``, as a web server or ``asyncio.TaskGroup`` does it: once.
* ``"scope"``: an anyio ``CancelScope`` around the work, cancelled from outside: again and again
  until the work has left.
* ``"timeout"``: an ``asyncio.timeout`` around the work that expires.
* ``"native-twice"``: as native, and a second time at each suspension of the cleanup.

After each run: no task is alive and no timer set, no error went unseen, no ResourceWarning, and
the cancellation came through. It came through if the work ended by it, or ended before it was
delivered; work that catches it and returns has swallowed it, and work that raises something else
has replaced it: both are failures. Then the scenario's own check is called.

Only the suspensions of the work itself are visited, not those of tasks that it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard, final, get_args

from anyio import CancelScope

from aiopatterns.core.notes import note
from aiopatterns.core.validate import choice, count, function, instance
from aiopatterns.testing.stacks import innermost
from aiopatterns.testing.trial import Visited, ended, run_trial, small_heap

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aiopatterns.testing.trial import Work

__all__ = ["CancelKind", "cancel_everywhere"]

CancelKind: TypeAlias = Literal["native", "scope", "timeout", "native-twice"]

KINDS: Final[tuple[CancelKind, ...]] = get_args(CancelKind)


def cancel_everywhere(
    factory: Callable[[], object],
    *,
    kinds: Iterable[CancelKind] = ("native", "scope", "timeout"),
    minimum: int = 1,
    seed: int = 0,
) -> Visited:
    """Cancel a coroutine at every suspension, once for each kind and moment.

    Args:
        factory: Function without arguments that returns a fresh coroutine, or a
            :class:`~aiopatterns.testing.Trial` with a check. It is called inside the loop, once
            a run, and must make everything afresh.
        kinds: Ways to cancel: ``"native"``, ``"scope"``, ``"timeout"``, ``"native-twice"``.
        minimum: The least number of suspensions; fewer means that the scenario tests less than
            its author believes.
        seed: Which schedule, for every run.

    Returns:
        How many suspensions there are and how many runs it took; also printed.

    Raises:
        AssertionError: Something was left behind, the cancellation was swallowed or replaced, or
            there are too few suspensions. Notes name the kind, the suspension and the seed.
        Exception: What the check raises, or the undisturbed work; with the same notes.
        RuntimeError: Called from async code.

    Complexity: about two runs for each kind and suspension, 0.5 ms each; ``"native-twice"`` one
    for each suspension of the cleanup besides.

    Example::

        def receive() -> Trial:
            channel: Channel[int] = Channel(10)
            channel.send_nowait(1)
            got: list[int] = []

            async def work() -> None:
                got.append(await channel.receive())

            return Trial(work(), lambda: None)


        cancel_everywhere(receive)
    """
    function("factory", factory)
    wanted = _checked(kinds)
    count("minimum", minimum, minimum=0)
    count("seed", seed, minimum=0)
    with small_heap():
        plain = _run(factory, _Disturbance(), seed)
        runs = 1
        for kind in wanted:
            for position, late in plain.moments():
                runs += _visit(factory, kind, position, late=late, seed=seed)
    name = getattr(factory, "__qualname__", None) or repr(factory)
    print(f"cancel_everywhere({name}): {plain.suspensions} positions, {runs} runs")
    if plain.suspensions < minimum:
        msg = f"{name} was suspended {plain.suspensions} times, expected at least {minimum}"
        raise AssertionError(msg)
    return Visited(plain.suspensions, runs)


def _checked(kinds: Iterable[CancelKind]) -> list[CancelKind]:
    allowed = f"a collection of {', '.join(map(repr, KINDS))}"
    instance("kinds", kinds, Iterable, allowed)
    if isinstance(kinds, str):
        msg = f"kinds must be {allowed}, not {kinds!r}"
        raise TypeError(msg)
    wanted: list[CancelKind] = [choice("kinds", kind, KINDS) for kind in kinds]
    if not wanted:
        msg = f"kinds must be {allowed}, not be empty"
        raise ValueError(msg)
    return wanted


def _visit(
    factory: Callable[[], object], kind: CancelKind, position: int, *, late: bool, seed: int
) -> int:
    """Cancel at one suspension, if twice then at each of the cleanup besides; returns the runs."""
    if kind != "native-twice":
        _run(factory, _Disturbance(kind, position, late=late), seed)
        return 1
    first = _run(factory, _Disturbance("native", position, late=late), seed)
    cleanup = range(position + 1, first.suspensions + 1)
    for again in cleanup:
        _run(factory, _Disturbance("native", position, again, late=late), seed)
    return 1 + len(cleanup)


def _run(factory: Callable[[], object], disturbance: _Disturbance, seed: int) -> _Disturbance:
    try:
        run_trial(factory, disturbance.drive, seed=seed)
    except BaseException as error:
        note(error, f"{disturbance}, seed {seed}")
        raise
    return disturbance


@final
class _Disturbance:
    """One run of the work, cancelled at chosen suspensions, and what became of it.

    Args:
        kind: How to cancel; None leaves the work alone.
        at: Number of the suspension, from 1, and of a second one if it is cancelled twice.
        late: Whether to cancel when the work is about to resume.
    """

    def __init__(self, kind: CancelKind | None = None, *at: int, late: bool = False) -> None:
        self.suspensions = 0
        self._kind = kind
        self._at = at
        self._late = late
        self._waits: set[int] = set()  # suspensions that wait for a future
        self._place = ""
        self._scope = ""  # as in the message of this scope's cancellations
        self._thrown = False  # ours reached the work
        self._caught = False  # ours came out of the work
        self._strike: Callable[[], object] = lambda: None
        self._struck: Callable[[], bool] = lambda: False  # whether ours is known to be in this one

    def __str__(self) -> str:
        if not self._at:
            return "undisturbed"
        moment = "about to resume" if self._late else "suspended"
        place = f" ({self._place})" if self._place else ""
        return f"{self._kind} cancel when {moment} at {' and '.join(map(str, self._at))}{place}"

    def moments(self) -> list[tuple[int, bool]]:
        """Return where this run could be cancelled: each suspension, and whether late."""
        positions = range(1, self.suspensions + 1)
        return [(each, late) for each in positions for late in sorted({False, each in self._waits})]

    async def drive(self, work: Work) -> None:
        """Run ``work`` in a task, cancel it, and judge how the cancellation came through."""
        error = await ended(self._host(work))
        cancelled = isinstance(error, asyncio.CancelledError)
        if self.suspensions < max(self._at, default=0):
            msg = "the work was suspended fewer times than before: the scenario must be made afresh"
            raise AssertionError(msg) from error
        if self._caught or (cancelled and self._kind == "native"):
            return
        if cancelled:
            raise AssertionError("the work was cancelled, but not by this test")
        if self._thrown and error is not None:
            msg = f"the work raised {error!r} in place of its cancellation"
            raise AssertionError(msg) from error
        if self._thrown:
            raise AssertionError("the work swallowed its cancellation")
        if error is not None:
            raise error

    async def _host(self, work: Work) -> None:
        """Run ``work`` inside what will cancel it."""
        if self._kind == "scope":
            await self._in_scope(work)
        elif self._kind == "timeout":
            await self._in_timeout(work)
        else:
            await self._in_task(work)

    async def _in_task(self, work: Work) -> None:
        me = asyncio.current_task()
        assert me is not None  # every coroutine of asyncio runs in one
        loop = asyncio.get_running_loop()

        def strike() -> None:
            if self._late:
                loop.call_soon(me.cancel)
            else:
                me.cancel()

        self._strike = strike
        await _stepped(work, self)

    async def _in_scope(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        with CancelScope() as scope:
            self._scope = f"{id(scope):x}"
            self._strike = lambda: loop.call_soon(scope.cancel)
            await _stepped(work, self)
        self._caught = scope.cancelled_caught

    async def _in_timeout(self, work: Work) -> None:
        timeout = asyncio.timeout(None)
        self._strike = lambda: timeout.reschedule(0)  # a time that is over
        cancelled = False
        try:
            async with timeout:
                try:
                    await _stepped(work, self)
                except asyncio.CancelledError:
                    cancelled = True
                    raise
        except TimeoutError:
            if not cancelled:
                raise
            self._caught = True

    def suspended(self, work: Work, awaited: object) -> object:
        """Note a suspension and cancel if it is one of ours; returns what to wait for."""
        self.suspensions += 1
        if _is_future(awaited):
            self._waits.add(self.suspensions)
        if self.suspensions not in self._at:
            return awaited
        self._place = innermost(work)
        if self._late and self.suspensions == self._at[0] and _is_future(awaited):
            return _Gate(awaited, self._strike)
        self._strike()
        return awaited

    def thrown(self, error: BaseException) -> None:
        """Note that ``error`` is thrown into the work."""
        if self._at and self.suspensions >= self._at[0]:
            message = str(error)
            foreign = "cancel scope" in message and not (self._scope and self._scope in message)
            # Two cancellations of one turn arrive as one, with the message of either.
            ours = not foreign or self._struck()
            self._thrown |= isinstance(error, asyncio.CancelledError) and ours


@final
class _Gate(asyncio.Future[None]):
    """Stands before a future on which the work waits; strikes between its end and the resumption.

    Cancelling goes to the future, so the work waits for as long as it would without the gate.
    """

    def __init__(self, awaited: asyncio.Future[Any], strike: Callable[[], object]) -> None:
        super().__init__(loop=awaited.get_loop())
        self._awaited = awaited
        self._strike = strike
        # As Future.__await__ leaves it, for the task that is handed the gate in its place.
        awaited._asyncio_future_blocking = False
        self._asyncio_future_blocking = True
        awaited.add_done_callback(self._open)

    def cancel(self, msg: Any | None = None) -> bool:
        return self._awaited.cancel(msg)

    def _open(self, awaited: asyncio.Future[Any]) -> None:
        del awaited  # the work asks it itself when it resumes
        self._strike()
        self.set_result(None)


def _is_future(awaited: object) -> TypeGuard[asyncio.Future[Any]]:
    return isinstance(awaited, asyncio.Future)


@coroutine
def _stepped(work: Work, disturbance: _Disturbance) -> Generator[Any, Any, object]:
    """Await ``work`` in this task, and tell ``disturbance`` of each suspension."""
    step: Callable[[Any], Any] = work.send
    argument: Any = None
    while True:
        try:
            awaited = step(argument)
        except StopIteration as end:
            return end.value
        try:
            argument = yield disturbance.suspended(work, awaited)
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            disturbance.thrown(error)
            step, argument = work.throw, error
