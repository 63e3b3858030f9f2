"""Replays: what a policy would have done, exactly, against traces small enough to follow by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.fallback import Fallback
from aiopatterns.resilience.hedge import Hedge
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.ratelimit import GCRA, Rate, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.resilience.trip import Consecutive, Trip
from aiopatterns.testing.replay import (
    Comparison,
    Recorded,
    Replay,
    ReplayedError,
    compare,
    replay,
)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Nothing(Policy):
    """Does nothing."""

    def wrap(self, fn):
        return wrong(fn)


def test_a_policy_that_does_nothing_changes_nothing():
    trace = [Recorded(100, 1), Recorded(101, 2, "failure"), Recorded(101.5, 3, OSError)]
    found = replay(trace, Nothing)
    assert found.without is not None
    for each in (found, found.without):
        assert each.calls == each.attempts == 3
        assert (each.succeeded, each.failed, each.refused, each.timed_out) == (1, 2, 0, 0)
        assert each.latencies == (1, 2, 3)
        assert each.peak == 2
        assert each.errors == {"ReplayedError": 1, "OSError": 1}
        assert each.events == {}
        assert (each.opened_at, each.open_time, each.retried) == ((), 0, 0)
    assert found.name == "with"
    assert found.without.name == "without"
    assert found.without.without is None


def test_the_order_of_the_trace_does_not_matter():
    trace = [Recorded(5, 1), Recorded(1, 2), Recorded(3, 3)]
    assert replay(iter(trace), Nothing).latencies == (2, 3, 1)


@pytest.mark.promise("testing-trace")
def test_a_further_attempt_ends_like_the_first_call_that_began_then_or_later():
    trace = [
        Recorded(0, 1, "failure"),  # first attempt 0..1, second at 2
        Recorded(1.5, 50),  # has begun before 2
        Recorded(2.5, 4),  # so the second attempt is this: 2..6
    ]
    found = replay(trace, lambda: Retry(ReplayedError, backoff=Constant(1)))
    assert found.latencies[0] == 6
    assert found.attempts == 4
    assert found.retried == 1
    assert found.succeeded == 3


def test_each_further_attempt_takes_a_later_record_and_the_last_is_the_end():
    trace = [
        Recorded(0, 0, "failure"),
        Recorded(1, 0, "failure"),
        Recorded(2, 0, OSError),
        Recorded(3, 0.5),
    ]
    retry = Retry((ReplayedError, OSError), attempts=9, backoff=Constant(0))
    found = replay(trace, lambda: retry)
    # 1st call: records 0, 1, 2 (skipping one for each attempt made), 3.
    assert found.latencies[0] == 0.5
    assert found.succeeded == 4
    trace[-1] = Recorded(3, 0.5, "failure")
    found = replay(trace, lambda: retry)
    assert found.failed == 4
    assert found.attempts == 36


@pytest.mark.promise("testing-trace")
def test_an_outage_opens_the_circuit_and_it_is_known_when_and_for_how_long():
    trace = [
        Recorded(1000 + at, 0.25, "failure" if 10 <= at < 16 else "success") for at in range(40)
    ]
    found = replay(
        trace, lambda: CircuitBreaker("db", trip=Trip(Consecutive(3)), open_for=4.5), name="breaker"
    )
    # Fails at 10, 11, 12 and opens at 12.25; probe at 17 succeeds and closes.
    assert found.opened_at == (1012.25,)
    assert found.open_time == 17 - 12.25
    assert (found.succeeded, found.failed, found.refused) == (33, 3, 4)
    assert found.errors == {"CircuitOpenError": 4, "ReplayedError": 3}
    assert found.attempts == 36
    assert found.events["aiopatterns.circuit.opened"] == 1


def test_a_circuit_that_is_open_at_the_end_was_open_until_then():
    trace = [Recorded(at, 0, "failure") for at in range(10)]
    found = replay(trace, lambda: CircuitBreaker("db", trip=Trip(Consecutive(2)), open_for=3))
    assert found.opened_at == (1, 4, 7)
    assert found.open_time == 3 + 3 + 2


def test_timeouts_refusals_and_fallbacks_are_told_apart():
    trace = [Recorded(0, 5), Recorded(0.5, 0.1), Recorded(1.5, 0.1, OSError), Recorded(9, 0.1)]
    found = replay(trace, lambda: Stack(GCRA(Rate(1), max_wait=0), Timeout(2)))
    assert (found.succeeded, found.failed, found.refused, found.timed_out) == (1, 1, 1, 1)
    assert found.latencies == pytest.approx((2, 0, 0.1, 0.1))
    found = replay(trace, lambda: Stack(Fallback(7, on=OSError), Timeout(2)))
    assert found.succeeded == 4
    assert found.fallbacks == found.events["aiopatterns.fallback.used"] == 2
    assert "  by a fallback" in str(found)
    found = replay(trace, lambda: Hedge(1, idempotent=True))
    assert found.hedged == found.attempts - 4 == 2


def test_policies_see_the_record():
    @dataclass(frozen=True, slots=True)
    class Tenant(Recorded):
        tenant: str = ""

    trace = [Tenant(0, 0, tenant=name) for name in "aabbb"]
    found = replay(
        trace, lambda: TokenBucket(Rate(1), burst=1, max_wait=0, key=lambda call: call.tenant)
    )
    assert (found.succeeded, found.refused) == (2, 3)


def test_quantiles_are_exact():
    trace = [Recorded(at, at + 1) for at in range(100)]
    found = replay(trace, Nothing)
    assert [found.quantile(q) for q in (0, 0.005, 0.01, 0.5, 0.501, 0.99, 1)] == [
        *(1, 1, 1, 50, 51, 99, 100)
    ]
    with pytest.raises(ValueError, match=r"^q must be between 0 and 1, not 2"):
        found.quantile(2)


@pytest.mark.promise("testing-trace")
def test_equal_traces_and_seeds_make_equal_reports():
    dice = random.Random(5)
    trace = [
        Recorded(dice.random() * 20, dice.random(), dice.choice(["success", "failure", OSError]))
        for _ in range(300)
    ]

    def settings() -> Policy:
        return Stack(Retry(Exception), CircuitBreaker("x"), TokenBucket(Rate(10)), Timeout(0.8))

    first, second = (replay(trace, settings, seed=3) for _ in range(2))
    assert first == second
    assert first != replay(trace, settings, seed=4)


def test_settings_stand_side_by_side():
    trace = [Recorded(at, 0.5, "failure" if at < 10 else "success") for at in range(20)]
    found = compare(
        trace,
        {
            "retry": lambda: Retry(ReplayedError, attempts=2, backoff=Constant(0)),
            "breaker": lambda: CircuitBreaker("a", trip=Trip(Consecutive(1)), open_for=2),
        },
    )
    assert isinstance(found, Comparison)
    assert found["retry"].without is found.without
    # Opens at 0.5, and the probes of 3, 6 and 9 fail; the one of 12 succeeds.
    assert str(found).splitlines() == [
        "                       without       retry          breaker",
        "calls                       20          20               20",
        "succeeded           10 (50.0%)  11 (55.0%)        8 (40.0%)",
        "failed              10 (50.0%)   9 (45.0%)        4 (20.0%)",
        "refused                      -           -        8 (40.0%)",
        "  ReplayedError             10           9                4",
        "  CircuitOpenError           -           -                8",
        "attempts            20 (1.00x)  30 (1.50x)       12 (0.60x)",
        "retried                      -          10                -",
        "most in flight               1           1                1",
        "circuit opened               -           -                4",
        "  at                         -           -  0.5 3.5 6.5 ...",
        "time open                    -           -           10.0 s",
        "p50                    0.500 s     0.500 s          0.500 s",
        "p90                    0.500 s     1.000 s          0.500 s",
        "p99                    0.500 s     1.000 s          0.500 s",
        "longest                0.500 s     1.000 s          0.500 s",
    ]


def test_one_replay_stands_beside_what_happens_without():
    found = replay([Recorded(0, 1)], Nothing, name="nothing")
    first, second, *_ = str(found).splitlines()
    assert (first.split(), second.split()) == (["without", "nothing"], ["calls", "1", "1"])
    assert str(found.without).splitlines()[1] == "calls                    1"
    assert repr(found).startswith("Replay(name='nothing', succeeded=1,")


def test_a_trace_of_thousands_is_no_livelock():
    trace = [Recorded(at / 1000, 0.01) for at in range(3000)]
    assert replay(trace, lambda: Timeout(1)).succeeded == 3000


class NeedsArguments(Exception):
    def __init__(self, needed):
        super().__init__(needed)


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: Recorded(float("nan"), 1), ValueError, "at must be a number, not nan"),
        (lambda: Recorded(wrong("x"), 1), TypeError, "at must be a number"),
        (lambda: Recorded(0, -1), ValueError, "elapsed must be a finite number >= 0"),
        (lambda: Recorded(0, 1, wrong("ok")), ValueError, "outcome must be one of 'success', 'fai"),
        (lambda: Recorded(0, 1, wrong(int)), TypeError, "outcome must be a type of Exception"),
        (lambda: Recorded(0, 1, NeedsArguments), TypeError, "outcome must be a type that needs no"),
        (lambda: replay([], Nothing), ValueError, "trace must hold at least one item"),
        (lambda: compare([Recorded(0, 1)], {}), ValueError, "settings must hold at least one item"),
        (lambda: replay(wrong([3]), Nothing), TypeError, "trace must be records of the type Reco"),
        (
            lambda: replay([Recorded(0, 1)], wrong(Timeout(1))),
            TypeError,
            r"make must be a function that makes the policy, as in lambda: Timeout\(1\)",
        ),
        (lambda: replay([Recorded(0, 1)], wrong(3)), TypeError, "make must be a function, not 3"),
        (lambda: replay([Recorded(0, 1)], wrong(list)), TypeError, "what make returns must be a p"),
        (lambda: replay([Recorded(0, 1)], Nothing, seed=-1), ValueError, "seed must be a whole nu"),
    ],
    ids=range(13),
)
def test_bad_input_is_one_clear_error(call, kind, text):
    with pytest.raises(kind, match=f"^{text}"):
        call()


async def test_it_is_called_from_plain_code():
    with pytest.raises(RuntimeError, match="a simulation runs on a loop of its own"):
        replay([Recorded(0, 1)], Nothing)


def test_a_replay_is_a_frozen_record():
    found = replay([Recorded(0, 1)], Nothing)
    assert isinstance(found, Replay)
    with pytest.raises(AttributeError):
        wrong(found).name = "other"
