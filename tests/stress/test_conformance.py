"""The suites of all protocols on servers of other kinds: older, newer, clusters, behind Sentinels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.context import new_id
from aiopatterns.testing.conformance import cases, suites
from aiopatterns.testing.servers import RedisCluster, RedisSentinel, RedisServer

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.timeout(120)]

SERVERS: dict[str, Callable[[], Any]] = {
    "on PATH": lambda: RedisServer(private=True),
    "6.2": lambda: RedisServer(version="6.2"),
    "8.2": lambda: RedisServer(version="8.2"),
    "cluster": RedisCluster,
    "sentinel": RedisSentinel,
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with SERVERS[request.param]() as server:
        yield server


@pytest.mark.promise("backends-conformance", "fault-19-redis-versions")
@pytest.mark.parametrize("subject", suites)
async def test_every_server_conforms(server, subject, figures):
    failed, chosen = [], cases(subject, unit=0.05)
    for case in chosen:
        # A namespace for each case: nothing is left of the one before that matters.
        async with open_backend(server.url, namespace=new_id()) as backend:
            try:
                await case(backend)
            except Exception as error:
                error.add_note(str(case))
                failed.append(error)
    figures.record("cases failed", len(failed), f"of {len(chosen)}")
    if failed:
        raise ExceptionGroup(f"{len(failed)} cases", failed)
