"""Messages that have arrived, and their handlers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.cluster import PeerHandlerFailed
from aiopatterns.cluster.inbox import Inbox
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, fail_everywhere

ONE, TWO, THREE = (MSGPACK.encode(number) for number in (1, 2, 3))


def inbox(size: int = 10) -> Inbox:
    made = Inbox("a", size)
    made.open()
    return made


@asynccontextmanager
async def running(messages: Inbox):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(messages.run)
        yield
        tasks.cancel_scope.cancel()


async def test_messages_come_in_order_to_every_handler():
    heard = []

    async def slow(sender: str, message: object) -> None:
        await sleep(0.001)
        heard.append(("slow", sender, message))

    messages = inbox()
    messages.subscribe(slow)
    messages.subscribe(lambda sender, message: heard.append(("quick", sender, message)))
    async with running(messages):
        assert messages.offer("b", ONE)
        assert messages.offer("c", TWO)
        await messages.drained()
    assert heard == [
        ("slow", "b", 1),
        ("quick", "b", 1),
        ("slow", "c", 2),
        ("quick", "c", 2),
    ]
    assert (messages.handled, messages.failed, len(messages)) == (2, 0, 0)


async def test_a_subscription_that_is_closed_gets_nothing_more():
    heard: list[object] = []
    messages = inbox()
    subscription = messages.subscribe(lambda _, message: heard.append(message))
    async with running(messages):
        messages.offer("b", ONE)
        await messages.drained()
        subscription.close()
        messages.offer("b", TWO)
        await messages.drained()
    assert (heard, messages.handled) == ([1], 2)


def test_a_full_or_closed_inbox_takes_nothing():
    messages = Inbox("a", 2)
    assert not messages.offer("b", ONE)
    messages.open()
    assert messages.offer("b", ONE)
    assert messages.offer("b", TWO)
    assert not messages.offer("b", THREE)
    assert len(messages) == 2
    messages.clear()
    assert (len(messages), messages.offer("b", ONE)) == (0, False)


async def test_drained_waits_for_the_message_at_work():
    gate, messages = anyio.Event(), inbox()

    async def handler(_sender: str, _message: object) -> None:
        await gate.wait()

    messages.subscribe(handler)
    async with running(messages), anyio.create_task_group() as tasks:
        messages.offer("b", ONE)
        await anyio.wait_all_tasks_blocked()
        done = anyio.Event()

        async def drain() -> None:
            await messages.drained()
            done.set()

        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert (len(messages), done.is_set()) == (0, False)
        gate.set()
        await done.wait()


async def test_a_handler_cannot_change_what_the_next_one_gets():
    heard = []
    messages = inbox()
    messages.subscribe(lambda _, message: message.append("changed"))
    messages.subscribe(lambda _, message: heard.append(message))
    async with running(messages):
        messages.offer("b", MSGPACK.encode(["fresh"]))
        await messages.drained()
    assert heard == [["fresh"]]


async def cancels_itself(_sender: str, _message: object) -> None:
    raise anyio.get_cancelled_exc_class()


def raises(_sender: str, _message: object) -> None:
    msg = "broken"
    raise ValueError(msg)


@pytest.mark.promise("cluster-peer-handlers")
@pytest.mark.parametrize(
    ("handler", "payload", "error"),
    [
        (raises, ONE, "ValueError('broken')"),
        (cancels_itself, ONE, "CancelledError()"),
        (lambda *_: None, b"\xc1", "CodecError"),
    ],
)
async def test_what_goes_wrong_in_a_handler_is_an_event_and_stops_nothing(handler, payload, error):
    heard: list[object] = []
    messages = inbox()
    messages.subscribe(handler)
    messages.subscribe(lambda _, message: heard.append(message))
    with capture_events() as events:
        async with running(messages):
            messages.offer("b", payload)
            messages.offer("b", TWO)
            await messages.drained()
    failed = [each for each in events if isinstance(each, PeerHandlerFailed)]
    assert (failed[0].node, failed[0].sender) == ("a", "b")
    assert failed[0].error.startswith(error)
    assert messages.failed == len(failed)
    assert heard[-1] == 2
    assert messages.handled == 2


async def test_without_a_listener_errors_are_counted_all_the_same():
    messages = inbox()
    messages.subscribe(raises)
    async with running(messages):
        messages.offer("b", ONE)
        await messages.drained()
    assert messages.failed == 1


@pytest.mark.promise("cluster-bad-input")
def test_a_handler_must_be_a_function():
    wrong: Any = 17
    with pytest.raises(TypeError, match="handler must be a function, not 17"):
        inbox().subscribe(wrong)


@pytest.mark.promise("cluster-peer-cancel")
def test_a_cancelled_inbox_stops_at_every_await():
    def scenario() -> Trial:
        messages = inbox()

        async def handler(_sender: str, _message: object) -> None:
            await sleep(1)

        async def work() -> None:
            with anyio.move_on_after(5):
                await messages.run()

        messages.subscribe(handler)
        messages.offer("b", ONE)
        messages.offer("b", TWO)
        return Trial(work(), lambda: None)

    cancel_everywhere(scenario, minimum=4)


@pytest.mark.promise("cluster-peer-handlers")
def test_handlers_that_fail_at_any_call_stop_no_other():
    def scenario(fault) -> Trial:
        messages, heard = inbox(), []

        def handler(_sender: str, message: object) -> None:
            heard.append(message)
            fault()

        async def work() -> None:
            async with running(messages):
                for payload in (ONE, TWO, THREE):
                    messages.offer("b", payload)
                await messages.drained()

        def check() -> None:
            assert heard == [1, 1, 2, 2, 3, 3]

        messages.subscribe(handler)
        messages.subscribe(handler)
        return Trial(work(), check)

    fail_everywhere(scenario, minimum=6)
