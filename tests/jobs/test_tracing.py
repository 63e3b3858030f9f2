"""Spans of jobs: of enqueues and of attempts, whatever becomes of them."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_correlation
from aiopatterns.core.errors import JobCancelledError, JobFailedError
from aiopatterns.core.tracing import NO_SPAN
from aiopatterns.jobs import Context, JobQueue, Worker
from aiopatterns.jobs.tracing import processing, sending
from aiopatterns.resilience import Constant, Retry
from tests.contrib.spans import attributes, id_of, seen


@pytest.mark.promise("telemetry-off")
def test_nothing_is_made_while_nobody_traces():
    assert sending("mails") is NO_SPAN
    job: Any = None
    assert processing("mails", job, [], copy_context()) is NO_SPAN


async def test_an_enqueue_and_its_job():
    jobs = JobQueue("mails")

    @jobs.job
    async def mail(to: str) -> str:
        with record.mine.start_as_current_span("inside"):
            return to

    with seen() as record, bind_correlation("r1"):
        async with jobs, Worker(jobs):
            handle = await mail.enqueue("ann")
            assert await handle.result(timeout=5) == "ann"
    sent, done, inside = (record.one(n) for n in ("enqueue mails", "process mails", "inside"))
    assert record.path(inside) == ["enqueue mails", "process mails", "inside"]
    assert sent.kind is SpanKind.PRODUCER
    assert done.kind is SpanKind.CONSUMER
    assert [each.context.span_id for each in done.links] == [id_of(sent)]
    assert attributes(sent) == {
        "messaging.system": "aiopatterns.jobs",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mails",
        "messaging.message.id": handle.job_id,
        "aiopatterns.subject": "mail",
    }
    assert attributes(done) == {
        "messaging.system": "aiopatterns.jobs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mails",
        "messaging.message.id": handle.job_id,
        "messaging.message.conversation_id": "r1",
        "aiopatterns.subject": "mail",
        "aiopatterns.attempt": 1,
    }


async def test_each_attempt_has_a_span_of_its_own_and_its_error():
    jobs = JobQueue("mails")

    @jobs.job(retry=Retry(OSError, attempts=2, backoff=Constant(0)))
    async def mail() -> None:
        raise OSError("away")

    with seen() as record:
        async with jobs, Worker(jobs):
            with pytest.raises(JobFailedError):
                await (await mail.enqueue()).result(timeout=5)
    first, second = (each for each in record.spans if each.name == "process mails")
    assert [attributes(each)["aiopatterns.attempt"] for each in (first, second)] == [1, 2]
    for each in (first, second):
        assert record.path(each) == ["enqueue mails", "process mails"]
        assert each.status.status_code is StatusCode.ERROR
        assert attributes(each)["error.type"] == "OSError"
        assert [event.name for event in each.events] == ["exception"]


async def test_a_batch_has_a_link_to_each_sender_and_no_parent():
    jobs = JobQueue("mails")

    @jobs.batch(size=3, within=0.05)
    async def mail(to: list[str]) -> list[str]:
        return to

    with seen() as record:
        async with jobs:
            await jobs.enqueue_many([mail.job("a"), mail.job("b")])
            last = await mail.enqueue("c")
            async with Worker(jobs):
                assert await last.result(timeout=5) == "c"
    many, one = (each for each in record.spans if each.name == "enqueue mails")
    done = record.one("process mails")
    assert done.parent is None
    assert {each.context.span_id for each in done.links} == {id_of(many), id_of(one)}
    assert attributes(many)["messaging.batch.message_count"] == 2
    assert attributes(done)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(done)


async def test_a_worker_that_began_inside_of_a_span_passes_none_of_it_on():
    jobs = JobQueue("mails")

    @jobs.job
    async def mail() -> None: ...

    async with jobs:
        handle = await mail.enqueue()  # nobody traced then
        with seen() as record, record.mine.start_as_current_span("startup"):
            async with Worker(jobs):
                await handle.result(timeout=5)
    assert record.one("process mails").parent is None


async def test_a_job_that_is_cancelled_is_no_error():
    jobs = JobQueue("mails")

    @jobs.job
    async def mail(ctx: Context) -> None:
        await handle.cancel()
        await sleep(60)

    with seen() as record:
        async with jobs, Worker(jobs):
            handle = await mail.enqueue()
            with pytest.raises(JobCancelledError):
                await handle.result(timeout=5)
    done = record.one("process mails")
    assert attributes(done)["aiopatterns.outcome"] == "cancel"
    assert done.status.status_code is StatusCode.UNSET


async def test_a_batch_that_is_split_ends_its_span():
    jobs = JobQueue("mails")

    @jobs.batch(size=2, within=0.05)
    async def mail(to: list[int]) -> None: ...

    with seen() as record:
        async with jobs:
            wrong: Any = "no number"
            good, bad = await jobs.enqueue_many([mail.job(1), mail.job(wrong)])
            async with Worker(jobs):
                await good.result(timeout=5)
                with pytest.raises(JobFailedError):
                    await bad.result(timeout=5)
    spans = [each for each in record.spans if each.name == "process mails"]
    outcomes = [attributes(each).get("aiopatterns.outcome") for each in spans]
    assert sorted(map(str, outcomes)) == ["None", "None", "split"]


async def test_a_synchronous_job_is_inside_of_its_span_too():
    jobs = JobQueue("mails")

    @jobs.job
    def mail() -> int:
        return trace.get_current_span().get_span_context().span_id

    with seen() as record:
        async with jobs, Worker(jobs):
            inside = await (await mail.enqueue()).result(timeout=5)
    assert inside == id_of(record.one("process mails"))


async def test_jobs_that_run_inline_are_inside_of_their_enqueue():
    jobs = JobQueue("mails")

    @jobs.job
    async def mail() -> int:
        return trace.get_current_span().get_span_context().span_id

    with seen() as record, jobs.inline():
        inside = await (await mail.enqueue()).result()
    assert inside == id_of(record.one("enqueue mails"))
