from __future__ import annotations

import asyncio

import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing.proxy import FaultProxy
from tests.backends.redis.fakeserver import FakeServer, info, open_backend

pytestmark = [pytest.mark.real, pytest.mark.leaves("*")]


async def test_the_parts(redis_url):
    backend = open_backend(redis_url)
    assert backend.scheme == "redis"
    assert redis_url in repr(backend)
    async with backend as entered:
        assert entered is backend
        assert backend.kv is backend.kv
        assert backend.pubsub is backend.pubsub
        for part in (backend.queue, backend.log, backend.lease, backend.limiter, backend.directory):
            assert part("name") is not None
        assert backend.log("name") is backend.log("name")
        assert 1.7e9 < await backend.time() < 5e9


async def test_users_share_one_opening(redis_url):
    backend = open_backend(redis_url)

    async def use():
        async with backend:
            await backend.time()
            await sleep(0.01)
            await backend.time()

    await asyncio.gather(*(use() for _ in range(20)))
    statistics = backend.statistics()
    assert statistics.users == 0
    assert not backend.client.is_open
    with pytest.raises(ClosedError):
        await backend.time()


async def test_the_last_user_closes(redis_url):
    backend = open_backend(redis_url)
    async with backend:
        async with backend:
            assert backend.statistics().users == 2
        await backend.time()
    with pytest.raises(ClosedError):
        await backend.kv.get("a")
    with pytest.raises(ClosedError):
        await backend.__aexit__(None, None, None)


async def test_two_loops_at_once_are_refused(redis_url):
    backend = open_backend(redis_url)

    async def elsewhere():
        async with backend:
            return await backend.time()

    async with backend:
        with pytest.raises(RuntimeError, match="is open on another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        assert backend.statistics().users == 1
        assert await backend.time()
    assert await asyncio.to_thread(asyncio.run, elsewhere())


async def test_entering_and_leaving_at_any_moment(redis_url):
    backend = open_backend(redis_url)

    async def use(number):
        for _ in range(number % 7):
            await sleep(0)
        for _ in range(3):
            async with backend:
                await backend.time()
            await sleep(0)

    for _ in range(5):
        await asyncio.gather(*(use(n) for n in range(10)))
        assert not backend.client.is_open
        assert backend.statistics().users == 0


async def test_entered_while_it_is_closed(redis_url):
    backend = open_backend(redis_url)
    for turns in range(12):
        await backend.__aenter__()
        leaving = asyncio.create_task(backend.__aexit__(None, None, None))
        for _ in range(turns):
            await sleep(0)
        async with backend:
            await backend.time()
        await leaving
        assert not backend.client.is_open


def test_opened_on_one_loop_after_another(redis_url):
    backend = open_backend(redis_url)

    async def use():
        async with backend, backend.pubsub.subscribe("a"):
            line = backend.client.line("x")
            await asyncio.gather(*(line.call("PING") for _ in range(3)))
            await backend.time()

    for _ in range(3):
        asyncio.run(use())


@pytest.mark.promise("backends-opening-bounded")
async def test_nobody_is_there(tmp_path):
    url = f"unix://:s3cr3t@{tmp_path}/none"
    backend = open_backend(url)
    began = monotonic()
    got = await asyncio.gather(*(backend.__aenter__() for _ in range(5)), return_exceptions=True)
    assert monotonic() - began < 2
    assert {type(each) for each in got} == {BackendUnavailableError}
    message = str(got[0])
    assert "s3cr3t" not in message
    assert f"unix://:***@{tmp_path}/none" in message
    assert "embedded://" in message
    assert backend.statistics().users == 0


@pytest.mark.promise("backends-opening-bounded")
async def test_whoever_is_there_does_not_answer():
    async with FakeServer(lambda words: b"", greet=False) as server:
        began = monotonic()
        with pytest.raises(BackendUnavailableError, match=r"no answer within 0\.2 s"):
            await open_backend(server.url, timeout=0.2).__aenter__()
        assert monotonic() - began < 1
    async with FakeServer(lambda words: b"") as server:
        with pytest.raises(BackendUnavailableError, match=r"silent for 0\.2 s"):
            await open_backend(server.url, timeout=0.2).__aenter__()


async def test_a_wrong_password_is_told(redis_url):
    with pytest.raises(BackendError, match=r"WRONGPASS|AUTH") as caught:
        await open_backend(redis_url.replace("unix://", "unix://:s3cr3t@")).__aenter__()
    assert type(caught.value) is BackendError
    assert "s3cr3t" not in str(caught.value)


async def test_cancelled_while_it_opens():
    async with FakeServer(lambda words: b"") as server:
        backend = open_backend(server.url)
        task = asyncio.create_task(backend.__aenter__())
        while len(server.seen) < 2:
            await sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backend.statistics().users == 0
        server.answer = lambda words: info()
        async with backend:
            pass


async def test_one_who_gives_up_does_not_hurt_the_others():
    async with FakeServer(lambda words: b"") as server:
        backend = open_backend(server.url)
        tasks = [asyncio.create_task(backend.__aenter__()) for _ in range(3)]
        while len(server.seen) < 2:
            await sleep(0.001)
        tasks[0].cancel()
        await asyncio.wait((tasks[0],))
        server.push(info())
        assert await tasks[1] is backend
        assert await tasks[2] is backend
        assert backend.statistics().users == 2
        for _ in range(2):
            await backend.__aexit__(None, None, None)


async def test_one_comes_in_the_turn_in_which_the_other_gives_up():
    async with FakeServer(lambda words: b"") as server:
        for turns in range(6):
            server.answer = lambda words: b""
            server.seen.clear()
            backend = open_backend(server.url)
            first = asyncio.create_task(backend.__aenter__())
            while len(server.seen) < 2:
                await sleep(0.001)
            server.answer = lambda words: info()
            first.cancel()
            server.push(info())  # for the attempt under way, if somebody joins that
            for _ in range(turns):
                await sleep(0)
            async with backend:
                assert backend.client.is_open
                await asyncio.wait((first,))
                assert first.cancelled()
                assert backend.client.is_open
                assert await backend.client.read("GET", "a") is not None
            assert backend.statistics().users == 0


async def test_the_bodys_own_error_leaves_bare(redis_url):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_backend(redis_url):
            raise error
    assert caught.value is error


async def test_cancelled_while_it_closes(redis_url):
    """However often: everything is hung up, and it can be opened again."""
    for turns in range(1, 8):
        backend = open_backend(redis_url)
        await backend.__aenter__()
        await backend.client.line("x").call("PING")
        subscription = backend.pubsub.subscribe("a")
        await subscription.__aenter__()
        task = asyncio.create_task(backend.__aexit__(None, None, None))
        for _ in range(turns):
            await sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert not backend.client.is_open
        async with backend:
            await backend.time()


async def test_what_is_under_way_when_it_closes(redis_url):
    async with FaultProxy(redis_url) as proxy:
        backend = open_backend(proxy.url)
        async with backend:
            proxy.partition()
            read = asyncio.create_task(backend.client.read("GET", "a"))
            once = asyncio.create_task(backend.client.once("INCR", "a"))
            await sleep(0.05)
        with pytest.raises(ClosedError):
            await read
        with pytest.raises(BackendUnavailableError, match="the backend was closed"):
            await once
        proxy.heal()


async def test_a_private_server(tmp_path):
    backend = open_backend("embedded://")
    async with backend:
        await backend.kv.set("a", b"1")
        async with backend:
            assert await backend.kv.get("a") == b"1"
        assert backend._server is not None
        pid = backend._server.pid
    assert backend._server is None
    with pytest.raises(ProcessLookupError):
        import os

        os.kill(pid, 0)
    async with backend:
        assert await backend.kv.get("a") is None


async def test_a_private_server_with_data(tmp_path):
    async with open_backend(f"embedded://{tmp_path}/data") as backend:
        await backend.kv.set("a", b"1")
    async with open_backend(f"embedded://{tmp_path}/data") as backend:
        assert await backend.kv.get("a") == b"1"


async def test_a_private_server_that_does_not_open(monkeypatch, tmp_path):
    monkeypatch.setattr("aiopatterns.backends.redis.client._FLOOR", (99, 0, 0))
    backend = open_backend("embedded://")
    with pytest.raises(BackendError, match="or newer is needed"):
        await backend.__aenter__()
    assert backend._server is None
