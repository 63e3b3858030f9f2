"""One task of a graph: a function, where its arguments come from, and what it needs to run.

A parameter gets its value from the first of these that there is::

    args={"rows": extract}      said explicitly: the result of a task, of a list of tasks, a value
    a task of that name         its result
    an input of that name       inputs={"day": ...} of the run
    ``run``                     the run itself, for tasks that add tasks
    its default

A parameter that none of these serves is an error before anything starts. ``*args`` and
``**kwargs`` get nothing by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    final,
)

from aiopatterns.core.errors import DagError
from aiopatterns.core.validate import count, function, instance, is_async, optional_positive, text
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "AnyTask",
    "Binding",
    "Given",
    "Live",
    "Results",
    "Task",
    "TaskOptions",
    "amounts",
    "bind",
    "check_new",
    "edges",
    "ids",
    "results",
]

P = ParamSpec("P")
C_co = TypeVar("C_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


@final
class Task(Generic[P, C_co, R_co]):
    """A task of a :class:`~aiopatterns.flow.dag.Dag`; made by its ``task`` and ``add``.

    Still the function: calling a task calls it, outside any run. As a key, ``run[task]`` is its
    result.

    Args:
        fn: Synchronous (it runs in a thread) or asynchronous function.
        id: Its name in the graph.
        args: Values for parameters; a task, or a list or tuple of tasks, stands for results.
        after: Tasks (or their ids) that must succeed before, without giving anything.
        retry: What to do when it fails.
        timeout: Seconds for one attempt. A synchronous task cannot be stopped: a result that
            comes late counts.
        priority: A higher number runs first.
        resources: How much it needs of which resource, while it runs.
    """

    __slots__ = (
        "_fn",
        "after",
        "args",
        "asynchronous",
        "id",
        "parameters",
        "priority",
        "resources",
        "retry",
        "timeout",
    )

    def __init__(
        self,
        fn: Callable[P, C_co],
        *,
        id: str | None = None,
        args: Mapping[str, object] | None = None,
        after: Iterable[AnyTask[Any] | str] = (),
        retry: Retry | None = None,
        timeout: float | None = None,
        priority: int = 0,
        resources: Mapping[str, int] | None = None,
    ) -> None:
        self._fn = function("fn", fn)
        self.id: str = text("id", getattr(fn, "__name__", "") if id is None else id)
        self.asynchronous: bool = is_async(fn)
        declared = _declared(fn)
        self.parameters: dict[str, bool] = _parameters(fn, declared)
        self.args: dict[str, object] = _checked_args(self, {} if args is None else args, declared)
        self.after: tuple[str, ...] = ids("after", after)
        self.retry: Retry | None = (
            None if retry is None else instance("retry", retry, Retry, "a Retry")
        )
        self.timeout: float | None = optional_positive("timeout", timeout)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(f"priority must be a whole number, not {priority!r}")
        self.priority: int = priority
        self.resources: dict[str, int] = amounts(resources)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C_co:
        """Call the function, outside any run."""
        return self._fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    @property
    def fn(self) -> Callable[..., object]:
        """The function."""
        return self._fn

    def handles(self) -> list[AnyTask[Any]]:
        """Return the tasks whose results ``args`` asks for."""
        return [task for value in self.args.values() for task in _tasks_in(value)]


AnyTask: TypeAlias = "Task[..., object, R_co]"


class TaskOptions(TypedDict, total=False):
    """The options of ``Dag.task``, ``Dag.add`` and ``DagRun.add``; see :class:`Task`."""

    id: str | None
    args: Mapping[str, object] | None
    after: Iterable[AnyTask[Any] | str]
    retry: Retry | None
    timeout: float | None
    priority: int
    resources: Mapping[str, int] | None


@final
@dataclass(frozen=True, slots=True)
class Given:
    """A parameter whose value is there already: from ``args`` or from the inputs."""

    value: object


@final
@dataclass(frozen=True, slots=True)
class Results:
    """A parameter that gets the results of tasks: of one, or of several as a list."""

    ids: tuple[str, ...]
    several: bool


@final
@dataclass(frozen=True, slots=True)
class Live:
    """A parameter that gets the run itself."""


Binding: TypeAlias = Given | Results | Live


def bind(
    task: AnyTask[Any], taken: Mapping[str, Results], inputs: Mapping[str, object]
) -> dict[str, Binding]:
    """Decide where each argument of ``task`` comes from.

    Args:
        task: The task.
        taken: Its :func:`results`.
        inputs: The inputs of the run.

    Raises:
        DagError: A parameter without a default that nothing serves.
    """
    bindings: dict[str, Binding] = dict(taken)
    for name, value in task.args.items():
        bindings.setdefault(name, Given(value))
    for name, optional in task.parameters.items():
        if name in bindings:
            continue
        if name in inputs:
            bindings[name] = Given(inputs[name])
        elif name == "run":
            bindings[name] = Live()
        elif not optional:
            raise DagError(
                f"task {task.id!r} needs {name!r}: no task and no input has that name, "
                "and it has no default"
            )
    return bindings


def results(task: AnyTask[Any], known: Mapping[str, object]) -> dict[str, Results]:
    """Return which parameters of ``task`` get the results of which tasks."""
    found = {
        name: Results((name,), several=False)
        for name in task.parameters
        if name in known and name not in task.args
    }
    for name, value in task.args.items():
        if tasks := _tasks_in(value):
            several = not isinstance(value, Task)
            found[name] = Results(tuple(each.id for each in tasks), several=several)
    return found


def edges(
    task: AnyTask[Any], taken: Mapping[str, Results], known: Mapping[str, AnyTask[Any]]
) -> list[str]:
    """Return the ids of the tasks that must succeed before ``task``.

    Args:
        task: The task.
        taken: Its :func:`results`.
        known: Every task by its id.

    Raises:
        DagError: One of them is unknown, or is another graph's task of the same name.
    """
    found = dict.fromkeys(task.after)
    for each in taken.values():
        found |= dict.fromkeys(each.ids)
    unknown = [each for each in found if each not in known]
    unknown += [each.id for each in task.handles() if known.get(each.id) is not each]
    if unknown:
        raise DagError(f"task {task.id!r} refers to {unknown[0]!r}, which is no task of this graph")
    return list(found)


def check_new(
    task: AnyTask[Any], known: Mapping[str, object], capacities: Mapping[str, int]
) -> None:
    """Refuse a task whose name is taken, or that asks for more than there will ever be.

    Raises:
        DagError: There is a task of that name.
        ValueError: It asks for more of a resource than its capacity.
    """
    if task.id in known:
        raise DagError(f"there is a task {task.id!r} already; give this one another id=")
    for name, amount in task.resources.items():
        if amount > (capacity := capacities.get(name, 1)):
            raise ValueError(
                f"resources[{name!r}] of task {task.id!r} must be at most its capacity "
                f"({capacity}), not {amount}"
            )


def _tasks_in(value: object) -> Sequence[AnyTask[Any]]:
    """Return the tasks a value of ``args`` stands for; none if it is a plain value."""
    if isinstance(value, Task):
        return (cast("AnyTask[Any]", value),)
    if isinstance(value, (list, tuple)) and value:
        items = cast("Sequence[object]", value)
        if all(isinstance(each, Task) for each in items):
            return cast("Sequence[AnyTask[Any]]", items)
    return ()


def ids(name: str, tasks: Iterable[AnyTask[Any] | str]) -> tuple[str, ...]:
    """Return the ids of a list of tasks or ids; ``name`` is the caller's parameter."""
    if isinstance(tasks, (str, Task)) or not isinstance(tasks, Iterable):
        raise TypeError(f"{name} must be a list of tasks or ids, not {tasks!r}")
    found = tuple(each.id if isinstance(each, Task) else each for each in tasks)
    for each in found:
        if not isinstance(each, str):
            raise TypeError(f"{name} must be a list of tasks or ids, not one with {each!r}")
    return found


def amounts(resources: Mapping[str, int] | None) -> dict[str, int]:
    """Return the amounts of resources that a graph has or a task needs."""
    if resources is None:
        return {}
    instance("resources", resources, Mapping, "a mapping of names to amounts")
    return {
        text("a name in resources", name): count(f"resources[{name!r}]", amount)
        for name, amount in resources.items()
    }


def _declared(fn: Callable[..., object]) -> Mapping[str, Parameter]:
    try:
        return signature(fn).parameters
    except ValueError as error:  # of some that are written in C
        raise TypeError(f"fn must be a function that tells its parameters, not {fn!r}") from error


def _parameters(fn: Callable[..., object], declared: Mapping[str, Parameter]) -> dict[str, bool]:
    """Return the parameters that can be given by name, and whether each has a default."""
    found: dict[str, bool] = {}
    for name, each in declared.items():
        optional = each.default is not Parameter.empty
        if each.kind is Parameter.POSITIONAL_ONLY and not optional:
            raise TypeError(f"{fn!r} has the positional-only parameter {name!r}; tasks bind names")
        if each.kind in {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}:
            found[name] = optional
    return found


def _checked_args(
    task: AnyTask[Any], args: Mapping[str, object], declared: Mapping[str, Parameter]
) -> dict[str, object]:
    kinds = {each.kind for each in declared.values()}
    for name in instance("args", args, Mapping, "a mapping of parameter names"):
        if name not in task.parameters and Parameter.VAR_KEYWORD not in kinds:
            raise TypeError(f"args names {name!r}, which is no parameter of task {task.id!r}")
    return dict(args)
