"""The loop of one check: it survives whatever its check does."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.cluster import (
    Check,
    HealthChanged,
    HealthChecker,
    HealthCheckFailed,
    HealthLoopRestarted,
    HealthState,
)
from aiopatterns.cluster.healthloop import GRACE, GRACE_SECONDS, JITTER, PATIENCE
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.context import bind_correlation, bind_deadline, correlation_id, deadline
from aiopatterns.testing import capture_events, explore, simulate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEALTHY, UNHEALTHY, UNKNOWN = HealthState.HEALTHY, HealthState.UNHEALTHY, HealthState.UNKNOWN
STUCK = "did not end when it was cancelled"


class Poison(BaseException):
    """No Exception, and no cancellation either."""


class Target:
    """A check that notes its beginnings, and whether it ever ran twice at once."""

    def __init__(self, act: Callable[[], Awaitable[object]]) -> None:
        self.act = act
        self.begun: list[float] = []
        self.running = self.most = 0

    async def check(self) -> object:
        self.begun.append(monotonic())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.act()
        finally:
            self.running -= 1


# ----------------------------------------------------------------------- whatever a check does


async def fine() -> None:
    await sleep(rng().uniform(0, 0.05))


async def says_no() -> bool:
    return False


async def raises() -> None:
    raise ConnectionError("10.0.0.7 refused alice:secret")


async def poisons() -> None:
    raise Poison


async def hangs() -> None:
    await sleep(1e6)


async def shields() -> None:
    with anyio.CancelScope(shield=True):
        await sleep(1e6)


async def swallows_one() -> None:
    try:
        await sleep(1e6)
    except asyncio.CancelledError:
        await sleep(1e6)


async def swallows_and_answers() -> bool:
    try:
        await sleep(1e6)
    except asyncio.CancelledError:
        return True
    return False


async def raises_instead() -> None:
    try:
        await sleep(1e6)
    except asyncio.CancelledError:
        raise OSError from None


async def shields_and_fails() -> None:
    """What closes it becomes an error of its own."""
    try:
        await shields()
    finally:
        raise OSError


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await sleep(1)


ACTS = [
    fine,
    says_no,
    raises,
    poisons,
    hangs,
    shields,
    swallows_one,
    swallows_and_answers,
    raises_instead,
    shields_and_fails,
    cancels_itself,
    cancels_its_task,
]


async def at_random() -> object:
    return await rng().choice(ACTS)()


@pytest.mark.promise("cluster-health-probed")
def test_every_check_begins_again_within_two_intervals():
    """More checks than slots, each of which does anything at any time, over 200 seeds."""
    interval, rounds = 4.0, 3

    async def main():
        targets = {str(at): Target(at_random) for at in range(18)}
        checks = {name: target.check for name, target in targets.items()}
        async with HealthChecker(checks, interval=interval):
            await sleep(interval * rounds)
            for target in targets.values():
                begun = [0.0, *target.begun, monotonic()]
                gaps = [after - before for before, after in pairwise(begun)]
                assert max(gaps) <= 2 * interval
        assert all((each.running, each.most) == (0, 1) for each in targets.values())

    explore(main, range(200))


@pytest.mark.parametrize("act", ACTS, ids=lambda each: each.__name__)
@pytest.mark.promise("cluster-health-probed")
def test_a_check_that_always_does_the_same_goes_on(act):
    interval = 4.0

    async def main():
        target = Target(act)
        async with HealthChecker({"it": target.check}, interval=interval) as checker:
            await sleep(interval * 20)
            health = checker.health("it")
            assert health.state is (HEALTHY if act is fine else UNHEALTHY)
            gaps = [after - before for before, after in pairwise(target.begun)]
            bound = max(1 + JITTER, 0.5 + GRACE) * interval
            assert max(gaps) <= bound + 0.01
            assert len(target.begun) >= 18
            assert "secret" not in health.reason
            ended = monotonic()
        assert monotonic() - ended <= GRACE_SECONDS
        assert (target.running, target.most) == (0, 1)

    simulate(main)


@pytest.mark.parametrize(
    ("act", "reason", "restarts"),
    [
        (says_no, "returned False", 0),
        (raises, "raised ConnectionError", 0),
        (poisons, "raised Poison", 1),
        (hangs, "took longer than its timeout of 2 s", 0),
        (swallows_one, "took longer than its timeout of 2 s", 0),
        (swallows_and_answers, "took longer than its timeout of 2 s", 0),
        (raises_instead, "took longer than its timeout of 2 s", 0),
        (shields, STUCK, 1),
        (shields_and_fails, STUCK, 1),
        (cancels_itself, "cancelled itself", 0),
        (cancels_its_task, "raised CancelledError", 1),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_why_a_check_has_failed(act, reason, restarts):
    async def main():
        with capture_events() as events:
            async with HealthChecker({"it": act}, interval=4) as checker:
                await sleep(3.5)
                health = checker.health("it")
                assert (health.state, health.reason) == (UNHEALTHY, reason)
                assert (health.total, health.restarts, health.failures) == (1, restarts, 1)
        assert [each for each in events if isinstance(each, HealthChanged)] == [
            HealthChanged("health", "it", UNKNOWN, UNHEALTHY, reason)
        ]
        failed = [each for each in events if isinstance(each, HealthCheckFailed)]
        assert [(each.check, each.reason) for each in failed] == [("it", reason)]
        restarted = [each for each in events if isinstance(each, HealthLoopRestarted)]
        assert restarted == [HealthLoopRestarted("health", "it", reason)] * restarts

    simulate(main)


def test_too_slow_is_a_failure():
    async def slow() -> None:
        await sleep(0.6)

    async def main():
        checks: dict[str, Any] = {"it": slow, "patient": Check(slow, down_after=1)}
        async with HealthChecker(checks, interval=4, degraded_after=0.5) as checker:
            await sleep(1)
            assert checker.health("it").reason == "took 0.6 s, more than down_after=0.5"
            assert checker.state("it") is UNHEALTHY
            assert checker.health("it").p95 is None
            assert checker.state("patient") is HealthState.DEGRADED
            assert checker.health("patient").p95 == pytest.approx(0.6)

    simulate(main)


def test_any_answer_but_false_is_a_success():
    async def main():
        for answer in (None, True, 0, "", (), "PONG"):

            async def check(answer: object = answer) -> object:
                return answer

            async with HealthChecker({"it": check}) as checker:
                assert (await checker.check_now("it")).state is HEALTHY

    simulate(main)


def test_what_is_no_coroutine_is_awaited_as_well():
    class Ping:
        def __await__(self):
            yield from asyncio.sleep(0.01).__await__()
            return "PONG"

    async def main():
        async with HealthChecker({"it": Ping}) as checker:
            assert (await checker.check_now("it")).state is HEALTHY

    simulate(main)


# ----------------------------------------------------------------------------- time and slots


def test_beginnings_are_an_interval_apart_give_or_take_a_tenth():
    async def main():
        target = Target(fine)
        async with HealthChecker({"it": target.check}, interval=10):
            await sleep(2000)
        gaps = [after - before for before, after in pairwise(target.begun)]
        assert target.begun[0] == 0.0
        assert 9 <= min(gaps) < 9.2
        assert 10.8 < max(gaps) <= 11
        assert sum(gaps) / len(gaps) == pytest.approx(10, abs=0.2)

    simulate(main)


def test_slots_bound_how_many_checks_run_at_the_same_time():
    async def main():
        running = most = 0

        async def check() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await sleep(0.2)
            running -= 1

        async with HealthChecker({str(at): check for at in range(64)}, interval=10) as checker:
            await sleep(0.1)
            assert checker.statistics().running == 16
            await sleep(1)
            assert checker.statistics().total == 64
        assert most == 16

    simulate(main)


def test_who_has_waited_for_half_an_interval_runs_without_a_slot():
    async def main():
        target = Target(fine)
        checks: dict[str, Any] = {
            f"hangs {at}": Check(hangs, interval=1000, timeout=500) for at in range(16)
        }
        async with HealthChecker(checks | {"it": target.check}, interval=10) as checker:
            await sleep(100)
            assert target.begun[0] == pytest.approx(PATIENCE * 10)
            assert len(target.begun) >= 6
            assert checker.state("it") is HEALTHY

    simulate(main)


def test_slots_are_given_back_whatever_happens():
    async def main():
        targets = {f"{at} {act.__name__}": Target(act) for act in ACTS for at in range(3)}
        checks = {name: target.check for name, target in targets.items()}
        async with HealthChecker(checks, interval=4) as checker:
            await sleep(40)
            for name in checks:
                checker.remove(name)
            await sleep(GRACE_SECONDS + 0.1)
            assert checker._slots.value == 16

    simulate(main)


def test_a_check_of_startup_rests_once_it_has_succeeded():
    async def main():
        well = False
        target = Target(lambda: raises() if not well else fine())
        both = Target(fine)
        checks = {
            "warm": Check(target.check, kinds=("startup",)),
            "db": Check(both.check, kinds=("startup", "readiness")),
        }
        async with HealthChecker(checks, interval=10, fall=1) as checker:
            await sleep(35)
            assert not checker.report("startup").ok
            well = True
            await sleep(100)
            assert checker.report("startup").ok
            begun = len(target.begun)
            await sleep(1000)
            assert len(target.begun) == begun
            assert len(both.begun) > 90
            # A failure that somebody reports asks the question again.
            well = False
            checker.report_failure("warm")
            await sleep(1)
            assert (checker.state("warm"), len(target.begun)) == (UNHEALTHY, begun + 1)
            well = True
            await sleep(100)
            assert checker.state("warm") is HEALTHY

    simulate(main)


# ------------------------------------------------------------------------------ surroundings


def test_a_check_has_the_context_of_the_opener_but_not_its_deadline():
    seen = []

    async def check() -> None:
        seen.append((correlation_id(), deadline()))
        bind_correlation("of the check").__enter__()

    async def main():
        with bind_correlation("opener"), bind_deadline(monotonic() + 1):
            async with HealthChecker({"it": check}) as checker:
                await checker.check_now("it")
                await checker.check_now("it")
        assert seen == [("opener", None)] * 2

    simulate(main)


def test_a_check_that_ends_because_the_checker_closes_counts_for_nothing():
    async def main():
        for act in (hangs, swallows_and_answers, raises_instead, shields_and_fails, shields):
            changes: list[HealthChanged] = []
            with capture_events() as events:
                async with HealthChecker({"it": act}, interval=10) as checker:
                    checker.on_change(changes.append)
                    await sleep(1)
                    began = monotonic()
                assert monotonic() - began <= GRACE_SECONDS
            assert (changes, events) == ([], [])

    simulate(main)


def test_a_callback_that_raises_no_exception_restarts_the_loop():
    async def main():
        def poison(change: HealthChanged) -> None:
            if change.after is UNHEALTHY:
                raise Poison

        target = Target(raises)
        async with HealthChecker({"it": target.check}, interval=10) as checker:
            checker.on_change(poison)
            await sleep(100)
            health = checker.health("it")
            assert (health.state, health.restarts) == (UNHEALTHY, 1)
            assert len(target.begun) >= 9

    simulate(main)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_is_not_stopped(error):
    async def check() -> None:
        raise error

    async def main() -> None:
        async with HealthChecker({"it": check}):
            await asyncio.sleep(10)

    with pytest.raises(error):
        asyncio.run(main())


async def test_a_check_runs_on_every_loop():
    done = anyio.Event()

    async def check() -> None:
        await sleep(0.001)
        done.set()

    async with HealthChecker({"it": check}) as checker:
        with anyio.fail_after(30):
            await done.wait()
            assert (await checker.check_now("it")).state is HEALTHY
