"""Adjacent serial stages run as one: in the task that pushes, with nothing in between.

A boundary between two stages costs a queue, two wake-ups and a task. Where concurrency does not
change there is no use for one: a ``map`` or ``filter`` with one worker is a step of a loop, and a
``flat_map`` is an inner loop::

    map(parse).filter(valid).flat_map(lines).map(strip)      four stages, no queue
        item -> [parse] -> [valid] -> [lines] =>> [strip] -> down

Guarantees:

* One item is in the fused chain at a time. What a stage passes on has been taken by the next
  boundary, or has been dropped by a filter, before the next item is asked for.
* An output of a ``flat_map`` is passed on before the next one is asked for, so the iterable may be
  as long as it likes. It is closed if the run ends before it does.

Not guaranteed: overlap. Two slow asynchronous stages in a row take the sum of their times for
each item; ``workers=2`` on one of them makes a boundary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeGuard, final

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.types import as_async_iterator, close
from aiopatterns.flow.isolation import Isolation
from aiopatterns.flow.stage import Node, failure
from aiopatterns.flow.tally import Tally, is_timed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from aiopatterns.flow.stage import Stage, UserFn

__all__ = ["Flat", "Fused", "Step"]

# An endless iterable must not starve the loop: one forced turn in this many outputs.
_TURN: Final = 64
# In the place of an output: the iterable has ended; it has failed, and the stage goes on.
_ENDED: Final = object()
_FAILED: Final = object()


@final
class Step(Tally):
    """One fused stage: its function, and what it counts.

    Args:
        stage: The stage.
    """

    __slots__ = ("_stage", "filters", "fn")

    failed: int

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.name)
        self._stage = stage
        self.fn: UserFn = stage.fn
        self.filters: bool = stage.verb == "filter"

    async def fail(self, item: object, error: BaseException) -> None:
        """Count a failure and do what ``on_error`` says; call it inside ``except`` only."""
        problem = failure(error)
        try:
            await self._stage.refuse(item, self.started - 1, problem, 1)
        except Exception:
            self.failed += 1
            raise
        self.failed += 1


@final
class Fused(Node):
    """A run of adjacent serial ``map`` and ``filter`` stages.

    Args:
        steps: The stages, at least one.
        down: What follows.
    """

    __slots__ = ("_down", "_steps")

    def __init__(self, steps: Sequence[Step], down: Node) -> None:
        self.tally: Tally = steps[0]
        self._steps = tuple(steps)
        self._down = down

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        began = 0.0
        for step in self._steps:
            timed = is_timed(step.started)
            step.started += 1
            if timed:
                began = monotonic()
            try:
                value = step.fn(item)
                if hasattr(value, "__await__"):
                    value = await value
                if step.filters:
                    value = bool(value)  # which may fail
            except BaseException as error:
                await step.fail(item, error)
                return
            step.done += 1
            if timed:
                step.latency.record(monotonic() - began)
            if not step.filters:
                item = value
            elif not value:
                return
        await self._down.push(item)

    async def end(self) -> None:
        """Take the end of the input; see :class:`Node`."""
        await self._down.end()


@final
class Flat(Node):
    """A serial ``flat_map``: passes each output on before it asks for the next.

    Args:
        step: The stage.
        down: What follows.
    """

    __slots__ = ("_down", "_step")

    def __init__(self, step: Step, down: Node) -> None:
        self.tally: Tally = step
        self._step = step
        self._down = down

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        step = self._step
        timed = is_timed(step.started)
        step.started += 1
        began = monotonic() if timed else 0.0
        outputs: Any = await self._asked(item, self._called, item)
        if outputs is _FAILED:
            return
        if timed:
            step.latency.record(monotonic() - began)
        if _is_finished(outputs):
            complete = await self._spread(outputs)
        else:
            complete = await self._stream(item, outputs)
        if complete:
            step.done += 1

    async def end(self) -> None:
        """Take the end of the input; see :class:`Node`."""
        await self._down.end()

    async def _called(self, item: Any) -> Sequence[Any] | AsyncIterator[Any]:
        """Call the function; return a finished sequence, or an iterator over what it gives."""
        try:
            value = self._step.fn(item)
            if hasattr(value, "__await__"):
                value = await value
        except StopAsyncIteration as error:  # not the end of its outputs: there are none
            raise failure(error) from error
        if _is_finished(value):
            return value
        return as_async_iterator("what the function of flat_map gives", value)

    async def _spread(self, outputs: Sequence[Any]) -> bool:
        """Pass on what is there already; it cannot fail."""
        isolation, push, turn = Isolation(), self._down.push, _TURN
        for output in outputs:
            await (isolation.call(push, output) if isolation.spoiled() else push(output))
            turn -= 1
            if not turn:
                turn = _TURN
                await yield_now()
        return True

    async def _stream(self, item: Any, outputs: AsyncIterator[Any]) -> bool:
        """Pass on one output after the other; False if the iterable has failed."""
        isolation, push, turn = Isolation(), self._down.push, _TURN
        try:
            while (output := await self._asked(item, anext, outputs)) is not _ENDED:
                if output is _FAILED:
                    return False
                await (isolation.call(push, output) if isolation.spoiled() else push(output))
                turn -= 1
                if not turn:
                    turn = _TURN
                    await yield_now()
        finally:
            await close(outputs)
        return True

    async def _asked(self, item: Any, ask: Callable[[Any], Awaitable[Any]], of: Any) -> Any:
        """Return what the user's code answers, or what stands for its end or its failure."""
        try:
            return await ask(of)
        except StopAsyncIteration:
            return _ENDED
        except BaseException as error:
            await self._step.fail(item, error)
            return _FAILED


def _is_finished(outputs: object) -> TypeGuard[Sequence[Any]]:
    """Whether outputs are there already, so that asking for one more cannot fail or wait."""
    return isinstance(outputs, (list, tuple))
