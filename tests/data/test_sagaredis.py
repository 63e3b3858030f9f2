"""Sagas in a backend: its directory is tidied up, and no key lives for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.data import sagaredis
from aiopatterns.data.sagajournal import SagaState
from aiopatterns.data.sagaredis import RedisSagaStore
from aiopatterns.testing import simulate
from tests.data.sagaplaces import filed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
async def store(request) -> AsyncIterator[Any]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    async with RedisSagaStore(url) as found:
        yield found


async def members(store: Any) -> set[str]:
    return set((await store.backend.directory("saga:trip").snapshot()).members)


async def test_the_directory_has_what_has_not_ended(store):
    await store.create(filed(), lease=10)
    await store.create(filed("2"), lease=10)
    assert await members(store) == {"1", "2"}
    await store.save(filed(revision=1, state=SagaState.COMPLETED), lease=0)
    assert await members(store) == {"2"}


async def test_an_id_whose_saga_has_ended_is_tidied_up(store):
    await store.create(filed(), lease=10)
    await store.save(filed(revision=1, state=SagaState.COMPLETED), lease=0)
    await store.create(filed(owner="b"), lease=10)  # it notes the id before it finds it taken
    assert await members(store) == {"1"}
    assert await store.unfinished("trip", limit=10) == []
    assert await members(store) == set()


async def test_an_id_without_a_record_is_left_alone_for_a_while(store):
    await store.create(filed(), lease=10)
    await store.backend.kv.delete(sagaredis._key("trip", "1"))
    assert await store.unfinished("trip", limit=10) == []
    assert await members(store) == {"1"}


def test_an_id_without_a_record_is_tidied_up_later():
    async def scenario() -> None:
        async with RedisSagaStore("memory://") as store:
            await store.create(filed(), lease=10)
            await store.backend.kv.delete(sagaredis._key("trip", "1"))
            await sleep(4_000)
            assert await store.due("trip", "1-x", limit=10) == []
            assert await members(store) == set()

    simulate(scenario)


async def test_names_do_not_run_into_each_other(store):
    assert await store.create(filed("b:c", saga="a"), lease=10)
    assert await store.create(filed("c", saga="a:b"), lease=10)


async def test_a_write_in_between_is_seen(store):
    """The value changes between its reading and its writing, by a renewal of the same holder."""
    await store.create(filed(), lease=10)
    kv, reads = store.backend.kv, 0
    get = kv.get

    class Racing:
        def __getattr__(self, name: str) -> Any:
            return getattr(kv, name)

        async def get(self, key: str) -> bytes | None:
            nonlocal reads
            reads += 1
            data: bytes | None = await get(key)
            if reads == 1:
                assert await store.save(filed(revision=1), lease=20)
            return data

    class Backend:
        kv = Racing()

        def __getattr__(self, name: str) -> Any:
            return getattr(backend, name)

    backend = store.backend
    racing: Any = RedisSagaStore(backend)
    racing._backend = Backend()
    assert await racing.save(filed(revision=2, body=b"newest"), lease=10)
    assert reads == 2
    assert (await store.read("trip", "1")).body == b"newest"


async def test_it_shows_where_it_is_and_refuses_bad_input(store):
    assert repr(store) == f"RedisSagaStore({store.backend.url!r})"
    assert await store.purge() == 0
    with pytest.raises(ValueError, match="keep"):
        RedisSagaStore("memory://", keep=0)
