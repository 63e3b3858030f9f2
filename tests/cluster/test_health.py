"""HealthChecker: answers, evidence, a set of checks that changes, opening and closing."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

import aiopatterns
from aiopatterns.cluster import (
    Check,
    CheckHealth,
    HealthChanged,
    HealthChecker,
    HealthCheckFailed,
    HealthState,
    HealthStatistics,
    LoadBalancer,
    ServiceInstance,
)
from aiopatterns.contrib.asgi import lifespan
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import ClosedError, NoEndpointError
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)

HEALTHY, DEGRADED = HealthState.HEALTHY, HealthState.DEGRADED
UNKNOWN, UNHEALTHY = HealthState.UNKNOWN, HealthState.UNHEALTHY


class Target:
    """Something that is well or not, and counts how often it is asked."""

    def __init__(self, *, well: bool = True) -> None:
        self.well = well
        self.asked = 0

    async def check(self) -> bool:
        self.asked += 1
        await sleep(0.01)
        return self.well


async def fine() -> None: ...


# Made where there is no loop, and opened on several.
CHECKER = HealthChecker({"fine": fine, "alive": Check(fine, kinds=("liveness",))}, interval=60)
GROWING = HealthChecker({"fine": fine})
GROWING.add("more", fine)
GROWING.remove("fine")


def test_a_checker_at_module_level_is_opened_on_loop_after_loop():
    async def lifespan_of(checker: HealthChecker, name: str) -> None:
        assert checker.state(name) is UNKNOWN
        async with checker:
            await checker.check_now(name)
            assert checker.report("readiness").ok
        assert checker.state(name) is UNKNOWN

    for _ in range(2):
        asyncio.run(lifespan_of(CHECKER, "fine"))
        simulate(partial(lifespan_of, CHECKER, "fine"))
        asyncio.run(lifespan_of(GROWING, "more"))
    GROWING.add("fine", fine)
    asyncio.run(lifespan_of(GROWING, "fine"))


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


# ------------------------------------------------------------------------------------- answers


async def test_answers_are_the_last_results():
    ready, alive = Target(well=False), Target()
    checker = HealthChecker(
        {
            "db": ready.check,
            "loop": Check(alive.check, kinds=("liveness",)),
            "log": Check(fine, kinds=()),
        },
        degraded_after=math.inf,
        down_after=math.inf,
    )
    assert checker.name == "health"
    async with checker:
        for name in ("db", "loop", "log"):
            await checker.check_now(name)
        assert [checker.state(name) for name in ("db", "loop", "log")] == [
            UNHEALTHY,
            HEALTHY,
            HEALTHY,
        ]
        report = checker.report()
        assert (report.kind, report.state, report.ok) == ("readiness", UNHEALTHY, False)
        assert list(report.checks) == ["db"]
        assert report.checks["db"] == checker.health("db")
        assert checker.report("liveness").ok
        assert list(checker.report("liveness").checks) == ["loop"]
        assert (checker.report("startup").ok, dict(checker.report("startup").checks)) == (True, {})
        assert checker.unhealthy == {"db"}


def test_a_report_is_made_once_for_each_result():
    async def main():
        async with HealthChecker({"db": fine}) as checker:
            await sleep(1)
            report = checker.report()
            assert checker.report() is report
            assert checker.unhealthy is checker.unhealthy
            await sleep(20)
            assert checker.report() is not report
            with pytest.raises(TypeError):
                wrong(report.checks)["db"] = None

    simulate(main)


def test_nothing_is_known_before_and_after():
    async def main():
        checker = HealthChecker({"db": Target(well=False).check})
        for _ in range(2):
            assert (checker.state("db"), checker.report().ok) == (UNKNOWN, False)
            assert (checker.report("liveness").ok, checker.unhealthy) == (True, frozenset())
            with pytest.raises(ClosedError, match=r"async with HealthChecker\(\.\.\.\)"):
                await checker.check_now("db")
            checker.report_failure("db")
            assert checker.health("db").failures == 0
            async with checker:
                await sleep(1)
                assert checker.state("db") is UNHEALTHY
            await sleep(100)

    simulate(main)


def test_statistics():
    async def main():
        target = Target()
        async with HealthChecker({"db": target.check}, interval=10) as checker:
            await sleep(0.005)
            assert checker.statistics().running == 1
            await sleep(1)
            found = checker.statistics()
            assert found == HealthStatistics(
                checks={"db": checker.health("db")}, running=0, total=1, restarts=0
            )
            assert checker.health("db") == CheckHealth(
                name="db",
                state=HEALTHY,
                since=0.01,
                checked=0.01,
                latency=0.01,
                p95=0.01,
                successes=1,
                failures=0,
                reason="",
                passed=True,
                total=1,
                restarts=0,
            )

    simulate(main)


def test_a_headline_name():
    assert aiopatterns.HealthChecker is HealthChecker


async def test_it_is_entered_again_on_any_loop_and_by_a_lifespan():
    checker = HealthChecker({"db": fine})
    for _ in range(2):
        async with lifespan(checker)(None):
            assert (await checker.check_now("db")).total <= 2
            with pytest.raises(RuntimeError, match="HealthChecker 'health' is open already"):
                await checker.__aenter__()


# ------------------------------------------------------------------------------------ evidence


def test_a_target_falls_and_rises():
    async def main():
        target = Target()
        changes: list[HealthChanged] = []
        async with HealthChecker({"db": target.check}, interval=10) as checker:
            subscription = checker.on_change(changes.append)
            await sleep(1)
            target.well = False
            await sleep(50)
            assert checker.state("db") is UNHEALTHY
            target.well = True
            await sleep(40)
            assert checker.state("db") is HEALTHY
            assert changes == [
                HealthChanged("health", "db", UNKNOWN, HEALTHY, ""),
                HealthChanged("health", "db", HEALTHY, UNHEALTHY, "returned False"),
                HealthChanged("health", "db", UNHEALTHY, HEALTHY, ""),
            ]
            subscription.close()
            target.well = False
            await sleep(50)
            assert len(changes) == 3

    simulate(main)


@pytest.mark.promise("cluster-health-recovers")
def test_what_callers_see_ejects_and_only_checks_restore():
    async def main():
        target = Target()
        async with HealthChecker({"db": target.check}, interval=10) as checker:
            await sleep(6)
            assert checker.state("db") is HEALTHY
            target.well = False
            with capture_events() as events:
                for _ in range(3):
                    checker.report_failure("db", OSError("secret"))
            assert (checker.state("db"), [*checker.unhealthy]) == (UNHEALTHY, ["db"])
            assert checker.health("db").reason == "reported: OSError"
            failed = [each for each in events if isinstance(each, HealthCheckFailed)]
            assert [each.reason for each in failed] == ["reported: OSError"] * 3
            assert "secret" in str(failed[0].error)
            # It is looked at at once, and from then on as before.
            await sleep(0.1)
            assert target.asked == 2
            target.well = True
            before = monotonic()
            while checker.state("db") is UNHEALTHY:
                await sleep(0.1)
            assert 10 < monotonic() - before < 2 * 11 + 1

    simulate(main)


def test_a_reported_failure_without_an_error():
    async def main():
        async with HealthChecker({"db": fine}) as checker:
            await sleep(1)
            checker.report_failure("db")
            assert checker.health("db").reason == "reported"
            assert checker.state("db") is HEALTHY

    simulate(main)


def test_check_now_does_not_wait_for_the_interval_and_joins_what_runs():
    async def main():
        target = Target()
        async with HealthChecker({"db": target.check}, interval=1000) as checker:
            assert (await checker.check_now("db")).state is HEALTHY
            assert (monotonic(), target.asked) == (0.01, 1)
            target.well = False
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(checker.check_now, "db")
            assert (monotonic(), target.asked) == (0.02, 2)
            assert checker.health("db").failures == 1
            await sleep(2000)
            assert target.asked <= 5

    simulate(main)


def test_check_now_of_a_cancelled_caller_goes_on_for_the_others():
    async def main():
        target = Target()
        async with HealthChecker({"db": target.check}) as checker:
            with anyio.move_on_after(0.005):
                await checker.check_now("db")
            await sleep(1)
            assert checker.health("db").total == 1

    simulate(main)


def test_check_now_ends_with_the_checker():
    async def hangs() -> None:
        await sleep(1e6)

    async def main():
        errors: list[str] = []

        async def ask(name: str) -> None:
            try:
                await checker.check_now(name)
            except ClosedError as error:
                errors.append(str(error))

        async with anyio.create_task_group() as group:
            async with HealthChecker({"a": hangs, "b": hangs}) as checker:
                group.start_soon(ask, "a")
                group.start_soon(ask, "b")
                await sleep(1)
                checker.remove("a")
                await sleep(1)
                assert errors == ["check 'a' of 'health' was ended before it had a result"]
        assert errors[1:] == ["check 'b' of 'health' was ended before it had a result"]

    simulate(main)


def test_callbacks_that_fail_are_logged(caplog):
    async def main():
        seen: list[HealthChanged] = []

        def broken(change: HealthChanged) -> None:
            raise ValueError("mine")

        async with HealthChecker({"db": fine}) as checker:
            checker.on_change(broken)
            checker.on_change(seen.append)
            await sleep(1)
        assert len(seen) == 1

    simulate(main)
    assert "a watcher of health checker 'health' failed" in caplog.text


# ---------------------------------------------------------------------- a set that changes


def test_checks_are_added_and_removed_at_any_time():
    async def main():
        old, new, other = Target(), Target(), Target(well=False)
        checker = HealthChecker({}, interval=10)
        checker.add("old", old.check)
        async with checker:
            await sleep(1)
            checker.add("new", Check(new.check, interval=5))
            assert (checker.state("new"), checker.report().ok) == (UNKNOWN, False)
            await sleep(1)
            assert (old.asked, new.asked, checker.report().ok) == (1, 1, True)
            checker.remove("old")
            with pytest.raises(ValueError, match="name must be one of 'new', not 'old'"):
                checker.state("old")
            await sleep(100)
            assert (old.asked, list(checker.report().checks)) == (1, ["new"])
            assert new.asked >= 17
            # One name, another check: the one before is gone, and none is made twice.
            checker.remove("new")
            checker.add("new", other.check)
            await sleep(100)
            assert checker.state("new") is UNHEALTHY
            assert (new.asked <= 22, 9 <= other.asked <= 12) == (True, True)
            with pytest.raises(ValueError, match="there is a check 'new' already"):
                checker.add("new", new.check)
        assert list(checker.report().checks) == ["new"]

    simulate(main)


def test_a_check_is_removed_while_it_runs_or_because_it_changes():
    async def main():
        target = Target(well=False)
        async with HealthChecker({"db": target.check, "other": fine}) as checker:
            await sleep(0.005)
            checker.remove("db")
            checker.add("db", target.check)
            checker.on_change(lambda change: checker.remove(change.check))
            await sleep(100)
            assert target.asked == 2
            assert list(checker.statistics().checks) == ["other"]

    simulate(main)


def test_a_check_that_is_removed_before_it_began():
    async def main():
        target = Target()
        async with HealthChecker({"db": target.check}) as checker:
            checker.remove("db")
            await sleep(100)
        assert target.asked == 0

    simulate(main)


# --------------------------------------------------------------------- it drives a balancer


@pytest.mark.promise("cluster-health-recovers")
@pytest.mark.parametrize("way", ["exclude", "update"])
def test_a_target_that_recovers_is_used_again(way):
    """Endpoints fail and recover at any time; none that is well stays unused for long."""
    interval, rise = 2.0, 2

    async def main():
        targets = {name: Target() for name in "abc"}
        endpoints = [ServiceInstance("users", "localhost", 80, id=name) for name in targets]
        used = dict.fromkeys(targets, 0.0)
        checker = HealthChecker(
            {name: target.check for name, target in targets.items()},
            interval=interval,
            rise=rise,
            dwell=0,
        )
        balancer = LoadBalancer(endpoints, eject=None)

        def spread(change: object) -> None:
            well = [each for each in endpoints if each.id not in checker.unhealthy]
            balancer.update(well or endpoints)

        if way == "update":
            checker.on_change(spread)
        async with checker, balancer:
            for _ in range(3):
                for target in targets.values():
                    target.well = rng().random() < 0.5
                rng().choice([*targets.values()]).well = True
                ends = monotonic() + interval * (2 * rise + 2)
                while monotonic() < ends:
                    await one_call(balancer, checker, targets, used, exclude=way == "exclude")
                    await sleep(0.05)
                for name, target in targets.items():
                    recently = monotonic() - used[name] < 1
                    assert recently == target.well, name
                    assert (name in checker.unhealthy) == (not target.well)

    explore(main, range(50))


async def one_call(balancer, checker, targets, used, *, exclude: bool) -> None:
    """Ask an endpoint; tell the checker if that was in vain."""
    with suppress(NoEndpointError):  # all are excluded, as long as nobody is known to be well
        async with balancer.pick(exclude=checker.unhealthy if exclude else ()) as endpoint:
            used[endpoint.id] = monotonic()
            if not targets[endpoint.id].well:
                checker.report_failure(endpoint.id)


# ------------------------------------------------------------- cancellation, faults, bad input


@pytest.mark.promise("cluster-health-cancel")
def test_cancelled_anywhere_nothing_is_left():
    def scenario() -> Trial:
        targets = [Target(), Target(well=False)]
        checker = HealthChecker({str(at): each.check for at, each in enumerate(targets)})

        async def work() -> None:
            async with checker:
                await checker.check_now("0")
                await sleep(25)
                checker.add("2", fine)
                await checker.check_now("2")
                checker.report_failure("0")
                checker.remove("1")
                await checker.check_now("0")

        def check() -> None:
            assert checker.state("0") is UNKNOWN
            assert checker.statistics().running == 0

        return Trial(work(), check)

    visited = cancel_everywhere(
        scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5
    )
    assert visited.runs > 20


@pytest.mark.promise("cluster-health-fail-everywhere")
def test_checks_and_callbacks_that_fail_at_any_call():
    def scenario(fault) -> Trial:
        asked = []

        async def check() -> None:
            asked.append(monotonic())
            fault()
            await sleep(0.01)
            fault()

        def changed(change: HealthChanged) -> None:
            fault()

        async def work() -> None:
            async with HealthChecker({"db": check}, interval=10) as checker:
                checker.on_change(changed)
                await sleep(35)
                assert checker.state("db") in (HEALTHY, UNHEALTHY)
                assert len(asked) >= 4

        return Trial(work())

    assert fail_everywhere(scenario, minimum=6).positions >= 6


def test_an_error_of_the_body_leaves_bare():
    async def main():
        with pytest.raises(KeyError):
            async with HealthChecker({"db": Target().check}):
                await sleep(0.005)
                raise KeyError("mine")

    simulate(main)


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"checks": [fine]}, TypeError, "checks must be a mapping of names"),
        ({"checks": {"": fine}}, ValueError, "name must be a non-empty string"),
        ({"checks": {7: fine}}, TypeError, "name must be a non-empty string"),
        ({"checks": {"db": 7}}, TypeError, r"checks\['db'\] must be a function"),
        ({"interval": 0}, ValueError, "interval must be a finite number > 0"),
        ({"interval": math.nan}, ValueError, "interval must be"),
        ({"rise": 0}, ValueError, "rise must be a whole number >= 1"),
        ({"fall": True}, TypeError, "fall must be a whole number >= 1"),
        ({"degraded_after": -1}, ValueError, "degraded_after must be"),
        ({"degraded_after": 1}, ValueError, "down_after must be at least degraded_after"),
        ({"dwell": -1}, ValueError, "dwell must be"),
        ({"name": ""}, ValueError, "name must be"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_names_the_parameter(values, error, text):
    with pytest.raises(error, match=text):
        HealthChecker(**({"checks": {"db": fine}} | values))


@pytest.mark.promise("cluster-bad-input")
async def test_bad_input_of_every_method():
    checker = HealthChecker({"db": fine})
    calls = (
        checker.state,
        checker.health,
        checker.report_failure,
        checker.remove,
    )
    for call in calls:
        with pytest.raises(ValueError, match="name must be one of 'db', not 'cache'"):
            call("cache")
        with pytest.raises(TypeError, match="name must be a non-empty string"):
            call(wrong(["db"]))
    with pytest.raises(ValueError, match="name must be one of 'db', not 'cache'"):
        await checker.check_now("cache")
    with pytest.raises(ValueError, match="kind must be one of 'liveness', 'readiness', 'startup'"):
        checker.report(wrong("ready"))
    with pytest.raises(TypeError, match="watcher must be a plain function"):
        checker.on_change(wrong(fine))
    with pytest.raises(TypeError, match=r"checks\['x'\] must be an async function"):
        checker.add("x", wrong(test_a_headline_name))
    assert list(checker.statistics().checks) == ["db"]
