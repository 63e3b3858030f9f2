"""A gateway under its own server, in the test's loop."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import httpx
import pytest

from aiopatterns.gateway import Gateway, Limits, Request, Route, serve

pytestmark = pytest.mark.real


async def hello(request: Request) -> dict[str, object]:
    return {"path": request.path}


async def never(request: Request) -> dict[str, object]:
    del request
    await anyio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def served(
    gateway: Gateway, *, grace: float = 20, patience: float = 10
) -> AsyncGenerator[tuple[anyio.abc.TaskGroup, str]]:
    """Where it is served, and the group in which."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with gateway, anyio.create_task_group() as tasks:
        await tasks.start(partial(serve, gateway, listener, grace=grace, patience=patience))
        yield tasks, f"http://127.0.0.1:{port}"


async def test_it_serves_until_a_signal() -> None:
    async with served(Gateway([Route("/", to=hello)])) as (_, url):
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{url}/a")
        assert (answer.status_code, answer.json()) == (200, {"path": "/a"})
        assert "server" not in answer.headers
        os.kill(os.getpid(), signal.SIGTERM)


async def test_cancelled_it_ends_at_once_with_what_is_under_way() -> None:
    async with served(Gateway([Route("/", to=never)]), grace=30) as (tasks, url):
        host, port = url.removeprefix("http://").split(":")
        client = await anyio.connect_tcp(host, int(port))
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await client.receive()
    await client.aclose()


async def test_heads_are_bounded_by_the_limits_of_the_gateway() -> None:
    limits = Limits(max_headers=1000, max_target=1000)
    async with served(Gateway([Route("/", to=hello)], limits=limits), patience=0.1) as (tasks, url):
        async with httpx.AsyncClient() as client:
            answer = await client.get(url, headers={"x": "y" * 3000})
        assert answer.status_code == 431
        host, port = url.removeprefix("http://").split(":")
        slow = await anyio.connect_tcp(host, int(port))
        await slow.send(b"GET / HT")
        assert (await slow.receive()).startswith(b"HTTP/1.1 408 ")
        await slow.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("grace", "patience", "message"),
    [
        (-1, 1, "grace must be a finite number >= 0, not -1"),
        (1, 0, "patience must be a finite number > 0, not 0"),
    ],
)
async def test_senseless_times_are_refused(grace: float, patience: float, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Gateway([Route("/", to=hello)]) as gateway:
            with pytest.raises(ValueError, match=message):
                await serve(gateway, listener, grace=grace, patience=patience)
