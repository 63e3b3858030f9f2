"""Jobs and unsent calls: what they build for the store, and how they run here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.queue import Bucket, NewJob, UniqueKey
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import CodecError
from aiopatterns.core.rate import Rate
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.desk import Desk
from aiopatterns.jobs.job import UnsentJob
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.terms import Stamp
from aiopatterns.jobs.unique import Unique
from aiopatterns.resilience.retry import Retry


@dataclass
class Order:
    id: int


async def send(order: Order, *, urgent: bool = False) -> int:
    return order.id


def stamp(jobs, partitions=1):
    return Stamp(Desk((None,) * partitions, (), 1_700_000_000.0), jobs.envelopes)


def test_a_plain_call_as_the_store_takes_it():
    jobs = JobQueue("q")
    job = jobs.job(send)
    partition, new = job.job(Order(3), urgent=True).build(stamp(jobs))
    assert partition == 0
    assert new == NewJob(new.id, new.body, attempts=3, keep=3600.0)
    envelope = jobs.envelopes.decode(new.body)
    assert (envelope.name, envelope.args, envelope.kwargs) == (
        "send",
        [{"id": 3}],
        {"urgent": True},
    )
    assert envelope.enqueued_at == pytest.approx(1_700_000_000, abs=1)


def test_all_that_a_job_and_its_terms_say():
    jobs = JobQueue("q", limits=Limits(concurrency=9))
    job = jobs.job(
        name="mail",
        retry=Retry(on=OSError, attempts=7),
        priority=4,
        result_ttl=0,
        limits=Limits(rate=Rate(3), key="{order.id}"),
        unique=Unique("o{order.id}", mode="throttle", window=5),
    )(send)
    _, new = job.job(Order(3)).build(stamp(jobs))
    assert new[2:] == (
        4,
        0.0,
        None,
        7,
        0,
        (),
        UniqueKey("mail\x1fo3", "throttle", 5),
        (Bucket("queue", None, 9), Bucket("job:mail\x1f3", Rate(3), None)),
    )
    at = datetime(2030, 1, 1, tzinfo=UTC)
    prepared = job.using(at=at, priority=0, after=["a"], id="mine")
    _, new = prepared.job(Order(3)).build(stamp(jobs))
    assert (new.id, new.priority, new.at, new.after) == ("mine", 0, at.timestamp(), ("a",))
    assert job.using(delay=5).job(Order(3)).build(stamp(jobs))[1].delay == 5


def test_calls_of_one_enqueue_have_ids_of_their_own():
    jobs = JobQueue("q", partitions=3)
    job, one = jobs.job(send), stamp(jobs, 3)
    built = [job.job(Order(n)).build(one) for n in range(9)]
    assert [partition for partition, _ in built] == [0, 1, 2] * 3
    assert [new.id[-2:] for _, new in built] == ["-0", "-1", "-2"] * 3
    assert len({new.id for _, new in built}) == 9


@pytest.mark.promise("jobs-bad-input")
def test_a_wrong_call_is_refused_when_it_is_made():
    job: Any = JobQueue("q").job(send)
    for make in (job.job, job.using(delay=1).job):
        with pytest.raises(TypeError, match=r"wrong arguments for send.*missing a required"):
            make()
        with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
            make(Order(1), speed=3)
    with pytest.raises(ValueError, match="delay must be"):
        job.using(delay=-1)


def test_a_call_that_cannot_be_encoded_is_refused_when_it_is_built():
    jobs = JobQueue("q", max_bytes=60)
    job: Any = jobs.job(send)
    with pytest.raises(CodecError, match="cannot encode"):
        job.job(object()).build(stamp(jobs))
    with pytest.raises(CodecError, match="longer than max_bytes=60"):
        job.job("x" * 60).build(stamp(jobs))
    wide: Any = jobs.job(name="wide", unique=Unique("{order.id}"))(send)
    with pytest.raises(ValueError, match=r"unique\.key .* does not fit"):
        wide.job("no order").build(stamp(jobs))


def test_an_unsent_call_says_what_it_is():
    job = JobQueue("q").job(send)
    unsent = job.job(Order(1))
    assert isinstance(unsent, UnsentJob)
    assert unsent.job is job
    assert repr(unsent) == "<UnsentJob of 'send'>"


async def test_an_attempt_makes_its_arguments_and_runs_the_middleware():
    jobs = JobQueue("q")
    job, seen = jobs.job(send), list[str]()

    @jobs.middleware
    async def note(ctx, call_next):
        seen.append(ctx.name)
        return await call_next(ctx)

    ctx = Context(job_id="1", name="send", report=lambda fraction: None)
    assert await job.attempt(ctx, [{"id": 3}], {"urgent": False}) == 3
    assert await job.run(ctx, [Order(4)], {}) == 4
    assert seen == ["send", "send"]
    with pytest.raises(CodecError, match="argument 'order' of send"):
        await job.attempt(ctx, [3], {})


async def test_a_batch_takes_a_list_of_items():
    jobs = JobQueue("q")

    @jobs.batch(size=3, within=1)
    async def load(orders: list[Order]) -> list[int]:
        return [each.id for each in orders]

    ctx = Context(job_id="1", name="load", report=lambda fraction: None)
    assert await load.attempt(ctx, [[Order(1), Order(2)]], {}) == [1, 2]
    assert await load(Order(5)) == 5


@given(
    st.sampled_from([JSON, MSGPACK]),
    st.integers(-(2**53), 2**53),
    st.dictionaries(st.integers(-9, 9), st.lists(st.text(), max_size=2), max_size=3),
    st.datetimes(timezones=st.just(UTC)),
    st.binary(max_size=9),
)
def test_arguments_arrive_as_they_were(codec, number, mapping, when, data):
    jobs = JobQueue("q", codec=codec)

    @jobs.job
    async def fn(
        number: int, mapping: dict[int, list[str]], /, when: datetime, *, data: bytes
    ) -> None: ...

    _, new = fn.job(number, mapping, when, data=data).build(stamp(jobs))
    envelope = jobs.envelopes.decode(new.body)
    made = fn.signature.convert(envelope.args, envelope.kwargs)
    assert made == ([number, mapping, when], {"data": data})
