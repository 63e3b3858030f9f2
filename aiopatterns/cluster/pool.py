"""The endpoints of one service, and which of them may be used: what a balancer decides with.

Synchronous, without a task or a timer: what is due by the clock (a trial, a step of a newcomer's
ramp) is done by the next call that comes. From all that are known to those that are used::

    known ---> serving                ready with weight, else ready, else the registry's stale ones
               serving ---> in        not ejected; all of them in a panic
                            in ---> used    those of the own zone, if half of them are in

A strategy makes a picker of those that are used, whenever they or their weights change. While
nothing is due by the clock and all is calm, :attr:`Pool.turn` and :attr:`Pool.pick` lead straight
to it.

Guarantees:

* While one endpoint is known, a call without ``exclude`` gets one.
* An endpoint whose ejection is over is the next that is picked, as one trial.
* State of an endpoint outlasts snapshots: it is kept as long as its id and address stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Final, final

from aiopatterns.cluster.ejection import Ejection
from aiopatterns.cluster.endpoint import Endpoint, Traffic
from aiopatterns.cluster.instance import service_name
from aiopatterns.cluster.strategy import Strategy, least_loaded
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import NoEndpointError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import instance, non_negative, plain_function

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from aiopatterns.cluster.endpoint import EndpointStatistics
    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.cluster.pick import Pick
    from aiopatterns.cluster.strategy import Picker
    from aiopatterns.core.types import Key
    from aiopatterns.resilience.judge import Outcome

__all__ = [
    "BalancerStatistics",
    "EndpointEjected",
    "EndpointRestored",
    "EndpointSkipped",
    "Pool",
    "PoolPanicked",
    "Rules",
]

#: The own zone is used while at least this share of its endpoints is in.
NEAR: Final = 0.5


@dataclass(frozen=True, slots=True)
class EndpointEjected(Event):
    """An endpoint failed too often and is left out.

    Args:
        service: Whose endpoint.
        instance: Its id.
        seconds: After so many seconds one call will try it.
        reason: The error of the last failure.
    """

    name: ClassVar[str] = "aiopatterns.balancer.ejected"
    level: ClassVar[str] = "warning"

    service: str
    instance: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointRestored(Event):
    """An endpoint that was left out has answered and is in again.

    Args:
        service: Whose endpoint.
        instance: Its id.
        seconds: How long it was out.
    """

    name: ClassVar[str] = "aiopatterns.balancer.restored"

    service: str
    instance: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PoolPanicked(Event):
    """So few endpoints are in that all are used, whatever they did.

    Args:
        service: Whose endpoints.
        usable: Those that are in.
        total: All of them.
    """

    name: ClassVar[str] = "aiopatterns.balancer.panicked"
    level: ClassVar[str] = "error"

    service: str
    usable: int
    total: int


@dataclass(frozen=True, slots=True)
class EndpointSkipped(Event):
    """``where`` raised about an endpoint, which is left out.

    Args:
        service: Whose endpoint.
        instance: Its id.
        error: What was raised.
    """

    name: ClassVar[str] = "aiopatterns.balancer.skipped"
    level: ClassVar[str] = "error"

    service: str
    instance: str
    error: str


@final
@dataclass(frozen=True, slots=True)
class BalancerStatistics:
    """What a balancer knows and did since it was opened.

    Calls are those of ``pick``; of ``choose`` only ``panics`` knows. At every instant ``calls`` is the sum of
    ``in_flight``, ``successes``, ``failures`` and ``ignored``.

    Attributes:
        service: Whose endpoints.
        calls: Calls that have begun.
        in_flight: Those that have not ended.
        successes: Those that succeeded.
        failures: Those that failed.
        ignored: Those that said nothing: they were cancelled, or refused by a policy.
        ejections: How often an endpoint was left out.
        trials: Calls that were the trial of an endpoint that was out.
        panics: Picks while too few endpoints were in.
        endpoints: What is known of each endpoint, by its id.
    """

    service: str
    calls: int
    in_flight: int
    successes: int
    failures: int
    ignored: int
    ejections: int
    trials: int
    panics: int
    endpoints: Mapping[str, EndpointStatistics]


@final
@dataclass(frozen=True, slots=True)
class Rules:
    """By what a pool decides; :class:`~aiopatterns.cluster.LoadBalancer` says what it means."""

    service: str
    strategy: Strategy
    eject: Ejection | None = None
    zone: str | None = None
    slow_start: float = 0.0
    where: Callable[[ServiceInstance], bool] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        instance("strategy", self.strategy, Strategy, "a strategy, as in RoundRobin()")
        if self.eject is not None:
            instance("eject", self.eject, Ejection, "an Ejection or None")
        if self.zone is not None:
            service_name("zone", self.zone)
        non_negative("slow_start", self.slow_start)
        if self.where is not None:
            plain_function("where", self.where)


@final
class Pool:
    """The endpoints of one service.

    Args:
        rules: By what it decides.

    ``turn`` (unless it is None) and ``pick`` give the endpoint for a call that reports nothing.
    """

    __slots__ = (
        "_calls",
        "_closed",
        "_due",
        "_ejections",
        "_failures",
        "_ignored",
        "_known",
        "_panic",
        "_panics",
        "_picker",
        "_reserves",
        "_rules",
        "_seen",
        "_serving",
        "_shape",
        "_successes",
        "_traffic",
        "_trials",
        "_wake",
        "_why",
        "pick",
        "turn",
    )

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._traffic = Traffic()
        self._known: dict[str, Endpoint] | None = None  # until somebody says what there is
        # What there was when somebody said so last, ready and stale.
        self._seen: tuple[tuple[ServiceInstance, ...], ...] = ((), ())
        self._serving: list[Endpoint] = []
        self._reserves: tuple[list[Endpoint], ...] = ()  # whom to ask when the used are excluded
        self._due: list[Endpoint] = []  # whose trial is due
        self._picker: Picker | None = None
        self._shape: list[tuple[Endpoint, float, float]] = []  # what the picker was made of
        self._panic = False
        self._wake = inf  # when something is due by the clock
        self._why = "its registry has not answered yet"  # why there is no endpoint, if so
        self._calls = self._successes = self._failures = self._ignored = 0
        self._ejections = self._trials = self._panics = 0
        self._closed: Callable[[Key | None], Endpoint] | None = None
        self.turn: Callable[[], Endpoint] | None = None
        self.pick: Callable[[Key | None], Endpoint] = self._watchful

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All that are known."""
        return tuple((self._known or {}).values())

    @property
    def usable(self) -> tuple[Endpoint, ...]:
        """Those that calls are spread over."""
        return () if self._picker is None else self._picker.endpoints

    def close(self, refuse: Callable[[Key | None], Endpoint]) -> None:
        """Let ``refuse`` answer who wants to pick; calls under way may end."""
        self._closed = refuse
        self._connect()

    def update(
        self, instances: Sequence[ServiceInstance], stale: Sequence[ServiceInstance] = ()
    ) -> None:
        """Know from now on that these are there, and no others."""
        seen = (tuple(instances), tuple(stale))
        if seen != self._seen or self._known is None:
            self._seen = seen
            self.refresh()

    def refresh(self) -> None:
        """Ask ``where`` anew about all that are there."""
        now = monotonic()
        before = self.endpoints
        born = -inf if self._known is None else now
        self._why = "none is there"
        self._known = {
            each.id: self._met(each, born, stale=lapsed)
            for lapsed, group in zip((False, True), self._seen, strict=True)
            for each in group
            if self._wanted(each)
        }
        for endpoint in before:
            if self._known.get(endpoint.id) is not endpoint:
                endpoint.standing.retire()
        self._compile(now)

    def take(self, call: Pick, key: Key | None, excluded: Collection[str], now: float) -> Endpoint:
        """Begin a call, and return its endpoint.

        Raises:
            NoEndpointError: There is none, or all are excluded.
        """
        if excluded or self._due or now >= self._wake:
            endpoint = self._considered(call, key, excluded, now)
        else:
            endpoint = self.pick(key)
        self._calls += 1
        endpoint.begin(call, now)
        return endpoint

    def end(
        self, call: Pick, endpoint: Endpoint, outcome: Outcome, error: Exception | None = None
    ) -> None:
        """End a call, and draw the consequences."""
        now = monotonic()
        elapsed = endpoint.end(call, now)
        standing = endpoint.standing
        trial = standing.trial is call
        if trial:
            standing.trial = None
        if outcome == "ignore":
            self._ignored += 1
        else:
            self._successes += outcome == "success"
            self._failures += outcome == "failure"
            endpoint.observe(elapsed, now, failed=outcome == "failure")
        if call.generation != standing.generation:
            return  # it is of a state that is over
        if outcome == "success":
            self._succeeded(endpoint, now)
        elif outcome == "failure":
            self._failed(endpoint, now, trial=trial, error=error)
        elif trial:
            standing.void(now)
            self._compile(now)

    def statistics(self) -> BalancerStatistics:
        """Return what is known."""
        now = monotonic()
        return BalancerStatistics(
            self._rules.service,
            self._calls,
            self._traffic.in_flight,
            self._successes,
            self._failures,
            self._ignored,
            self._ejections,
            self._trials,
            self._panics,
            {each.id: each.statistics(now) for each in self.endpoints},
        )

    def _wanted(self, instance: ServiceInstance) -> bool:
        """Whether ``where`` lets an instance in."""
        where = self._rules.where
        if where is None:
            return True
        try:
            wanted = where(instance)
        except Exception as error:
            wanted = False
            if listening():
                emit(EndpointSkipped(self._rules.service, instance.id, repr(error)))
        if not wanted:
            self._why = "none of those that are there passes 'where'"
        return wanted

    def _met(self, instance: ServiceInstance, born: float, *, stale: bool) -> Endpoint:
        """Return the state of an instance: what is held of it, or that of a newcomer."""
        endpoint = (self._known or {}).get(instance.id)
        if endpoint is None or (endpoint.instance.address, endpoint.instance.version) != (
            instance.address,
            instance.version,
        ):
            endpoint = Endpoint(instance, self._traffic, self._rules.eject, born=born)
        endpoint.instance = instance
        endpoint.stale = stale
        return endpoint

    def _compile(self, now: float) -> None:
        """Find out whom to use from now on."""
        serving = self._serving = _serving(self.endpoints)
        out = [each for each in serving if each.standing.out]
        self._due = [each for each in out if now >= each.standing.until]
        usable = [each for each in serving if not each.standing.out]
        calm = not self._panic
        self._panic = self._is_panic(len(usable), len(serving))
        used = serving if self._panic else self._near(usable)
        stale = [each for each in self.endpoints if each.stale]
        self._reserves = (usable, serving, stale)
        self._wake = min(
            (each.standing.until for each in out if now < each.standing.until), default=inf
        )
        self._wake = min([self._wake, *(each.grow(now, self._rules.slow_start) for each in used)])
        _weigh(used)
        shape = [(each, each.weight, each.ramp) for each in used]
        if shape != self._shape:  # else who is next stays who is next
            self._picker = self._rules.strategy.picker(used, self._traffic) if used else None
            self._shape = shape  # last: a strategy that raises is asked again
        self._connect()
        if self._panic and calm and listening():
            emit(PoolPanicked(self._rules.service, len(usable), len(serving)))

    def _connect(self) -> None:
        """Lead ``turn`` and ``pick`` to the picker, straight if nothing has to be watched."""
        self.turn = None
        if self._closed is not None:
            self.pick = self._closed
        elif self._picker is None or self._panic or self._wake < inf:
            self.pick = self._watchful
        else:
            self.turn, self.pick = self._picker.turn, self._picker.pick

    def _watchful(self, key: Key | None) -> Endpoint:
        """Pick while something is due by the clock, or something is wrong."""
        now = monotonic()
        if now >= self._wake:
            self._compile(now)
        return self._chosen(key, ())

    def _chosen(self, key: Key | None, excluded: Collection[str]) -> Endpoint:
        """Pick one of those in use, or of the others if those are excluded."""
        picker = self._picker
        if picker is None:
            raise self._nobody(f"has no endpoint: {self._why}")
        if self._panic:
            self._panics += 1
        if not excluded:
            return picker.pick(key)
        if (endpoint := picker.beside(key, excluded)) is not None:
            return endpoint
        for group in self._reserves:
            rest = [each for each in group if each.id not in excluded]
            if rest:
                return least_loaded(rest)
        left = any(each.id not in excluded for each in self.endpoints)
        which = "all that have a weight" if left else f"all {len(self.endpoints)}"
        raise self._nobody(f"has no endpoint left: {which} are excluded")

    def _considered(
        self, call: Pick, key: Key | None, excluded: Collection[str], now: float
    ) -> Endpoint:
        """Pick with all that may have to be heeded."""
        if self._closed is not None:
            self._closed(key)
        if now >= self._wake:
            self._compile(now)
        return self._trial(call, excluded, now) or self._chosen(key, excluded)

    def _trial(self, call: Pick, excluded: Collection[str], now: float) -> Endpoint | None:
        """Give the call to an endpoint whose trial is due, unless that is excluded."""
        for endpoint in self._due:
            if endpoint.id not in excluded:
                self._due.remove(endpoint)
                self._trials += 1
                self._wake = min(self._wake, endpoint.standing.offer(call, now))
                self._connect()
                return endpoint
        return None

    def _succeeded(self, endpoint: Endpoint, now: float) -> None:
        since = endpoint.standing.since
        if endpoint.standing.succeed(now):
            self._compile(now)
            if listening():
                emit(EndpointRestored(self._rules.service, endpoint.id, now - since))

    def _failed(
        self, endpoint: Endpoint, now: float, *, trial: bool, error: Exception | None
    ) -> None:
        if trial or (endpoint.standing.fail(now) and self._may_eject(endpoint)):
            seconds = endpoint.standing.eject(now)
            self._ejections += 1
            self._compile(now)
            if listening():
                service = self._rules.service
                emit(EndpointEjected(service, endpoint.id, seconds, repr(error)))

    def _may_eject(self, endpoint: Endpoint) -> bool:
        """Whether one more may be out, and this one counts."""
        rules, serving = self._rules.eject, self._serving
        out = sum(each.standing.out for each in serving)
        return rules is not None and endpoint in serving and out < rules.allowed(len(serving))

    def _is_panic(self, usable: int, total: int) -> bool:
        rules = self._rules.eject
        return rules is not None and total > 0 and rules.panics(usable, total)

    def _near(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Return those of the own zone, if enough of it is among them."""
        zone = self._rules.zone
        if zone is None:
            return endpoints
        near = [each for each in endpoints if each.instance.zone == zone]
        home = sum(each.instance.zone == zone for each in self._serving)
        return near if near and len(near) >= NEAR * home else endpoints

    def _nobody(self, why: str) -> NoEndpointError:
        service = self._rules.service
        return NoEndpointError(f"service {service!r} {why}", name=service)


def _serving(known: Collection[Endpoint]) -> list[Endpoint]:
    """Return whom calls are for, by their ids: ready ones, with weight if there is one."""
    ready = [each for each in known if not each.stale] or list(known)
    weighty = [each for each in ready if each.instance.weight] or ready
    return sorted(weighty, key=attrgetter("id"))


def _weigh(endpoints: list[Endpoint]) -> None:
    """Set what each of them counts."""
    weights = [(each.instance.weight or 1) * each.ramp for each in endpoints]
    mean = sum(each / len(weights) for each in weights)
    for endpoint, weight in zip(endpoints, weights, strict=True):
        endpoint.weigh(weight, mean)
