"""One run of a pipeline: the stages as a chain of nodes, and the tasks that move items through it.

The chain is assembled from its end to its start. Adjacent serial stages become one node; only
where concurrency or time comes in there is a boundary with tasks of its own::

    source --pump task--> [ Fused ] -> [ Lanes: workers, emitter ] -> [ Fused, output ]
                           map filter    map(workers=8)                map, reader or sink

Guarantees:

* All tasks live in one task group inside the run. When the run has been left there is none.
* Back-pressure from end to end: nothing is read from the source that has no room to go to.
* The first error stops the run; it leaves bare, once, with a note that names its place. Errors of
  others that were cancelled because of it are notes on it. Results that were ready before are
  given out first.
* A source that fails ends like one that is exhausted: what it gave is finished and given out, and
  then its error is raised.
* A generator that is the source, or that the source makes, is closed when the run ends before it.
* A task that is cancelled by itself alone stops the run: none ends as if its work were done.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from anyio import EndOfStream, create_task_group

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.lifecycle import Owner, OwnerState
from aiopatterns.core.notes import note
from aiopatterns.core.types import as_sink, close
from aiopatterns.core.waiters import Waiters, cancel_count
from aiopatterns.flow.batching import Batch, Batching
from aiopatterns.flow.broadcast import Branches, Broadcast, Relay
from aiopatterns.flow.calls import given_up, own_cancellation, own_error
from aiopatterns.flow.channel import Channel
from aiopatterns.flow.fusion import Flat, Fused, Step
from aiopatterns.flow.isolation import Isolation
from aiopatterns.flow.lanes import Lanes
from aiopatterns.flow.stage import Node, Stage, failure
from aiopatterns.flow.tally import PipelineReport, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextvars import Context

    from anyio.abc import TaskGroup

    from aiopatterns.core.types import Sink, Source
    from aiopatterns.flow.executors import Executor

__all__ = ["PipelineRun", "Plan"]

T = TypeVar("T")

# A source that never has to wait must not starve the loop: one forced turn in this many items.
_TURN: Final = 64
_OUTPUT: Final = "output"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pipeline is.

    Args:
        source: Where items come from.
        capacity: How many items may wait at each boundary.
        name: Name of the pipeline.
        stages: The stages, in order.
    """

    source: Source[Any]
    capacity: int
    name: str
    stages: tuple[Stage | Batch | Branches, ...] = ()


@final
class PipelineRun(Owner, AsyncIterator[T]):
    """A pipeline at work; ``Pipeline.open()`` makes it.

    ``async with`` runs it, ``async for`` reads its results. Leaving the block before the end
    cancels the run and waits for its tasks; the body's own exception leaves bare.

    Args:
        plan: The pipeline.
        into: Where results go if they are not read from here.

    Attributes:
        plan: What it runs; to be looked at only.

    Raises:
        ClosedError: It is read outside its ``async with``.
    """

    __slots__ = (
        "_began",
        "_ended",
        "_executors",
        "_failure",
        "_head",
        "_items",
        "_late",
        "_nodes",
        "_output",
        "_over",
        "_read",
        "_results",
        "_sink",
        "_tallies",
        "plan",
    )

    def __init__(self, plan: Plan, *, into: Sink[T] | None = None, reads: bool = True) -> None:
        super().__init__(plan.name)
        self.plan: Plan = plan
        self._sink = None if reads else _nothing if into is None else as_sink("into", into)
        self._began = 0.0
        self._ended: float | None = None
        self._over = Waiters()
        self._failure: Exception | None = None
        self._read = 0

    # -- reading

    async def __anext__(self) -> T:
        """Return the next result.

        Raises:
            Exception: What stopped the run, once, after the results that were ready before.
            ClosedError: The run is not open.

        Cancellation: no result is lost.
        """
        if self._group is None:
            msg = (
                f"pipeline {self.name!r} is not running; "
                "read it inside 'async with pipeline.open() as results:'"
            )
            raise ClosedError(msg)
        try:
            result: T = await self._results.receive()
        except EndOfStream:
            error, self._failure = self._failure, None
        else:
            self._output.queued -= 1
            self._output.started += 1
            self._output.done += 1
            return result
        if error is not None:
            raise error
        raise StopAsyncIteration

    def __aiter__(self) -> PipelineRun[T]:
        return self

    async def finished(self) -> None:
        """Wait until the run has ended by itself.

        Raises:
            Exception: What stopped the run, once.
        """
        self._open_group()
        while self._ended is None:
            await self._over.wait()
        error, self._failure = self._failure, None
        if error is not None:
            raise error

    def statistics(self) -> PipelineReport:
        """Return the figures of this moment; after the run, those of its end.

        Raises:
            ClosedError: The run was never opened.

        Complexity: O(stages).
        """
        if self._state is OwnerState.CREATED:
            self._open_group()
        until = monotonic() if self._ended is None else self._ended
        return PipelineReport(
            name=self.name,
            stages=tuple(tally.snapshot() for tally in self._tallies),
            output=self._output.snapshot(),
            read=self._read,
            elapsed=until - self._began,
        )

    # -- life

    async def _start(self, tasks: TaskGroup) -> None:
        assembly = _Assembly(self.plan.capacity)
        if self._sink is None:
            self._results = Channel[Any](self.plan.capacity)
            outlet = Outlet(self._results)
            self._output = outlet.tally
            self._head = assembly.chain(self.plan.stages, outlet)
        else:
            last = Step(Stage(verb="map", fn=self._sink, name=_OUTPUT))
            self._output = last
            self._head = assembly.chain(self.plan.stages, Nowhere(), (last,))
        self._nodes, self._executors = assembly.nodes, assembly.executors
        self._tallies = tuple(reversed(assembly.tallies))
        self._failure, self._ended, self._read = None, None, 0
        self._items: object = self.plan.source
        self._late: list[Exception] = []
        self._began = monotonic()
        tasks.start_soon(self._supervise, name=f"pipeline {self.name}")

    def _settle(self) -> None:
        self._output.settle()

    async def _supervise(self) -> None:
        """Run everything; keep the first error for whoever reads or waits."""
        try:
            async with AsyncExitStack() as opened:
                opened.push_async_callback(self._close_source)  # for a run that does not begin
                await self._open_executors(opened)
                await self._move()
        except Exception as error:
            self._fail(error)
        finally:
            self._conclude()

    async def _open_executors(self, opened: AsyncExitStack) -> None:
        """Open what is not open already, until the run is over."""
        for executor in self._executors:
            if executor.state is not OwnerState.RUNNING:
                await opened.enter_async_context(executor)

    async def _move(self) -> None:
        """Move all items from the source to the output."""
        errors: Sequence[BaseException] = ()
        try:
            async with create_task_group() as tasks:
                spawn = partial(_spawn, tasks, copy_context())
                for node in self._nodes:
                    node.start(spawn)
                spawn(self._pump, f"source of {self.name}")
        except BaseExceptionGroup as group:
            errors = group.exceptions
        finally:
            for node in self._nodes:
                node.stop()
        for error in errors:
            self._fail(error)

    async def _pump(self) -> None:
        """Take items from the source and push them, one at a time."""
        try:
            await self._take_all(self._head, Isolation())
        finally:
            await self._close_source()
        await self._head.end()

    async def _take_all(self, head: Node, isolation: Isolation) -> None:
        pulling = True
        turn = _TURN
        push, spoiled, asked = head.push, isolation.spoiled, cancel_count()
        try:
            source = self.plan.source
            waits = isinstance(source, AsyncIterable)
            items: Any = aiter(source) if isinstance(source, AsyncIterable) else iter(source)
            self._items = items
            while True:
                pulling = True
                item = await anext(items) if waits else next(items)
                pulling = False
                self._read += 1
                await (isolation.call(push, item) if spoiled() else push(item))
                turn -= 1
                if not turn or asked():
                    turn = _TURN
                    await yield_now()
        except BaseException as error:
            if not pulling:
                raise
            if not isinstance(error, (StopIteration, StopAsyncIteration)):
                self._fail(self._noted(failure(error)))

    async def _close_source(self) -> None:
        try:
            await close(self._items)
        except BaseException as error:
            self._late.append(self._noted(failure(error)))

    def _noted(self, error: Exception) -> Exception:
        note(error, f"in the source of pipeline {self.name!r}, after {self._read} item(s)")
        return error

    def _fail(self, error: BaseException) -> None:
        """Keep the first error; later ones become notes on it."""
        if not isinstance(error, Exception):
            raise error
        if self._failure is None:
            self._failure = error
        elif error is not self._failure:
            note(self._failure, f"after that: {error!r}")

    def _conclude(self) -> None:
        """Settle the accounts: nothing runs any more."""
        for error in self._late:
            self._fail(error)
        for tally in self._tallies:
            tally.settle()
        self._ended = monotonic()
        if self._sink is None:
            self._results.close()
        else:
            self._output.settle()
        self._over.wake_all()


@final
class Outlet(Node):
    """The end of a run that is read: the channel from which its results are received."""

    __slots__ = ("_results",)

    def __init__(self, results: Channel[Any]) -> None:
        self.tally: Tally = Tally(_OUTPUT)
        self._results = results

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        self.tally.queued += 1
        await self._results.send(item)

    async def end(self) -> None:
        """Leave the channel open: it is closed when the whole run has been concluded."""


@final
class Nowhere(Node):
    """The end behind a sink."""

    __slots__ = ()

    async def push(self, item: Any) -> None:
        """Let the sink's answer go."""

    async def end(self) -> None:
        """Nothing follows."""


@final
class _Assembly:
    """Turns stages into nodes, from the end to the start."""

    __slots__ = ("_capacity", "executors", "nodes", "tallies")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.nodes: list[Node] = []
        self.tallies: list[Tally] = []
        self.executors: dict[Executor, None] = {}

    def chain(
        self,
        stages: Sequence[Stage | Batch | Branches],
        down: Node,
        steps: tuple[Step, ...] = (),
    ) -> Node:
        """Return the first node of ``stages``, followed by ``steps``, followed by ``down``."""
        for stage in reversed(stages):
            if isinstance(stage, Stage) and stage.serial and stage.verb != "flat_map":
                steps = (Step(stage), *steps)
                self.tallies.append(steps[0])
            else:
                down = self._node(stage, self._fused(steps, down))
                steps = ()
        return self._fused(steps, down)

    def _fused(self, steps: tuple[Step, ...], down: Node) -> Node:
        return Fused(steps, down) if steps else down

    def _node(self, stage: Stage | Batch | Branches, down: Node) -> Node:
        node: Node
        if isinstance(stage, Branches):
            node = self._broadcast(stage, down)
        elif isinstance(stage, Batch):
            node = Batching(stage, down)
        elif stage.serial:
            node = Flat(Step(stage), down)
        else:
            node = Lanes(stage, down, capacity=self._capacity)
            if stage.executor is not None:
                self.executors[stage.executor] = None
        self.nodes.append(node)
        self.tallies.append(node.tally)
        return node

    def _broadcast(self, stage: Branches, down: Node) -> Node:
        width = len(stage.branches)
        merge = self._relay(down, producers=width)
        heads = [
            self._relay(self.chain(branch, merge), producers=1)
            for branch in reversed(stage.branches)
        ]
        return Broadcast(stage.name, heads[::-1])

    def _relay(self, down: Node, *, producers: int) -> Relay:
        relay = Relay(down, capacity=self._capacity, producers=producers)
        self.nodes.append(relay)
        return relay


def _spawn(
    tasks: TaskGroup,
    variables: Context,
    work: Callable[[], Coroutine[Any, Any, None]],
    name: str,
) -> None:
    """Start a task in the context in which the run was started, whoever asks for it."""
    tasks.create_task(_whole(work), name=name, context=variables)


async def _whole(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do the work of a task, all of it or none, unless the run is given up."""
    if given_up():
        return
    try:
        await work()
    except BaseException as error:
        if own_cancellation(error):
            raise own_error("a task of the pipeline", error) from error
        raise


async def _nothing(_: object) -> None:
    """The sink of a run whose results nobody wants."""
