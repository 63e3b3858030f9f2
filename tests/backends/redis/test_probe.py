from __future__ import annotations

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.backend import RedisBackend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.probe import _setting, probe
from aiopatterns.backends.redis.rights import acl_rule
from aiopatterns.core.clock import wall
from aiopatterns.core.errors import ClosedError

pytestmark = pytest.mark.real


async def look(url):
    async with open_backend(url) as backend:
        assert isinstance(backend, RedisBackend)
        return await probe(backend.client)


async def test_what_a_server_is_and_does():
    config = {"appendonly": "yes", "appendfsync": "always", "maxmemory": "64mb"}
    config["maxmemory-policy"] = "allkeys-lru"
    with RedisServer(config=config) as server:
        server.command("CONFIG", "SET", "maxclients", "50")
        found = await look(server.url)
        assert found.url == server.url
        assert found.version == server.version
        assert (found.mode, found.role) == ("standalone", "master")
        assert (found.appendonly, found.fsync) == (True, "always")
        assert (found.policy, found.max_memory) == ("allkeys-lru", 64 << 20)
        assert 0 < found.memory < found.max_memory
        assert 1 <= found.clients <= found.max_clients == 50
        assert 0 < found.latency_p50 <= found.latency_p99 < 5
        assert abs(found.skew) < 1
        assert found.missing == ()
        assert server.command("DBSIZE") == 0


async def test_a_user_with_few_rights_is_told_what_he_may_know():
    with RedisServer(private=True) as server:
        server.command(*acl_rule().replace(">PASSWORD", ">secret").split())
        found = await look(server.url.replace("unix://", "unix://aiopatterns:secret@"))
        assert found.fsync is None
        assert found.missing == ()
        assert found.policy == "noeviction"
        assert "secret" not in repr(found)


async def test_a_skew_is_seen(redis_url, monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.probe.wall", lambda: wall() - 100)
    assert 99 < (await look(redis_url)).skew < 101


async def test_a_closed_backend_is_not_looked_at(redis_url):
    backend = open_backend(redis_url)
    assert isinstance(backend, RedisBackend)
    with pytest.raises(ClosedError):
        await probe(backend.client)


async def test_a_setting_that_the_server_does_not_know(redis_url):
    async with open_backend(redis_url) as backend:
        assert isinstance(backend, RedisBackend)
        assert await _setting(backend.client, "no-such-thing") is None
