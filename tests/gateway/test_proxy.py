"""Requests go to a service, again where nobody can tell, and their answers come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked

from aiopatterns.core.clock import sleep
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.policy import RoutePolicy, Timeouts
from aiopatterns.gateway.routing import Route
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import simulate
from tests.gateway.memory import (
    Answer,
    Client,
    Handler,
    MemoryTransport,
    answering,
    ask,
    body_of,
    failing,
)


def policy(attempts: int = 3, **retry: Any) -> RoutePolicy:
    made = Retry(Exception, attempts=attempts, backoff=Constant(0.01), **retry)
    return RoutePolicy(retry=made, breaker=None)


def gateway(
    handler: Handler, using: RoutePolicy | None = None, **route: Any
) -> tuple[Gateway, MemoryTransport]:
    transport = MemoryTransport(handler)
    made = Route(**{"path": "/", "to": "http://s:8000", **route})
    return Gateway([made], defaults=using or policy(), transport=transport), transport


async def sent(client: Client, **route: Any):
    door, transport = gateway(answering(Answer()), **route)
    async with door:
        await client.ask(door)
    return transport.sent[0]


async def test_what_is_sent():
    out = await sent(Client("PATCH", "/caf%C3%A9/x?q=1&r=%20"))
    assert (out.method, out.host, out.port, out.tls) == (b"PATCH", "s", 8000, False)
    assert out.target == b"/caf%C3%A9/x?q=1&r=%20"
    assert (out.body, out.length) == (None, None)
    assert dict(out.headers)[b"host"] == b"s:8000"
    assert out.endpoint == "s:8000"


@pytest.mark.parametrize(
    ("asked", "to", "strip", "target"),
    [
        ("/api/users/7", "http://s", True, b"/7"),
        ("/api/users", "http://s", True, b"/"),
        ("/api/users?x=1", "http://s", True, b"/?x=1"),
        ("/api/users/", "http://s", True, b"/"),
        ("/api/users/7", "http://s/v2", True, b"/v2/7"),
        ("/api/users/7", "http://s/v2/", False, b"/v2/api/users/7"),
        ("/api/users/a%2Fb", "http://s", True, b"/a%2Fb"),
        ("/%61pi/users/x", "http://s", True, b"/x"),
    ],
)
async def test_the_prefix_is_stripped_on_the_border_of_a_segment(asked, to, strip, target):
    out = await sent(Client("GET", asked), path="/api/users", to=to, strip_prefix=strip)
    assert out.target == target
    assert dict(out.headers).get(b"x-forwarded-prefix") == (b"/api/users" if strip else None)


# -- bodies --------------------------------------------------------------------------------------


async def test_an_empty_body_that_was_announced_is_announced():
    out = await sent(Client("POST", "/", headers=[(b"content-length", b"0")]))
    assert (out.body, out.length) == (None, 0)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_body_arrives(method):
    received: list[Any] = []

    async def handler(outgoing):
        received.append((await body_of(outgoing), outgoing.length))
        return Answer()

    door, _ = gateway(handler)
    async with door:
        await ask(door, method, "/", body=[b"one", b"two"])
        await ask(door, method, "/", body=[b"12345"], headers=[(b"content-length", b"5")])
    assert received == [(b"onetwo", None), (b"12345", 5)]


@pytest.mark.promise("gateway-streams")
async def test_a_body_is_read_no_faster_than_the_service_takes_it():
    step = Event()

    async def handler(outgoing):
        chunks = aiter(outgoing.body)
        assert await anext(chunks) == b"0"
        await step.wait()
        assert len([chunk async for chunk in chunks]) == 99
        return Answer()

    client = Client("POST", "/", body=[b"%d" % n for n in range(100)])
    door, _ = gateway(handler)
    async with door, create_task_group() as tasks:
        tasks.start_soon(client.ask, door)
        await wait_all_tasks_blocked()
        assert client.asked == 1
        step.set()
    assert client.reply.status == 200


@pytest.mark.promise("gateway-streams")
async def test_an_answer_is_read_no_faster_than_the_client_takes_it():
    answer = Answer(200, (), [b"x"] * 100)
    client = Client()
    door, _ = gateway(answering(answer))
    async with door, create_task_group() as tasks:
        tasks.start_soon(client.ask, door)
        await wait_all_tasks_blocked()
        assert client.reply.body == b"x" * 100
        assert client.reply.chunks == 100
        slow = Client()
        slow.open_window = Event()
        answer.read = 0
        tasks.start_soon(slow.ask, door)
        await wait_all_tasks_blocked()
        assert answer.read == 0
        slow.open_window.set()
    assert slow.reply.body == b"x" * 100
    assert answer.closed == 2


async def test_whole_answers_are_sent_whole():
    headers = [(b"content-length", b"5"), (b"etag", b'"1"')]
    door, _ = gateway(answering(Answer(201, headers, b"hello")))
    async with door:
        reply = await ask(door)
    assert (reply.status, reply.body, reply.complete) == (201, b"hello", True)
    assert reply.pairs[:2] == headers


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_answers_without_a_body_tell_no_length(status):
    door, _ = gateway(answering(Answer(status, [(b"content-length", b"5"), (b"etag", b'"1"')])))
    async with door:
        reply = await ask(door)
    assert b"content-length" not in reply.headers
    assert b"etag" in reply.headers


# -- again ---------------------------------------------------------------------------------------


@pytest.mark.promise("gateway-retry-safe")
@pytest.mark.parametrize(
    ("method", "headers", "body", "error", "again"),
    [
        ("GET", [], [], failing("connect"), True),
        ("GET", [], [], failing("closed", sent=True), True),
        ("GET", [], [], failing("timeout", sent=True), True),
        ("GET", [], [], failing("invalid", sent=True), True),
        ("HEAD", [], [], failing("closed", sent=True), True),
        ("OPTIONS", [], [], failing("closed", sent=True), True),
        ("DELETE", [], [], failing("closed", sent=True), True),
        ("PUT", [(b"content-length", b"3")], [b"abc"], failing("closed", sent=True), True),
        (
            "PUT",
            [(b"content-length", b"99999")],
            [b"a" * 99999],
            failing("closed", sent=True),
            False,
        ),
        ("PUT", [], [b"abc"], failing("closed", sent=True), False),
        ("POST", [], [], failing("connect"), True),
        ("POST", [], [], failing("closed", sent=True), False),
        ("POST", [], [], failing("timeout", sent=True), False),
        ("PATCH", [], [], failing("closed", sent=True), False),
        ("POST", [(b"idempotency-key", b"1")], [], failing("closed", sent=True), True),
        (
            "POST",
            [(b"idempotency-key", b"1"), (b"content-length", b"3")],
            [b"abc"],
            failing("closed", sent=True),
            True,
        ),
        ("POST", [(b"content-length", b"3")], [b"abc"], failing("closed", sent=True), False),
    ],
    ids=range(17),
)
async def test_again_only_where_nobody_can_tell(method, headers, body, error, again):
    received: list[Any] = []

    async def handler(outgoing):
        received.append(await body_of(outgoing))
        if len(received) == 1:
            raise error
        return Answer()

    door, _ = gateway(handler)
    async with door:
        reply = await ask(door, method, "/", headers=headers, body=body)
        assert reply.status == (200 if again else 504 if error.kind == "timeout" else 502)
        assert received == [b"".join(body)] * (2 if again else 1)
        assert door.statistics().retries == int(again)


@pytest.mark.promise("gateway-retry-safe")
@pytest.mark.parametrize(("read", "again"), [(0, True), (1, False)])
async def test_a_streamed_body_is_sent_again_only_if_none_of_it_was_read(read, again):
    received: list[Any] = []

    async def handler(outgoing):
        if not received:
            received.append(b"")
            for _ in range(read):
                await anext(aiter(outgoing.body))
            raise failing("connect")
        received.append(await body_of(outgoing))
        return Answer()

    door, _ = gateway(handler)
    async with door:
        reply = await ask(door, "POST", "/", body=[b"a", b"b"])
    assert reply.status == (200 if again else 502)
    assert received == ([b"", b"ab"] if again else [b""])


@pytest.mark.promise("gateway-retry-safe")
async def test_never_after_the_first_byte_of_an_answer():
    answers = [Answer(200, (), [b"one"], error=failing("closed", sent=True)), Answer(200)]
    door, transport = gateway(answering(*answers))
    async with door:
        reply = await ask(door)
        assert (reply.status, reply.body, reply.complete) == (200, b"one", False)
        assert len(transport.sent) == 1
        assert door.statistics().cut_short == 1
        assert door.statistics().answers == {200: 1}
    assert answers[0].closed == 1


@pytest.mark.promise("gateway-retry-safe")
async def test_as_often_as_the_policy_says():
    for attempts in (1, 2, 5):
        door, transport = gateway(answering(failing()), policy(attempts))
        async with door:
            assert (await ask(door)).status == 502
        assert len(transport.sent) == attempts
    door, transport = gateway(answering(failing()), RoutePolicy(retry=None, breaker=None))
    async with door:
        assert (await ask(door)).status == 502
    assert len(transport.sent) == 1


@pytest.mark.promise("gateway-retry-safe")
async def test_the_budget_bounds_what_a_service_gets_that_is_down():
    budget = Budget.tokens(0.2, min_per_second=0)
    door, transport = gateway(answering(failing()), policy(budget=budget))
    async with door:
        for _ in range(100):
            assert (await ask(door)).status == 502
    assert 100 < len(transport.sent) <= 120


async def test_a_budget_of_what_is_in_flight_is_given_back():
    budget = Budget.ratio(0.5)
    door, _ = gateway(
        answering(failing(), Answer(), failing("closed", sent=True)), policy(budget=budget)
    )
    async with door:
        for method in ("GET", "POST", "POST", "GET"):
            await ask(door, method)
    with pytest.raises(RuntimeError):
        budget.finish()
    with pytest.raises(RuntimeError):
        budget.finish_extra()


async def test_answers_may_be_unwanted():
    def unwanted(answer: Any) -> bool:
        return bool(answer.status == 503)

    streamed = Answer(503, (), [b"busy"])
    for method, expected in [("GET", 200), ("POST", 503)]:
        door, transport = gateway(
            answering(Answer(503), streamed, Answer(200)), policy(5, on_result=unwanted)
        )
        async with door:
            assert (await ask(door, method)).status == expected
            assert len(transport.sent) == (3 if expected == 200 else 1)
    assert streamed.closed == 1


def test_waits_for_another_attempt_end_with_the_total_timeout():
    async def scenario() -> None:
        slow = RoutePolicy(
            timeouts=Timeouts(total=5.0),
            retry=Retry(Exception, attempts=9, backoff=Constant(2.0)),
            breaker=None,
        )
        door, transport = gateway(answering(failing()), slow)
        async with door:
            reply = await ask(door)
        assert reply.status == 502  # the error, and not a timeout: there was no time for another
        assert len(transport.sent) == 3

    simulate(scenario)


# -- places --------------------------------------------------------------------------------------


async def test_a_place_is_held_while_a_body_is_streamed():
    step = Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await step.wait()
        yield b"two"

    door, _ = gateway(
        answering(Answer(200, (), chunks()), Answer(200)),
        RoutePolicy(retry=None, breaker=None, bulkhead=1),
    )
    first = Client()
    async with door, create_task_group() as tasks:
        tasks.start_soon(first.ask, door)
        await wait_all_tasks_blocked()
        full = await ask(door)
        assert (full.status, full.headers[b"retry-after"]) == (503, b"1")
        assert door.statistics().endpoints[0].in_flight == 1
        step.set()
        await wait_all_tasks_blocked()
        assert first.reply.body == b"onetwo"
        assert (await ask(door)).status == 200
        assert door.statistics().endpoints[0].in_flight == 0


def test_a_wait_between_attempts_is_a_wait_of_the_request_alone():
    async def scenario() -> None:
        door, _ = gateway(answering(failing(), Answer()), policy())
        async with door, create_task_group() as tasks:
            client = Client()
            tasks.start_soon(client.ask, door)
            await sleep(0.005)
            assert (await ask(door)).status == 200
            assert client.reply.status == 0
        assert client.reply.status == 200

    simulate(scenario)
