from __future__ import annotations

import asyncio

import pytest

from aiopatterns.backends.redis.errors import UnsentError
from aiopatterns.backends.redis.sentinel import finder
from aiopatterns.backends.url import Address, parse
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing.clusters import RedisSentinel
from tests.backends.redis.fakeserver import FakeServer, open_backend

pytestmark = pytest.mark.real


@pytest.mark.promise("backends-sentinel-failover")
def test_failover_is_followed():
    async def scenario():
        async with RedisSentinel() as pair, open_backend(pair.url) as backend:
            await backend.kv.set("a", b"1")
            line = backend.client.line("mine")
            await line.call("PING")
            async with backend.pubsub.subscribe("news") as notices:
                old = pair.primary
                old.kill()
                began = monotonic()
                while True:
                    try:
                        await backend.kv.set("b", b"2")
                        break
                    except BackendUnavailableError:
                        assert monotonic() - began < 20
                assert await backend.kv.get("b") == b"2"
                assert pair.primary is not old
                assert await line.call("SET", "ap:kv:c", 3) == b"OK"
                while not notices.gaps:
                    await sleep(0.01)
                await backend.pubsub.publish("news", b"on")
                assert await anext(notices) == ("news", b"on")

    asyncio.run(scenario())  # seconds: one loop is enough


async def test_nobody_knows_the_service():
    with pytest.raises(BackendUnavailableError, match="know no master 'm'"):
        await open_backend("redis+sentinel://127.0.0.1:1/m", timeout=1).__aenter__()


def sentinel(words):
    """Answers as a Sentinel that needs a password and knows one master."""
    if words[0] == b"SENTINEL":
        flags = b"master"
        fields = [b"name", b"m", b"ip", b"10.0.0.1", b"port", b"7", b"flags", flags]
        fields += [b"num-other-sentinels", b"2"]
        body = b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in fields)
        return b"*1\r\n*%d\r\n%b" % (len(fields), body)
    return b"+OK\r\n"


async def test_a_sentinel_with_a_password_of_its_own():
    async with FakeServer(sentinel, host="127.0.0.1") as server:
        url = f"redis+sentinel://:data@127.0.0.1:1,127.0.0.1:{server.port}/m"
        find = finder(parse(f"{url}?sentinel_password=secret"), 2.0)
        assert await find() == Address("10.0.0.1", 7)
        assert [b"AUTH", b"secret"] in server.seen
        while server.writers:
            await asyncio.sleep(0.001)
        with pytest.raises(UnsentError, match="know no master 'other'"):
            await finder(parse(url.replace("/m", "/other")), 2.0)()


async def test_sentinels_over_tls():
    async with FakeServer(sentinel, host="127.0.0.1") as server:
        find = finder(parse(f"redis+sentinel://127.0.0.1:{server.port}/m?tls=1"), 0.3)
        with pytest.raises(UnsentError):
            await find()
