"""One exchange with a client, and the ways in which it ends early."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.exchange import SOON
from aiopatterns.gateway.policy import RoutePolicy, Timeouts
from aiopatterns.gateway.routing import Route
from aiopatterns.testing import simulate
from tests.gateway.memory import Answer, Client, Handler, MemoryTransport, answering, ask, body_of


def gateway(handler: Handler, **timeouts: Any) -> tuple[Gateway, MemoryTransport]:
    transport = MemoryTransport(handler)
    using = RoutePolicy(timeouts=Timeouts(**timeouts))
    return Gateway([Route("/", to="http://s")], defaults=using, transport=transport), transport


async def never(outgoing: Any) -> Answer:
    await Event().wait()
    raise AssertionError


@pytest.mark.promise("gateway-disconnect")
async def test_a_client_that_goes_away_ends_what_is_done_for_it():
    door, transport = gateway(never)
    client = Client()
    async with door, create_task_group() as tasks:
        tasks.start_soon(client.ask, door)
        await wait_all_tasks_blocked()
        client.gone.set()
        while door.statistics().in_flight:
            await sleep(0.01)
        figures = door.statistics()
        assert figures.answers == {499: 1}
        assert figures.cut_short == 0
    assert transport.cancelled == 1
    assert client.reply.status == 0


@pytest.mark.promise("gateway-disconnect")
async def test_also_once_its_body_was_read_late():
    taken = Event()

    async def handler(outgoing: Any) -> Answer:
        await body_of(outgoing)
        taken.set()
        return await never(outgoing)

    door, transport = gateway(handler)
    client = Client("POST", "/", body=[b"a", b"b"])
    client.stalled = True
    async with door, create_task_group() as tasks:
        tasks.start_soon(client.ask, door)
        await sleep(2 * SOON)
        client.stalled = False
        client.left = [b"c"]
        client.ended = False
        client.more.set()
        await taken.wait()
        client.gone.set()
        while door.statistics().in_flight:
            await sleep(0.01)
        assert door.statistics().answers == {499: 1}
    assert transport.cancelled == 1


@pytest.mark.promise("gateway-disconnect")
async def test_in_the_middle_of_its_body():
    door, _ = gateway(answering(Answer()))
    client = Client("POST", "/", body=[b"a"])
    client.stalled = True
    async with door, create_task_group() as tasks:
        tasks.start_soon(client.ask, door)
        await wait_all_tasks_blocked()
        client.gone.set()
        await wait_all_tasks_blocked()
        assert door.statistics().answers == {499: 1}
    assert client.reply.status == 0


@pytest.mark.promise("gateway-disconnect")
async def test_in_the_middle_of_its_answer():
    ended = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await Event().wait()
        finally:
            ended.append(True)

    answer = Answer(200, (), chunks())
    door, _ = gateway(answering(answer))
    client = Client()
    async with door, create_task_group() as tasks:
        tasks.start_soon(client.ask, door)
        await wait_all_tasks_blocked()
        assert client.reply.body == b"one"
        client.gone.set()
        while door.statistics().in_flight:
            await sleep(0.01)
        figures = door.statistics()
    assert (figures.answers, figures.cut_short) == ({200: 1}, 1)
    assert not client.reply.complete
    assert answer.closed == 1


async def test_a_server_that_fails_to_tell_has_lost_its_client():
    door, _ = gateway(never)
    client = Client()

    async def receive() -> Any:
        await sleep(SOON)
        raise OSError

    async with door:
        await door(client.scope, receive, client.send)
        assert door.statistics().answers == {499: 1}


async def test_a_server_that_fails_to_send_has_lost_its_client():
    door, _ = gateway(answering(Answer(200, (), [b"a"])))
    client = Client()

    async def send(message: Any) -> None:
        raise OSError

    async with door:
        await door(client.scope, client.receive, send)
        assert door.statistics().cut_short == 1


def test_quick_requests_are_not_watched():
    async def scenario() -> None:
        async def slow(outgoing: Any) -> Answer:
            await sleep(2 * SOON if outgoing.target == b"/slow" else 0.0)
            return Answer()

        door, _ = gateway(slow)
        async with door:
            for path, asked in [("/quick", 0), ("/slow", 2)]:
                client = Client("GET", path)
                assert (await client.ask(door)).status == 200
                assert client.asked == asked

    simulate(scenario)


@pytest.mark.promise("gateway-statuses")
@pytest.mark.parametrize("total", [0.01, 3.0])
def test_the_total_timeout_is_504(total):
    async def scenario() -> None:
        door, transport = gateway(never, total=total)
        async with door:
            began = monotonic()
            reply = await ask(door)
            assert reply.status == 504
            assert monotonic() - began == pytest.approx(total)
            assert b"x-request-id" in reply.headers
            assert door.statistics().answers == {504: 1}
        assert transport.cancelled == 1

    simulate(scenario)


def test_without_a_total_timeout_there_is_none():
    async def scenario() -> None:
        async def handler(outgoing: Any) -> Answer:
            await sleep(86_400)
            return Answer()

        door, _ = gateway(handler, total=None)
        async with door:
            assert (await ask(door)).status == 200

    simulate(scenario)


def test_the_total_timeout_after_the_first_byte_cuts_off():
    async def scenario() -> None:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await sleep(1.0)

        door, _ = gateway(answering(Answer(200, (), chunks())), total=3.5)
        async with door:
            reply = await ask(door)
            assert (reply.status, reply.body, reply.complete) == (200, b"xxxx", False)
            assert door.statistics().cut_short == 1

    simulate(scenario)


@pytest.mark.promise("gateway-statuses")
def test_a_client_that_sends_nothing_for_too_long_is_408():
    async def scenario() -> None:
        async def handler(outgoing: Any) -> Answer:
            await body_of(outgoing)
            raise AssertionError

        door, transport = gateway(handler, idle=5.0, total=None)
        client = Client("POST", "/", body=[b"a"])
        client.stalled = True
        async with door:
            reply = await client.ask(door)
            assert reply.status == 408
            assert reply.headers[b"connection"] == b"close"
            assert monotonic() == pytest.approx(5.0)
            assert door.statistics().endpoints[0].circuit is not None
        assert transport.cancelled == 1

    simulate(scenario)


def test_a_client_that_takes_nothing_for_too_long_is_cut_off():
    async def scenario() -> None:
        answer = Answer(200, (), [b"x"] * 10)
        door, _ = gateway(answering(answer), idle=5.0, total=None)
        client = Client()
        client.open_window = Event()
        async with door:
            await client.ask(door)
            assert monotonic() == pytest.approx(5.0)
            assert door.statistics().cut_short == 1
        assert answer.closed == 1

    simulate(scenario)


async def test_a_large_answer_leaves_in_pieces_that_the_client_takes():
    door, _ = gateway(answering(Answer(200, (), b"ab" * 100_000)))
    async with door:
        reply = await ask(door)
        assert reply.body == b"ab" * 100_000
        assert door.statistics().cut_short == 0


def test_a_client_that_takes_nothing_of_a_large_answer_is_cut_off():
    async def scenario() -> None:
        door, _ = gateway(answering(Answer(200, (), b"x" * 200_000)), idle=5.0, total=None)
        client = Client()
        client.open_window = Event()
        async with door:
            await client.ask(door)
            assert monotonic() == pytest.approx(5.0)
            assert door.statistics().cut_short == 1

    simulate(scenario)


def test_a_slow_body_is_no_stall():
    async def scenario() -> None:
        received = []

        async def handler(outgoing: Any) -> Answer:
            received.append(await body_of(outgoing))
            return Answer()

        door, _ = gateway(handler, idle=5.0, total=None)
        client = Client("POST", "/", body=[b"x"] * 10)

        async def receive() -> Any:
            await sleep(4.0)
            return await client.receive()

        async with door:
            await door(client.scope, receive, client.send)
        assert client.reply.status == 200
        assert received == [b"x" * 10]

    simulate(scenario)


def test_the_first_reason_counts():
    async def scenario() -> None:
        async def handler(outgoing: Any) -> Answer:
            try:
                await Event().wait()
            finally:
                await sleep(10)
            raise AssertionError

        door, _ = gateway(handler, total=1.0)
        client = Client()
        async with door, create_task_group() as tasks:
            tasks.start_soon(client.ask, door)
            await sleep(0.5)
            client.gone.set()
        assert client.reply.status == 0
        assert door.statistics().answers == {499: 1}

    simulate(scenario)


async def test_a_cancellation_of_the_server_is_no_reason_of_ours():
    door, transport = gateway(never)
    async with door:
        async with create_task_group() as tasks:
            tasks.start_soon(Client().ask, door)
            await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert door.statistics().answers == {499: 1}
    assert transport.cancelled == 1
