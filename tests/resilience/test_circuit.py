"""The states of a circuit, as sequences on virtual time.

Each case is a line of steps. A step is a word:

========================  =====================================================================
``S`` ``F`` ``I`` ``C``   a call that succeeds, fails, is ignored, is cancelled; at once
``F*3`` ``S/2.5``         three of them; one that takes 2.5 seconds
``X``                     a call that is refused
``<a`` ``a>F``            call ``a`` begins; it ends, here by a failure
``+30``                   30 seconds pass
``closed open half``      the state now
``failures=2 ratio=.5``   the statistics now; ``wait=30`` is ``retry_after``
``open! open!5 reset!``   the methods, ``open!5`` with its seconds
``isolated! disabled! observe! free!``    the forced modes
========================  =====================================================================
"""

from __future__ import annotations

import math
import re
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import CircuitIsolatedError, CircuitOpenError
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.permit import Permit
from aiopatterns.resilience.trip import Consecutive, Count, Seconds, Slow, Trip
from aiopatterns.testing import capture_events, simulate

OUTCOMES: dict[str, Any] = {"S": "success", "F": "failure", "I": "ignore"}
STATES = {
    "closed": CircuitState.CLOSED,
    "open": CircuitState.OPEN,
    "half": CircuitState.HALF_OPEN,
}
FIELDS = {"ratio": "failure_ratio", "mean": "mean_elapsed"}
MODES: dict[str, Any] = {"free": None, "isolated": "isolated", "disabled": "disabled"}
MODES["observe"] = "observe"


class Player:
    """Plays the steps of a case on a breaker."""

    def __init__(self, breaker):
        self.breaker = breaker
        self.calls: dict[str, Permit] = {}

    async def play(self, steps):
        for number, step in enumerate(steps.split(), 1):
            try:
                await self.step(step)
            except BaseException as error:
                error.add_note(f"in step {number}, {step!r}, of {steps!r}")
                raise

    async def step(self, step):
        parsed = re.fullmatch(r"(<|\+|)(\w[\w.]*)([*/>!=]?)(.*)", step)
        assert parsed is not None
        match parsed.groups():
            case "+", seconds, _, _:
                await sleep(float(seconds))
            case "<", name, _, _:
                self.calls[name] = self.breaker.try_acquire()
            case "", name, ">", outcome:
                self.end(self.calls.pop(name), outcome)
            case "", "X", _, _:
                with pytest.raises(CircuitOpenError):
                    self.breaker.try_acquire()
            case "", outcome, sign, number if outcome in "SFIC":
                for _ in range(int(number) if sign == "*" else 1):
                    permit = self.breaker.try_acquire()
                    await sleep(float(number) if sign == "/" else 0)
                    self.end(permit, outcome)
            case "", "open", "!", seconds:
                self.breaker.open(float(seconds) if seconds else None)
            case "", "reset", "!", _:
                self.breaker.reset()
            case "", mode, "!", _:
                self.breaker.force(MODES[mode])
                assert self.breaker.forced == MODES[mode]
            case "", field, "=", value:
                self.expect(field, None if value == "None" else float(value))
            case "", state, _, _:
                assert self.breaker.state is STATES[state]
                assert self.breaker.statistics().state is STATES[state]

    def end(self, permit, outcome):
        if outcome == "C":
            permit.drop()
        else:
            permit.record(OUTCOMES[outcome])

    def expect(self, field, value):
        if field == "wait":
            assert self.breaker.retry_after == value
        else:
            assert getattr(self.breaker.statistics(), FIELDS.get(field, field)) == value


def played(steps, **options):
    """Play a case; return the names of the events, without their common beginning."""

    async def scenario():
        breaker = CircuitBreaker("it", **options)
        with capture_events() as events:
            await Player(breaker).play(steps)
        return [event.name.removeprefix("aiopatterns.circuit.") for event in events]

    return simulate(scenario)


def cases(*rows):
    names = [f"{number}: {steps}" for number, (_, steps) in enumerate(rows)]
    return pytest.mark.parametrize(("options", "steps"), rows, ids=names)


def trip(*args, **kwargs):
    return {"trip": Trip(*args, **kwargs)}


@cases(
    (trip(Consecutive(3)), "F F closed F open"),
    (trip(Consecutive(3)), "F F S F F closed F open"),
    (trip(Consecutive(3)), "F F I F open"),
    (trip(Consecutive(3)), "F F C F open"),
    (trip(Consecutive(1)), "closed F open"),
    (trip(Consecutive(3)), "F F +3600 F open"),
    (trip(Consecutive(2)), "S*50 F closed F open"),
    (trip(Consecutive(2)), "F S F S F S closed"),
    (trip(Consecutive(3)), "F*2 ratio=None failures=2 calls=2 F ratio=1 calls=3"),
    (trip(Consecutive(2), slow=Slow(1, 1.0)), "S/2 S/2 open"),
    (trip(Consecutive(2), slow=Slow(1, 1.0)), "S/2 S S/2 closed S/2 open"),
    (trip(Consecutive(2), slow=Slow(1, 0.5)), "S S/2 open"),
)
def test_failures_in_a_row(options, steps):
    played(steps, **options)


@cases(
    (trip(Count(4)), "F F F closed F open"),
    (trip(Count(4)), "S S F closed F open"),
    (trip(Count(4)), "S S S F closed"),
    (trip(Count(4)), "F F S closed S open failures=2"),  # the call that fills it is a success
    (trip(Count(4)), "F S S S closed S F closed F open"),  # the oldest makes room
    (trip(Count(4)), "S*40 F closed F open"),
    (trip(Count(4), ratio=1.0), "F S F F F closed F open"),
    (trip(Count(4), ratio=0.25), "S S S closed F open"),
    (trip(Count(4), ratio=0.26), "S S S F closed F open"),
    (trip(Count(3), ratio=0.3333333333333333), "S S F open"),
    (trip(Count(10), ratio=0.3), "S*7 F*2 closed F open"),  # 3 of 10 is 0.3 exactly
    (trip(Count(10), min_calls=3), "F F closed F open"),
    (trip(Count(10), min_calls=3), "F F closed S open"),
    (trip(Count(10), min_calls=1), "F open"),
    (trip(Count(10), min_calls=2, ratio=0.1), "S F open calls=2"),
    (trip(Count(100)), "F*19 closed F open calls=20"),  # 20 by default
    (trip(Count(100)), "S*10 F*9 closed F open"),
    (trip(Count(5)), "F*4 closed F open"),  # ... or all of a smaller one
    (trip(Count(4)), "I*10 F*3 closed F open"),
    (trip(Count(4)), "C*10 F*3 closed F open"),
    (trip(Count(4)), "F*3 +99999 closed F open"),  # it knows no time
)
def test_a_window_of_calls(options, steps):
    played(steps, **options)


@cases(
    ({}, "F*19 closed F open"),
    ({}, "S*10 F*9 closed F open"),
    ({}, "S*11 F*9 closed F*2 open"),
    ({}, "F*19 +10 F closed calls=1"),
    ({}, "F*19 +9 F open"),
    ({}, "S*19 +5 F*18 closed +5 F closed S open"),  # successes that leave let it open
    (trip(Seconds(10), min_calls=2), "F +9 F open"),
    (trip(Seconds(10), min_calls=2), "F +10 F closed F open"),
    (trip(Seconds(10), min_calls=2), "S*3 +9 F*2 closed +2 calls=2 S open"),
    (trip(Seconds(4), min_calls=2, ratio=1.0), "S F +4 F closed F open"),
    (trip(Seconds(10), min_calls=2), "F ratio=None S open ratio=0.5"),
    (trip(Seconds(1), min_calls=3), "F F +0.5 F open"),
    (trip(Seconds(1), min_calls=3), "F +0.5 F +0.5 F closed calls=2"),
    (trip(Seconds(10), min_calls=2), "F/5 calls=1 +9 F open"),  # it counts when it ends
)
def test_a_window_of_seconds(options, steps):
    played(steps, **options)


@cases(
    (trip(Count(100), failures=3), "S*50 F F closed F open"),
    (trip(Count(100), failures=3), "F F F open"),  # with too few calls for a ratio
    (trip(Count(10), failures=3), "F F S*8 F S*9 closed"),
    (trip(Seconds(10), failures=3, ratio=1.0), "S*30 F F +5 F open"),
    (trip(Seconds(10), failures=3, ratio=1.0), "S*30 F F +10 F closed"),
    (trip(Count(10), failures=8, min_calls=4), "F F F closed F open"),  # the ratio comes first
    (trip(Count(10), failures=1, ratio=1.0), "S*9 F open"),
)
def test_a_number_of_failures(options, steps):
    played(steps, **options)


@cases(
    (trip(Count(4), slow=Slow(2)), "S/3 S/3 S S/1 open slow=2 failures=0"),
    (trip(Count(4), slow=Slow(2)), "S/2 S/2 S/2 S/2 closed slow=0"),  # slow is longer, not as long
    (trip(Count(4), slow=Slow(2, 0.75)), "S S/3 S/3 S closed S/3 open slow=3"),
    (trip(Count(4), slow=Slow(2, 1.0)), "S/3 S/3 S/3 closed S/3 open"),
    (trip(Count(4), ratio=1.0, slow=Slow(2)), "F/3 S S F/3 open failures=2 slow=2"),
    (trip(Count(4), ratio=1.0, slow=Slow(2)), "C/9 I/9 C/9 S*4 closed slow=0"),
    (trip(Count(10), min_calls=2, slow=Slow(2)), "S/3 closed S open"),
    (trip(Seconds(10), min_calls=2, slow=Slow(2)), "S/3 +10 S/3 closed slow=1"),
    (trip(Seconds(10), min_calls=2, slow=Slow(2)), "S/3 S/3 open mean=3"),
    (trip(Count(4)), "S/3 S/3 S/3 S/3 closed slow=0 mean=3"),
    (trip(Count(4), slow=Slow(2)), "S/3 S/3 S S open +30 S/3 open"),  # a slow probe fails
    (trip(Count(4), slow=Slow(2)), "S/3 S/3 S S open +30 S/2 closed"),
)
def test_slow_calls(options, steps):
    played(steps, **options)


ONE = trip(Consecutive(1))


@cases(
    (ONE, "F open wait=30 X +29.5 X wait=0.5 +0.5 half wait=0 S closed"),
    (ONE | {"open_for": 5}, "F open +4 X +1 S closed"),
    (ONE, "F open X*1 X rejected=2 +30 S closed rejected=0"),
    (ONE, "F +30 half F open wait=30 +30 half S closed"),
    (ONE, "F +99999 half S closed"),
    (ONE, "F +30 half +99999 half wait=0 S closed"),  # time alone makes no probe
    (ONE, "F +30 <a half X wait=30 a>S closed"),
    (ONE, "F +30 <a X a>F open wait=30"),
    (ONE, "F +30 I half I half S closed"),
    (ONE, "F +30 C half C half F open"),
    (ONE, "F +30 <a a>C <b b>S closed"),
    (ONE | {"open_for": lambda info: 1 + info.openings}, "F wait=1 +1 F wait=2 +2 F wait=3"),
    (ONE | {"open_for": lambda info: 1 + info.openings}, "F +1 F +2 S F wait=1"),
    (ONE | {"open_for": lambda info: 10 * info.failures}, "F wait=10"),
    (
        ONE | {"open_for": Exponential(10, factor=3, cap=60, jitter="none")},
        "F wait=10 +10 F wait=30 +30 F wait=60 +60 F wait=60 +60 S F wait=10",
    ),
)
def test_breaks(options, steps):
    played(steps, **options)


def half(*args, **kwargs):
    return ONE | {"half_open": HalfOpen(*args, **kwargs)}


@cases(
    (half(3), "F +30 <a <b <c X a>S half b>S closed"),
    (half(3), "F +30 <a <b <c a>F b>F open c>S open"),
    (half(3), "F +30 <a <b <c a>F b>S half X c>S closed"),
    (half(3), "F +30 <a <b <c a>F b>S c>F open"),
    (half(3), "F +30 S half S closed"),
    (half(3), "F +30 <a <b <c a>I <d X b>C <e X in_flight=3"),
    (half(2), "F +30 F open"),  # one of two is one half
    (half(2), "F +30 S half S closed"),
    (half(2, "all"), "F +30 <a <b a>F half b>S open"),
    (half(3, "all"), "F +30 S half S half S closed"),
    (half(3, "all"), "F +30 F half F half S open"),
    (half(3, "all"), "F +30 F half S half S closed"),
    (half(3, ratio=1.0), "F +30 S closed"),  # all three would have to fail
    (half(3, ratio=1.0), "F +30 F half F half F open"),
    (half(3, ratio=0.1), "F +30 F open"),
    (half(3, ratio=0.1), "F +30 S S half S closed"),
    (half(5, successes=2), "F +30 S half S closed"),
    (half(5, successes=2), "F +30 F F F half F open"),
    (half(5, successes=5), "F +30 F open"),
    (half(5, failures=2), "F +30 F half F open"),
    (half(5, failures=2), "F +30 S S S half S closed"),
    (half(5, successes=2, failures=2), "F +30 F S half S closed"),
    (half(5, successes=2, failures=2), "F +30 F S half F open"),
    (half(5, "all", successes=2, failures=2), "F +30 S S S F half F open"),
    (half(5, "all", successes=2, failures=2), "F +30 S S S F half S closed"),
    (
        {"trip": Trip(Count(4), ratio=0.75), "half_open": HalfOpen(4)},
        "F*4 open +30 F F half F open",  # the ratio of the trip
    ),
    (
        {"trip": Trip(Count(4), ratio=0.75), "half_open": HalfOpen(4, ratio=0.5)},
        "F*4 open +30 F half F open",
    ),
    (
        {"trip": Trip(Consecutive(1), slow=Slow(1, 0.5)), "half_open": HalfOpen(4)},
        "F +30 S/2 half S/2 open slow=2 failures=0",
    ),
    (
        {"trip": Trip(Consecutive(1), slow=Slow(1)), "half_open": HalfOpen(4, slow_ratio=0.25)},
        "F +30 S half S/2 open",
    ),
    (
        {"trip": Trip(Consecutive(1), slow=Slow(1)), "half_open": HalfOpen(2, slow_ratio=1.0)},
        "F +30 S/2 half S closed",
    ),
    (half(3), "F +30 half calls=0 <a calls=0 in_flight=1 a>F calls=1 failures=1 ratio=1"),
)
def test_probes_and_their_verdict(options, steps):
    played(steps, **options)


@cases(
    (half(1), "F +30 <a +29.5 half X wait=0.5 +0.5 open wait=30 X"),  # as long as the break
    (half(1), "F +30 <a +60 half"),  # the break after it is over, too
    (half(1), "F +30 <a +30 open +30 <b half a>F half b>S closed"),
    (half(1, max_seconds=5), "F +30 <a +4.5 half +0.5 open wait=30"),
    (half(1, max_seconds=5), "F +30 <a +4.5 half a>S closed"),
    (half(1, max_seconds=5), "F +30 <a +6 X wait=29"),  # the break began in time
    (half(1, max_seconds=5, on_max="closed"), "F +30 <a +5 closed wait=0 S closed"),
    (half(1, max_seconds=5, on_max="closed"), "F +30 <a +5 S closed calls=1"),
    (half(1, max_seconds=5, on_max="closed"), "F +30 <a +5 closed a>F closed calls=0"),
    (half(3, max_seconds=5), "F +30 S half +5 open"),  # a time is for all the probes together
    (half(3), "F +30 S half +3600 half S closed"),  # none is for probes that are out
    (half(3), "F +30 S +3600 <a +29.5 half +0.5 open"),
    (half(3), "F +30 <a +20 <b +20 half +10 open"),  # ... and begins with each of them
    (half(3), "F +30 <a +29 a>C half +3600 half"),
    (half(3), "F +30 <a +29 a>S half +3600 half"),
    (half(1) | {"open_for": lambda info: 1 + info.openings}, "F +1 <a +1 open wait=2"),
)
def test_probes_that_take_too_long(options, steps):
    played(steps, **options)


@cases(
    (trip(Consecutive(2)), "<a F F open a>S open"),
    (trip(Consecutive(2)), "<a F F open a>F open failures=2"),
    (trip(Consecutive(2)), "<a F F +30 half a>S half S closed"),
    (trip(Consecutive(2)), "<a F F +30 <b a>F half b>S closed"),
    (trip(Consecutive(2)), "<a F F +30 S closed a>F closed calls=0"),
    (trip(Consecutive(2)), "<a <b F F +30 S closed a>F b>F closed calls=0"),
    (trip(Consecutive(2)), "<a reset! a>F calls=0 in_flight=0"),
    (half(3), "F +30 <a <b b>F <c c>F open a>S open in_flight=0"),
    (half(1), "F +30 <a +30 open +30 <b a>S half b>F open"),  # the probe of an earlier round
    (ONE, "F +30 <a +30 +30 <b a>C X in_flight=1 b>S closed in_flight=0"),
    (ONE, "<a F open in_flight=1 a>I in_flight=0 open"),
    (ONE, "<a isolated! free! a>F closed"),
    (ONE, "<a observe! a>F closed calls=0"),
)
def test_late_results_change_nothing(options, steps):
    played(steps, **options)


@cases(
    (ONE, "open! open wait=30 X +30 S closed"),
    (ONE, "open!5 open wait=5 +5 S closed"),
    (ONE, "open!5 +5 F open wait=30"),
    (ONE, "F +20 open! wait=30"),
    (ONE, "F +30 <a open!7 open wait=7 a>S open"),
    (trip(Count(4)), "F S open! failures=1 calls=2 ratio=0.5 +30 S closed calls=0"),
    (trip(Count(4)), "F F F reset! closed calls=0 F F F closed F open"),
    (ONE, "F open reset! closed S closed"),
    (ONE, "F +30 <a reset! closed a>F closed"),
    (ONE | {"open_for": lambda info: 1 + info.openings}, "F +1 F reset! F wait=1"),
    (ONE, "reset! closed"),
)
def test_by_hand(options, steps):
    played(steps, **options)


@cases(
    (ONE, "isolated! open wait=None X X rejected=2 free! closed S closed"),
    (ONE, "isolated! +99999 X"),
    (ONE, "F open isolated! X free! closed S"),
    (ONE, "isolated! open! X reset! open X free! S"),
    (ONE, "disabled! closed F*50 closed calls=0 free! F open"),
    (ONE, "F open disabled! closed wait=0 S F closed free! closed"),
    (ONE, "disabled! open! closed S"),
    (ONE, "disabled! <a in_flight=1 a>F in_flight=0"),
    (trip(Count(4)), "observe! F*4 closed calls=4 failures=4 ratio=1 S closed"),
    (trip(Count(4)), "observe! F*4 free! closed calls=0 F*3 closed F open"),
    (ONE, "F +30 <a observe! a>F closed calls=0"),
    (ONE, "observe! open! closed S"),
    (ONE, "isolated! disabled! S observe! S isolated! X free! S"),
    (ONE, "F open free! open"),  # nothing was forced, so nothing is set free
)
def test_forced_modes(options, steps):
    played(steps, **options)


@pytest.mark.parametrize(
    ("options", "steps", "told"),
    [
        (ONE, "F X +30 S", "opened rejected half_opened closed"),
        (ONE, "F +30 F", "opened half_opened opened"),
        (ONE, "F +30 half S", "opened half_opened closed"),
        (ONE, "F +30 <a +30 open", "opened half_opened opened half_open_stuck"),
        (half(max_seconds=1, on_max="closed"), "F +30 <a +1 S", "opened half_opened closed half_open_stuck"),
        (ONE, "open!", "opened"),
        (ONE, "reset! S", ""),
        (ONE, "open! reset!", "opened closed"),
        (ONE, "<a F a>S", "opened late_result"),
        (ONE, "<a F a>C", "opened"),
        (ONE, "isolated! X isolated! free! free!", "forced rejected forced"),
        (trip(Count(4)), "observe! F*9", "forced threshold_exceeded"),
        (trip(Count(4)), "observe! F*4 S*4 F*4", "forced threshold_exceeded threshold_exceeded"),
        (trip(Count(4)), "observe! S*2 F*2 S F*2", "forced threshold_exceeded"),
        (ONE, "disabled! F*9", "forced"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_told(options, steps, told):
    assert played(steps, **options) == told.split()


def test_nothing_is_built_when_nobody_listens(monkeypatch):
    def emit(event):
        raise AssertionError(event)

    monkeypatch.setattr("aiopatterns.resilience.circuit.emit", emit)

    async def scenario():
        for options, steps in (
            (ONE, "<a F X a>S +30 <b +30 open reset! observe! F free! open! isolated! X"),
            (ONE, "F +30 S"),
        ):
            await Player(CircuitBreaker("it", **options)).play(steps)

    simulate(scenario)


def test_a_listener_may_use_the_circuit():
    async def scenario():
        from aiopatterns.core.telemetry import listen

        breaker = CircuitBreaker("it", trip=Trip(Consecutive(1)))
        seen = []

        def look(event):
            seen.append((event.name.rpartition(".")[2], breaker.state.value))
            if event.name.endswith("circuit.opened"):
                breaker.reset()

        with listen(look):
            breaker.try_acquire().record("failure")
            assert breaker.state is CircuitState.CLOSED
            breaker.try_acquire().record("success")
        assert seen == [("opened", "open"), ("closed", "closed")]

    simulate(scenario)


def test_the_errors_say_what_and_when():
    async def scenario():
        breaker = CircuitBreaker("billing", trip=Trip(Consecutive(1)))

        @breaker
        async def fail(error):
            raise error

        with pytest.raises(OSError):
            await fail(OSError("no route"))
        with pytest.raises(CircuitOpenError) as refused:
            breaker.try_acquire()
        assert type(refused.value) is CircuitOpenError
        assert (refused.value.name, refused.value.retry_after) == ("billing", 30.0)
        assert refused.value.cause == "OSError('no route')"
        text = "circuit 'billing' is open after OSError('no route'); try again in 30 s"
        assert str(refused.value) == text
        await sleep(30)
        held = breaker.try_acquire()
        with pytest.raises(CircuitOpenError, match="waits for its probes"):
            breaker.try_acquire()
        held.drop()
        breaker.open(5)
        with pytest.raises(CircuitOpenError, match=r"^circuit 'billing' is open; try again in 5 s"):
            breaker.try_acquire()
        breaker.force("isolated")
        with pytest.raises(CircuitIsolatedError, match=r"force\(None\) sets it free") as isolated:
            breaker.try_acquire()
        assert isolated.value.retry_after is None

    simulate(scenario)


def test_an_error_is_told_in_reasonable_length_and_in_any_case():
    class Nasty(Exception):
        def __repr__(self):
            raise ValueError

    async def scenario():
        breaker = CircuitBreaker("it", trip=Trip(Consecutive(1)))

        @breaker
        async def fail(error):
            raise error

        for error, length in ((OSError("x" * 10_000), 203), (Nasty(), 5)):
            with pytest.raises(type(error)):
                await fail(error)
            with pytest.raises(CircuitOpenError) as refused:
                await fail(error)
            assert len(refused.value.cause or "") == length
            breaker.reset()

    simulate(scenario)


class Model:
    """A circuit written down plainly: lists of calls, counted anew every time."""

    def __init__(self, size, least, ratio, probes, pause):
        self.size, self.least, self.ratio, self.probes, self.pause = (
            size,
            least,
            ratio,
            probes,
            pause,
        )
        self.recent: deque[bool] = deque(maxlen=size)
        self.state, self.generation, self.opened = "closed", 0, -math.inf
        self.out, self.results = 0, []
        self.in_flight = 0

    def enter(self, now, state, generation):
        self.state, self.generation, self.opened = state, generation, now
        self.recent.clear()
        self.out, self.results = 0, []

    def admit(self, now):
        if self.state == "open" and now >= self.opened + self.pause:
            self.enter(now, "half", self.generation + 1)
        if self.state == "open":
            return None
        if self.state == "half":
            if self.out + len(self.results) >= self.probes:
                return None
            self.out += 1
        self.in_flight += 1
        return self.generation

    def end(self, now, generation, failed):
        self.in_flight -= 1
        if generation != self.generation:
            return
        if self.state == "half":
            self.out -= 1
            if failed is not None:
                self.results.append(failed)
                self.decide(now)
        elif failed is not None:
            self.recent.append(failed)
            enough = len(self.recent) >= self.least
            if enough and sum(self.recent) / len(self.recent) >= self.ratio:
                self.enter(now, "open", self.generation + 1)

    def decide(self, now):
        left = self.probes - len(self.results)
        if sum(self.results) / self.probes >= self.ratio:
            self.enter(now, "open", self.generation + 1)
        elif (sum(self.results) + left) / self.probes < self.ratio:
            self.enter(now, "closed", self.generation + 1)

    def shown(self, now):
        over = self.state == "open" and now >= self.opened + self.pause
        return "half" if over else self.state


steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.sampled_from(["S", "F", "I", "C"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 3.5, 8.0])),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 5), st.sampled_from([0.2, 0.5, 0.75, 1.0]), st.integers(1, 4))
def test_it_does_what_a_plain_model_does(history, size, ratio, probes):
    pause = 4.0

    async def scenario():
        breaker = CircuitBreaker(
            "it",
            trip=Trip(Count(size), ratio=ratio),
            open_for=pause,
            half_open=HalfOpen(probes, max_seconds=1e9),
        )
        model = Model(size, size, ratio, probes, pause)
        running: list[tuple[Permit, int]] = []
        for step, value in history:
            if step == "wait":
                await sleep(value)
            elif step == "begin":
                expected = model.admit(monotonic())
                if expected is None:
                    with pytest.raises(CircuitOpenError):
                        breaker.try_acquire()
                else:
                    running.append((breaker.try_acquire(), expected))
            elif running:
                permit, generation = running.pop(int(value) % len(running))
                failed = {"S": False, "F": True}.get(step)
                permit.drop() if step == "C" else permit.record(OUTCOMES[step])
                model.end(monotonic(), generation, failed)
            assert breaker.state is STATES[model.shown(monotonic())]
            assert breaker.statistics().in_flight == model.in_flight == len(running)

    simulate(scenario)


def test_a_clock_that_went_back_leaves_no_circuit_open_for_ever():
    breaker = CircuitBreaker("it", trip=Trip(Consecutive(1)))

    async def late():
        await sleep(1e9)
        breaker.try_acquire().record("failure")
        assert breaker.state is CircuitState.OPEN

    async def anew():
        assert breaker.state is CircuitState.HALF_OPEN
        breaker.try_acquire().record("success")
        assert breaker.statistics().state is CircuitState.CLOSED

    simulate(late)
    simulate(anew)
