from __future__ import annotations

import logging

import pytest

from aiopatterns.backends.redis.info import EvictionRisk, facts, tell, version_of
from aiopatterns.core.rate import Rate
from aiopatterns.testing import RedisServer, capture_events
from tests.backends.redis.fakeserver import open_backend

RATE = Rate(5)
POLICIES = ("allkeys-lru", "volatile-ttl")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (b"# Server\r\nredis_version:7.0.15\r\n", (7, 0, 15)),
        (b"redis_version:8.2\r\n", (8, 2, 0)),
        (b"redis_version:7.x.1\r\n", (7, 1, 0)),
        (b"# Server\r\n", (0, 0, 0)),
        (b"", (0, 0, 0)),
    ],
)
def test_the_version(text, version):
    assert version_of(facts(text)) == version


@pytest.mark.parametrize("policy", POLICIES)
def test_a_bound_and_a_policy_make_a_risk(policy):
    told = {"maxmemory": "1000", "maxmemory_policy": policy}
    assert EvictionRisk.of("u", told) == EvictionRisk("u", policy, 1000)
    assert EvictionRisk.of("u", {**told, "maxmemory": "0"}) is None
    assert EvictionRisk.of("u", {**told, "maxmemory_policy": "noeviction"}) is None
    assert EvictionRisk.of("u", {**told, "maxmemory": "much"}) is None
    assert EvictionRisk.of("u", {}) is None


def test_it_is_told_to_listeners_or_else_logged(caplog):
    risk = EvictionRisk("redis://h", "allkeys-lru", 1000)
    with capture_events() as events:
        tell(risk)
    assert events == [risk]
    assert not caplog.records
    tell(risk)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aiopatterns", logging.WARNING)
    assert "maxmemory-policy noeviction" in record.getMessage()


@pytest.fixture(scope="module")
def evicting():
    config = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with RedisServer(private=True, config=config) as server:
        server.command("ACL", "SETUSER", "poor", "on", ">p", "~*", "&*", "+@all", "-config")
        yield server


@pytest.mark.real
@pytest.mark.parametrize("kind", ["queue", "log", "lease"])
async def test_whoever_relies_on_it_is_warned_once(evicting, kind):
    url = evicting.url.replace("unix://", "unix://poor:p@")
    backend = open_backend(url)
    with capture_events() as events:
        getattr(backend, kind)("before")
        assert not events
        async with backend:
            getattr(backend, kind)("after")
        async with backend:
            getattr(backend, kind)("again")
    assert events == [EvictionRisk(backend.url, "allkeys-lru", 100 << 20)]
    with capture_events() as events:
        async with open_backend(url) as other:
            assert not events
            getattr(other, kind)("first")
            assert len(events) == 1


@pytest.mark.real
async def test_a_cache_is_not_warned_of(evicting, redis_url):
    with capture_events() as events:
        async with open_backend(evicting.url) as backend:
            await backend.kv.set("a", b"1", ttl=1)
            await backend.limiter("l").acquire("k", RATE)
        async with open_backend(redis_url) as backend:
            backend.queue("q")
    assert not events
