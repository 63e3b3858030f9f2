"""Stream: appending, looking, trimming, and what the broker's context adds; on both backends."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.context import bind_correlation
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    CodecError,
    RejectedError,
)
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.messaging import Message, Stream, StreamConsumer
from aiopatterns.messaging.serving import MAX_HOPS, bindings
from aiopatterns.testing import Trial, cancel_everywhere
from tests.messaging.places import over_backends

pytestmark = pytest.mark.leaves("{ap:log:*")


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


async def read(stream: Stream) -> list[Message]:
    return [stream.envelopes.decode(each.payload) for each in await stream.log.read(limit=10_000)]


@pytest.mark.promise("messaging-stream-conformance")
@over_backends
async def test_messages_are_appended_in_order(backend):
    stream = Stream("s", backend)
    first = await stream.append({"n": 1}, key="k", type="t", version=2, headers={"a": "b"})
    more = await stream.append_many([2, 3], key="l")
    assert await stream.append_many([]) == []
    one, two, three = await read(stream)
    assert (one.payload, one.key, one.type, one.version, one.topic) == ({"n": 1}, "k", "t", 2, "s")
    assert dict(one.headers) == {"a": "b"}
    assert one.correlation_id == one.id
    assert (two.payload, three.payload, two.key, two.type) == (2, 3, "l", "s")
    assert await stream.length() == 3
    assert [each.id for each in await stream.log.read()] == [first, *more]
    assert stream.statistics().appended == 3


@over_backends
async def test_a_message_is_appended_as_it_is_but_waits_for_ever(backend):
    stream = Stream("s", backend)
    message = Message(type="t", payload=1, deadline=1.0, topic="elsewhere", hops=3)
    await stream.append(message)
    (found,) = await read(stream)
    assert (found.id, found.topic, found.deadline, found.hops) == (message.id, "s", None, 3)


@over_backends
async def test_what_is_appended_is_on_behalf_of_whatever_runs(backend):
    stream = Stream("s", backend)
    with bind_correlation("request"):
        await stream.append(1)
    served = Message(type="t", hops=MAX_HOPS)
    bound = bindings(served)
    assert len(bound) == 1, "it has no correlation"
    with bound[0], pytest.raises(RejectedError, match="circle"):
        await stream.append(2)
    (found,) = await read(stream)
    assert found.correlation_id == "request"


@over_backends
async def test_codecs_of_both_kinds_are_read(backend):
    await Stream("s", backend, codec=JSON).append("json")
    await Stream("s", backend, codec=MSGPACK).append("msgpack")
    for codec in (JSON, MSGPACK):
        found = await read(Stream("s", backend, codec=codec))
        assert [each.payload for each in found] == ["json", "msgpack"]


@pytest.mark.promise("messaging-stream-trim")
@over_backends
async def test_max_length_never_trims_what_a_group_has_not_handled(backend):
    stream = Stream("s", backend, max_length=20)
    await stream.append_many([*range(30)])
    assert await stream.length() == 20
    async with StreamConsumer(stream, group="slow") as consumer:
        for number in range(5):
            async with await anext(consumer) as message:
                assert message.payload == 10 + number
    for number in range(30, 60):
        await stream.append(number)
    assert await stream.length() == 45, "15 of the first and 30 that are new"
    assert await stream.lag("slow") == 30, "15 were in hand, and were given back"
    await stream.log.delete_group("slow")
    await stream.append_many([60, 61])
    assert await stream.length() == 20
    assert stream.statistics().trimmed == 42
    assert await stream.trim(5) == 15


@over_backends
async def test_nobody_else_has_the_groups_and_names_that_are_not_there(backend):
    stream = Stream("s", backend)
    for call in (
        stream.lag("none"),
        stream.dead_letters(group="none"),
        stream.requeue(["1-0"], group="none"),
    ):
        with pytest.raises(ValueError, match="none"):
            await call


@pytest.mark.promise("messaging-bad-input")
async def test_bad_input_gives_one_clear_error():
    for options, kind in (
        ({"max_length": 0}, ValueError),
        ({"max_length": 1.5}, TypeError),
        ({"max_bytes": 0}, ValueError),
        ({"codec": wrong("json")}, TypeError),
    ):
        with pytest.raises(kind):
            Stream("s", "memory://", **options)
    with pytest.raises(ValueError):
        Stream("", "memory://")
    with pytest.raises(TypeError):
        Stream("s", wrong(3))
    async with Stream("s", "memory://", max_bytes=200) as stream:
        for payload in (object(), "x" * 300):
            with pytest.raises(CodecError):
                await stream.append(payload)
        with pytest.raises(CodecError):
            await stream.append_many([1, object()])
        for options in ({"key": ""}, {"type": ""}, {"version": 0}):
            with pytest.raises(ValueError):
                await stream.append(1, **options)
        with pytest.raises(ValueError):
            await stream.trim(-1)
        await stream.log.create_group("g")
        with pytest.raises(ValueError):
            await stream.dead_letters(group="g", limit=0)
        assert await stream.length() == 0


async def test_it_opens_its_backend_or_is_used_over_one_that_is_open():
    stream = Stream("s", "memory://")
    with pytest.raises(ClosedError):
        await stream.append(1)
    async with stream:
        assert stream.state is OwnerState.RUNNING
        await stream.append(1)
        with pytest.raises(RuntimeError, match="open already"):
            await stream.__aenter__()
        await stream.append(2)
    with pytest.raises(ClosedError):
        await stream.append(3)
    async with open_backend("memory://") as backend:
        over = Stream("s", backend)
        await over.append(1)
        async with over:
            pass
        assert await over.length() == 1, "the backend is still open"


def test_cancelled_at_any_await_it_leaves_nothing():
    def scenario() -> Trial:
        stream = Stream("s", "memory://", max_length=1)

        async def work() -> None:
            async with stream, StreamConsumer(stream, group="g") as consumer:
                await stream.append_many([1, 2])
                async with await anext(consumer):
                    pass

        return Trial(work())

    cancel_everywhere(scenario, minimum=1)


async def test_what_is_appended_is_no_error_because_it_cannot_be_trimmed(monkeypatch):
    async with open_backend("memory://") as backend:

        async def away(*_: Any, **__: Any) -> int:
            raise BackendUnavailableError("nobody answers")

        stream = Stream("s", backend, max_length=1)
        ids = [await stream.append(1)]
        with monkeypatch.context() as outage:
            outage.setattr(type(stream.log), "trim", away)
            ids.append(await stream.append(2))
        assert ids == [each.id for each in await stream.log.read()]
        await stream.append(3)
        assert await stream.length() == 1
