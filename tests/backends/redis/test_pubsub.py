from __future__ import annotations

import asyncio

import pytest

from aiopatterns.backends.redis.hub import Name
from aiopatterns.backends.redis.pubsub import RedisPubSub, RedisSubscribed, glob
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import sleep
from aiopatterns.testing.conformance_pubsub import PubSubConformance
from aiopatterns.testing.proxy import FaultProxy
from tests.backends.redis.fakeserver import open_backend

pytestmark = [pytest.mark.real, pytest.mark.leaves("*")]


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as opened:
        yield opened


class TestConformance(PubSubConformance):
    """Live messages over Redis keep the contract."""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a*b?c", "a*b?c"),
        ("a[b]", "a\\[b]"),
        ("\\[", "\\["),
        ("\\\\[", "\\\\\\["),
        ("\\*", "\\*"),
        ("end\\", "end\\\\"),
        ("", ""),
    ],
)
def test_globs_as_the_server_has_them(ours, theirs):
    assert glob(ours) == theirs


async def test_channels_on_the_server(backend, redis_url):
    async with backend.pubsub.subscribe("news", patterns=["a.*"]), Wires(redis_url) as wire:
        assert wire.call("PUBSUB", "CHANNELS") == ["ap:ch:news"]
        assert wire.call("PUBSUB", "NUMPAT") == 1
        other = RedisPubSub(backend.client, kind="dir")
        async with other.subscribe("d") as notices:
            assert "ap:dir:d" in wire.call("PUBSUB", "CHANNELS")
            wire.call("PUBLISH", "ap:dir:d", "x")
            assert await anext(notices) == ("d", b"x")


class Wires:
    def __init__(self, url):
        self.wire = Wire(url)

    async def __aenter__(self):
        return self.wire

    async def __aexit__(self, *_):
        self.wire.close()


async def test_what_an_atomic_step_tells(backend):
    async with backend.pubsub.subscribe("changes") as notices:
        assert await backend.kv.compare_and_set("k", None, b"1", ttl=9, notify="changes")
        assert await anext(notices) == ("changes", b"k")


async def test_all_subscriptions_share_a_connection(backend, redis_url):
    subscriptions = [backend.pubsub.subscribe(f"c{n}") for n in range(20)]
    for each in subscriptions:
        await each.__aenter__()
    async with Wires(redis_url) as wire:
        assert str(wire.call("CLIENT", "LIST")).count("name=aiopatterns") == 2
    await backend.pubsub.publish("c7", b"x")
    assert await anext(subscriptions[7]) == ("c7", b"x")
    for each in subscriptions:
        await each.__aexit__(None, None, None)


@pytest.mark.promise("backends-pubsub-gaps")
async def test_after_a_cut_it_goes_on_and_tells_of_the_gap(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        told = []
        gap = asyncio.Event()

        def on_gap():
            told.append(1)
            gap.set()

        subscription = backend.pubsub.subscribe("a", patterns=["b*"], on_gap=on_gap)
        async with subscription as notices:
            for number in range(3):
                await backend.pubsub.publish("a", b"before")
                assert await anext(notices) == ("a", b"before")
                gap.clear()
                proxy.cut()
                await asyncio.wait_for(gap.wait(), 5)
                assert notices.gaps == len(told) == number + 1
                async with open_backend(redis_url) as other:
                    assert await other.pubsub.publish("a", b"after") == 1
                    assert await other.pubsub.publish("bc", b"after") == 1
                assert await anext(notices) == ("a", b"after")
                assert await anext(notices) == ("bc", b"after")
        assert backend.statistics().reconnects >= 3


async def test_messages_of_equal_bytes_are_not_one(backend):
    async with backend.pubsub.subscribe("a.b", patterns=["a.*", "*"]) as notices:
        for _ in range(50):
            await backend.pubsub.publish("a.b", b"same")
        await backend.pubsub.publish("end", b"")
        got = [await anext(notices) for _ in range(51)]
        assert got == [("a.b", b"same")] * 50 + [("end", b"")]


async def test_entered_twice(backend):
    subscription = backend.pubsub.subscribe("a")
    async with subscription:
        with pytest.raises(RuntimeError, match="open already"):
            await subscription.__aenter__()
    async with subscription as notices:
        await backend.pubsub.publish("a", b"1")
        assert (await anext(notices)).data == b"1"


async def test_the_reader_of_a_raw_name(backend):
    reader = RedisSubscribed(backend.client.hub, [Name(False, b"raw"), Name(False, b"raw")])
    async with reader as notices:
        await backend.client.once("PUBLISH", "raw", "x")
        assert await anext(notices) == ("raw", b"x")


async def test_the_backend_closes_under_a_reader(redis_url):
    backend = open_backend(redis_url)
    async with backend:
        subscription = backend.pubsub.subscribe("a")
        notices = await subscription.__aenter__()
        await backend.pubsub.publish("a", b"last")
        while not notices._inbox:
            await sleep(0.001)
        reader = asyncio.create_task(collect(notices))
    assert await reader == [("a", b"last")]
    await subscription.__aexit__(None, None, None)


async def collect(notices):
    return [each async for each in notices]
