"""The plan of a saga: its steps, which comes after which, and what may not be.

Pure data, without functions of users being called, without time and without a loop. A plan is
made once for all runs. Steps are declared in an order in which they could run, so a step names
only earlier ones and there is no cycle::

    reserve --.
              +--> pay (pivot) --> ship --> notify
    quote  ---'
    may be undone <--|--> goes forward only

At most one step is the *pivot*: once it has succeeded, the saga is not undone any more, and what
comes behind is repeated until it succeeds. A step that is neither before nor behind the pivot
could fail when nothing may be undone, so it is refused.

Source: Garcia-Molina and Salem, "Sagas", SIGMOD 1987; compensatable, pivot and retriable
transactions: Mehrotra et al., "A transaction model for multidatabase systems", ICDCS 1992.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiopatterns.resilience.retry import Retry
    from aiopatterns.resilience.timeout import Timeout

__all__ = ["Action", "Plan", "Step"]

C = TypeVar("C")

Action: TypeAlias = "Callable[[C], Awaitable[object]]"

_DIGEST_BYTES: Final = 8


@final
@dataclass(frozen=True, slots=True)
class Step(Generic[C]):
    """One step.

    Attributes:
        name: Its name, once in a saga.
        action: What it does.
        compensate: What undoes it, also if it never happened; None if there is nothing to undo.
        after: Names of the steps that must have succeeded before it.
        retry: What is done about an action that fails.
        timeout: Budget of one attempt.
        pivot: Whether nothing is undone once it has succeeded.
    """

    name: str
    action: Action[C]
    compensate: Action[C] | None
    after: tuple[str, ...]
    retry: Retry | None
    timeout: Timeout | None
    pivot: bool


@final
class Plan(Generic[C]):
    """All steps.

    Args:
        version: The version that the user has given.
        steps: In the order of their declaration.

    Raises:
        ValueError: There is no step, more than one pivot, or a step beside the pivot.
    """

    __slots__ = ("behind", "definition", "following", "pivot", "steps")

    def __init__(self, version: int, steps: Sequence[Step[C]]) -> None:
        if not steps:
            msg = "a saga must have a step; add one with @saga.step()"
            raise ValueError(msg)
        self.steps: Final[Mapping[str, Step[C]]] = {each.name: each for each in steps}
        self.following: Final[Mapping[str, list[str]]] = _following(steps)
        self.pivot: Final[Step[C] | None] = _pivot(steps)
        self.behind: Final[frozenset[str]] = self._behind()
        self.definition: Final[str] = f"{version}-{_digest(steps)}"

    def _behind(self) -> frozenset[str]:
        """Return the steps behind the pivot.

        Raises:
            ValueError: One is beside it.
        """
        if self.pivot is None:
            return frozenset()
        pivot = self.pivot.name
        behind = _reachable(pivot, self.following)
        before = _reachable(pivot, {name: each.after for name, each in self.steps.items()})
        for name in self.steps:
            if name != pivot and name not in behind and name not in before:
                msg = (
                    f"step {name!r} is neither before nor behind the pivot {pivot!r}: it could"
                    " fail when nothing may be undone any more; put it in order with after="
                )
                raise ValueError(msg)
        return behind


def _following(steps: Sequence[Step[C]]) -> dict[str, list[str]]:
    following: dict[str, list[str]] = {each.name: [] for each in steps}
    for each in steps:
        for name in each.after:
            following[name].append(each.name)
    return following


def _pivot(steps: Sequence[Step[C]]) -> Step[C] | None:
    pivots = [each for each in steps if each.pivot]
    if len(pivots) > 1:
        msg = f"a saga must have one pivot at most, not {[each.name for each in pivots]}"
        raise ValueError(msg)
    return pivots[0] if pivots else None


def _reachable(start: str, edges: Mapping[str, Sequence[str]]) -> frozenset[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for each in edges[ahead.pop()]:
            if each not in found:
                found.add(each)
                ahead.append(each)
    return frozenset(found)


def _digest(steps: Sequence[Step[C]]) -> str:
    """Return a short hash of what a stored journal depends on; what functions do is no part."""
    shape = [(each.name, each.after, each.pivot, each.compensate is not None) for each in steps]
    return blake2b(msgspec.msgpack.encode(shape), digest_size=_DIGEST_BYTES).hexdigest()
