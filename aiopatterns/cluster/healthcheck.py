"""One health check: the function, the questions it answers, and when it runs.

Three questions are asked of a process, by whoever runs it::

    startup     has it come up?          until then nobody asks anything else
    liveness    should it be restarted?  only what a restart cures: never a dependency
    readiness   should it get traffic?   what it needs to answer

A check in no set is run and reported under its name, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aiopatterns.core.validate import (
    async_function,
    choice,
    instance,
    optional_positive,
    positive,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.cluster.hysteresis import Thresholds

__all__ = ["KINDS", "Check", "CheckFn", "HealthKind", "Plan", "plan"]

CheckFn: TypeAlias = "Callable[[], Awaitable[object]]"
HealthKind: TypeAlias = Literal["liveness", "readiness", "startup"]
# A tuple is a collection; that it is named first lets mypy see the literals in one.
Kinds: TypeAlias = "tuple[HealthKind, ...] | Collection[HealthKind]"

KINDS: Final[tuple[HealthKind, ...]] = ("liveness", "readiness", "startup")
_READINESS: Final[Kinds] = ("readiness",)


@final
@dataclass(frozen=True, slots=True)
class Check:
    """A function that finds out whether something works, and how it is run.

    Args:
        fn: An async function without arguments. Raising, or returning exactly ``False``, is a
            failure; anything else, also None, is a success.
        kinds: The sets it belongs to: ``"liveness"``, ``"readiness"``, ``"startup"``, several, or
            none. A check that is in ``"startup"`` alone rests once it has succeeded.
        interval: Seconds between two beginnings; None takes the checker's.
        timeout: Seconds after which it is cancelled and has failed; None is half the interval.
        degraded_after: Seconds, instead of the checker's.
        down_after: Seconds, instead of the checker's.

    Raises:
        ValueError: A number or a kind is out of range.
        TypeError: ``fn`` is no async function, or another value is of a wrong type.

    Example::

        Check(database.ping, kinds=("readiness", "startup"), interval=5, timeout=1)
    """

    fn: CheckFn
    kinds: Kinds = field(default=_READINESS, kw_only=True)
    interval: float | None = field(default=None, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    degraded_after: float | None = field(default=None, kw_only=True)
    down_after: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        async_function("fn", self.fn)
        object.__setattr__(self, "kinds", _kinds(self.kinds))
        optional_positive("interval", self.interval)
        optional_positive("timeout", self.timeout)
        for name in ("degraded_after", "down_after"):
            value = getattr(self, name)
            if value is not None:
                positive(name, value, finite=False)


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """A check as it is run, with what it took over from its checker.

    Args:
        name: Its name.
        fn: What is called.
        kinds: The sets it belongs to.
        interval: Seconds between two beginnings.
        timeout: Seconds after which it is cancelled.
        thresholds: When its state changes.
    """

    name: str
    fn: CheckFn
    kinds: frozenset[HealthKind]
    interval: float
    timeout: float
    thresholds: Thresholds

    @property
    def rests(self) -> bool:
        """Whether it has nothing to find out any more once it has succeeded."""
        return self.kinds == frozenset({"startup"})


def plan(name: str, check: Check | CheckFn, interval: float, thresholds: Thresholds) -> Plan:
    """Plan a check.

    Args:
        name: Its name, not empty.
        check: A :class:`Check`, or an async function without arguments, for readiness.
        interval: The checker's, in seconds.
        thresholds: The checker's.

    Raises:
        ValueError: Its timeout is beyond its interval, or its own thresholds do not fit.
        TypeError: It is no check.
    """
    if not isinstance(check, Check):
        check = Check(async_function(f"checks[{name!r}]", check))
    every = interval if check.interval is None else check.interval
    timeout = every / 2 if check.timeout is None else check.timeout
    if timeout > every:
        msg = f"timeout of check {name!r} must be at most its interval ({every!r}), not {timeout!r}"
        raise ValueError(msg)
    low, high = check.degraded_after, check.down_after
    grades = replace(
        thresholds,
        degraded_after=thresholds.degraded_after if low is None else low,
        down_after=thresholds.down_after if high is None else high,
    )
    kinds = frozenset(check.kinds)
    return Plan(name, check.fn, kinds, every, timeout, grades)


def _kinds(given: Kinds) -> frozenset[HealthKind]:
    """Return the sets named; one bare name is a likely slip."""
    if isinstance(given, str):
        msg = f"kinds must be a collection, such as ({given!r},), not the text {given!r}"
        raise TypeError(msg)
    instance("kinds", given, Collection, "a collection of 'liveness', 'readiness' and 'startup'")
    return frozenset(choice("kinds", each, KINDS) for each in given)
