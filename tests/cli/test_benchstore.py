from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.cli.benchstore import store_cases
from tests.jobs.fleet import on_one_loop

NAMES = [each.name for each in store_cases(open_backend("memory://"), "any")]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
async def test_a_case_does_what_it_is_told(number):
    async with open_backend("memory://") as backend, AsyncExitStack() as stack:
        case = store_cases(backend, "over memory://")[number]
        assert case.group == "over memory://"
        run = await case.open(stack)
        for count in (1, 2, 70):
            await run(count)


@pytest.mark.real
@on_one_loop
async def test_the_same_cases_on_a_server():
    async with RedisServer(private=True) as server, open_backend(server.url) as backend:
        for case in store_cases(backend, "over redis"):
            async with AsyncExitStack() as stack:
                run = await case.open(stack)
                await run(3)
                await run(1)
