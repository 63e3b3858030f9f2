"""Windows against plain lists of calls, with every age limit met to the instant."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core import clock
from aiopatterns.core.windows import CountWindow, TimeWindow, Totals

calls = st.tuples(st.booleans(), st.floats(0, 100), st.booleans())


@pytest.fixture
def now():
    """A clock that is moved by hand."""
    time = [0.0]
    previous = clock.set_source(replace(clock._source, monotonic=lambda: time[0]))
    yield time
    clock.set_source(previous)


def summed(held):
    return Totals(
        len(held),
        sum(failed for failed, _, _ in held),
        sum(slow for _, _, slow in held),
        sum(elapsed for _, elapsed, _ in held),
    )


def same(found, expected):
    return (
        replace(found, elapsed=0.0) == replace(expected, elapsed=0.0)
        and math.isclose(found.elapsed, expected.elapsed, abs_tol=1e-9)
    )  # fmt: skip


@given(st.integers(1, 8), st.lists(calls, max_size=40))
def test_a_count_window_holds_the_last_calls(size, history):
    window = CountWindow(size)
    for n, (failed, elapsed, slow) in enumerate(history, 1):
        window.record(elapsed, failed=failed, slow=slow)
        expected = summed(history[max(0, n - size) : n])
        assert same(window.totals(), expected)
        assert (window.calls, window.failures, window.slow) == (
            expected.calls,
            expected.failures,
            expected.slow,
        )


@given(
    st.floats(0.1, 50),
    st.integers(1, 12),
    st.lists(st.tuples(calls, st.floats(0, 20)), max_size=60),
)
def test_a_time_window_holds_calls_by_their_age(seconds, buckets, history):
    window = TimeWindow(seconds, buckets)
    width = seconds / buckets
    time, seen = 1000.0, []
    for (failed, elapsed, slow), pause in history:
        time += pause * width
        window.record(elapsed, failed=failed, slow=slow, at=time)
        seen.append((time, failed))
        young = sum(time < at + (seconds - width) * (1 - 1e-9) for at, _ in seen)
        at_most = sum(time < at + seconds for at, _ in seen)
        assert young <= window.calls <= at_most
        assert window.failures == sum(failed for _, failed in seen[len(seen) - window.calls :])
        assert len(window._closed) <= buckets


@given(st.lists(st.tuples(calls, st.floats(0, 30)), max_size=40))
def test_the_totals_of_a_time_window_are_those_of_its_last_calls(history):
    time = [0.0]
    previous = clock.set_source(replace(clock._source, monotonic=lambda: time[0]))
    try:
        window, seen = TimeWindow(10.0), []
        for call, pause in history:
            time[0] += pause
            failed, elapsed, slow = call
            window.record(elapsed, failed=failed, slow=slow)
            seen.append(call)
            time[0] += pause / 3
            found = window.totals()
            assert same(found, summed(seen[len(seen) - found.calls :] if found.calls else []))
    finally:
        clock.set_source(previous)


@given(
    st.sampled_from([lambda: CountWindow(1), lambda: CountWindow(4), lambda: TimeWindow(10.0)]),
    st.lists(st.tuples(calls, st.sampled_from([0.0, 0.0, 0.5, 3.0, 11.0])), max_size=30),
)
def test_the_short_way_to_count_good_calls_is_the_long_one(make, history):
    time = [0.0]
    previous = clock.set_source(replace(clock._source, monotonic=lambda: time[0]))
    try:
        short, long, kept = make(), make(), 0
        for (failed, _, slow), pause in [*history, ((True, 0, True), 0.0)]:
            time[0] += pause
            long.record(1.0, failed=failed, slow=slow, at=time[0])
            if not failed and not slow and short.opened <= time[0] < short.until:
                kept += 1
                continue
            short.add(kept, 1.0)
            short.record(1.0, failed=failed, slow=slow, at=time[0])
            kept = 0
            assert short.totals() == long.totals()
    finally:
        clock.set_source(previous)


def test_a_call_as_old_as_the_window_counts_no_more(now):
    window = TimeWindow(1.0)
    now[0] = 0.9  # (0.9 + 1.0) / 0.1 is less than 19: a fixed grid gets this one wrong
    window.record(failed=True)
    now[0] = math.nextafter(1.9, 0)
    assert window.totals().calls == 1
    now[0] = 1.9
    assert window.totals() == Totals(0, 0, 0, 0)


def test_buckets_are_dropped_one_by_one(now):
    window = TimeWindow(10.0)
    for now[0] in range(10):
        window.record(failed=now[0] % 2 == 0, elapsed=1.0, slow=True)
    assert window.totals() == Totals(10, 5, 10, 10.0)
    for now[0] in range(10, 20):
        left = 19 - now[0]
        assert window.totals().calls == left
        assert window.totals().elapsed == left


def test_an_idle_look_opens_no_bucket_that_counts(now):
    window = TimeWindow(10.0)
    window.record()
    for now[0] in (2.0, 4.0, 6.0):
        assert window.totals().calls == 1
    assert len(window._closed) == 1


def test_an_old_bucket_ends_before_the_open_one_is_full(now):
    window = TimeWindow(10.0, buckets=2)
    window.record(failed=True)
    now[0] = 6.0
    window.record()
    now[0] = 10.0  # the open bucket lasts until 11
    assert window.totals() == Totals(1, 0, 0, 0.0)


def test_a_clock_that_went_back_empties_a_time_window(now):
    window = TimeWindow(10.0)
    now[0] = 100.0
    window.record(failed=True)
    now[0] = 1.0
    assert window.totals().calls == 0
    window.record(failed=True)
    assert window.totals().calls == 1


def test_rate_is_calls_per_second_of_what_is_covered(now):
    window = TimeWindow(10.0)
    assert window.rate() == 0.0
    for _ in range(5):
        window.record()
    assert window.rate() == 5.0  # over one bucket at least
    now[0] = 2.0
    window.record()
    assert window.rate() == 3.0
    now[0] = 60.0
    assert window.rate() == 0.0


@pytest.mark.parametrize(
    "make", [lambda: CountWindow(3), lambda: TimeWindow(3.0)], ids=["count", "time"]
)
def test_clear_forgets(make, now):
    window = make()
    window.record(1.0, failed=True, slow=True)
    window.clear()
    assert window.totals() == Totals(0, 0, 0, 0.0)
    window.record(2.0)
    assert window.totals() == Totals(1, 0, 0, 2.0)


def test_totals_tell_ratios_and_mean():
    totals = Totals(calls=4, failures=1, slow=2, elapsed=2.0)
    assert totals.successes == 3
    assert totals.failure_ratio == 0.25
    assert totals.slow_ratio == 0.5
    assert totals.mean_elapsed == 0.5
    nothing = Totals(0, 0, 0, 0.0)
    assert nothing.failure_ratio is nothing.slow_ratio is nothing.mean_elapsed is None


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize(
    ("window", "given", "error", "match"),
    [
        (CountWindow, (0,), ValueError, "size must be a whole number >= 1, not 0"),
        (CountWindow, (2.5,), TypeError, "size must be a whole number"),
        (TimeWindow, (0,), ValueError, "seconds must be a finite number > 0, not 0"),
        (TimeWindow, (math.nan,), ValueError, "seconds must be"),
        (TimeWindow, (1.0, 0), ValueError, "buckets must be a whole number >= 1, not 0"),
    ],
)
def test_senseless_windows_are_refused(window, given, error, match):
    with pytest.raises(error, match=match):
        window(*given)
