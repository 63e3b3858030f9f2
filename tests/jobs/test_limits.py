"""Limits: what they are made of, what is refused, which bucket they make."""

from __future__ import annotations

import pytest

from aiopatterns.backends.queue import Bucket
from aiopatterns.core.rate import Rate
from aiopatterns.jobs.limits import Limits


def test_the_bucket_has_what_the_limits_say():
    rate = Rate(3, per=60)
    assert Limits(rate=rate, concurrency=2).bucket("b") == Bucket("b", rate, 2)
    assert Limits(concurrency=1).bucket("c") == Bucket("c", None, 1)


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "Limits needs rate, concurrency or both"),
        ({"key": "a:{b}"}, ValueError, "Limits needs rate, concurrency or both"),
        ({"rate": 3}, TypeError, "rate must be a Rate, not 3"),
        ({"concurrency": 0}, ValueError, "concurrency must be a whole number >= 1, not 0"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be a whole number >= 1"),
        ({"concurrency": 1, "key": ""}, ValueError, "key must be a non-empty string"),
        ({"concurrency": 1, "key": 7}, TypeError, "key must be a non-empty string, not 7"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        Limits(**given)
