"""Keys: unique keys and buckets of a call, and the partition that follows from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.queue import Bucket, UniqueKey
from aiopatterns.core.rate import Rate
from aiopatterns.jobs.keys import QUEUE_BUCKET, Keys, place
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.options import JobOptions
from aiopatterns.jobs.signature import Signature
from aiopatterns.jobs.unique import Unique


def call(user_id, tenant="t"): ...


def keys(name="mail", shared=None, **options):
    return Keys(name, JobOptions(**options), Signature(call), shared)


def test_a_plain_job_has_none():
    assert keys().of((1,), {}) == (None, (), None)
    assert not keys().splits


def test_a_unique_key_is_that_of_the_job():
    found = keys(unique=Unique("user:{user_id}")).of((7,), {})
    assert found == (UniqueKey("mail\x1fuser:7", "drop", 0.0), (), "mail\x1fuser:7")
    other = keys(name="other", unique=Unique("user:{user_id}")).of((7,), {})
    assert other.unique != found.unique
    window = keys(unique=Unique("user:{user_id}", mode="throttle", window=5)).of((7,), {})
    assert window.unique == UniqueKey("mail\x1fuser:7", "throttle", 5)


def test_a_limit_is_that_of_the_job_or_of_its_key():
    rate = Rate(3)
    whole = keys(limits=Limits(rate=rate)).of((7,), {})
    assert whole == (None, (Bucket("job:mail", rate, None),), "job:mail")
    each = keys(limits=Limits(concurrency=1, key="{tenant}")).of((7,), {"tenant": "x"})
    assert each == (None, (Bucket("job:mail\x1fx", None, 1),), "job:mail\x1fx")


def test_a_limit_of_the_queue_is_first():
    shared = Limits(concurrency=9)
    found = keys(shared=shared, limits=Limits(concurrency=1)).of((7,), {})
    assert found.buckets == (Bucket(QUEUE_BUCKET, None, 9), Bucket("job:mail", None, 1))
    assert keys(shared=shared).of((7,), {}) == (None, (Bucket(QUEUE_BUCKET, None, 9),), None)
    assert found.route == "job:mail"


def test_a_limit_decides_the_partition_before_a_unique_key():
    unique = Unique("{user_id}")
    assert keys(unique=unique, limits=Limits(concurrency=1)).of((7,), {}).route == "job:mail"
    same = keys(unique=unique, limits=Limits(concurrency=1, key="{user_id}"))
    assert not same.splits
    assert same.of((7,), {}).route == "job:mail\x1f7"
    assert keys(unique=unique, limits=Limits(concurrency=1, key="{tenant}")).splits
    assert not keys(unique=unique, limits=Limits(concurrency=1)).splits
    assert not keys(limits=Limits(concurrency=1, key="{tenant}")).splits


@pytest.mark.promise("jobs-bad-input")
def test_a_template_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"limits\.key names 'x'"):
        keys(limits=Limits(concurrency=1, key="{x}"))
    with pytest.raises(ValueError, match=r"unique\.key names 'x'"):
        keys(unique=Unique("{x}"))


@given(st.text(), st.integers(1, 64))
def test_a_place_is_one_of_the_partitions_and_always_the_same(route, partitions):
    found = place(route, partitions)
    assert 0 <= found < partitions
    assert place(route, partitions) == found


def test_places_are_spread():
    counts = [0] * 8
    for number in range(4_000):
        counts[place(f"user:{number}", 8)] += 1
    assert min(counts) > 400
