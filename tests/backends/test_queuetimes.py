"""Times as both implementations count them."""

from __future__ import annotations

import pytest

from aiopatterns.backends.queue import NewJob, UniqueKey
from aiopatterns.backends.queuetimes import due_in, spacing, whole
from aiopatterns.core.rate import Rate


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.0, 0), (0.07, 70), (0.0001, 1), (1.0005, 1001), (15, 15_000)]
)
def test_seconds_are_rounded_up_to_whole_milliseconds(seconds, milliseconds):
    assert whole(seconds) == milliseconds


def test_a_debounced_job_waits_for_its_window_at_least():
    job = NewJob("a", b"", delay=2.0)
    assert due_in(job) == 2_000
    assert due_in(job._replace(delay=0.0)) == 0
    assert due_in(job._replace(unique=UniqueKey("k", "debounce", 5.0))) == 5_000
    assert due_in(job._replace(unique=UniqueKey("k", "debounce", 1.0))) == 2_000
    assert due_in(job._replace(unique=UniqueKey("k", "throttle", 5.0))) == 2_000


@pytest.mark.parametrize(
    ("rate", "interval", "slack"),
    [(Rate(1, per=10), 10_000.0, 0.0), (Rate(5), 200.0, 800.0), (Rate(0.5), 2_000.0, 0.0)],
)
def test_a_rate_is_an_interval_and_a_slack(rate, interval, slack):
    assert spacing(rate) == (interval, slack)
