"""A span from its beginning to its end, entered, activated, failed and cancelled."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode

from aiopatterns.contrib.opentelemetry import instrument
from aiopatterns.contrib.otelspan import OtelSpan
from aiopatterns.contrib.otelwords import Attributes, in_words_of_otel
from aiopatterns.core.errors import BackendError, JobFailedError
from aiopatterns.core.tracing import Messages, Request, Step
from aiopatterns.jobs import JobQueue, Worker
from tests.contrib.spans import Seen, attributes, id_of

SEND = Messages("send", "jobs", "mails", "enqueue")
GET = Request("server", "GET", "/users/7")


class Measured:
    def __init__(self, step: Step = SEND) -> None:
        self.seen = Seen()
        self.points: list[tuple[float, Attributes]] = []
        words = in_words_of_otel(step)
        self.span = OtelSpan(
            self.seen.mine.start_span(words.name),
            Context(),
            step=step,
            words=words,
            measured=lambda _, seconds, labels: self.points.append((seconds, dict(labels))),
        )

    @property
    def ended(self) -> Any:
        (found,) = self.seen.spans
        return found


def current() -> int:
    return trace.get_current_span().get_span_context().span_id


def test_a_block_makes_it_current_and_puts_back_what_was():
    it = Measured()
    outer = it.seen.mine.start_span("outer")
    with trace.use_span(outer):
        before = current()
        with it.span as span:
            assert span is it.span
            inside = current()
        assert current() == before
    assert inside == id_of(it.ended)
    ((seconds, labels),) = it.points
    assert seconds >= 0.0
    assert "error.type" not in labels


def test_it_is_current_in_the_context_where_it_was_activated():
    it = Measured()
    mine = copy_context()
    mine.run(it.span.activate)
    assert current() == 0
    assert mine.run(current) != 0
    it.span.end()
    it.span.end(OSError("too late"))
    assert it.ended.status.status_code is StatusCode.UNSET
    assert len(it.points) == 1


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OSError("away"), "OSError"),
        (BackendError("away"), "aiopatterns.core.errors.BackendError"),
    ],
)
def test_an_error_is_recorded_and_goes_on(error, name):
    it = Measured()
    with pytest.raises(type(error)), it.span:
        raise error
    span = it.ended
    assert attributes(span)["error.type"] == name
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "away"
    assert [each.name for each in span.events] == ["exception"]
    assert it.points[0][1]["error.type"] == name


def test_a_cancellation_is_no_error():
    it = Measured()
    with pytest.raises(asyncio.CancelledError), it.span:
        raise asyncio.CancelledError
    span = it.ended
    assert attributes(span)["aiopatterns.outcome"] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET
    assert not span.events


def test_what_is_known_later():
    it = Measured(GET)
    with it.span as span:
        span.note("route", "/users/{id}")
        span.note("status", 200)
        span.note("id", "m1")
    assert it.ended.name == "GET /users/{id}"
    assert attributes(it.ended) == {
        "http.route": "/users/{id}",
        "http.response.status_code": 200,
        "messaging.message.id": "m1",
    }
    labels = it.points[0][1]
    assert labels["http.route"] == "/users/{id}"
    assert labels["http.response.status_code"] == 200
    assert "messaging.message.id" not in labels


def test_a_bad_answer_is_an_error():
    it = Measured(GET)
    with it.span as span:
        span.note("status", 503)
    assert it.ended.status.status_code is StatusCode.ERROR
    assert attributes(it.ended)["error.type"] == "503"
    assert it.points[0][1]["error.type"] == "503"


class Clumsy(SpanProcessor):
    """Raises at every occasion."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if span.name.startswith("enqueue"):
            raise OSError("at the start")

    def on_end(self, span: Any) -> None:
        raise OSError("at the end")


class Speechless(Exception):
    def __str__(self) -> str:
        raise OSError("no words")


@pytest.mark.promise("telemetry-harmless")
async def test_tracing_never_breaks_the_work(caplog):
    """Neither a processor that raises nor an error without a text changes what becomes of jobs."""
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(Clumsy())
    jobs = JobQueue("mails")

    @jobs.job
    async def mail(fails: bool) -> int:
        if fails:
            raise Speechless
        return 1

    with caplog.at_level("ERROR", logger="aiopatterns"), instrument(traces):
        async with jobs, Worker(jobs):
            good, bad = await mail.enqueue(False), await mail.enqueue(True)
            assert await good.result(timeout=5) == 1
            with pytest.raises(JobFailedError):
                await bad.result(timeout=5)
    assert {each.getMessage() for each in caplog.records} == {"a span failed"}


def test_a_fact_that_cannot_be_noted_is_dropped(caplog):
    it = Measured(GET)
    wrong: Any = "no number"
    with caplog.at_level("ERROR", logger="aiopatterns"), it.span as span:
        span.note("status", wrong)
    assert len(caplog.records) == 1
    assert it.ended.status.status_code is StatusCode.UNSET
