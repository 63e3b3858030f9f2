"""Hedges: sequences of attempts, who wins, nothing left behind, late results, quantiles."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline, deadline
from aiopatterns.core.errors import BulkheadFullError
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.hedge import Hedge
from aiopatterns.testing import (
    CancelKind,
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)

ALL_KINDS: tuple[CancelKind, ...] = ("native", "scope", "timeout", "native-twice")


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Attempts:
    """A function whose attempts each take their own time and have their own end.

    ``(2, "a")`` returns "a" after 2 s, ``(1, OSError)`` raises after 1 s.
    """

    def __init__(self, *plan):
        self.plan = plan
        self.began: list[float] = []
        self.ended: list[str] = []
        self.running = 0
        self.start = monotonic()

    async def __call__(self):
        number = len(self.began)
        self.began.append(monotonic() - self.start)
        seconds, end = self.plan[number]
        self.running += 1
        try:
            await sleep(seconds)
        except BaseException:
            self.ended.append(f"{number} cancelled")
            raise
        finally:
            self.running -= 1
        self.ended.append(f"{number} {getattr(end, '__name__', end)}")
        if isinstance(end, type):
            raise end(f"attempt {number}")
        return end


class Refused(Exception):
    """What `on` does not name."""


# Options, the plan of the attempts, what comes out, when, and when each attempt began.
SEQUENCES = {
    "quick enough": ({"after": 1}, [(0.5, "a")], "a", 0.5, [0]),
    "just in time": ({"after": 1}, [(0.999, "a")], "a", 0.999, [0]),
    "late, the hedge wins": ({"after": 1}, [(9, "a"), (1, "b")], "b", 2, [0, 1]),
    "late, the primary wins": ({"after": 1}, [(1.5, "a"), (1, "b")], "a", 1.5, [0, 1]),
    "at most one hedge": ({"after": 1}, [(9, "a"), (7, "b")], "b", 8, [0, 1]),
    "two hedges": ({"after": 1, "max_extra": 2}, [(9, "a"), (9, "b"), (1, "c")], "c", 3, [0, 1, 2]),
    "three, the second wins": (
        {"after": 1, "max_extra": 3},
        [(9, "a"), (1.5, "b"), (9, "c"), (9, "d")],
        "b",
        2.5,
        [0, 1, 2],
    ),
    "all at once": (
        {"after": 0, "max_extra": 2},
        [(3, "a"), (2, "b"), (1, "c")],
        "c",
        1,
        [0, 0, 0],
    ),
    "a failure begins the next at once": ({"after": 5}, [(1, OSError), (1, "b")], "b", 2, [0, 1]),
    "a failure after the hedge began": (
        {"after": 1},
        [(2, OSError), (3, "b")],
        "b",
        4,
        [0, 1],
    ),
    "the hedge fails, the primary succeeds": (
        {"after": 1},
        [(5, "a"), (1, OSError)],
        "a",
        5,
        [0, 1],
    ),
    "the hedge fails and begins the next": (
        {"after": 2, "max_extra": 2},
        [(9, "a"), (1, OSError), (1, "c")],
        "c",
        4,
        [0, 2, 3],
    ),
    "each begins the time anew": (
        {"after": 2, "max_extra": 2},
        [(1, OSError), (9, "b"), (1, "c")],
        "c",
        4,
        [0, 1, 3],
    ),
    "all fail": ({"after": 1}, [(3, OSError), (3, OSError)], OSError("attempt 0"), 4, [0, 1]),
    "all fail at once": (
        {"after": 5, "max_extra": 2},
        [(1, OSError), (1, OSError), (1, OSError)],
        OSError("attempt 0"),
        3,
        [0, 1, 2],
    ),
    "an error that is not named ends it": (
        {"after": 1, "on": OSError},
        [(0.5, Refused)],
        Refused("attempt 0"),
        0.5,
        [0],
    ),
    "an error of the hedge that is not named ends it": (
        {"after": 1, "on": OSError},
        [(9, "a"), (1, Refused)],
        Refused("attempt 1"),
        2,
        [0, 1],
    ),
    "any error is handled by default": (
        {"after": 5},
        [(1, Refused), (1, "b")],
        "b",
        2,
        [0, 1],
    ),
    "a refusal of a policy inside is not": (
        {"after": 5},
        [(1, BulkheadFullError)],
        BulkheadFullError("attempt 0"),
        1,
        [0],
    ),
    "unless it is named": (
        {"after": 5, "on": BulkheadFullError},
        [(1, BulkheadFullError), (1, "b")],
        "b",
        2,
        [0, 1],
    ),
    "a predicate": (
        {"after": 5, "on": lambda error: "0" in str(error), "max_extra": 3},
        [(1, OSError), (1, OSError)],
        OSError("attempt 1"),
        2,
        [0, 1],
    ),
    "without a time, only failures": (
        {"after": None},
        [(99, "a")],
        "a",
        99,
        [0],
    ),
    "without a time, a failure": ({"after": None}, [(1, OSError), (9, "b")], "b", 10, [0, 1]),
    "a primary that fails last keeps its name": (
        {"after": 1},
        [(9, OSError), (1, OSError)],
        OSError("attempt 0"),
        9,
        [0, 1],
    ),
    "no budget, no hedge": (
        {"after": 1, "budget": Budget.ratio(0, min_concurrency=0)},
        [(9, "a")],
        "a",
        9,
        [0],
    ),
    "no budget, no hedge after a failure": (
        {"after": 1, "budget": Budget.ratio(0, min_concurrency=0)},
        [(0.5, OSError)],
        OSError("attempt 0"),
        0.5,
        [0],
    ),
    "a budget of one": (
        {"after": 1, "max_extra": 2, "budget": Budget.ratio(0, min_concurrency=1)},
        [(9, "a"), (4, "b")],
        "b",
        5,
        [0, 1],
    ),
}


async def outcome(call):
    try:
        return await call
    except Exception as error:
        return error


def sequence(options, plan, expected, elapsed, began):
    async def scenario():
        attempts = Attempts(*plan)
        found = await outcome(Hedge(**options).call(attempts))
        assert monotonic() - attempts.start == pytest.approx(elapsed)
        assert (type(found), str(found)) == (type(expected), str(expected))
        assert attempts.began == pytest.approx(began)
        assert attempts.running == 0
        assert len(attempts.ended) == len(began)

    return scenario


@pytest.mark.parametrize("case", SEQUENCES.values(), ids=SEQUENCES)
def test_sequences(case):
    explore(sequence(*case), range(4))


@pytest.mark.promise("resilience-seeds")
@pytest.mark.parametrize("name", ["late, the hedge wins", "all fail at once", "all at once"])
def test_sequences_are_the_same_under_any_schedule(name):
    explore(sequence(*SEQUENCES[name]), range(200))


PLANS = st.lists(
    st.tuples(
        st.sampled_from([0.4, 1.1, 1.7, 2.3, 3.9]), st.sampled_from(["ok", OSError, Refused])
    ),
    min_size=4,
    max_size=4,
)


def race(after, max_extra, plan):
    """The plain model: the moment and the outcome, by going from event to event."""
    began, ends, over = [0.0], {}, set()
    ends[0] = plan[0][0]
    timer = after
    while True:
        running = {number: at for number, at in ends.items() if number not in over}
        left = max_extra + 1 - len(began)
        if not running:
            return "failed", max(ends.values()), began
        number = min(running, key=lambda each: (running[each], each))
        if left and timer < running[number]:
            at = timer
        else:
            at = running[number]
            over.add(number)
            end = plan[number][1]
            if end is not OSError:
                return (end if end == "ok" else "refused"), at, began
            if not left:
                continue
        began.append(at)
        ends[len(began) - 1] = at + plan[len(began) - 1][0]
        timer = at + after


@given(st.sampled_from([0.25, 1.0, 3.0]), st.integers(1, 3), PLANS)
def test_it_agrees_with_the_plain_model(after, max_extra, plan):
    # No two things happen at one moment.
    plan = [(seconds + number * 0.013, end) for number, (seconds, end) in enumerate(plan)]

    async def scenario():
        attempts = Attempts(*plan)
        found = await outcome(Hedge(after, max_extra=max_extra, on=OSError).call(attempts))
        what, at, began = race(after, max_extra, plan)
        assert monotonic() - attempts.start == pytest.approx(at)
        assert attempts.began == pytest.approx(began)
        kinds = {"ok": str, "failed": OSError, "refused": Refused}
        assert isinstance(found, kinds[what])
        assert attempts.running == 0

    simulate(scenario)


def test_losers_have_ended_before_the_call_returns():
    async def scenario():
        cleaned = []

        async def slow_to_end():
            calls.append(1)
            if len(calls) == 2:
                return "second"
            try:
                await sleep(9)
            finally:
                with anyio.CancelScope(shield=True):
                    await sleep(3)
                cleaned.append(monotonic())

        calls: list[int] = []
        assert await Hedge(1).call(slow_to_end) == "second"
        assert cleaned == [monotonic()] == [pytest.approx(4)]

    simulate(scenario)


def test_the_errors_of_all_are_told_and_the_primary_is_raised():
    async def scenario():
        first = OSError("first")
        errors = iter([first, OSError("second"), KeyError("third")])

        async def fails():
            raise next(errors)

        with pytest.raises(OSError, match="first") as caught:
            await Hedge(5, max_extra=2).call(fails)
        assert caught.value is first
        assert first.__notes__ == [
            "hedge 1 failed as well: OSError('second')",
            "hedge 2 failed as well: KeyError('third')",
        ]

    simulate(scenario)


def test_events():
    async def scenario():
        attempts = Attempts((9, "a"), (1, "b"))
        with capture_events() as events:
            await Hedge(1).call(attempts)
            await Hedge(1).call(Attempts((1.5, "a"), (1, "b")))
        found = [(each.name, wrong(each).hedge, wrong(each).elapsed) for each in events]
        assert found == [
            ("aiopatterns.hedge.started", 1, pytest.approx(1)),
            ("aiopatterns.hedge.won", 1, pytest.approx(2)),
            ("aiopatterns.hedge.started", 1, pytest.approx(1)),
        ]

    simulate(scenario)


variable: ContextVar[str] = ContextVar("variable", default="nobody")


def test_hedges_see_the_context_as_the_call_began():
    async def scenario():
        seen = []

        async def look():
            seen.append(variable.get())
            variable.set(f"attempt {len(seen)}")
            if len(seen) < 3:
                await sleep(0.5)
                raise OSError
            return "done"

        variable.set("caller")
        assert await Hedge(0.2, max_extra=2).call(look) == "done"
        assert seen == ["caller"] * 3
        assert variable.get() == "attempt 1"  # the primary runs in the caller's own task

    simulate(scenario)


def test_no_hedge_after_the_deadline():
    async def scenario():
        attempts = Attempts((3, "a"))
        with bind_deadline(monotonic() + 0.5):
            assert await Hedge(1).call(attempts) == "a"
        attempts = Attempts((3, OSError))
        with bind_deadline(monotonic() + 2), pytest.raises(OSError):
            await Hedge(5).call(attempts)
        attempts = Attempts((3, OSError), (1, "b"))
        with bind_deadline(monotonic() + 9):
            assert await Hedge(1).call(attempts) == "b"
            assert deadline() is not None

    simulate(scenario)


class Counted(Budget):
    """A budget that allows what it is told to and keeps the books."""

    def __init__(self, allowed=9):
        self.allowed = allowed
        self.calls = self.extras = 0

    def begin(self):
        self.calls += 1

    def finish(self):
        self.calls -= 1

    def try_extra(self):
        if self.extras >= self.allowed:
            return False
        self.extras += 1
        return True

    def finish_extra(self):
        self.extras -= 1


# What a loser may do about its cancellation.
async def obeys(late):
    await sleep(late)
    return "late"


async def swallows(late):
    try:
        await sleep(late)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await sleep(0.1)
    return "late"


async def replaces(late):
    try:
        await sleep(late)
    except asyncio.CancelledError:
        raise OSError("in cleanup") from None
    return "late"


async def cancels_itself(late):
    await sleep(late / 100)
    raise asyncio.CancelledError


async def is_cancelled_by_a_stranger(late):
    task = asyncio.current_task()
    assert task is not None
    await sleep(late / 100)
    task.cancel()
    await sleep(0)


async def returns_in_the_same_turn(late):
    await sleep(1)
    return "late"


LOSERS = (obeys, swallows, replaces, returns_in_the_same_turn)


@pytest.mark.promise("resilience-hedge", "regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("loser", [*LOSERS, cancels_itself, is_cancelled_by_a_stranger])
def test_a_hedge_that_loses_in_any_way_breaks_nothing(loser):
    async def scenario():
        calls, discarded = [], []
        budget = Counted()

        async def discard(value):
            discarded.append(value)

        async def work():
            calls.append(1)
            if len(calls) > 1:
                return await loser(9)
            await sleep(2)
            return "primary"

        with capture_events() as events:
            hedge = Hedge(1, discard=discard, budget=budget)
            found = await hedge.call(work)
        assert [found, *discarded].count("late") == (loser in {swallows, returns_in_the_same_turn})
        assert max([found, *discarded]) == "primary"
        assert {each.name for each in events} <= {
            "aiopatterns.hedge.started",
            "aiopatterns.hedge.won",
        }
        assert (budget.calls, budget.extras) == (0, 0)

    explore(scenario, range(30))


@pytest.mark.promise("resilience-hedge", "regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("loser", LOSERS)
def test_a_primary_that_loses_in_any_way_breaks_nothing(loser):
    async def scenario():
        calls, discarded = [], []

        async def discard(value):
            discarded.append(value)

        async def work():
            calls.append(1)
            if len(calls) == 1:
                return await loser(9)
            return "hedge"

        found = await Hedge(1, discard=discard).call(work)
        late = {swallows: ["late"], returns_in_the_same_turn: ["late", "hedge"]}.get(loser, [])
        assert found in {"hedge", "late"}
        assert set(discarded) <= set(late) - {found}
        assert loser is not swallows or discarded == ["late"]

    explore(scenario, range(30))


def test_a_primary_that_cancels_itself_is_cancelled():
    async def scenario():
        budget = Counted()
        calls: list[int] = []

        async def work():
            calls.append(1)
            await (cancels_itself(200) if len(calls) == 1 else sleep(9))

        with pytest.raises(asyncio.CancelledError):
            await Hedge(1, budget=budget).call(work)
        assert monotonic() == pytest.approx(2)
        assert (budget.calls, budget.extras) == (0, 0)

    simulate(scenario)


def test_a_hedge_that_cancels_itself_after_the_primary_failed():
    async def scenario():
        calls: list[int] = []

        async def work():
            calls.append(1)
            if len(calls) == 1:
                raise OSError("primary")
            await cancels_itself(1)

        with pytest.raises(OSError, match="primary") as caught:
            await Hedge(5).call(work)
        assert caught.value.__notes__ == ["hedge 1 failed as well: CancelledError()"]

    simulate(scenario)


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("primary", [swallows, replaces])
@pytest.mark.parametrize("at", [0.5, 1.5, 2.0])
def test_a_primary_that_eats_the_cancellation_of_its_caller(primary, at):
    """Alone, what it makes of it is the outcome; beside hedges, the cancellation goes on."""

    async def scenario():
        calls, discarded = [], []

        async def work():
            calls.append(1)
            if len(calls) == 1:
                return await primary(9)
            await sleep(1)
            return "hedge"

        async def discard(value):
            discarded.append(value)

        task = asyncio.create_task(Hedge(1, max_extra=3, discard=discard).call(work))
        await sleep(at)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            assert at > 1
            assert set(discarded) == ({"late"} if primary is swallows else set()) | (
                {"hedge"} if at == 2 else set()
            )
        elif primary is swallows:
            assert (task.result(), at) == ("late", 0.5)
        else:
            assert isinstance(task.exception(), OSError)
            assert at == 0.5
        assert len(calls) in {1 + int(at), int(at)}

    explore(scenario, range(30))


def test_a_predicate_that_raises_ends_the_call_with_its_error():
    def broken(error):
        raise ZeroDivisionError

    async def scenario():
        for plan in ([(1, OSError)], [(9, "a"), (1, OSError)]):
            attempts = Attempts(*plan)
            with pytest.raises(ZeroDivisionError):
                await Hedge(2, on=broken).call(attempts)
            assert attempts.running == 0

    simulate(scenario)


@pytest.mark.promise("resilience-hedge", "resilience-cancel-everywhere")
@pytest.mark.parametrize("loser", LOSERS)
@pytest.mark.parametrize("primary", ["is slow", "fails", "wins"])
def test_no_orphan_and_nothing_lost_when_cancelled_anywhere(primary, loser):
    def factory():
        made, discarded, got, budget = [], [], [], Counted()
        calls: list[int] = []

        async def connect():
            calls.append(1)
            number = len(calls)
            if number == 1:
                await sleep(1.5 if primary == "wins" else 1)
                if primary == "fails":
                    raise OSError
                await sleep(0 if primary == "wins" else 9)
            elif number == 2:
                await loser(2)
            else:
                await sleep(0.5)
            made.append(number)
            return number

        async def discard(value):
            discarded.append(value)
            await sleep(0.1)

        async def work():
            hedge = Hedge(0.5, max_extra=2, discard=discard, budget=budget)
            got.append(await hedge.call(connect))

        def check():
            assert sorted(got + discarded) == sorted(made), (got, discarded, made)
            assert (budget.calls, budget.extras) == (0, 0)

        return Trial(work(), check)

    cancel_everywhere(factory, minimum=1)


@pytest.mark.promise("resilience-hedge", "resilience-cancel-everywhere")
@pytest.mark.parametrize("loser", [obeys, replaces])
def test_no_orphan_when_cancelled_twice(loser):
    def factory():
        budget = Counted()
        calls: list[int] = []

        async def work():
            calls.append(1)
            if len(calls) == 1:
                try:
                    await sleep(3)
                finally:
                    await sleep(0.5)
                return await obeys(5)
            return await loser(5)

        def check():
            assert (budget.calls, budget.extras) == (0, 0)

        return Trial(Hedge(1, max_extra=2, budget=budget).call(work), check)

    cancel_everywhere(factory, kinds=ALL_KINDS, minimum=2)


@pytest.mark.promise("resilience-hedge")
def test_no_orphan_when_anything_fails():
    def factory(fault):
        discarded, budget = [], Counted()
        calls: list[int] = []

        def handled(error):
            fault()
            return True

        async def work():
            calls.append(1)
            number = len(calls)
            fault()
            try:
                await sleep(1 if number == 2 else 3)
            except asyncio.CancelledError:
                fault()
            fault()
            return number

        async def discard(value):
            fault()
            discarded.append(value)

        async def run():
            hedge = Hedge(0.5, max_extra=2, on=handled, discard=discard, budget=budget)
            await hedge.call(work)

        def check():
            assert (budget.calls, budget.extras) == (0, 0)

        return Trial(run(), check)

    fail_everywhere(factory, minimum=7)


@pytest.mark.promise("resilience-hedge", "resilience-seeds")
def test_any_schedule_any_cancellation():
    async def scenario():
        dice = random.Random(monotonic())
        budget = Budget.ratio(1.0, min_concurrency=3)
        running = [0]
        made: list[int] = []
        kept: list[int] = []
        discarded: list[int] = []

        async def connect(number):
            running[0] += 1
            try:
                await sleep(dice.choice((0, 0.5, 1, 3)))
                if dice.random() < 0.3:
                    raise OSError
                made.append(len(made))
                return made[-1]
            finally:
                running[0] -= 1

        async def discard(value):
            await sleep(0)
            discarded.append(value)

        hedge = Hedge(0.5, max_extra=2, discard=discard, budget=budget)
        hedged = hedge(connect)

        async def call(number):
            with anyio.move_on_after(None if number % 3 else number % 5 * 0.25):
                with contextlib.suppress(OSError):
                    kept.append(await hedged(number))

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(call, number)
        assert running == [0]
        assert sorted(kept + discarded) == made
        assert not budget._calls
        assert not budget._extras

    explore(scenario, range(200))


def test_a_late_result_is_discarded_before_the_call_returns():
    async def scenario():
        discarded = []
        calls: list[int] = []

        async def work():
            calls.append(1)
            if len(calls) == 1:
                return await swallows(9)
            return "hedge"

        async def discard(value):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await sleep(0.2)
            await sleep(0.2)
            discarded.append((value, monotonic()))

        assert await Hedge(1, discard=discard).call(work) == "hedge"
        assert discarded == [("late", monotonic())]

    simulate(scenario)


def test_a_discard_that_hangs_or_fails_is_an_event():
    async def scenario():
        async def raises(value):
            raise OSError

        async def gives_up(value):  # as if it had waited for something that was cancelled
            raise asyncio.CancelledError

        for discard, seconds in ((anyio.sleep_forever, 1.0), (raises, 0.0), (gives_up, 0.0)):
            calls: list[int] = []

            async def work(calls=calls):
                calls.append(1)
                if len(calls) == 1:
                    try:
                        await sleep(9)
                    except asyncio.CancelledError:
                        return "late"
                return "hedge"

            async def throw_away(value, discard=discard):
                await (discard() if discard is anyio.sleep_forever else discard(value))

            hedge = Hedge(1, discard=throw_away)
            start = monotonic()
            assert await hedge.call(work) == "hedge"  # nobody listens
            assert monotonic() - start == pytest.approx(1 + seconds)
            calls.clear()
            with capture_events() as events:
                assert await hedge.call(work) == "hedge"
            last = wrong(events[-1])
            assert last.name == "aiopatterns.hedge.discard_failed"
            assert (last.error is None) is (discard is not raises)

    simulate(scenario)


def test_the_delay_is_found_out():
    async def scenario():
        hedge = Hedge()
        seconds = iter([n / 100 for n in range(1, 21)])

        async def call(seconds):
            await sleep(seconds)
            return "a"

        late = Attempts((99, "a"), (0.01, "b"))
        for _ in range(19):
            await hedge.call(call, next(seconds))
        assert await hedge.call(call, 0.2) == "a"
        # 20 are known: the 95th percentile of 0.01, 0.02 ... 0.2
        start = monotonic()
        late.start = start
        assert await hedge.call(late) == "b"
        assert late.began == [0, pytest.approx(0.19, rel=0.02)]
        assert monotonic() - start == pytest.approx(0.2, rel=0.02)

    simulate(scenario)


def test_no_hedge_while_too_little_is_known():
    async def scenario():
        hedge = Hedge()
        for _ in range(19):
            await hedge.call(sleep, 0.01)
        attempts = Attempts((99, "a"))
        assert await hedge.call(attempts) == "a"

    simulate(scenario)


def test_hedging_does_not_make_itself_look_needless():
    """A primary that lost counts with its time so far, so the percentile stays where it is."""

    async def scenario():
        dice = random.Random(1)
        hedge = Hedge()
        hedges = [0]

        async def call():
            slow = dice.random() < 0.1
            await sleep(1.0 if slow else 0.1)

        def count(event):
            hedges[0] += event.name == "aiopatterns.hedge.started"

        from aiopatterns.core.telemetry import listen

        with listen(count):
            for _ in range(3000):
                await hedge.call(call)
        # a tenth is slow, and the 95th percentile is in that tenth: nothing runs away
        assert hedges[0] < 300

    simulate(scenario)


def test_old_latencies_are_forgotten():
    async def scenario():
        hedge = Hedge()
        for _ in range(500):
            await hedge.call(sleep, 5)
        for _ in range(1000):
            await hedge.call(sleep, 0.1)
        attempts = Attempts((99, "a"), (1, "b"))
        assert await hedge.call(attempts) == "b"
        assert attempts.began[1] == pytest.approx(0.1, rel=0.02)

    simulate(scenario)


def test_the_older_half_still_counts():
    async def scenario():
        hedge = Hedge()
        for _ in range(500):
            await hedge.call(sleep, 5)
        for _ in range(20):
            await hedge.call(sleep, 0.1)
        attempts = Attempts((99, "a"), (1, "b"))
        assert await hedge.call(attempts) == "b"
        assert attempts.began[1] == pytest.approx(5, rel=0.02)

    simulate(scenario)


def test_a_failure_and_a_cancellation_are_no_latency():
    async def scenario():
        hedge = Hedge(on=OSError)

        async def fails():
            raise Refused

        for _ in range(30):
            with pytest.raises(Refused):
                await hedge.call(fails)
            with anyio.move_on_after(0.01):
                await hedge.call(sleep, 1)
            calls = Attempts((0.1, OSError), (0.1, "b"))
            assert await hedge.call(calls) == "b"
        attempts = Attempts((99, "a"))
        assert await hedge.call(attempts) == "a"

    simulate(scenario)


def streams(*plan):
    """An async generator function, each call with its own time to the first item."""
    seconds = iter(plan)
    closed = []

    async def stream(name):
        wait = next(seconds)
        try:
            await sleep(wait)
            yield f"{name} {wait}"
            await sleep(1)
            yield "second"
        finally:
            closed.append(wait)

    return stream, closed


def test_the_opening_of_a_stream_is_hedged():
    async def scenario():
        stream, closed = streams(9, 1)
        assert [item async for item in Hedge(2)(stream)("x")] == ["x 1", "second"]
        assert monotonic() == pytest.approx(4)
        assert closed == [9, 1]

    simulate(scenario)


def test_a_stream_that_opened_too_late_is_closed():
    async def scenario():
        asked = []

        async def discard(value):
            asked.append(value)

        for order in ((1, 0), (1, 1), (0, 0)):
            stream, closed = streams(*order)
            hedged = Hedge(1 if order != (0, 0) else 0, discard=discard)(stream)
            found = [item async for item in hedged("x")]
            assert found[1:] == ["second"]
            assert set(closed) <= set(order)
        assert not asked

    explore(scenario, range(40))


def test_an_empty_stream_is_an_answer():
    @Hedge(1)
    async def empty():
        return
        yield

    async def scenario():
        assert [item async for item in empty()] == []

    simulate(scenario)


@pytest.mark.promise("resilience-hedge", "resilience-cancel-everywhere")
def test_streams_are_closed_when_cancelled_anywhere():
    def factory():
        stream, closed = streams(2, 1.5, 1)
        opened = []

        async def work():
            hedged = Hedge(0.5, max_extra=2)(stream)("x")
            try:
                async for item in hedged:
                    opened.append(item)
            finally:
                await hedged.aclose()

        def check():
            assert len(closed) <= 3

        return Trial(work(), check)

    cancel_everywhere(factory, minimum=2)


async def test_it_works_on_every_loop():
    calls: list[int] = []

    async def work():
        calls.append(1)
        if len(calls) == 1:
            await anyio.sleep_forever()
        return len(calls)

    assert await Hedge(0.001).call(work) == 2
    assert await Hedge(60).call(work) == 3


def test_one_object_serves_successive_loops_and_calls_at_once():
    hedge = Hedge(1)

    async def scenario():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                attempts = Attempts((9, "a"), (1, "b"))
                group.start_soon(hedge.call, attempts)
        assert monotonic() == pytest.approx(2)

    simulate(scenario)
    simulate(scenario)


def test_bounds():
    assert Hedge(1, max_extra=2).calls() == 3
    assert Hedge(1, max_extra=2).bound(5) == 7
    assert Hedge(1).bound(0.5) == 1
    assert Hedge().bound(5) == 10
    assert math.isinf(Hedge(1).bound(math.inf))
    assert repr(Hedge(0.05)) == "Hedge(0.05)"
    assert repr(Hedge()) == "Hedge(p95)"
    assert Hedge().kind == "hedge"


BAD = (
    (lambda: Hedge(-1), ValueError, "after"),
    (lambda: Hedge(math.nan), ValueError, "after"),
    (lambda: Hedge(math.inf), ValueError, "after"),
    (lambda: Hedge(wrong("1")), TypeError, "after"),
    (lambda: Hedge(wrong(True)), TypeError, "after"),
    (lambda: Hedge(1, idempotent=wrong(False)), ValueError, "idempotent"),
    (lambda: Hedge(1, idempotent=wrong(1)), TypeError, "idempotent"),
    (lambda: Hedge(1, idempotent=wrong(None)), TypeError, "idempotent"),
    (lambda: Hedge(1, idempotent=wrong("yes")), TypeError, "idempotent"),
    (lambda: Hedge(1, max_extra=0), ValueError, "max_extra"),
    (lambda: Hedge(1, max_extra=wrong(1.0)), TypeError, "max_extra"),
    (lambda: Hedge(1, on=wrong(BaseException)), TypeError, "on"),
    (lambda: Hedge(1, on=wrong("OSError")), TypeError, "on"),
    (lambda: Hedge(1, on=wrong(())), TypeError, "on"),
    (lambda: Hedge(1, on=wrong(anyio.sleep)), TypeError, "on"),
    (lambda: Hedge(1, discard=wrong("close")), TypeError, "discard"),
    (lambda: Hedge(1, discard=wrong(wrong)), TypeError, "discard"),
    (lambda: Hedge(1, budget=wrong(0.2)), TypeError, "budget"),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        make()
