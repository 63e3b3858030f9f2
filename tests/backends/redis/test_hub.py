from __future__ import annotations

import asyncio
import random

import pytest

from aiopatterns.backends.redis.connection import pack
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing.proxy import FaultProxy
from tests.backends.redis.fakeserver import FakeServer, info, open_backend

pytestmark = [pytest.mark.real, pytest.mark.leaves("*")]


def hub_server(subscribed):
    """Answers INFO; ``subscribed(words)`` answers what comes from the hub."""
    return lambda words: info() if words[0] == b"INFO" else subscribed(words)


def confirmation(words):
    kind = words[0].lower()
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(words[1]), words[1])


async def test_a_closed_backend():
    backend = open_backend("redis://h")
    with pytest.raises(ClosedError):
        await backend.pubsub.subscribe("a").__aenter__()


async def test_a_server_that_does_not_confirm():
    async with FakeServer(hub_server(lambda words: b"")) as server:
        async with open_backend(server.url, timeout=0.1) as backend:
            with pytest.raises(BackendUnavailableError, match="does not confirm"):
                await backend.pubsub.subscribe("a").__aenter__()
            assert not backend.client.hub._names


async def test_nobody_is_there(redis_url, monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.hub._LAST_PAUSE", 0.05)
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url, timeout=0.4) as backend:
        proxy.refuse()
        began = monotonic()
        with pytest.raises(BackendUnavailableError, match="no Redis answers"):
            await backend.pubsub.subscribe("a").__aenter__()
        assert monotonic() - began < 4
        proxy.accept()
        async with backend.pubsub.subscribe("a"):
            pass


async def test_a_refusal_is_told_and_the_others_go_on():
    def answer(words):
        return b"-NOPERM no\r\n" if words[1:] == [b"ap:ch:secret"] else confirmation(words)

    async with FakeServer(hub_server(answer)) as server, open_backend(server.url) as backend:
        async with backend.pubsub.subscribe("open") as notices:
            with pytest.raises(BackendError, match="lacks the right") as caught:
                await backend.pubsub.subscribe("secret").__aenter__()
            assert type(caught.value) is BackendError
            while not notices.gaps:
                await sleep(0.005)
            message = b"*3\r\n$7\r\nmessage\r\n$10\r\nap:ch:open\r\n$1\r\nx\r\n"
            server.push(message)
            # The pipeline's own connection takes what was not asked for as an end; it is replaced.
            assert await anext(notices) == ("open", b"x")


async def test_a_refused_greeting_is_told():
    greetings = []

    def answer(words):
        if words[0] == b"AUTH":
            greetings.append(1)
            return b"+OK\r\n" if len(greetings) == 1 else b"-WRONGPASS changed\r\n"
        return info() if words[0] == b"INFO" else b"+OK\r\n"

    async with FakeServer(answer, greet=False) as server:
        async with open_backend(server.url.replace("unix://", "unix://:p@")) as backend:
            with pytest.raises(BackendError, match="WRONGPASS"):
                await backend.pubsub.subscribe("a").__aenter__()


async def test_a_refusal_when_no_connection_is_left():
    backend = open_backend("redis://h")
    from aiopatterns.backends.redis.errors import RefusalError

    backend.client.hub._push(RefusalError("NOPERM late"))
    backend.client.hub._push(b"PONG")
    backend.client.hub._push([b"pong", b""])


async def test_cancelled_while_it_enters():
    async with FakeServer(hub_server(lambda words: b"")) as server:
        async with open_backend(server.url) as backend:
            task = asyncio.create_task(backend.pubsub.subscribe("a").__aenter__())
            while [b"SUBSCRIBE", b"ap:ch:a"] not in server.seen:
                await sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not backend.client.hub._names
            await sleep(0.02)
            assert [b"UNSUBSCRIBE", b"ap:ch:a"] in server.seen


async def test_closed_while_it_enters():
    async with FakeServer(hub_server(lambda words: b"")) as server:
        backend = open_backend(server.url)
        async with backend:
            task = asyncio.create_task(backend.pubsub.subscribe("a").__aenter__())
            while [b"SUBSCRIBE", b"ap:ch:a"] not in server.seen:
                await sleep(0.001)
        with pytest.raises(ClosedError):
            await task


async def test_a_name_taken_again_waits_for_its_own_confirmation():
    """The first confirmation answers a subscription that was given up before it came."""
    async with FakeServer(hub_server(lambda words: b"")) as server:
        async with open_backend(server.url) as backend:
            first = asyncio.create_task(backend.pubsub.subscribe("a").__aenter__())
            while [b"SUBSCRIBE", b"ap:ch:a"] not in server.seen:
                await sleep(0.001)
            hub_writer = max(server.writers, key=lambda each: each in server.subscribers)
            first.cancel()
            await asyncio.wait((first,))
            second = asyncio.create_task(backend.pubsub.subscribe("a").__aenter__())
            hub_writer.write(confirmation([b"SUBSCRIBE", b"ap:ch:a"]))
            await sleep(0.05)
            assert not second.done()
            hub_writer.write(confirmation([b"SUBSCRIBE", b"ap:ch:a"]))
            notices = await second
            notices.close()


async def test_cancelled_in_the_turn_in_which_it_is_let_in():
    async with FakeServer(hub_server(lambda words: b"")) as server:
        async with open_backend(server.url) as backend:
            hub = backend.client.hub
            task = asyncio.create_task(backend.pubsub.subscribe("a").__aenter__())
            while [b"SUBSCRIBE", b"ap:ch:a"] not in server.seen:
                await sleep(0.001)
            task.cancel()
            hub._push([b"subscribe", b"ap:ch:a", 1])
            await asyncio.wait((task,))
            assert task.cancelled()
            assert not hub._names
            assert not hub._in_force


@pytest.mark.promise("backends-pubsub-in-force")
async def test_in_force_while_others_come_and_go(redis_url):
    """A name that is given up and taken again in one breath is in force when it is said to be."""
    async with open_backend(redis_url) as backend, open_backend(redis_url) as publisher:

        async def come_and_go(worker):
            chance = random.Random(worker)
            for step in range(30):
                name = f"c{chance.randrange(3)}"
                message = f"{worker}:{step}".encode()
                async with backend.pubsub.subscribe(name) as notices:
                    assert await publisher.pubsub.publish(name, message) == 1
                    while (await anext(notices)).data != message:
                        pass
                if chance.random() < 0.5:
                    await sleep(0)

        await asyncio.wait_for(asyncio.gather(*(come_and_go(n) for n in range(8))), 20)
        assert not backend.client.hub._names
        assert not backend.client.hub._owed


async def test_signs_of_life(monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.hub._HEARTBEAT", 0.05)
    alive = True

    def answer(words):
        if words[0] == b"PING":
            return b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" if alive else b""
        return confirmation(words)

    async with FakeServer(hub_server(answer)) as server, open_backend(server.url) as backend:
        async with backend.pubsub.subscribe("a") as notices:
            await sleep(0.4)
            assert [b"PING"] in server.seen
            assert notices.gaps == 0
            alive = False
            await sleep(0.3)
            assert notices.gaps >= 1


async def test_signs_of_life_are_asked_for_also_while_others_come_and_go(monkeypatch):
    """What is sent over a connection that nothing comes from is no sign of life."""
    monkeypatch.setattr("aiopatterns.backends.redis.hub._HEARTBEAT", 0.05)
    dead = False

    def answer(words):
        return b"" if dead else confirmation(words) if words[0] == b"SUBSCRIBE" else b""

    async with FakeServer(hub_server(answer)) as server:
        async with (
            open_backend(server.url, timeout=0.5) as backend,
            backend.pubsub.subscribe("a") as notices,
        ):
            connection = backend.client.hub._connection
            assert connection is not None
            dead, began = True, monotonic()
            while connection.open:
                connection.send(pack(("PING",)), ())
                await sleep(0.01)
            assert monotonic() - began < 0.4
            dead = False
            while not notices.gaps:
                await sleep(0.01)


async def test_silence_while_a_confirmation_is_due_ends_the_connection(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url, timeout=0.2) as backend:
        async with backend.pubsub.subscribe("a") as notices:
            await sleep(0.05)
            proxy.partition()
            with pytest.raises(BackendUnavailableError):
                await backend.pubsub.subscribe("b").__aenter__()
            assert backend.client.hub._connection is None
            proxy.heal()
            while not notices.gaps:
                await sleep(0.01)
            await backend.pubsub.publish("a", b"1")
            assert (await anext(notices)).data == b"1"


async def test_without_readers_the_keeper_rests(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        async with backend.pubsub.subscribe("a"):
            pass
        keeper = backend.client.hub._keeper
        assert keeper is not None
        proxy.cut()
        await asyncio.wait((keeper,), timeout=2)
        assert keeper.done()
        async with backend.pubsub.subscribe("a") as notices:
            await backend.pubsub.publish("a", b"1")
            assert (await anext(notices)).data == b"1"


async def test_a_long_outage(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        async with backend.pubsub.subscribe("a") as notices:
            proxy.refuse()
            proxy.cut()
            await sleep(0.2)
            proxy.accept()
            while not notices.gaps:
                await sleep(0.005)
            await backend.pubsub.publish("a", b"1")
            assert (await anext(notices)).data == b"1"
