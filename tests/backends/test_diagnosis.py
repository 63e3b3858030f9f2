from __future__ import annotations

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.diagnosis import acl_rule, diagnose
from aiopatterns.backends.redis.rights import acl_rule as rule


@pytest.mark.real
async def test_a_server_is_diagnosed(redis_url, redis_server):
    async with open_backend(redis_url) as backend:
        found = await diagnose(backend)
    assert found is not None
    assert found.version == redis_server.version


async def test_memory_has_no_server():
    async with open_backend("memory://") as backend:
        assert await diagnose(backend) is None


def test_the_rule_is_that_of_redis():
    assert acl_rule("shop", namespace="shop") == rule("shop", namespace="shop")
