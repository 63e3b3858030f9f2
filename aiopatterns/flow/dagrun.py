"""One run of a task graph: what may start, what has ended, and what that means for the rest.

::

                     .----------- retry wait (holds no slot, no resources) ----------.
                     v                                                                |
    PENDING --all before it OK--> ready --slot and resources--> RUNNING --fails, again'
       |                                                          |  |
       |  one before it did not succeed                     OK <--'  `--> FAILED
       `--> SKIPPED                    the run ended first: CANCELLED

A few long-lived workers take the best task that can start: the highest priority first, then the
longest way still to go, then the one declared first.

Guarantees:

* A task starts only when every task before it has succeeded, never twice at once, and never after
  the run has begun to end.
* Never more than ``limit`` tasks run, and no resource is exceeded, retries included.
* ``fail_fast``: the first task that fails for good ends the run. Running tasks are cancelled and
  awaited; the task's own error leaves bare, with the run as its attribute ``run``.
* ``continue``: only what is behind a failed task is skipped.
* Each task sees the context variables of the caller of ``run``; none sees another's.
"""

from __future__ import annotations

import math
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, Unpack, final, overload

from anyio import create_task_group, current_effective_deadline

from aiopatterns.core.clock import Home, call_later, monotonic, yield_now
from aiopatterns.core.errors import CycleError, DagError
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.notes import note
from aiopatterns.core.waiters import Waiters, cancel_count
from aiopatterns.flow.calls import own_cancellation, own_error
from aiopatterns.flow.checkpoint import result_key
from aiopatterns.flow.invocation import Invocations
from aiopatterns.flow.isolation import Isolation
from aiopatterns.flow.node import UNSETTLED, Node, TaskState, needed
from aiopatterns.flow.ready import Ready
from aiopatterns.flow.task import Given, Live, Task, bind, check_new, edges, results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from aiopatterns.flow.graph import Graph
    from aiopatterns.flow.node import Span
    from aiopatterns.flow.plan import Plan
    from aiopatterns.flow.ready import Rank
    from aiopatterns.flow.task import AnyTask, Binding, TaskOptions

__all__ = ["DagRun"]

P = ParamSpec("P")
R = TypeVar("R")

_MISSING: Final = object()
_AGAIN: Final = object()
# Tasks that never wait must not starve the loop: one forced turn in this many.
_TURN: Final = 16


@final
class DagRun:
    """A run of a :class:`~aiopatterns.flow.dag.Dag`: its states, results and trace.

    Returned by ``Dag.run``, found as ``.run`` on the error that a failed run raises, and given to
    tasks that have a parameter called ``run``; those may add tasks while it goes on.

    Attributes:
        elapsed: Seconds that it took.
        graph: Which task comes before which; to be looked at only.
    """

    __slots__ = (
        "_began",
        "_calls",
        "_ended",
        "_failure",
        "_group",
        "_home",
        "_keys",
        "_left",
        "_line",
        "_nodes",
        "_plan",
        "_ready",
        "_stopped",
        "_tasks",
        "_timers",
        "_values",
        "_variables",
        "_workers",
        "elapsed",
        "graph",
    )

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tasks = plan.shape.tasks
        self.graph: Graph = plan.shape.graph
        self._ready: Ready[Node] = Ready(plan.limit, plan.resources)
        self._line = Waiters()
        self._nodes: dict[str, Node] = {}
        self._values: dict[str, object] = {}
        self._keys: dict[str, str] = {}
        self._ended: list[Node] = []
        self._timers: dict[Node, Callable[[], object]] = {}
        self._group: TaskGroup | None = None
        self._home = Home()
        self._calls = Invocations(plan.limit, self._argument)
        self._variables = Context()
        self._workers = 0
        self._left = 0
        self._stopped = False
        self._failure: Exception | None = None
        self._began = monotonic()
        self.elapsed: float = 0.0
        shape = plan.shape
        for name in shape.order:
            task = shape.tasks[name]
            bindings = bind(task, shape.results[name], plan.inputs)
            self._fingerprint(task, bindings)
            self._enter(task, bindings, shape.ranks[name])

    # Looking at it.

    @property
    def states(self) -> dict[str, TaskState]:
        """The state of every task, by its id, in the order of their declaration."""
        return {name: self._nodes[name].state for name in self._tasks}

    @property
    def trace(self) -> tuple[Span, ...]:
        """When which task ran where, in the order in which they ended."""
        return tuple(node.span(self._began) for node in self._ended)

    @overload
    def __getitem__(self, task: AnyTask[R]) -> R: ...
    @overload
    def __getitem__(self, task: str) -> Any: ...
    def __getitem__(self, task: AnyTask[Any] | str) -> Any:
        """Return the result of a task, given itself or by its id, or raise its error.

        Raises:
            Exception: The task's own error.
            DagError: It was skipped or cancelled, has not ended, or its result was not kept.
            KeyError: There is no such task; the text names those that are.
        """
        name = task.id if isinstance(task, Task) else task
        if (node := self._nodes.get(name)) is None:
            raise KeyError(f"no task is called {name!r}; tasks: {', '.join(self._nodes) or 'none'}")
        if node.error is not None:
            raise node.error
        if node.state is not TaskState.OK:
            because = f" because {node.cause!r} did not succeed" if node.cause else ""
            raise DagError(f"task {name!r} has no result: {node.state.value}{because}", run=self)
        if name not in self._values:
            raise DagError(f"the result of task {name!r} was not kept: name it in keep=", run=self)
        return self._values[name]

    # Adding to it.

    @overload
    def add(
        self, fn: Callable[P, Awaitable[R]], **options: Unpack[TaskOptions]
    ) -> Task[P, Awaitable[R], R]: ...
    @overload
    def add(self, fn: Callable[P, R], **options: Unpack[TaskOptions]) -> Task[P, R, R]: ...
    def add(self, fn: Callable[..., Any], **options: Unpack[TaskOptions]) -> Task[..., Any, Any]:
        """Add a task while the run goes on; for tasks that have a parameter called ``run``.

        Takes what ``Dag.add`` takes. It may depend on any task of the run, finished ones
        included; :meth:`link` makes a task that has not started wait for it.

        Returns:
            The task, for ``args`` and ``after`` of others and for ``run[task]``.

        Raises:
            DagError: The run is over, a name is taken or unknown, or a result it needs is gone.
            RuntimeError: Not on the event loop of the run, as in a synchronous task.
            ValueError: A resource is asked for beyond its capacity.
        """
        task: Task[..., Any, Any] = Task(fn, **options)
        self._check_open()
        check_new(task, self._tasks, self._plan.resources)
        taken = results(task, self._tasks)
        bindings = bind(task, taken, self._plan.inputs)
        before = edges(task, taken, self._tasks)
        for gone in needed(bindings) - self._values.keys():
            if self._nodes[gone].state is TaskState.OK:
                raise DagError(f"the result of task {gone!r} was not kept: name it in keep=")
        self._fingerprint(task, bindings)
        self._own()
        self._tasks[task.id] = task
        self.graph.add(task.id)
        for each in before:
            self.graph.connect(each, task.id)
        self._start_or_skip(self._enter(task, bindings, (-task.priority, -1, len(self._nodes))))
        return task

    def link(self, first: AnyTask[Any] | str, then: AnyTask[Any] | str) -> None:
        """Make ``then``, which still waits for others, wait for ``first`` as well.

        Raises:
            CycleError: ``first`` waits for ``then``; ``path`` shows how.
            DagError: The run is over, a task is unknown, or ``then`` waits for nobody any more.
            RuntimeError: Not on the event loop of the run, as in a synchronous task.
        """
        self._check_open()
        earlier, later = self._named(first), self._named(then)
        start, goal = later.task.id, earlier.task.id
        path = self.graph.path(start, goal)
        if path is not None:
            raise CycleError(path=[*path, start])
        if later.state is TaskState.SKIPPED or start in self.graph.after(goal):
            return
        if later.state is not TaskState.PENDING or not later.waits:
            raise DagError(f"task {start!r} does not wait any more, so it cannot wait for {goal!r}")
        self._own()
        self.graph.connect(goal, start)
        if earlier.state in UNSETTLED:
            later.waits += 1
        elif earlier.state is not TaskState.OK:
            self._skip(later, goal)

    # Running it.

    async def execute(self) -> None:
        """Run everything; called once, by ``Dag.run``."""
        self._variables = copy_context()
        try:
            async with create_task_group() as self._group:
                for node in [each for each in self._nodes.values() if not each.waits]:
                    self._offer(node)
        except BaseExceptionGroup as errors:
            raise_bare(errors)
        finally:
            self._stop()
            self._conclude()
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        """Run one task after the other until all have ended."""
        isolation, asked, done = Isolation(), cancel_count(), 0
        try:
            while (node := await self._next(asked)) is not None:
                await self._attempt(node, isolation)
                done += 1
                if done % _TURN == 0:
                    await yield_now()
        except BaseException:
            self._stop()
            raise
        finally:
            self._workers -= 1

    async def _next(self, asked: Callable[[], int]) -> Node | None:
        """Wait for a task that can start, and claim what it needs; None when the run ends."""
        while self._left and not self._stopped:
            if asked() and current_effective_deadline() == -math.inf:
                return None  # the caller's scope was cancelled, and user code has swallowed that
            node = self._ready.take()
            if node is not None:
                if self._ready:
                    self._staff()
                return node
            await self._line.wait()
        return None

    async def _attempt(self, node: Node, isolation: Isolation) -> None:
        """Give a task its turn, and decide what the end of that means."""
        node.state = TaskState.RUNNING
        try:
            value = await self._value(node, isolation)
        except Exception as error:
            self._failed(node, error)
        except BaseException as error:
            if not own_cancellation(error):
                self._settle(node, TaskState.CANCELLED)
                raise
            self._failed(node, own_error(f"task {node.task.id!r}", error))
        else:
            if value is not _AGAIN:
                self._succeeded(node, value)
        finally:
            self._ready.release(node)

    async def _value(self, node: Node, isolation: Isolation) -> object:
        """Return the stored result, or what running the function once has come to.

        The store is asked once and told once; its errors are no matter for the task's retry.
        """
        store = self._plan.store
        if store is None or node.adds_tasks():  # one that adds tasks must do so each time
            return await self._once(node, isolation)
        key = self._keys[node.task.id]
        if not node.attempts:
            node.began = monotonic()
            value = await store.get(key, _MISSING)
            if value is not _MISSING:
                return value
        value = await self._once(node, isolation)
        if value is not _AGAIN:
            await store.set(key, value)
        return value

    async def _once(self, node: Node, isolation: Isolation) -> object:
        """Run the function once; ``_AGAIN`` if there will be another attempt.

        Raises:
            Exception: It has failed for good.
        """
        node.begin()
        try:
            value = await isolation.call(self._calls.call, node)
        except Exception as error:
            if self._retried(node, error):
                return _AGAIN
            raise
        except BaseException:  # no policy is shown a cancellation
            node.give_up(node.attempts)
            raise
        return _AGAIN if self._retried(node, None, value) else value

    def _argument(self, source: Binding) -> object:
        if isinstance(source, Given):
            return source.value
        if isinstance(source, Live):
            return self
        values = [self._values[each] for each in source.ids]
        return values if source.several else values[0]

    # What has ended, and what that means. All synchronous.

    def _succeeded(self, node: Node, value: object) -> None:
        if node.uses or self._kept(node.task.id):
            self._values[node.task.id] = value
        self._settle(node, TaskState.OK)
        for name in self.graph.after(node.task.id):
            later = self._nodes[name]
            later.waits -= 1
            if not later.waits and later.state is TaskState.PENDING:
                self._offer(later)

    def _failed(self, node: Node, error: Exception) -> None:
        """Let a failure have its consequences."""
        node.error = error
        note(error, f"task {node.task.id!r} of dag {self._plan.name!r}")
        self._settle(node, TaskState.FAILED)
        for name in self.graph.after(node.task.id):
            self._skip(self._nodes[name], node.task.id)
        if self._plan.mode == "fail_fast" and not self._stopped:
            self._failure = error
            with suppress(AttributeError):  # an exception may refuse attributes, as frozen ones do
                setattr(error, "run", self)  # noqa: B010 - any exception, no declared attribute
            self._stop()

    def _retried(self, node: Node, error: Exception | None, value: object = None) -> bool:
        """See to another attempt; False if what this one came to is what the task comes to."""
        if self._stopped:
            node.give_up(node.attempts)
            return False
        delay = node.delay(error, value)
        if delay is None:
            return False
        node.state = TaskState.PENDING
        self._timers[node] = call_later(delay, partial(self._again, node)).cancel
        return True

    def _again(self, node: Node) -> None:
        del self._timers[node]
        self._offer(node)

    def _settle(self, node: Node, state: TaskState) -> None:
        """Note the end of a task that ran; let go of the results that only it needed."""
        node.state = state
        node.ended = monotonic()
        self._ended.append(node)
        self._count_out(node)

    def _skip(self, node: Node, cause: str) -> None:
        """Skip a task and all that is behind it."""
        skipped = [node]
        while skipped:
            node = skipped.pop()
            if node.state is TaskState.PENDING:
                node.state, node.cause = TaskState.SKIPPED, cause
                self._count_out(node)
                skipped += [self._nodes[name] for name in self.graph.after(node.task.id)]

    def _count_out(self, node: Node) -> None:
        for name in node.needs:
            earlier = self._nodes[name]
            earlier.uses -= 1
            if not earlier.uses and not self._kept(name):
                self._values.pop(name, None)
        self._left -= 1
        if not self._left:
            self._line.wake_all()

    def _stop(self) -> None:
        """Start nothing any more, and cancel what runs."""
        self._stopped = True
        timers, self._timers = self._timers, {}
        for cancel in timers.values():
            cancel()
        assert self._group is not None, "nothing runs before the group does"
        self._group.cancel_scope.cancel()

    def _conclude(self) -> None:
        """Settle the accounts: nothing runs any more."""
        self.elapsed = monotonic() - self._began
        for node in self._nodes.values():
            if node.state in UNSETTLED:
                node.state = TaskState.CANCELLED
                if node.attempts:  # it waited for a retry, or for a slot to make it in
                    node.give_up(node.attempts + 1)

    # What comes in.

    def _own(self) -> None:
        """Before the first change: take a copy of the graph that all runs share."""
        if self.graph is self._plan.shape.graph:
            self.graph, self._tasks = self.graph.copy(), dict(self._tasks)

    def _fingerprint(self, task: AnyTask[Any], bindings: dict[str, Binding]) -> None:
        """Give a new task the key of its result; may refuse it, so this comes before it enters."""
        if self._plan.store is not None:
            self._keys[task.id] = result_key(self._plan.name, task.id, bindings, self._keys)

    def _enter(self, task: AnyTask[Any], bindings: dict[str, Binding], rank: Rank) -> Node:
        """Take a task into the run."""
        name = task.id
        before = [self._nodes[each].state for each in self.graph.before(name)]
        waits = sum(1 for state in before if state in UNSETTLED)
        node = self._nodes[name] = Node(task, bindings, rank, waits)
        for each in node.needs:
            self._nodes[each].uses += 1
        self._left += 1
        return node

    def _start_or_skip(self, node: Node) -> None:
        """See what those before a new task mean for it."""
        for name in self.graph.before(node.task.id):
            earlier = self._nodes[name]
            if earlier.state not in UNSETTLED and earlier.state is not TaskState.OK:
                self._skip(node, earlier.cause or name)
                return
        if not node.waits:
            self._offer(node)

    def _offer(self, node: Node) -> None:
        """A task could start now."""
        if not self._stopped:
            self._ready.offer(node)
            self._staff()

    def _staff(self) -> None:
        """Have somebody look at what is ready."""
        if not self._line.wake() and self._workers < self._plan.limit:
            assert self._group is not None, "nothing runs before the group does"
            self._workers += 1
            # Whoever adds a task may have set variables; a worker begins with those of the caller.
            self._variables.copy().run(self._group.start_soon, self._work)

    def _kept(self, name: str) -> bool:
        return self._plan.keep is None or name in self._plan.keep

    def _named(self, task: AnyTask[Any] | str) -> Node:
        name = task.id if isinstance(task, Task) else task
        if name not in self._nodes:
            raise DagError(f"dag {self._plan.name!r} has no task {name!r}", run=self)
        return self._nodes[name]

    def _check_open(self) -> None:
        if not self._home.here:
            raise RuntimeError(
                f"the run of dag {self._plan.name!r} takes tasks and links on its own event loop "
                "only: make the task that calls add() or link() an async function"
            )
        if self._stopped or not self._left:
            raise DagError(f"the run of dag {self._plan.name!r} is over", run=self)
