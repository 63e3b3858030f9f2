"""The suites on servers of other kinds: embedded, older, newer, clusters, behind Sentinels.

On memory and on the usual server each suite is a test module: tests/testing/test_conformance_*.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.queue import DEAD_TTL, NewJob
from aiopatterns.core.context import new_id
from aiopatterns.testing import simulate
from aiopatterns.testing.conformance import cases, suites
from aiopatterns.testing.conformance_base import Hand
from aiopatterns.testing.servers import RedisCluster, RedisSentinel, RedisServer

SERVERS: dict[str, Callable[[], Any]] = {
    "6.2": lambda: RedisServer(version="6.2"),
    "8.2": lambda: RedisServer(version="8.2"),
    "cluster": RedisCluster,
    "sentinel": RedisSentinel,
}


@pytest.mark.real
@pytest.mark.promise("backends-conformance")
async def test_the_embedded_server_conforms():
    for case in cases("backend", "lease", unit=0.03):
        async with open_backend("embedded://") as backend:
            await case(backend)


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with SERVERS[request.param]() as server:
        yield server


@pytest.mark.real
@pytest.mark.stress
@pytest.mark.timeout(120)
@pytest.mark.promise("backends-conformance")
@pytest.mark.parametrize("subject", suites)
async def test_every_server_conforms(server, subject):
    failed = []
    for case in cases(subject, unit=0.05):
        # A namespace for each case: nothing is left of the one before that matters.
        async with open_backend(server.url, namespace=new_id()) as backend:
            try:
                await case(backend)
            except Exception as error:
                error.add_note(str(case))
                failed.append(error)
    if failed:
        raise ExceptionGroup(f"{len(failed)} cases", failed)


@pytest.mark.real
async def test_a_publisher_learns_how_many_received(redis_url):
    """On a cluster only those of one node are known, so the suites do not ask."""
    for url in ("memory://", redis_url):
        async with open_backend(url) as backend, backend.pubsub.subscribe("c"):
            assert await backend.pubsub.publish("c", b"") == 1
            assert await backend.pubsub.publish("d", b"") == 0


def _use(make) -> None:
    """Use one backend object on two loops, one after the other."""
    backend = make()

    async def use(number: int) -> bytes | None:
        async with backend:
            await backend.kv.set("k", b"%d" % number)
            await backend.queue("q").enqueue([NewJob(str(number), b"")])
            assert await Hand(backend.queue("q"), f"w{number}").work_off() == [str(number)]
            async with backend.pubsub.subscribe("c") as notices:
                await backend.pubsub.publish("c", b"hello")
                assert (await anext(notices)).data == b"hello"
            return await backend.kv.get("k")

    assert [asyncio.run(use(number)) for number in range(2)] == [b"0", b"1"]


def test_a_memory_backend_goes_from_loop_to_loop():
    _use(lambda: open_backend("memory://"))


@pytest.mark.real
@pytest.mark.leaves("*")
def test_a_redis_backend_goes_from_loop_to_loop(redis_url):
    _use(lambda: open_backend(redis_url))


def test_dead_letters_are_kept_for_seven_days():
    """In virtual time; on Redis the keys have that life, which its own tests look at."""

    async def main():
        async with MemoryBackend("ap") as backend:
            queue = backend.queue("q")
            hand = Hand(queue, "w", lease=DEAD_TTL * 2)
            await queue.enqueue([NewJob("a", b"")])
            await hand.take()
            await hand.settle("dead", "a")
            await asyncio.sleep(DEAD_TTL - 1)
            assert await queue.states(["a"]) == {"a": "dead"}
            await asyncio.sleep(2)
            assert await queue.states(["a"]) == {"a": "unknown"}
            assert (await queue.counts()).dead == 0

    simulate(main)


def test_a_token_of_a_log_is_known_for_ten_minutes():
    async def main():
        async with MemoryBackend("ap") as backend:
            log = backend.log("events")
            ids = await log.append_many([b"1"], token="call")
            await asyncio.sleep(599)
            assert await log.append_many([b"1"], token="call") == ids
            await asyncio.sleep(601)
            assert await log.append_many([b"1"], token="call") != ids

    simulate(main)
