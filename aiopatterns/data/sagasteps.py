"""The steps of a saga while they are declared, one by one, by a decorator.

Each is checked when it is declared, and may name only earlier ones; the plan of all of them
(:mod:`aiopatterns.data.sagaplan`) is made when it is first needed, and anew after another step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from aiopatterns.core.threads import call_in_thread
from aiopatterns.core.validate import (
    function,
    instance,
    is_async,
    optional_function,
    positive,
    text,
)
from aiopatterns.data.sagaplan import Plan, Step
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.data.sagaplan import Action

__all__ = ["Steps"]

C = TypeVar("C")


@final
class Steps(Generic[C]):
    """What was declared so far.

    Args:
        saga: Name of the saga.
        version: The version that the user has given.

    Attributes:
        declared: The steps by their names.
    """

    __slots__ = ("_names", "_plan", "_saga", "_version", "declared")

    def __init__(self, saga: str, version: int) -> None:
        self._saga = saga
        self._version = version
        self._names: dict[object, str] = {}
        self._plan: Plan[C] | None = None
        self.declared: dict[str, Step[C]] = {}

    def add(
        self,
        fn: Callable[[C], object],
        *,
        after: Iterable[Action[C] | str] | None = None,
        compensate: Callable[[C], object] | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        pivot: bool = False,
        name: str | None = None,
    ) -> Callable[[C], object]:
        """Declare a step, and return its function; see :meth:`Saga.step`."""
        function("fn", fn)
        called = text("name", getattr(fn, "__name__", "") if name is None else name)
        if called in self.declared:
            msg = f"saga {self._saga!r} has a step {called!r} already; give this one a name="
            raise ValueError(msg)
        self.declared[called] = Step(
            name=called,
            action=_awaitable(fn),
            compensate=_awaitable(optional_function("compensate", compensate)),
            after=self._earlier(after),
            retry=None if retry is None else instance("retry", retry, Retry, "a Retry"),
            timeout=None if timeout is None else Timeout(positive("timeout", timeout)),
            pivot=instance("pivot", pivot, bool, "True or False"),
        )
        self._names[fn] = called
        self._plan = None
        return fn

    def plan(self) -> Plan[C]:
        """Return the plan of all steps.

        Raises:
            ValueError: They make no saga.
        """
        if self._plan is None:
            self._plan = Plan(self._version, tuple(self.declared.values()))
        return self._plan

    def _earlier(self, after: Iterable[Action[C] | str] | None) -> tuple[str, ...]:
        """Return the names of steps that were declared before; by default that of the last."""
        if after is None:
            return tuple(self.declared)[-1:]
        if isinstance(after, str) or not isinstance(after, Iterable):
            msg = f"after must be a list of steps or of their names, not {after!r}"
            raise TypeError(msg)
        found: list[str] = []
        for each in after:
            name = each if isinstance(each, str) else self._names.get(each)
            if name is None or name not in self.declared:
                msg = f"after must name steps that were declared before, not {each!r}"
                raise ValueError(msg)
            found.append(name)
        return tuple(dict.fromkeys(found))


def _awaitable(fn: Any) -> Any:
    """Return ``fn``, or what calls it in a thread if it is a plain function."""
    return fn if fn is None or is_async(fn) else partial(call_in_thread, fn)
