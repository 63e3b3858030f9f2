"""One endpoint as a balancer sees it: its record, its calls in flight, how long they take.

What strategies compare are two plain numbers, so that comparing costs next to nothing:

* ``load`` is ``in_flight / weight + 1``, with weights relative to their mean; it changes when a
  call begins or ends.
* ``lag`` is the latency in seconds, 0 if it is not known, as until the fifth call. It is the mean
  of the last second or so, but the age of the oldest call in flight if that is more, up to ten
  times the mean: so a node that hangs is shunned before its first call has timed out. What is older
  than ten seconds is forgotten while nothing is in flight: who was slow then gets calls now and
  shows how it is.

Guarantees: ``in_flight`` counts calls that have begun and not ended, however they end. Failures
never make an endpoint look faster, cancelled calls say nothing of its latency.

Source: peak EWMA of Finagle; the prediction from calls in flight is that of kratos' p2c.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.ejection import Standing

if TYPE_CHECKING:
    from aiopatterns.cluster.ejection import Ejection
    from aiopatterns.cluster.instance import ServiceInstance

__all__ = ["Endpoint", "EndpointStatistics", "Traffic"]

#: Seconds over which latencies are averaged, more or less.
AVERAGED: Final = 1.0
#: Calls from which a latency is known: what a first one costs, for it connects, is no measure.
SAMPLES: Final = 5
#: Seconds after which a latency is forgotten if no call has confirmed it.
REMEMBERED: Final = 10.0
#: The age of the oldest call counts as the latency, up to so many times the mean.
AGED: Final = 10.0
# Seconds for which a latency is not looked at anew.
_FRESH: Final = 0.005
#: A newcomer's weight grows in so many steps.
STEPS: Final = 10
# So that a step which is due by the clock is due by this arithmetic.
_HAIR: Final = 1e-9


@final
class Traffic:
    """What the endpoints of one balancer have in common.

    ``now`` is when the last call began or ended, ``in_flight`` the calls in flight of all.
    """

    __slots__ = ("in_flight", "now")

    def __init__(self) -> None:
        self.now: float = 0.0
        self.in_flight: int = 0


@final
@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """What a balancer knows of one endpoint.

    Attributes:
        instance: Its record.
        in_flight: Calls that have begun and not ended.
        calls: Calls that have begun.
        successes: Those that succeeded.
        failures: Those that failed; the rest were cancelled, said nothing, or have not ended.
        latency: Seconds that its calls take at present; None if that is not known.
        ejected: Whether it is left out.
        stale: Whether the registry has lost it and keeps it for want of others.
    """

    instance: ServiceInstance
    in_flight: int
    calls: int
    successes: int
    failures: int
    latency: float | None
    ejected: bool
    stale: bool


@final
class Endpoint:
    """State of one endpoint; strategies read it, balancers write it.

    Args:
        instance: Its record.
        traffic: What it has in common with the others.
        rules: When it is ejected.
        born: When it was first seen; minus infinity if it is no newcomer.
    """

    __slots__ = (
        "_begun",
        "_each",
        "_mean",
        "_samples",
        "_seen",
        "_traffic",
        "born",
        "calls",
        "failures",
        "fresh",
        "id",
        "in_flight",
        "instance",
        "lag",
        "load",
        "ramp",
        "stale",
        "standing",
        "successes",
        "weight",
    )

    def __init__(
        self,
        instance: ServiceInstance,
        traffic: Traffic,
        rules: Ejection | None = None,
        *,
        born: float = -inf,
    ) -> None:
        self.instance: ServiceInstance = instance
        self.id: str = instance.id
        self.standing: Standing = Standing(rules)
        self.born: float = born
        self.stale: bool = False
        #: Share of the weight that a newcomer has reached, above 0 and up to 1.
        self.ramp: float = 1.0
        #: The weight that strategies go by: that of the record times ``ramp``; above 0.
        self.weight: float = 1.0
        self.calls: int = 0
        self.successes: int = 0
        self.failures: int = 0
        self.in_flight: int = 0
        self.load: float = 1.0
        self.lag: float = 0.0
        #: Until when ``lag`` need not be looked at anew.
        self.fresh: float = -inf
        self._each = 1.0  # what one call adds to the load
        self._begun: dict[object, float] = {}
        self._mean = 0.0
        self._samples = 0  # what the mean is made of
        self._seen = -inf  # when the last latency came in
        self._traffic = traffic

    def weigh(self, weight: float, mean: float) -> None:
        """Set the weight, and that of the mean endpoint."""
        self.weight = weight
        self._each = mean / weight
        self.load = self.in_flight * self._each + 1.0

    def grow(self, now: float, slow_start: float) -> float:
        """Set ``ramp``; returns when the next step is due, infinity if there is none."""
        step = STEPS
        if now < self.born + slow_start:
            step = max(1, int((now - self.born) / slow_start * STEPS + _HAIR))
        self.ramp = step / STEPS
        return inf if step == STEPS else self.born + slow_start * (step + 1) / STEPS

    def begin(self, call: object, now: float) -> None:
        """A call begins."""
        self.calls += 1
        self._begun[call] = now
        self.in_flight += 1
        self.load = self.in_flight * self._each + 1.0
        traffic = self._traffic
        traffic.in_flight += 1
        traffic.now = now

    def end(self, call: object, now: float) -> float:
        """It has ended; returns how long it took."""
        elapsed = now - self._begun.pop(call)
        self.in_flight -= 1
        self.load = self.in_flight * self._each + 1.0
        traffic = self._traffic
        traffic.in_flight -= 1
        traffic.now = now
        return elapsed

    def observe(self, elapsed: float, now: float, *, failed: bool) -> None:
        """Take in how long a call took that succeeded or failed."""
        if failed:
            self.failures += 1
            if not self._samples or elapsed <= self._mean:
                return
        else:
            self.successes += 1
        passed = now - self._seen
        if passed >= REMEMBERED:
            self._samples = 0
            self.lag = 0.0
        self._samples += 1
        self._seen = now
        share = 1 - AVERAGED / (AVERAGED + passed)
        if self._samples * share < 1:
            share = 1 / self._samples  # at first the plain mean, which has no past to forget
        self._mean += (elapsed - self._mean) * share
        if self._samples >= SAMPLES and not (self._begun and self.lag):
            self.lag = self._mean  # else it is looked at soon, with the age of the oldest call
            self.fresh = now + _FRESH

    def latency(self, now: float) -> float:
        """Return ``lag`` as it is now; 0 if it is not known."""
        if now >= self.fresh:
            self.fresh = now + _FRESH
            self.lag = self._latency(now)
        return self.lag

    def statistics(self, now: float) -> EndpointStatistics:
        """Return what is known of it."""
        return EndpointStatistics(
            self.instance,
            self.in_flight,
            self.calls,
            self.successes,
            self.failures,
            self.latency(now) or None,
            self.standing.out,
            self.stale,
        )

    def _latency(self, now: float) -> float:
        if self._samples < SAMPLES:
            return 0.0
        if not self._begun:
            return self._mean if now - self._seen < REMEMBERED else 0.0
        oldest = now - next(iter(self._begun.values()))
        return max(self._mean, min(oldest, self._mean * AGED))
