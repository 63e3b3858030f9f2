"""Scans: cursors that are good for one server process, in one namespace."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends.redis.scanning import page
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.testing.clusters import RedisCluster
from tests.backends.redis.fakeserver import FakeServer, info, open_backend

pytestmark = [pytest.mark.real, pytest.mark.leaves("ap:kv:*", "others*", "other:kv:*")]


@pytest.fixture(scope="module")
def cluster():
    with RedisCluster() as opened:
        yield opened


async def scanned(kv, prefix, limit=1_000):
    """All keys, and how many pages they came in."""
    found, pages, cursor = set(), 0, None
    while cursor is not None or not pages:
        keys, cursor = await kv.scan(prefix, cursor=cursor, limit=limit)
        found.update(keys)
        pages += 1
    return found, pages


async def test_only_keys_of_the_namespace_are_seen(redis_url):
    async with open_backend(redis_url) as backend, open_backend(redis_url, namespace="other") as b:
        await backend.kv.set_many(dict.fromkeys([f"k{n}" for n in range(200)], b"1"))
        await b.kv.set("k-other", b"1")
        with Wire(redis_url) as wire:
            wire.call("SET", "others-k", "1")
            wire.call("SET", b"ap:kv:k\xff", "1")  # no key of ours
        found, pages = await scanned(backend.kv, "k", limit=10)
        assert found == {f"k{n}" for n in range(200)}
        assert pages > 10
        assert (await scanned(b.kv, "k"))[0] == {"k-other"}
        with Wire(redis_url) as wire:
            wire.call("DEL", b"ap:kv:k\xff")


async def test_all_servers_of_a_cluster_are_asked(cluster):
    keys = {f"k{n}" for n in range(300)}
    async with open_backend(cluster.url) as backend:
        await backend.kv.set_many(dict.fromkeys(keys, b"1"))
        assert min(int(node.command("DBSIZE")) for node in cluster.nodes) > 50
        for limit in (10, 10_000):
            found, pages = await scanned(backend.kv, "k", limit)
            assert found == keys
            assert pages >= 3
        await backend.kv.delete(*keys)


async def test_servers_that_are_others_end_a_scan(cluster):
    async with open_backend(cluster.url) as backend:
        first = await backend.kv.scan("k")
        assert first.cursor is not None
        route: Any = backend.client.route()
        route._nodes.reverse()
        with pytest.raises(BackendUnavailableError, match="cut short"):
            await backend.kv.scan("k", cursor=first.cursor)


async def test_a_lost_connection_ends_a_scan(fault_proxy):
    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        await backend.kv.set_many(dict.fromkeys([f"k{n}" for n in range(100)], b"1"))
        first = await backend.kv.scan("k", limit=10)
        proxy.drop_replies(matching=b"SCAN")
        with pytest.raises(BackendUnavailableError):
            await backend.kv.scan("k", cursor=first.cursor, limit=10)
        await backend.kv.get("k1")
        with pytest.raises(BackendUnavailableError, match="cut short"):
            await backend.kv.scan("k", cursor=first.cursor, limit=10)
        assert len((await scanned(backend.kv, "k"))[0]) == 100


async def test_a_connection_that_was_lost_before_the_page_came():
    def answer(words):
        if words[0] == b"INFO":
            return info()
        backend.client.tally.reconnects += 1
        return b"*2\r\n$1\r\n0\r\n*0\r\n"

    async with FakeServer(answer) as server, open_backend(server.url) as backend:
        with pytest.raises(BackendUnavailableError, match="cut short"):
            await backend.kv.scan("k")


async def test_a_refusal_is_an_error_of_the_backend():
    def answer(words):
        return info() if words[0] == b"INFO" else b"-NOPERM this user has no permissions\r\n"

    async with FakeServer(answer) as server, open_backend(server.url) as backend:
        with pytest.raises(BackendError, match="NOPERM"):
            await page(backend.client, "ap:kv:k", cursor=None, limit=10)
        assert [words for words in server.seen if words[0] == b"SCAN"] == [
            [b"SCAN", b"0", b"MATCH", b"ap:kv:k*", b"COUNT", b"10"]
        ]
