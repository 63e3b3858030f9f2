"""The seam of tracing: who traces, what a step is, and that nothing costs while nobody does."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, cast

import pytest

from aiopatterns.core.context import bind_correlation
from aiopatterns.core.tracing import (
    NO_SPAN,
    Messages,
    Step,
    install_tracer,
    outgoing_headers,
    traceparent,
    tracer,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Noted:
    """A span that keeps what it is told."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def note(self, fact: str, value: str | int) -> None: ...
    def activate(self) -> None: ...
    def end(self, error: BaseException | None = None) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Tracing:
    """A tracer of somebody's own."""

    def start(self, step: Step) -> Noted:
        return Noted(step)

    def traceparent(self) -> str | None:
        return PARENT


def test_nobody_traces_at_first():
    assert tracer() is None
    assert traceparent() is None
    assert outgoing_headers() == {}
    with bind_correlation("r1"):
        assert outgoing_headers() == {"X-Request-ID": "r1"}


def test_the_span_of_nobody_does_nothing_and_hides_no_error():
    with NO_SPAN as span:
        assert span is NO_SPAN
        span.note("status", 200)
        span.activate()
        span.end()
    with pytest.raises(OSError, match="x"), NO_SPAN:
        raise OSError("x")


def test_one_tracer_at_a_time():
    mine = Tracing()
    with install_tracer(mine):
        assert tracer() is mine
        assert traceparent() == PARENT
        with bind_correlation("r1"):
            assert outgoing_headers() == {"X-Request-ID": "r1", "traceparent": PARENT}
        with pytest.raises(RuntimeError, match="traces this process already"):
            install_tracer(Tracing())
        assert tracer() is mine
    assert tracer() is None
    with install_tracer(Tracing()):
        assert tracer() is not None


@pytest.mark.parametrize("lacks", ["start", "traceparent"])
def test_what_is_no_tracer_is_refused(lacks):
    wrong = type(
        "Wrong", (), {need: lambda *_: None for need in {"start", "traceparent"} - {lacks}}
    )
    with pytest.raises(TypeError, match=rf"tracer\.{lacks} must be a function, not None"):
        install_tracer(cast("Any", wrong()))
    assert tracer() is None


def test_steps_are_records():
    step = Messages("send", "jobs", "mails", "enqueue")
    assert step._replace(batch=3).batch == 3
    assert step.origins == ()
