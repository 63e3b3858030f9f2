"""Handles: results in their type, errors of their own, and nobody owned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from anyio import sleep_forever

from aiopatterns.backends.queue import Outcome
from aiopatterns.core.errors import (
    CodecError,
    JobCancelledError,
    JobFailedError,
    TimeoutExceededError,
)
from aiopatterns.jobs.envelope import Envelopes, ErrorRecord
from aiopatterns.jobs.handle import Handle, JobStatus, Origin
from aiopatterns.testing import Trial, cancel_everywhere

ENVELOPES = Envelopes()


@dataclass
class Row:
    id: int


class Desk:
    def __init__(self, outcome=None):
        self.answer = outcome
        self.asked: list[object] = []

    async def outcome(self, job_id, partition):
        self.asked.append((job_id, partition))
        if self.answer is None:
            await sleep_forever()
        return self.answer

    async def states(self, ids, partition):
        self.asked.append((ids, partition))
        return dict.fromkeys(ids, "scheduled")

    async def cancel(self, ids, partition):
        return dict.fromkeys(ids, "cancelled")

    async def progress(self, job_id, partition):
        return 0.25


def handle(outcome=None, **given):
    desk: Any = Desk(outcome)
    return Handle(Origin("q", ENVELOPES, lambda: desk), "id", partition=3, **given), desk


def done(value):
    return Outcome("done", ENVELOPES.encode_result(value), 1)


async def test_a_result_is_of_its_type():
    one, desk = handle(done({"id": 3}), type=Row)
    assert await one.result() == Row(3)
    assert await one.result(timeout=1) == Row(3)
    assert desk.asked == [("id", 3)] * 2
    assert await handle(done({"id": 3}))[0].result() == {"id": 3}
    with pytest.raises(CodecError):
        await handle(done("x"), type=Row)[0].result()


async def test_a_failed_job_raises_what_it_failed_with():
    record = ErrorRecord("ValueError", "no such file", "at line 3")
    outcome = Outcome("dead", ENVELOPES.encode_error(record), 4)
    with pytest.raises(JobFailedError) as info:
        await handle(outcome)[0].result()
    error = info.value
    assert (error.job_id, error.type, error.message, error.attempts) == (
        "id",
        "ValueError",
        "no such file",
        4,
    )


async def test_a_job_whose_worker_died_too_often():
    with pytest.raises(JobFailedError) as info:
        await handle(Outcome("dead", b"", 3))[0].result()
    assert (info.value.type, info.value.attempts) == ("WorkerCrashedError", 3)


async def test_a_cancelled_job_says_so():
    with pytest.raises(JobCancelledError) as info:
        await handle(Outcome("cancelled", b"", 0))[0].result()
    assert info.value.job_id == "id"


async def test_who_waits_too_long_is_told_and_the_job_goes_on():
    with pytest.raises(TimeoutExceededError, match=r"job id has not ended within 0\.01 s") as info:
        await handle()[0].result(timeout=0.01)
    assert info.value.timeout == 0.01


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize("timeout", [0, -1, "5", True])
async def test_bad_input(timeout):
    one, desk = handle(done(1))
    with pytest.raises((ValueError, TypeError), match="timeout must be a finite number > 0"):
        await one.result(timeout=timeout)
    assert not desk.asked


async def test_the_rest_asks_the_desk():
    one, desk = handle(created=True)
    assert await one.status() is JobStatus.SCHEDULED
    assert desk.asked == [(["id"], 3)]
    assert await one.cancel() is JobStatus.CANCELLED
    assert await one.progress() == 0.25
    assert (one.job_id, one.partition, one.created, one.queue) == ("id", 3, True, "q")
    assert repr(one) == "<Handle id of 'q'>"


@pytest.mark.promise("jobs-cancel-everywhere")
def test_a_wait_that_is_cancelled_leaves_the_job_alone():
    def scenario():
        async def work():
            with pytest.raises(TimeoutExceededError):
                await handle()[0].result(timeout=1)

        return Trial(work())

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=1)
