"""Events reach every listener, cost nothing without one, and break nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import structlog

from aiopatterns.core import telemetry
from aiopatterns.core.telemetry import (
    Event,
    Subscription,
    emit,
    install_listener,
    listen,
    listening,
    log_events,
)


@dataclass(frozen=True, slots=True)
class Opened(Event):
    name: ClassVar[str] = "aiopatterns.test.opened"
    level: ClassVar[str] = "warning"

    circuit: str
    failures: int


EVENT = Opened("billing", 5)


def test_nobody_listens_at_first():
    assert not listening()
    emit(EVENT)


def test_listeners_are_called_in_order_until_they_are_closed():
    got = []
    first = install_listener(lambda event: got.append((1, event)))
    second = install_listener(lambda event: got.append((2, event)))
    assert listening()
    emit(EVENT)
    first.close()
    first.close()
    emit(EVENT)
    second.close()
    emit(EVENT)
    assert got == [(1, EVENT), (2, EVENT), (2, EVENT)]
    assert not listening()


def test_a_listener_installed_twice_is_called_twice():
    got = []

    def take(event):
        got.append(event)

    with listen(take), listen(take):
        emit(EVENT)
    assert len(got) == 2
    assert not listening()


def test_closing_removes_this_function_and_no_equal_one():
    class Same:
        def __init__(self):
            self.got = 0

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

        def __call__(self, event):
            self.got += 1

    first, second = Same(), Same()
    with listen(first):
        closed = listen(second)
        closed.close()
        emit(EVENT)
    assert (first.got, second.got) == (1, 0)


def test_an_error_in_a_listener_is_logged_and_dropped(caplog):
    def broken(event):
        raise ValueError("no")

    got: list[Event] = []
    with listen(broken), listen(got.append), caplog.at_level(logging.ERROR, "aiopatterns"):
        emit(EVENT)
    assert got == [EVENT]
    assert "a listener failed on aiopatterns.test.opened" in caplog.text
    assert "ValueError: no" in caplog.text


def test_what_is_no_error_passes():
    def stopping(event):
        raise KeyboardInterrupt

    with listen(stopping), pytest.raises(KeyboardInterrupt):
        emit(EVENT)


def test_a_listener_may_leave_while_it_is_called():
    got: list[Event] = []

    def once(event):
        got.append(event)
        subscription.close()

    subscription = install_listener(once)
    with listen(got.append):
        emit(EVENT)
        emit(EVENT)
    assert len(got) == 3


def test_a_subscription_closes_once():
    closed = []
    with Subscription(lambda: closed.append(1)) as subscription:
        assert not closed
    subscription.close()
    assert closed == [1]


def test_events_are_logged_with_name_level_and_fields():
    with structlog.testing.capture_logs() as logs, listen(log_events()):
        emit(EVENT)
        emit(Event())
    assert logs == [
        {
            "event": "aiopatterns.test.opened",
            "log_level": "warning",
            "circuit": "billing",
            "failures": 5,
        },
        {"event": "aiopatterns.event", "log_level": "info"},
    ]


def test_events_go_to_the_logger_that_is_given():
    class Recorder:
        def __init__(self):
            self.lines = []

        def warning(self, event, /, **fields):
            self.lines.append((event, fields))

        debug = info = error = warning

    recorder = Recorder()
    with listen(log_events(recorder)):
        emit(EVENT)
    assert recorder.lines == [("aiopatterns.test.opened", {"circuit": "billing", "failures": 5})]


@pytest.mark.promise("core-bad-input")
def test_what_cannot_listen_is_refused():
    async def later(event): ...

    refused: list[tuple[Any, str]] = [
        (5, "listener must be a function, not 5"),
        (later, "listener must be a plain function"),
    ]
    for wrong, match in refused:
        with pytest.raises(TypeError, match=match):
            install_listener(wrong)
        with pytest.raises(TypeError, match=match):
            listen(wrong)
    assert telemetry._listeners == ()


@pytest.mark.promise("core-bad-input")
def test_what_cannot_log_is_refused():
    class Half:
        debug = info = print

    refused: list[tuple[Any, str]] = [(5, "logger.debug"), (Half(), "logger.warning")]
    for wrong, match in refused:
        with pytest.raises(TypeError, match=f"{match} must be a function, not None"):
            log_events(wrong)
