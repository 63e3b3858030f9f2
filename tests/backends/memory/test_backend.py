from __future__ import annotations

import anyio
import pytest

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.backends.protocols import Backend
from aiopatterns.core.clock import wall
from aiopatterns.core.errors import ClosedError


def test_making_one_does_nothing_and_tells_where_it_is():
    backend: Backend = MemoryBackend(namespace="mine")
    assert (backend.url, backend.scheme) == ("memory://", "memory")
    with pytest.raises(ValueError, match="namespace must be a non-empty string"):
        MemoryBackend(namespace="")


async def test_entries_are_counted_and_may_overlap():
    backend = MemoryBackend()

    async def use(number: int) -> None:
        async with backend as same:
            assert same is backend
            await anyio.sleep(0.001 * number)
            await backend.kv.set(f"{number}", b"")

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(use, number)
    with pytest.raises(ClosedError):
        await backend.kv.get("0")
    async with backend:
        assert len(await backend.kv.get_many(["0", "1", "2"])) == 3


async def test_state_is_found_by_its_name():
    async with MemoryBackend() as backend:
        assert backend.log("a") is backend.log("a")
        assert backend.directory("a") is backend.directory("a")
        assert backend.queue("a") is backend.queue("a")
        assert backend.log("a") is not backend.log("b")
        assert backend.queue("a") is not backend.queue("b")
        for get in (
            backend.log,
            backend.directory,
            backend.queue,
            backend.lease,
            backend.limiter,
        ):
            with pytest.raises(ValueError, match="name must be a non-empty string"):
                get("")


async def test_each_is_a_space_of_its_own():
    async with MemoryBackend() as one, MemoryBackend() as other:
        await one.kv.set("a", b"1")
        assert await other.kv.get("a") is None


async def test_time_is_that_of_the_wall():
    backend = MemoryBackend()
    with pytest.raises(ClosedError):
        await backend.time()
    async with backend:
        assert await backend.time() == pytest.approx(wall(), abs=1)
