"""Quantiles within one per cent, merged without loss, in bounded memory."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.quantile import RELATIVE_ERROR, Histogram

durations = st.floats(1e-9, 1e6) | st.just(0.0)
# The error is exact in real numbers; a float on a bucket's edge may round by one part in 1e12.
CLOSE = RELATIVE_ERROR * (1 + 1e-9)


def filled(samples):
    histogram = Histogram()
    for each in samples:
        histogram.record(each)
    return histogram


def near(found, exact):
    return abs(found - exact) <= CLOSE * exact


def test_an_empty_histogram_knows_nothing():
    histogram = Histogram()
    assert histogram.count == 0
    assert histogram.mean is None
    assert histogram.quantile(0.5) is None


@pytest.mark.promise("core-quantiles")
@given(st.lists(durations, min_size=1, max_size=60), st.floats(0, 1))
def test_every_quantile_is_within_the_error(samples, q):
    found = filled(samples).quantile(q)
    assert near(found, sorted(samples)[math.floor(q * (len(samples) - 1))])


@given(st.lists(durations, min_size=1, max_size=60))
def test_count_and_mean(samples):
    histogram = filled(samples)
    assert histogram.count == len(samples)
    assert near(histogram.mean, math.fsum(samples) / len(samples))


@given(st.lists(durations, max_size=30), st.lists(durations, max_size=30), st.floats(0, 1))
def test_merged_is_the_same_as_recorded_together(left, right, q):
    merged, other = filled(left), filled(right)
    merged.merge(other)
    together = filled(left + right)
    assert merged.quantile(q) == together.quantile(q)
    assert merged.count == together.count
    assert other.count == len(right)


def test_merging_with_itself_doubles():
    histogram = filled([1.0, 2.0])
    histogram.merge(histogram)
    assert histogram.count == 4


def test_clear_forgets():
    histogram = filled([1.0])
    histogram.clear()
    assert histogram.quantile(0.5) is None


@pytest.mark.parametrize("extreme", [5e-324, 1e-300, 1e-9, 86_400.0, 1.7e308])
def test_every_positive_float_has_a_bucket(extreme):
    assert filled([extreme]).count == 1


def test_memory_is_bounded():
    samples = [1e-9 * 1.0005**n for n in range(64_200)]  # from a nanosecond to a day
    histogram = filled(samples)
    assert samples[-1] > 86_400
    assert len(histogram._buckets) <= 1_610
    assert len(filled(1 + n / 10_000 for n in range(10_000))._buckets) <= 36


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (-1.0, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_duration_is_refused_and_not_counted(wrong, error):
    histogram = Histogram()
    with pytest.raises(error, match="seconds must be"):
        histogram.record(wrong)
    assert histogram.count == 0


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_out_of_range_is_refused(q):
    with pytest.raises(ValueError, match="q must be between 0 and 1"):
        filled([1.0]).quantile(q)


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("wrong", [None, [1.0]], ids=repr)
def test_only_histograms_merge(wrong):
    with pytest.raises(TypeError, match="other must be a Histogram"):
        Histogram().merge(wrong)
