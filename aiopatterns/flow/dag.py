"""A graph of tasks: each starts when those before it have succeeded, as many at once as allowed.

::

    etl = Dag("etl", limit=8, resources={"db": 4})

    @etl.task()                          extract ---> load ---> report
    async def extract(day): ...             `---> audit - - - - -^  (order only)
                                          day is an input
    @etl.task(resources={"db": 1})
    async def load(extract): ...         a parameter called like a task is its result

    run = await etl.run(inputs={"day": "2024-05-01"})
    run[load]                            the result of load, with its type

A graph has no state of its own: it is made once, at module level if you like, and run as often as
you like, also several times at once. What one run does is told in :mod:`aiopatterns.flow.dagrun`,
where arguments come from in :mod:`aiopatterns.flow.task`, how a broken-off run is resumed in
:mod:`aiopatterns.flow.checkpoint`.

Guarantees:

* A wrong graph starts nothing: cycles (with their path), unknown names, parameters that nothing
  serves and resources that can never be had are errors before the first task.
* What a task asks for of the resources it gets at once or not at all, so tasks cannot deadlock.

Not guaranteed: that a task runs exactly once over several runs with a store. One whose run was
killed before its result was stored runs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Unpack, cast, final, overload

from aiopatterns.core.validate import count, instance, text
from aiopatterns.flow.dagrun import DagRun
from aiopatterns.flow.plan import Plan, Shape
from aiopatterns.flow.task import Task, amounts, check_new, ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiopatterns.flow.checkpoint import ResultStore
    from aiopatterns.flow.graph import Graph
    from aiopatterns.flow.node import TaskState
    from aiopatterns.flow.plan import Mode
    from aiopatterns.flow.task import AnyTask, TaskOptions

__all__ = ["Dag"]

P = ParamSpec("P")
R = TypeVar("R")


class _Decorator(Protocol):
    """What ``dag.task(...)`` gives: turns a function into a task."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Task[P, Awaitable[R], R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R, R]: ...


@final
class Dag:
    """A directed acyclic graph of tasks.

    Args:
        name: Its name, for errors, charts and the keys of stored results.
        limit: How many tasks of one run go on at once.
        resources: Capacity of each resource in one run; a resource that is not listed has 1.

    Example::

        etl = Dag("etl", limit=8, resources={"db": 4})


        @etl.task(retry=Retry(on=OSError), timeout=60)
        async def extract(day: str) -> list[Row]: ...


        @etl.task(resources={"db": 1})
        async def load(extract: list[Row]) -> int: ...


        run = await etl.run(inputs={"day": "2024-05-01"})
        print(run[load])
    """

    __slots__ = ("_last", "_limit", "_resources", "_runs", "_shape", "_tasks", "name")

    def __init__(
        self, name: str, *, limit: int = 8, resources: Mapping[str, int] | None = None
    ) -> None:
        self.name: str = text("name", name)
        self._limit = count("limit", limit)
        self._resources = amounts(resources)
        self._tasks: dict[str, AnyTask[Any]] = {}
        self._shape: Shape | None = None
        self._runs: list[DagRun] = []
        self._last: dict[str, TaskState] = {}

    def __repr__(self) -> str:
        return f"Dag({self.name!r}, {len(self._tasks)} tasks)"

    @property
    def tasks(self) -> Mapping[str, AnyTask[Any]]:
        """The tasks by their id, in the order of their declaration."""
        return dict(self._tasks)

    @property
    def runs(self) -> tuple[DagRun, ...]:
        """The runs that are under way, in the order of their start."""
        return tuple(self._runs)

    @property
    def last_states(self) -> Mapping[str, TaskState]:
        """How the tasks of the run that ended last have ended; empty before."""
        return dict(self._last)

    @property
    def graph(self) -> Graph:
        """Which task comes before which; to be looked at only.

        Raises:
            DagError: A name that is unknown.
            CycleError: Tasks wait for each other.
        """
        return self._shaped().graph

    @overload
    def task(self, fn: Callable[P, Awaitable[R]], /) -> Task[P, Awaitable[R], R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> _Decorator: ...
    def task(
        self, fn: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]
    ) -> Task[..., Any, Any] | _Decorator:
        """Make a function a task of this graph, by its name; use it as a decorator.

        Args:
            fn: The function; given by ``@dag.task`` without parentheses.
            **options: ``after``, ``retry``, ``timeout``, ``priority``, ``resources``, ``id`` and
                ``args``, as in :class:`~aiopatterns.flow.task.Task`.

        Raises:
            DagError: There is a task of that name.
            ValueError: A resource is asked for beyond its capacity, or an option makes no sense.
            TypeError: An option has a wrong type.
        """
        if fn is not None:
            return self.add(fn, **options)

        def decorate(each: Callable[..., Any]) -> Task[..., Any, Any]:
            return self.add(each, **options)

        return cast("_Decorator", decorate)

    @overload
    def add(
        self, fn: Callable[P, Awaitable[R]], **options: Unpack[TaskOptions]
    ) -> Task[P, Awaitable[R], R]: ...
    @overload
    def add(self, fn: Callable[P, R], **options: Unpack[TaskOptions]) -> Task[P, R, R]: ...
    def add(self, fn: Callable[..., Any], **options: Unpack[TaskOptions]) -> Task[..., Any, Any]:
        """Add a task; the same function may serve several, with an ``id`` and ``args`` for each.

        Args and Raises: see :meth:`task`.

        Example::

            for region in ("eu", "us"):
                etl.add(load, id=f"load-{region}", args={"rows": extract, "region": region})
        """
        task: Task[..., Any, Any] = Task(fn, **options)
        check_new(task, self._tasks, self._resources)
        self._tasks[task.id] = task
        self._shape = None
        return task

    async def run(
        self,
        inputs: Mapping[str, object] | None = None,
        *,
        mode: Mode = "fail_fast",
        store: ResultStore | None = None,
        keep: Iterable[AnyTask[Any] | str] | None = None,
    ) -> DagRun:
        """Run all tasks.

        Args:
            inputs: Values for parameters that are no tasks.
            mode: ``"fail_fast"`` ends the run with the first task that fails for good;
                ``"continue"`` skips only what is behind it.
            store: Where results are looked up and kept, so that a run that was broken off is
                resumed; an object with ``async get(key, default)`` and ``async set(key, value)``.
                Its errors fail the task they concern, and its ``retry`` does not see them.
            keep: The tasks whose results are wanted in the end. Others are let go as soon as no
                task needs them any more. None keeps all.

        Returns:
            The run: ``run[task]``, ``run.states``, ``run.trace``. In mode ``"continue"`` also when
            tasks have failed.

        Raises:
            Exception: In mode ``"fail_fast"`` the error of the task that failed, bare, with the
                run as its attribute ``run``.
            CycleError: Tasks wait for each other.
            DagError: A name that is unknown, a parameter that nothing serves.

        Cancellation: running tasks are cancelled and awaited, synchronous ones awaited; no retry
            starts any more. Nothing is left behind.

        Complexity: O(tasks + edges) and a heap; about 12 us for each task.
        """
        inputs = {} if inputs is None else inputs
        instance("inputs", inputs, Mapping, "a mapping of values")
        plan = Plan(
            name=self.name,
            limit=self._limit,
            resources=self._resources,
            shape=self._shaped(),
            inputs=dict(inputs),
            mode=mode,
            store=store,
            keep=None if keep is None else frozenset(ids("keep", keep)),
        )
        run = DagRun(plan)
        self._runs.append(run)
        try:
            await run.execute()
        finally:
            self._runs.remove(run)
            self._last = run.states
        return run

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart; dotted arrows are order only.

        Raises:
            CycleError: Tasks wait for each other.
            DagError: A name that is unknown.
        """
        shape = self._shaped()
        names = {each: f"t{number}" for number, each in enumerate(self._tasks)}
        lines = ["flowchart LR"]
        lines += [f'    {name}["{_escaped(label)}"]' for label, name in names.items()]
        for then in shape.order:
            taken = {each for source in shape.results[then].values() for each in source.ids}
            for each in shape.graph.before(then):
                arrow = "-->" if each in taken else "-.->"
                lines.append(f"    {names[each]} {arrow} {names[then]}")
        return "\n".join(lines)

    def _shaped(self) -> Shape:
        shape = self._shape
        if shape is None:
            shape = self._shape = Shape(self._tasks)
        return shape


def _escaped(label: str) -> str:
    return label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
