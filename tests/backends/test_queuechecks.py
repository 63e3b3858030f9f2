"""What may be given to a queue."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends.queue import MAX_BATCH, Bucket, NewJob, Settled, Turn, UniqueKey
from aiopatterns.backends.queuechecks import (
    check_ids,
    check_jobs,
    check_page,
    check_turn,
    check_wait,
)
from aiopatterns.core.rate import Rate

GOOD = NewJob("a", b"")
WRONG: Any = "wrong"


@pytest.mark.parametrize(
    ("job", "plain"),
    [
        (GOOD, True),
        (GOOD._replace(id="x" * 1_024), True),
        (GOOD._replace(id="ümläut"), True),
        (GOOD._replace(priority=9, keep=5.0, attempts=2**31 - 1), True),
        (GOOD._replace(keep=1e12), True),
        (GOOD._replace(delay=1.0), False),
        (GOOD._replace(at=0.0), False),
        (GOOD._replace(after=("b",)), False),
        (GOOD._replace(unique=UniqueKey("k")), False),
        (GOOD._replace(limits=(Bucket("b", Rate(1), 1),)), False),
    ],
)
def test_good_jobs_are_taken_and_told_plain_or_not(job, plain):
    assert check_jobs([job]) is plain
    assert check_jobs([]) is True


def test_jobs_with_one_id_are_not_plain():
    assert not check_jobs([GOOD, GOOD])


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"id": ""}, ValueError, "id"),
        ({"id": b"a"}, TypeError, "id"),
        ({"id": "x" * 1_025}, ValueError, "id"),
        ({"id": "\udc80"}, ValueError, "id"),
        ({"body": "text"}, TypeError, "body"),
        ({"priority": 10}, ValueError, "priority"),
        ({"priority": -1}, ValueError, "priority"),
        ({"priority": 1.5}, TypeError, "priority"),
        ({"delay": -1.0}, ValueError, "delay"),
        ({"delay": float("nan")}, ValueError, "delay"),
        ({"at": float("inf")}, ValueError, "at"),
        ({"attempts": 0}, ValueError, "attempts"),
        ({"attempts": 2**31}, ValueError, "attempts"),
        ({"keep": -1.0}, ValueError, "keep"),
        ({"after": "abc"}, TypeError, "after"),
        ({"after": ("",)}, ValueError, "after"),
        ({"after": ("c", "b")}, ValueError, "after"),
        ({"unique": "k"}, TypeError, "unique"),
        ({"unique": UniqueKey("")}, ValueError, "unique.key"),
        ({"unique": UniqueKey("k", WRONG)}, ValueError, "unique.mode"),
        ({"unique": UniqueKey("k", "drop", -1.0)}, ValueError, "unique.window"),
        ({"limits": (Bucket("b"),) * 5}, ValueError, "limits"),
        ({"limits": (Bucket("b"),) * 2}, ValueError, "limits"),
        ({"limits": ("b",)}, TypeError, "limits"),
        ({"limits": (Bucket(""),)}, ValueError, "limits.key"),
        ({"limits": (Bucket("b", WRONG),)}, TypeError, "limits.rate"),
        ({"limits": (Bucket("b", None, 0),)}, ValueError, "limits.concurrency"),
    ],
)
def test_bad_jobs_are_refused_by_name(change, error, word):
    with pytest.raises(error, match=word):
        check_jobs([GOOD, GOOD._replace(**({"id": "b"} | change))])


def test_too_many_jobs_are_refused():
    jobs = [NewJob(f"j{n}", b"") for n in range(MAX_BATCH + 1)]
    check_jobs(jobs[:-1])
    with pytest.raises(ValueError, match="500"):
        check_jobs(jobs)


def test_good_turns_are_taken():
    check_turn(Turn("w", 0, 0.001))
    check_turn(Turn("w", 1, 15.0, [Settled("a", "retry", b"e", 1e12)], 500, {"a": 1.0}, True))


TURN = Turn("w", 1, 15.0)


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"worker": ""}, ValueError, "worker"),
        ({"number": -1}, ValueError, "number"),
        ({"number": 1.0}, TypeError, "number"),
        ({"lease": 0.0}, ValueError, "lease"),
        ({"free": -1}, ValueError, "free"),
        ({"free": 501}, ValueError, "free"),
        ({"settled": [Settled("a", "done")] * 501}, ValueError, "settled"),
        ({"settled": [Settled("", "done")]}, ValueError, "id"),
        ({"settled": [Settled("a", WRONG)]}, ValueError, "how"),
        ({"settled": [Settled("a", "done", WRONG)]}, TypeError, "data"),
        ({"settled": [Settled("a", "retry", b"", -1.0)]}, ValueError, "delay"),
        ({"progress": {"": 0.5}}, ValueError, "progress"),
        ({"progress": {"a": -0.5}}, ValueError, "progress"),
    ],
)
def test_bad_turns_are_refused_by_name(change: dict[str, Any], error, word):
    with pytest.raises(error, match=word):
        check_turn(TURN._replace(**change))


def test_ids_pages_and_waits():
    check_ids(["a"])
    with pytest.raises(TypeError, match="ids"):
        check_ids("abc")
    assert check_page("queued", None, 1) == 0
    assert check_page("dead", "17", 1) == 17
    cursor: Any
    for cursor in ("", "-1", "x", "1.5", 3):
        with pytest.raises(ValueError, match="cursor"):
            check_page("queued", cursor, 1)
    with pytest.raises(ValueError, match="state"):
        check_page("done", None, 1)
    with pytest.raises(ValueError, match="limit"):
        check_page("dead", None, 0)
    check_wait("w", 0.0)
    with pytest.raises(ValueError, match="timeout"):
        check_wait("w", -1.0)
