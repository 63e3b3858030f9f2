from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from aiopatterns.backends.redis.scripts import Script
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing.proxy import FaultProxy
from tests.backends.redis.fakeserver import OK, FakeServer, info, open_backend

pytestmark = [pytest.mark.real, pytest.mark.leaves("*")]
INCR = Script("kv_incr")


@pytest.fixture
async def client(redis_url):
    async with open_backend(redis_url) as backend:
        yield backend.client


def connections(redis_url):
    with Wire(redis_url) as wire:
        return str(wire.call("CLIENT", "LIST")).count("name=aiopatterns")


async def test_a_connection_of_its_own(client, redis_url):
    line = client.line("mine")
    assert connections(redis_url) == 1
    assert await line.call("PING") == b"PONG"
    assert connections(redis_url) == 2
    assert await line.call("SET", "a", 1) == b"OK"
    assert await line.call("GET", "a", timeout=1) == b"1"
    assert connections(redis_url) == 2
    await line.aclose()
    await line.aclose()
    assert await line.call("PING") == b"PONG"
    await line.aclose()
    assert "mine" in repr(line)


async def test_scripts_are_loaded_when_they_are_not_known(client, redis_url):
    line = client.line("mine")
    assert await line.run(INCR, ["n"], [2, ""]) == b"2"
    with Wire(redis_url) as wire:
        wire.call("SCRIPT", "FLUSH")
    assert await line.run(INCR, ["n"], [2, ""]) == b"4"
    assert await line.run(INCR, ["n"], [2, ""], timeout=1) == b"6"
    with pytest.raises(BackendError, match="NOSCRIPT"):
        await line.call("EVALSHA", "0" * 40, 0)


async def test_a_refusal_leaves_the_connection(client):
    line = client.line("mine")
    mine = await line.call("CLIENT", "ID")
    with pytest.raises(BackendError, match="unknown command") as caught:
        await line.call("NONSENSE")
    assert type(caught.value) is BackendError
    assert await line.call("CLIENT", "ID") == mine


async def test_a_second_caller_waits_for_the_first(client):
    line = client.line("mine")
    await line.call("DEL", "list")
    first = asyncio.create_task(line.call("BLPOP", "list", 5))
    await sleep(0.02)
    second = asyncio.create_task(line.call("ECHO", "second"))
    await sleep(0.02)
    assert not second.done()
    await client.write("RPUSH", "list", "x")
    assert await first == [b"list", b"x"]
    assert await second == b"second"


async def test_a_cancelled_call_takes_its_connection_with_it(client):
    line = client.line("mine")
    mine = await line.call("CLIENT", "ID")
    task = asyncio.create_task(line.call("BLPOP", "nothing", 5))
    await sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await line.call("CLIENT", "ID") != mine


@pytest.mark.promise("backends-no-stray-reply")
async def test_cancelled_at_any_moment_no_reply_is_anothers(client):
    line = client.line("mine")
    for turn in range(60):
        task = asyncio.create_task(line.call("ECHO", f"old {turn}"))
        for _ in range(turn % 12):
            await sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert await line.call("ECHO", f"new {turn}") == f"new {turn}".encode()


async def test_silence_ends_the_call_in_time(client):
    line = client.line("mine")
    began = monotonic()
    with pytest.raises(BackendUnavailableError, match=r"silent for 0\.1 s"):
        await line.call("BLPOP", "nothing", 5, timeout=0.1)
    assert monotonic() - began < 2
    assert await line.call("PING") == b"PONG"
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            await line.call("PING", timeout=bad)
        with pytest.raises(ValueError, match="timeout"):
            await line.run(INCR, ["n"], [], timeout=bad)


@pytest.mark.promise("backends-retry-classes")
async def test_nothing_is_sent_twice(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        line = backend.client.line("claims")
        await line.call("INCR", "n")
        proxy.drop_replies(1, matching=b"INCR")
        with pytest.raises(BackendUnavailableError, match="no Redis answers"):
            await line.call("INCR", "n")
        assert await line.call("GET", "n") == b"2"
        proxy.drop_requests(1, matching=b"kv")
        proxy.drop_replies(1, matching=b"EVAL")
        with pytest.raises(BackendUnavailableError):
            await line.run(INCR, ["n"], [1, ""])
        assert await line.call("GET", "n") in {b"2", b"3"}
        proxy.cut()
        await sleep(0.02)
        assert await line.call("PING") == b"PONG"


async def test_nobody_is_there(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        proxy.refuse()
        line = backend.client.line("mine")
        with pytest.raises(BackendUnavailableError, match="no Redis answers"):
            await line.call("PING", timeout=0.5)
        proxy.accept()
        assert await line.call("PING") == b"PONG"


async def test_closed_with_its_backend(redis_url):
    backend = open_backend(redis_url)
    line = backend.client.line("mine")
    with pytest.raises(ClosedError):
        await line.call("PING")
    async with backend:
        await line.call("PING")
        task = asyncio.create_task(line.call("BLPOP", "nothing", 5))
        await sleep(0.02)
    with pytest.raises(BackendUnavailableError, match="the backend was closed"):
        await task
    with pytest.raises(ClosedError):
        await line.call("PING")
    async with backend:
        assert await line.call("PING") == b"PONG"


async def test_closed_while_it_connects():
    """The connection that is made in spite of it is not kept: nobody would hang up."""
    for turns in range(12):
        async with FakeServer(lambda words: info() if words[0] == b"INFO" else OK) as server:
            backend = open_backend(server.url)
            async with backend:
                line = backend.client.line("mine")
                task = asyncio.create_task(line.call("HELLO"))
                for _ in range(turns):
                    await asyncio.sleep(0)
            with suppress(BackendUnavailableError, ClosedError):
                await task
            assert line._connection is None
            async with backend:
                await line.call("HELLO")
                assert line in backend.client._lines
            assert not backend.client._lines


async def test_a_server_that_does_not_serve_now_is_looked_for_anew():
    replies = {b"CLAIM": b"-READONLY no master\r\n"}
    answer = lambda words: info() if words[0] == b"INFO" else replies.get(words[0], OK)
    async with FakeServer(answer) as server, open_backend(server.url) as backend:
        line = backend.client.line("mine")
        await line.call("HELLO")
        assert server.connections == 2
        with pytest.raises(BackendUnavailableError, match="connect to the master"):
            await line.call("CLAIM")
        await line.call("HELLO")
        assert server.connections == 3


async def test_who_waits_for_the_line_may_be_cancelled(client):
    line = client.line("mine")
    first = asyncio.create_task(line.call("BLPOP", "list2", 5))
    await sleep(0.02)
    waiting = [asyncio.create_task(line.call("ECHO", str(n))) for n in range(3)]
    await sleep(0)
    waiting[0].cancel()
    await client.write("RPUSH", "list2", "x")
    await first
    assert [await each for each in waiting[1:]] == [b"1", b"2"]
