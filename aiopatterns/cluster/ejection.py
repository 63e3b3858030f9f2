"""Ejection: an endpoint that fails is left out for a while, and comes back by one trial.

::

                  5 failures in a row, or half of >= 20 calls of a window
       IN  ------------------------------------------------------------------>  OUT
        ^                                                                        |
        |  the trial succeeds        30 s x how often lately are over, then      |
        '--------------------------  ONE call is given to it: the trial   <------'
                                                 | fails: OUT again, for longer

:class:`Ejection` is the rule, :class:`Standing` the state of one endpoint under it. Both are
synchronous and know neither a loop nor a clock: whoever calls says what time it is.

Guarantees:

* The last endpoint that is in stays in, whatever the ratio allows.
* While an endpoint is out, one trial is under way at most. One that hangs is given up after
  ``base`` seconds, and the next call is the trial; one that was cancelled, or refused by a policy,
  says nothing, and the next is due a tenth of that later.
* A call that began before a change of the state changes nothing when it ends.

Not guaranteed: that nobody meets an endpoint that is out. When too few are left all are used, and
a call that asks for none of the others may get it; its success brings the endpoint back as well.

Source: outlier detection of Envoy, whose figures these are, but for the share (half instead of a
tenth, for small clusters) and the single trial, which is the half-open state of a circuit breaker.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Final, final

from aiopatterns.core.validate import at_least, count, in_range, positive

__all__ = ["Ejection", "Standing"]

#: Seconds over which calls are counted for ``failure_ratio``.
WINDOW: Final = 10.0
#: Share of ``base`` between a trial that has said nothing and the next. Without a pause, calls that
#: are refused by a policy, or cancelled because the endpoint hangs, would all go there.
PAUSE: Final = 0.1
# So that 0.29 of 100 is 29, which floats miss by a hair.
_HAIR: Final = 1e-9


@final
@dataclass(frozen=True, slots=True)
class Ejection:
    """When an endpoint is left out, for how long, and how many at a time.

    Args:
        consecutive: Failures in a row that eject.
        base: Seconds of the first time; each further one is as much longer, until the endpoint
            was in for as long as it had been out.
        max_ejected_ratio: Share of the endpoints that may be out at a time, above 0. One of two or
            more may always be.
        cap: Seconds that one time lasts at most.
        min_calls: Calls within 10 s from which ``failure_ratio`` is heeded.
        failure_ratio: Share of them that fail which ejects, above 0.
        panic_ratio: All endpoints are used, whatever they did, when fewer than this share are in.

    Raises:
        ValueError: A value is out of its range.
    """

    consecutive: int = 5
    base: float = 30.0
    max_ejected_ratio: float = 0.5
    _: KW_ONLY
    cap: float = 300.0
    min_calls: int = 20
    failure_ratio: float = 0.5
    panic_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what would eject at random or for ever."""
        count("consecutive", self.consecutive)
        positive("base", self.base)
        in_range("max_ejected_ratio", positive("max_ejected_ratio", self.max_ejected_ratio), 0, 1)
        at_least("cap", positive("cap", self.cap), self.base)
        count("min_calls", self.min_calls)
        in_range("failure_ratio", positive("failure_ratio", self.failure_ratio), 0, 1)
        in_range("panic_ratio", self.panic_ratio, 0, 1)

    def allowed(self, total: int) -> int:
        """Return how many of ``total`` endpoints may be out at a time; never all."""
        share = int(total * self.max_ejected_ratio + _HAIR)
        return min(max(1, share), total - 1)

    def panics(self, usable: int, total: int) -> bool:
        """Whether so few are in that all have to be used."""
        return usable < total * self.panic_ratio or not usable


@final
class Standing:
    """What is held against one endpoint.

    Args:
        rules: When and for how long it is out; None never is.

    ``since`` is the time of the last change, ``until`` that of the next trial while it is out,
    ``trial`` the call that is to find out, and ``generation`` grows with each change.
    """

    __slots__ = (
        "_calls",
        "_errors",
        "_rules",
        "_times",
        "_window",
        "failures",
        "generation",
        "out",
        "since",
        "trial",
        "until",
    )

    def __init__(self, rules: Ejection | None) -> None:
        self._rules = rules
        self._times = 0  # ejections that count towards the length of the next
        self._calls = self._errors = 0
        self._window = -inf  # when the window of these two ends
        self.failures: int = 0
        self.generation: int = 0
        self.out: bool = False
        self.since: float = -inf
        self.trial: object = None
        self.until: float = inf

    def succeed(self, now: float) -> bool:
        """Count a success; whether it ends the ejection."""
        if self.out:
            self._change(now, out=False)
            return True
        self.failures = 0
        if now >= self._window:
            self._open_window(now)
        self._calls += 1
        return False

    def fail(self, now: float) -> bool:
        """Count a failure; whether the rules would have the endpoint out."""
        rules = self._rules
        if rules is None or self.out:
            return False
        self.failures += 1
        if now >= self._window:
            self._open_window(now)
        self._calls += 1
        self._errors += 1
        return self.failures >= rules.consecutive or (
            self._calls >= rules.min_calls and self._errors >= rules.failure_ratio * self._calls
        )

    def eject(self, now: float) -> float:
        """Be out from now on; returns for how many seconds at least."""
        assert self._rules is not None
        well = now - self.since if not self.out else 0.0
        if well >= self._length():
            self._times = 0
        self._times += 1
        self._change(now, out=True)
        self.until = now + self._length()
        return self._length()

    def offer(self, call: object, now: float) -> float:
        """``call`` is the trial; returns when the next is due, if this one is not over by then."""
        assert self._rules is not None
        self.trial = call
        self.until = now + self._rules.base
        return self.until

    def void(self, now: float) -> None:
        """The trial has said nothing: another one is due soon, and calls go elsewhere meanwhile."""
        assert self._rules is not None
        self.until = now + self._rules.base * PAUSE

    def retire(self) -> None:
        """The endpoint is not known any more: calls that have begun change nothing."""
        self.generation += 1

    def _length(self) -> float:
        assert self._rules is not None
        return min(self._rules.base * self._times, self._rules.cap)

    def _change(self, now: float, *, out: bool) -> None:
        self.out = out
        self.since = now
        self.until = inf
        self.generation += 1
        self.failures = self._calls = self._errors = 0

    def _open_window(self, now: float) -> None:
        self._window = now + WINDOW
        self._calls = self._errors = 0
