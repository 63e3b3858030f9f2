"""Call plans: what handlers take, read once; payloads made to their types; stacks; threads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest

from aiopatterns import Broker, RemoteError, Timeout
from aiopatterns.messaging import Context
from aiopatterns.messaging.callplan import BAD_PAYLOAD, CallPlan, Shape


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value <= 0:
            msg = "value must be positive"
            raise ValueError(msg)


class Foreign:
    pass


def context() -> Context:
    return Context(service="s", handler="h", broker=Broker("memory://"))


async def called(fn: Any, payload: object, stack: Any = None) -> Any:
    """Return what a handler gives."""
    return await CallPlan(fn, Shape(fn, payload=True), stack).begin(context(), payload)


async def struct(payload: Point) -> object:
    return payload


async def checked(payload: Positive) -> object:
    return payload


async def moment(payload: datetime) -> object:
    return payload


async def literal(payload: Literal["a", "b"]) -> object:
    return payload


async def keyed(payload: dict[int, str]) -> object:
    return payload


async def foreign(payload: Foreign) -> object:
    return payload


async def either(payload: int | None = None) -> object:
    return payload


@pytest.mark.promise("messaging-service-payload")
@pytest.mark.parametrize(
    ("fn", "payload", "made"),
    [
        (struct, {"x": 1}, Point(1, 0)),
        (checked, {"value": 1}, Positive(1)),
        (moment, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (literal, "b", "b"),
        (keyed, {"7": "x"}, {7: "x"}),  # as JSON has it
        (foreign, {"any": 1}, {"any": 1}),  # msgspec knows no way to make it
        (either, None, None),
        (either, 3, 3),
    ],
    ids=range(8),
)
async def test_payloads_become_what_the_annotation_says(fn, payload, made):
    assert await called(fn, payload) == made


@pytest.mark.promise("messaging-service-payload")
@pytest.mark.parametrize(
    ("fn", "payload"),
    [
        (struct, {"y": 1}),
        (struct, None),
        (checked, {"value": 0}),
        (moment, "yesterday"),
        (literal, "c"),
        (keyed, {"a": "x"}),
        (either, 1.5),
    ],
    ids=range(7),
)
async def test_payloads_that_do_not_fit_are_no_calls(fn, payload):
    with pytest.raises(RemoteError, match="not what 'h' of service 's' takes") as caught:
        await called(fn, payload)
    assert (caught.value.type, caught.value.code) == ("CodecError", BAD_PAYLOAD)
    assert not caught.value.retryable


async def test_a_stack_is_around_the_handler_and_a_plain_function_in_a_thread():
    def plain(payload: int) -> int:
        return payload + 1

    assert await called(plain, 1) == 2
    assert await called(plain, 1, stack=Timeout(10)) == 2


async def nothing() -> None: ...


async def annotated(ctx: Context, payload: Point) -> list[Point]:
    return [payload]


async def anything(*args, **kwargs): ...


async def bare(ctx, payload): ...


async def alone(payload, more=None): ...


async def keyword(*, payload: int = 1) -> Foreign:
    return Foreign()


@pytest.mark.promise("messaging-service-calls")
@pytest.mark.parametrize(
    ("fn", "shape", "types"),
    [
        (nothing, (False, False), (None, None)),
        (annotated, (True, True), (Point, list[Point])),
        (anything, (False, True), (Any, Any)),
        (bare, (True, True), (Any, Any)),
        (alone, (False, True), (Any, Any)),
        (keyword, (False, False), (None, Any)),
    ],
    ids=range(6),
)
def test_shapes(fn, shape, types):
    found = Shape(fn, payload=True)
    assert (found.takes_context, found.takes_payload) == shape
    assert (found.payload_type(), found.result_type()) == types


def test_the_clock_has_no_payload():
    assert not Shape(anything, payload=False).takes_payload
    assert Shape(lambda ctx: None, payload=False).takes_context


def test_a_callable_object_is_a_handler_without_a_name_of_its_own():
    class Handler:
        async def __call__(self, payload: int, other: int) -> None: ...

        def __repr__(self) -> str:
            return "handler"

    with pytest.raises(TypeError, match="handler needs 'other' as well"):
        Shape(Handler(), payload=True)
