from __future__ import annotations

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.testing import servers


def test_all_servers_have_one_place():
    assert servers.RedisServer is RedisServer
    assert all(hasattr(servers, name) for name in servers.__all__)
    assert [each.version for each in servers.installed_binaries()]
