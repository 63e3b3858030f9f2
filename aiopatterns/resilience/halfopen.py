"""The half-open circuit: a few probes find out whether the other side is well again.

::

    probes=5, ratio 0.5            recorded: | ok | failed | ok |   in flight: 2   free: 0
                                                                    `--------'
    a sixth call is refused: recorded + in flight is never more than ``probes``

Rules are a frozen :class:`HalfOpen`. Whatever they are given as, a ratio or numbers, they come
down to three whole numbers: so many failures, or so many slow probes, open the circuit again, and
so many successes close it. :class:`Probes` is the state of one round.

Guarantees:

* A place is claimed synchronously, in the same stretch as the check, so not one call too many is
  admitted, however many come at once.
* A probe that is cancelled or ignored gives its place back and says nothing about the other side.
* Every round has a verdict once all its probes are recorded. ``verdict="early"`` gives it as soon
  as the probes that are left cannot change it.

Source: the limited probes and the longest wait are resilience4j's, the early verdict is
failsafe-go's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, final

from aiopatterns.core.validate import choice, count, optional_count, optional_positive
from aiopatterns.core.windows import Totals
from aiopatterns.resilience.trip import share

if TYPE_CHECKING:
    from aiopatterns.resilience.trip import Trip

__all__ = ["HalfOpen", "Limits", "Probes", "Verdict", "VerdictTime"]

VerdictTime: TypeAlias = Literal["early", "all"]
Verdict: TypeAlias = Literal["open", "closed"]


@final
@dataclass(frozen=True, slots=True)
class HalfOpen:
    """How a half-open circuit decides.

    Args:
        probes: How many calls are let through to find out, at least 1.
        verdict: ``"early"`` decides as soon as the result is certain, ``"all"`` when every probe
            is recorded.
        max_seconds: The longest a verdict may take. None gives a probe as long as the break
            before it lasted, and no limit while no probe is out.
        on_max: What the circuit becomes when that time is over.
        successes: How many probes must succeed to close the circuit.
        failures: How many failed probes open it again.
        ratio: The share of failed probes that opens it again.
        slow_ratio: The share of slow probes that opens it again; None is that of the trip.

    Give numbers or a ratio, not both. Without any, the ratio is that of the trip, or one half
    with ``Consecutive``.
    """

    probes: int = 1
    verdict: VerdictTime = "early"
    max_seconds: float | None = None
    on_max: Verdict = "open"
    successes: int | None = None
    failures: int | None = None
    ratio: float | None = None
    slow_ratio: float | None = None

    def __post_init__(self) -> None:
        count("probes", self.probes)
        choice("verdict", self.verdict, ("early", "all"))
        optional_positive("max_seconds", self.max_seconds)
        choice("on_max", self.on_max, ("open", "closed"))
        for name in ("ratio", "slow_ratio"):
            if (value := getattr(self, name)) is not None:
                share(name, value)
        for name in ("successes", "failures"):
            self._fits(name, getattr(self, name))
        if (self.successes or 0) + (self.failures or 0) > self.probes + 1:
            msg = (
                f"successes + failures must be at most probes + 1, or no verdict may be reached,"
                f" not {self.successes} + {self.failures} with probes={self.probes}"
            )
            raise ValueError(msg)

    def _fits(self, name: str, value: int | None) -> None:
        if optional_count(name, value) is None or value is None:
            return
        if value > self.probes:
            msg = f"{name} must be at most probes={self.probes}, not {value!r}"
            raise ValueError(msg)
        if self.ratio is not None:
            msg = f"{name} must be None with ratio={self.ratio}, not {value!r}"
            raise ValueError(msg)

    def limits(self, trip: Trip) -> Limits:
        """Return these rules as whole numbers; what they leave open is as in ``trip``."""
        probes, failures = self.probes, self.failures
        if failures is None and self.successes is not None:
            failures = probes - self.successes + 1
        elif failures is None:
            failures = _reaching(trip.probe_ratio if self.ratio is None else self.ratio, probes)
        successes = probes - failures + 1 if self.successes is None else self.successes
        slow_ratio = trip.slow_ratio if self.slow_ratio is None else self.slow_ratio
        slow = probes + 1 if trip.slow is None else _reaching(slow_ratio, probes)
        return Limits(failures=failures, successes=successes, slow=slow)


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """The rules of one round as whole numbers.

    Args:
        failures: So many failures open the circuit again.
        successes: So many successes close it.
        slow: So many slow probes open it again.
    """

    failures: int
    successes: int
    slow: int


@final
class Probes:
    """The probes of one half-open round.

    Args:
        rules: How many, and when to decide.
        trip: The rules of the closed circuit, for what ``rules`` leave open.
        now: When the round began, in monotonic seconds.
        patience: Seconds that a probe may take if ``rules`` name no time.
    """

    __slots__ = (
        "_elapsed",
        "_ends",
        "_failures",
        "_in_flight",
        "_limits",
        "_patience",
        "_recorded",
        "_rules",
        "_slow",
        "_slow_after",
    )

    def __init__(self, rules: HalfOpen, trip: Trip, *, now: float, patience: float) -> None:
        self._rules = rules
        self._limits = rules.limits(trip)
        self._slow_after = trip.slow_after
        self._patience = patience
        self._ends = math.inf if rules.max_seconds is None else now + rules.max_seconds
        self._in_flight = self._recorded = self._failures = self._slow = 0
        self._elapsed = 0.0

    @property
    def free(self) -> bool:
        """Whether a probe may start."""
        return self._in_flight + self._recorded < self._rules.probes

    @property
    def ends(self) -> float:
        """When the time for the verdict is over, in monotonic seconds; infinite if it never is."""
        return self._ends

    @property
    def on_max(self) -> Verdict:
        """The verdict when that time is over."""
        return self._rules.on_max

    def claim(self, now: float) -> None:
        """Take a place, which has to be free."""
        self._in_flight += 1
        if self._rules.max_seconds is None:
            self._ends = now + self._patience

    def give_back(self) -> None:
        """Give a place back: the probe was cancelled or ignored."""
        self._in_flight -= 1
        self._rest()

    def record(self, elapsed: float, *, failed: bool) -> Verdict | None:
        """Count one probe; return the verdict if it is due."""
        self._in_flight -= 1
        self._recorded += 1
        self._failures += failed
        self._slow += elapsed > self._slow_after
        self._elapsed += elapsed
        self._rest()
        return self._verdict()

    def totals(self) -> Totals:
        """Return what is recorded."""
        return Totals(self._recorded, self._failures, self._slow, self._elapsed)

    def _rest(self) -> None:
        """Without a probe out, and without a time by the rules, there is nothing to wait for."""
        if not self._in_flight and self._rules.max_seconds is None:
            self._ends = math.inf

    def _verdict(self) -> Verdict | None:
        limits, left = self._limits, self._rules.probes - self._recorded
        if left and self._rules.verdict == "all":
            return None
        if self._failures >= limits.failures or self._slow >= limits.slow:
            return "open"
        good = self._recorded - self._failures >= limits.successes
        return "closed" if good and self._slow + left < limits.slow else None


def _reaching(ratio: float, of: int) -> int:
    """Return the least number that is ``ratio`` of ``of`` or more, by the division itself."""
    return next(n for n in range(1, of + 1) if n / of >= ratio)
