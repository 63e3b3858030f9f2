"""Remote errors: what travels of an error, and what does not."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import (
    BackendUnavailableError,
    CodecError,
    QueueFullError,
    RemoteError,
    RetryLater,
    TimeoutExceededError,
)
from aiopatterns.messaging.remote import LOST, described, lost_handler, raised


def travelled(error: BaseException) -> RemoteError:
    return raised(described(error))


def test_type_and_text_travel():
    error = travelled(ValueError("no such day"))
    assert (error.type, error.message, str(error)) == (
        "ValueError",
        "no such day",
        "ValueError: no such day",
    )
    assert (error.code, error.retryable, error.details) == (None, False, {})


def test_attributes_of_the_error_travel():
    class Full(Exception):
        code = "full"
        retryable = True
        details: ClassVar = {"room": 3, 4: [1]}

    error = travelled(Full("full"))
    assert (error.code, error.retryable, error.details) == ("full", True, {"room": 3, "4": [1]})


def test_attributes_of_other_kinds_stay_behind():
    class Odd(Exception):
        code = 404
        retryable = "yes"
        details = "text"

    class Unwritable(Exception):
        code = "odd"
        details: ClassVar = {"object": object()}

    error = travelled(Odd("odd"))
    assert (error.code, error.retryable, error.details) == (None, False, {})
    error = travelled(Unwritable("odd"))
    assert (error.code, error.details) == ("odd", {})


@pytest.mark.parametrize(
    "error",
    [
        QueueFullError("full"),
        TimeoutError(),
        TimeoutExceededError("late"),
        ConnectionResetError(),
        BackendUnavailableError("away"),
        RetryLater(1.0),
    ],
)
def test_what_passes_is_worth_another_try(error: Exception):
    assert travelled(error).retryable


def test_a_remote_error_travels_as_it_is():
    first = RemoteError("no", type="Denied", code="denied", retryable=True, details={"a": 1})
    for error in (travelled(first), travelled(travelled(first))):
        assert (error.type, error.message, error.code) == ("Denied", "no", "denied")
        assert (error.retryable, error.details) == (True, {"a": 1})
    assert travelled(RemoteError("no")).type == "RemoteError"


def test_texts_that_fail_or_are_endless():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert travelled(Mute()).message == "its text cannot be had: RuntimeError"
    assert len(travelled(ValueError("x" * 10_000)).message) == 4_096


def test_texts_that_cannot_be_written_are_escaped():
    class Halves(Exception):
        code = "c\udc80"
        details: ClassVar = {"name": "d\udc80"}

    error = travelled(Halves("no file \udc80"))
    assert (error.message, error.code, error.details) == (r"no file \udc80", r"c\udc80", {})
    assert travelled(RemoteError("no", type="T\udc80")).type == r"T\udc80"


def test_attributes_that_cannot_be_had_stay_behind():
    class Broken(Exception):
        @property
        def code(self) -> str:
            raise RuntimeError

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    class Details(Exception):
        details: ClassVar = {Unspeakable(): 1}

    error = travelled(Broken("b"))
    assert (error.message, error.code) == ("b", None)
    assert travelled(Details("d")).details == {}


def test_a_handler_that_is_lost():
    error = lost_handler("users.get")
    assert (error.code, error.retryable, error.type) == (LOST, True, "HandlerLost")
    assert "'users.get'" in str(error)


@pytest.mark.promise("messaging-decoders")
@given(st.binary())
def test_any_bytes_describe_an_error_or_none(data: bytes):
    with contextlib.suppress(CodecError):
        assert isinstance(raised(data), RemoteError)


def test_fields_of_a_newer_release_are_left_out():
    told: Any = ["T", "m", "c", True, {}, "new"]
    assert raised(MSGPACK.encode(told)).code == "c"
    assert raised(MSGPACK.encode(told[:2])).retryable is False
