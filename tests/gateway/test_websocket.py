from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.request import Response
from aiopatterns.gateway.websocket import Relay, refuse, sendable
from aiopatterns.gateway.wsclient import MAX_MESSAGE
from aiopatterns.testing import Trial, cancel_everywhere

GONE: dict[str, Any] = {"type": "websocket.disconnect", "code": 1005}


class Client:
    """The ASGI side: says what the test has put in line, keeps what it is told."""

    def __init__(self, *messages: dict[str, Any], fails: int | None = None) -> None:
        self.line = list(messages)
        self.told: list[dict[str, Any]] = []
        self.fails = fails
        self.changed = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        while not self.line:
            await self.changed.wait()
        return self.line.pop(0)

    async def send(self, message: Any) -> None:
        if self.fails is not None and len(self.told) >= self.fails:
            raise OSError("the client has gone")
        self.told.append(dict(message))
        await sleep(0)

    def say(self, message: dict[str, Any]) -> None:
        self.line.append(message)
        self.changed.set()
        self.changed = anyio.Event()


class Service:
    """The service's side: gives what the test has put in line, then waits or ends."""

    def __init__(
        self, *messages: str | bytes, end: tuple[int, str] | None = None, broken: bool = False
    ) -> None:
        self.line = list(messages)
        self.end = end
        self.broken = broken
        self.subprotocol: str | None = "chat"
        self.closed = (1005, "")
        self.got: list[str | bytes] = []
        self.parting: tuple[int, str] | None = None

    async def send(self, message: str | bytes) -> None:
        await sleep(0)
        if self.broken:
            raise UpstreamError(name="service", kind="closed", sent=True)
        self.got.append(message)

    async def receive(self) -> str | bytes | None:
        await sleep(0)
        if self.line:
            return self.line.pop(0)
        while self.end is None:
            await sleep(3600)
        self.closed = self.end
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.parting = self.parting or (code, reason)
        await sleep(0)


async def run(client: Client, service: Service) -> None:
    with anyio.fail_after(60):
        await Relay(client.receive, client.send, service).run([(b"x-request-id", b"7")])


async def test_messages_go_both_ways_and_keep_their_kind():
    client = Client(
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.receive", "bytes": b"\0\1", "text": None},
        {"type": "websocket.receive", "text": ""},
    )
    service = Service("one", b"two", end=(1000, "done"))
    await run(client, service)
    assert client.told == [
        {
            "type": "websocket.accept",
            "subprotocol": "chat",
            "headers": [(b"x-request-id", b"7")],
        },
        {"type": "websocket.send", "text": "one"},
        {"type": "websocket.send", "bytes": b"two"},
        {"type": "websocket.close", "code": 1000, "reason": "done"},
    ]
    assert service.got == ["hello", b"\0\1", ""]


@pytest.mark.parametrize(
    ("disconnect", "parting"),
    [
        ({"type": "websocket.disconnect", "code": 4001, "reason": "bye"}, (4001, "bye")),
        ({"type": "websocket.disconnect", "code": 1001}, (1001, "")),
        ({"type": "websocket.disconnect", "code": 1006, "reason": None}, (1001, "")),
        ({"type": "websocket.disconnect"}, (1000, "")),
    ],
)
async def test_a_client_that_closes_closes_the_service(
    disconnect: dict[str, Any], parting: tuple[int, str]
):
    client, service = Client(disconnect), Service()
    await run(client, service)
    assert service.parting == parting
    assert "websocket.close" not in [each["type"] for each in client.told]


@pytest.mark.parametrize(
    ("end", "code"),
    [((1000, ""), 1000), ((4002, "x"), 4002), ((1006, ""), 1011), ((1005, ""), 1000)],
)
async def test_a_service_that_closes_closes_the_client(end: tuple[int, str], code: int):
    client, service = Client(), Service("last", end=end)
    await run(client, service)
    assert client.told[-1] == {"type": "websocket.close", "code": code, "reason": end[1]}


@pytest.mark.parametrize("fails", [0, 1])
async def test_a_client_that_has_gone_while_it_is_sent_something(fails: int):
    client, service = Client(fails=fails), Service("one", "two")
    await run(client, service)
    assert service.parting == (1001, "")


async def test_a_message_that_is_too_big_closes_both():
    client = Client({"type": "websocket.receive", "bytes": bytes(MAX_MESSAGE + 1)})
    service = Service()
    await run(client, service)
    assert service.got == []
    assert service.parting == (1009, "the message is too big")
    assert client.told[-1]["code"] == 1009


async def test_a_service_that_breaks_while_it_is_sent_something_says_how():
    client = Client({"type": "websocket.receive", "text": "hello"})
    service = Service(end=(1012, "restart"), broken=True)
    await run(client, service)
    assert client.told[-1] == {"type": "websocket.close", "code": 1012, "reason": "restart"}


def test_cancelled_anywhere_the_service_is_closed():
    def scenario() -> Trial:
        client = Client({"type": "websocket.receive", "text": "hello"})
        service = Service("one", "two", end=(1000, ""))

        def check() -> None:
            assert service.parting is not None

        return Trial(Relay(client.receive, client.send, service).run([]), check)

    cancel_everywhere(scenario, minimum=2)


def test_codes_that_may_not_be_sent_are_not():
    assert [code for code in range(5001) if sendable(code, 1011) == code] == [
        *range(1000, 1004),
        *range(1007, 1015),
        *range(3000, 5000),
    ]


@pytest.mark.parametrize(
    ("extensions", "types"),
    [
        ({"websocket.http.response": {}}, ["http.response.start", "http.response.body"]),
        ({}, ["close"]),
        (None, ["close"]),
    ],
)
async def test_a_client_that_is_refused_learns_why_if_the_server_can_tell(
    extensions: object, types: list[str]
):
    client = Client()
    response = Response.error(401, "who are you")
    await refuse({"extensions": extensions}, client.send, response, response.headers)
    assert [each["type"] for each in client.told] == [f"websocket.{each}" for each in types]
    if types != ["close"]:
        assert client.told[0]["status"] == 401
        assert client.told[1]["body"] == response.body
