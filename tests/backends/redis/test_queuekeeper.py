"""The keeper renews a lease from a thread of its own, whatever the loop does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import sleep as block

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.queue import NewJob, Turn
from aiopatterns.backends.redis import queuekeeper
from aiopatterns.backends.redis.backend import RedisBackend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.url import Address, parse
from aiopatterns.core.errors import BackendError, BackendUnavailableError

pytestmark = [pytest.mark.real, pytest.mark.leaves("{ap:q:*")]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisBackend]:
    async with open_backend(url) as backend:
        assert isinstance(backend, RedisBackend)
        yield backend


async def test_it_keeps_a_lease_while_the_loop_is_blocked(redis_url):
    async with opened(redis_url) as backend:
        queue = backend.queue("q")
        await queue.enqueue([NewJob("a", b"")])
        await queue.step(Turn("w", 1, 0.1, (), 1))
        keeper = queue.keeper("w", lease=30.0)
        thread = asyncio.to_thread(keeper)
        renewing = asyncio.ensure_future(thread)
        await asyncio.sleep(0.01)
        block(0.15)  # the loop is blocked beyond the lease of the step
        assert await renewing
        await queue.step(Turn("other", 1, 15.0))
        assert [job.id for job in await queue.held("w")] == ["a"]
        keeper.close()


async def test_it_tells_that_the_worker_is_not_known_any_more(redis_url):
    async with opened(redis_url) as backend:
        queue = backend.queue("q")
        keeper = queue.keeper("w", lease=30.0)
        assert not await asyncio.to_thread(keeper)
        await queue.step(Turn("w", 1, 15.0))
        assert await asyncio.to_thread(keeper)
        await queue.step(Turn("w", 2, 15.0, leave=True))
        assert not await asyncio.to_thread(keeper)
        keeper.close()


async def test_it_connects_anew_and_hangs_up_with_its_end(redis_url):
    async with opened(redis_url) as backend:
        queue = backend.queue("q")
        await queue.step(Turn("w", 1, 15.0))
        keeper = queue.keeper("w", lease=30.0)
        assert await asyncio.to_thread(keeper)
        await backend.client.once("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(BackendUnavailableError):
            await asyncio.to_thread(keeper)
        assert await asyncio.to_thread(keeper)
        del keeper
        gc.collect()


async def test_user_password_and_database_are_used():
    with RedisServer(private=True) as server:
        server.command("ACL", "SETUSER", "anna", "on", ">s3cret", "~*", "&*", "+@all")
        path = server.url.removeprefix("unix://")
        async with opened(f"unix://anna:s3cret@{path}?db=3") as backend:
            queue = backend.queue("q")
            await queue.step(Turn("w", 1, 15.0))
            keeper = queue.keeper("w", lease=30.0)
            assert await asyncio.to_thread(keeper)
            server.command("ACL", "SETUSER", "anna", "resetpass", ">other")
            keeper.close()
            with pytest.raises(BackendError, match="WRONGPASS") as caught:
                await asyncio.to_thread(keeper)
            assert "s3cret" not in str(caught.value)


async def test_it_speaks_over_a_port_and_says_when_nobody_answers():
    with RedisServer(port=0, private=True) as server:
        port = _free_port()
    with RedisServer(port=port) as server:
        async with opened(f"redis://127.0.0.1:{port}") as backend:
            queue = backend.queue("q")
            await queue.step(Turn("w", 1, 15.0))
            keeper = queue.keeper("w", lease=30.0)
            assert await asyncio.to_thread(keeper)
            server.kill()
            for _ in range(2):
                with pytest.raises(BackendUnavailableError):
                    await asyncio.to_thread(keeper)


async def test_it_speaks_tls_where_the_url_says_so(monkeypatch):
    wrapped = []

    class Context:
        def wrap_socket(self, plain, *, server_hostname):
            wrapped.append(server_hostname)
            return plain

    monkeypatch.setattr(queuekeeper, "tls_context", lambda target: Context())
    port = _free_port()
    with RedisServer(port=port):

        async def locate() -> Address:
            return Address("127.0.0.1", port)

        target = parse(f"rediss://127.0.0.1:{port}")
        keeper = queuekeeper.Keeper(target, locate, tag="{ap:q:q}", worker="w", lease=1)
        assert not await asyncio.to_thread(keeper)
        assert wrapped == ["127.0.0.1"]
        keeper.close()


async def test_a_socket_that_is_gone_is_told():
    with RedisServer(private=True) as server:
        async with opened(server.url) as backend:
            keeper = backend.queue("q").keeper("w", lease=30.0)
            server.kill()
            with pytest.raises(BackendUnavailableError):
                await asyncio.to_thread(keeper)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
