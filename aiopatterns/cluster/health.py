"""Health checks: what works, found out ahead of time and answered at once.

Whoever asks a process whether it is well wants an answer now, and asks every second. Checks that ran
when asked would be a load of their own, and a slow database would make the question itself hang. So
checks run in the background, each in a loop of its own, and every answer is the last result::

    loop "db"     check .... check .... check ....      each 10 s +- 10 %, never two at once
    loop "disk"   check .......... check ..........     each with its own interval and timeout
                     |                |
                     v                v
                  hysteresis: rise, fall, latency, dwell
                     |
                     v
    report("readiness")   state("db")   unhealthy   on_change(...)        no wait, no I/O

``hysteresis.py`` decides about states, ``healthloop.py`` survives whatever checks do.

Guarantees:

* A check never overlaps itself, and none stops: as long as the event loop moves, every one begins
  again within two intervals, whether it raises, hangs, or swallows and shields its cancellation.
* A state changes only by ``fall`` failures or ``rise`` successes in a row, and lasts ``dwell``
  seconds at least. Only the first result of all decides alone.
* Failures that callers report may make a check UNHEALTHY; only checks that succeed end that.
* A check that is cancelled because the checker closes counts for nothing.

Not guaranteed: anything of a check that blocks the event loop, or of tasks that it has started. One
that waits in a thread needs a timeout of its own there: no thread can be ended from outside, and a
new one begins at the next check.
A loop that was blocked by others makes checks look slow, which is one more reason for ``fall``.

Source: startup, liveness and readiness are those of Kubernetes; that passive evidence ejects and
active evidence restores is Envoy's rule; supervision answers Kong's issues 5581, 7473 and 10003, in
which targets stayed unhealthy for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from anyio import Semaphore

from aiopatterns.cluster.healthcheck import KINDS, plan
from aiopatterns.cluster.healthloop import CheckLoop
from aiopatterns.cluster.healthreport import report_of
from aiopatterns.cluster.hysteresis import HealthState, Thresholds
from aiopatterns.core.lifecycle import Lifecycle
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.validate import choice, instance, positive, text
from aiopatterns.resilience.watchers import Watchers

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from aiopatterns.cluster.healthcheck import Check, CheckFn, HealthKind
    from aiopatterns.cluster.healthevents import HealthChanged
    from aiopatterns.cluster.healthreport import CheckHealth, HealthReport
    from aiopatterns.core.telemetry import Subscription

__all__ = ["HealthChecker", "HealthStatistics"]

#: Checks that run at the same time; one that has waited for half of its interval runs all the same.
SLOTS: Final = 16


@final
@dataclass(frozen=True, slots=True)
class HealthStatistics:
    """What a checker has done up to now, in this run.

    Attributes:
        checks: What is known of each, by name.
        running: Checks that run at this moment.
        total: Checks made.
        restarts: How often a loop had to be started again.
    """

    checks: dict[str, CheckHealth]
    running: int
    total: int
    restarts: int


@final
class HealthChecker(Lifecycle):
    """Run checks in the background, and answer from their last results.

    Opened with ``async with``, it makes every check once at once, and then at its interval. Before
    and after, everything is UNKNOWN.

    Args:
        checks: By name, an async function without arguments (a check of readiness) or a
            :class:`Check`, which says more. Raising, or returning ``False``, is a failure.
        interval: Seconds between two beginnings of a check, give or take 10 %.
        rise: Successes in a row that end UNHEALTHY.
        fall: Failures in a row that begin it.
        degraded_after: Seconds; slower, by the 95th percentile of the last 10 successes, is
            DEGRADED. ``math.inf``: never.
        down_after: Seconds; what took longer has failed. ``math.inf``: never.
        dwell: Seconds that a state lasts at least.
        name: How events call this checker.

    Raises:
        ValueError: A number is out of range, or two do not fit together.
        TypeError: A check is no async function.

    Cancellation: leaving cancels the checks that run, and awaits them. One that will not end is
    closed after a quarter of its interval, at most a second.

    Complexity: O(1) for every answer, from a record that is made once for each result. A result
    costs O(n) at the next report, where n is the number of checks.

    Example::

        checker = HealthChecker({"db": database.ping, "loop": Check(alive, kinds=("liveness",))})

        async with checker:
            checker.report("readiness").ok
    """

    __slots__ = (
        "_interval",
        "_loops",
        "_reports",
        "_slots",
        "_thresholds",
        "_unhealthy",
        "_watchers",
    )

    def __init__(
        self,
        checks: Mapping[str, Check | CheckFn],
        *,
        interval: float = 10.0,
        rise: int = 2,
        fall: int = 3,
        degraded_after: float = 0.1,
        down_after: float = 0.5,
        dwell: float = 5.0,
        name: str = "health",
    ) -> None:
        super().__init__(name)
        self._interval = positive("interval", interval)
        self._thresholds = Thresholds(
            rise=rise,
            fall=fall,
            degraded_after=degraded_after,
            down_after=down_after,
            dwell=dwell,
        )
        self._watchers: Watchers[[HealthChanged]] = Watchers(f"health checker {name!r}")
        self._loops: dict[str, CheckLoop] = {}
        self._slots = Semaphore(SLOTS)  # of this run
        self._reports: dict[HealthKind, HealthReport] = {}
        self._unhealthy: frozenset[str] | None = None
        instance("checks", checks, Mapping, "a mapping of names to async functions or Checks")
        for key, check in checks.items():
            self.add(key, check)

    # ---------------------------------------------------------------------------------- answers

    def report(self, kind: HealthKind = "readiness") -> HealthReport:
        """Return the last results of a set of checks.

        Args:
            kind: ``"liveness"``, ``"readiness"`` or ``"startup"``.

        Returns:
            The worst state and each check; the same record until there is another result.

        Raises:
            ValueError: There is no such set.
        """
        report = self._reports.get(choice("kind", kind, KINDS))
        if report is None:
            healths = {
                name: loop.health() for name, loop in self._loops.items() if kind in loop.plan.kinds
            }
            report = self._reports[kind] = report_of(kind, MappingProxyType(healths))
        return report

    def health(self, name: str) -> CheckHealth:
        """Return what is known of one check.

        Raises:
            ValueError: There is no check of that name.
        """
        return self._loop(name).health()

    def state(self, name: str) -> HealthState:
        """Return how one check stands.

        Raises:
            ValueError: There is no check of that name.
        """
        return self.health(name).state

    @property
    def unhealthy(self) -> frozenset[str]:
        """Names of the checks that are UNHEALTHY; what a balancer leaves out."""
        if self._unhealthy is None:
            self._unhealthy = frozenset(
                name
                for name, loop in self._loops.items()
                if loop.health().state is HealthState.UNHEALTHY
            )
        return self._unhealthy

    def statistics(self) -> HealthStatistics:
        """Return what has been done in this run."""
        healths = {name: loop.health() for name, loop in self._loops.items()}
        return HealthStatistics(
            checks=healths,
            running=sum(loop.running for loop in self._loops.values()),
            total=sum(each.total for each in healths.values()),
            restarts=sum(each.restarts for each in healths.values()),
        )

    def on_change(self, function: Callable[[HealthChanged], object]) -> Subscription:
        """Call ``function`` whenever a state has changed.

        Args:
            function: A plain function of the change; it must not wait. An error in it is logged.

        Returns:
            The subscription; close it to stop.

        Raises:
            TypeError: It is no function, or an async one.
        """
        return self._watchers.add(function)

    # ------------------------------------------------------------------------------ evidence, set

    async def check_now(self, name: str) -> CheckHealth:
        """Make one check at once, or join it if it runs.

        Returns:
            What is known of it then. The result counts like any other.

        Raises:
            ValueError: There is no check of that name.
            ClosedError: The checker is not open, or closes meanwhile.

        Cancellation: the check goes on, for the others.
        """
        loop = self._loop(name)
        self._open_group()
        return await loop.look()

    def report_failure(self, name: str, error: BaseException | None = None) -> None:
        """Count a failure that a caller has seen, as if a check had failed.

        With ``fall`` of them in a row the check is UNHEALTHY, and made at once. There is no way to
        report a success: only a check restores. While the checker is not open, nothing is counted.

        Args:
            name: The check.
            error: What was raised, for the event.

        Raises:
            ValueError: There is no check of that name.
        """
        loop = self._loop(name)
        if self._group is not None:
            loop.suspect(error)

    def add(self, name: str, check: Check | CheckFn) -> None:
        """Add a check, and begin at once if the checker is open.

        Raises:
            ValueError: The name is taken, or the check does not fit.
            TypeError: It is no check.
        """
        if text("name", name) in self._loops:
            msg = f"name must be new, but there is a check {name!r} already; remove it first"
            raise ValueError(msg)
        planned = plan(name, check, self._interval, self._thresholds)
        loop = self._loops[name] = CheckLoop(self.name, planned, self._told)
        self._told(None)
        if self._group is not None:
            self._group.start_soon(loop.tend, self._group, self._slots)

    def remove(self, name: str) -> None:
        """Stop a check and forget it; one that runs is cancelled.

        Raises:
            ValueError: There is no check of that name.
        """
        self._loop(name).end()
        del self._loops[name]
        self._told(None)

    # ------------------------------------------------------------------------------ private core

    async def _start(self, tasks: TaskGroup) -> None:
        self._slots = Semaphore(SLOTS)
        self._renew()
        for loop in self._loops.values():
            tasks.start_soon(loop.tend, tasks, self._slots)

    async def _leave(self, group: TaskGroup, cause: BaseException | None) -> None:
        for loop in self._loops.values():
            loop.hurry()
        await super()._leave(group, cause)

    def _settle(self) -> None:
        for loop in self._loops.values():
            loop.end()
        self._renew()

    def _renew(self) -> None:
        """Know nothing."""
        self._loops = {
            name: CheckLoop(self.name, loop.plan, self._told) for name, loop in self._loops.items()
        }
        self._told(None)

    def _loop(self, name: str) -> CheckLoop:
        return self._loops[choice("name", text("name", name), self._loops)]

    def _told(self, change: HealthChanged | None) -> None:
        """Something is known anew: forget the records made of what was known."""
        self._reports.clear()
        self._unhealthy = None
        if change is not None:
            if listening():
                emit(change)
            self._watchers.call(change)
