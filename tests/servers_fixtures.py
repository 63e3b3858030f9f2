"""Fixtures with real servers: one of each for a test process, and a look at what tests leave there.

``redis_url`` is what most tests want: the URL of a private server, empty at the start. When the
test is over, every key must have a TTL or an owner that bounds it, and every connection must be
closed. A test (or a module, by ``pytestmark``) that leaves keys on purpose says so::

    @pytest.mark.leaves("{ap:q:*}:config")

Tests that stop, kill, fill or configure a server start one of their own:
``RedisServer(private=True)``.

If ``AIOPATTERNS_TEST_REDIS_URL`` names an existing server, each test process has a database of its
own there, and only keys that appeared during a test are deleted.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.testing.postgres import PostgresServer
from aiopatterns.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["fault_proxy", "postgres_dsn", "postgres_server", "redis_server", "redis_url"]

# Keys without a TTL that every test may leave: pattern -> who bounds them.
OWNED: dict[str, str] = {}

_LASTING_KEYS = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then found[#found + 1] = key end
end
return found
"""
_CLOSE_WITHIN = 1.0
_PAUSE = 0.005


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests of this process. It is shared: read and write, but leave it whole."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[str]:
    """The URL of an empty database; what the test leaves there is looked at afterwards."""
    url = redis_server.url if redis_server.private else own_database(redis_server.url)
    with Wire(url) as wire:
        if redis_server.private:
            wire.call("FLUSHALL")
        others = texts(wire.call("KEYS", "*"))
    yield url
    marks = request.node.iter_markers("leaves")
    allowed = [*OWNED, *(each for mark in marks for each in mark.args)]
    with Wire(url) as wire:
        unowned = without(take_lasting(wire, others), allowed)
        assert not unowned, f"nobody owns these keys without a TTL (see {__file__}): {unowned}"
        if redis_server.private:
            assert_no_connections(wire)


@pytest.fixture
def fault_proxy(redis_url: str) -> FaultProxy:
    """A proxy in front of the server; the test opens it: ``async with fault_proxy as proxy:``."""
    return FaultProxy(redis_url)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this process; it is shared, so it is not killed either."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> str:
    """How to connect to a database that nobody has used before."""
    import psycopg

    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        name = f"t{uuid4().hex}"
        connection.execute(f'create database "{name}"')
    return postgres_server.dsn_of(name)


def own_database(url: str) -> str:
    """Return ``url`` with the database of this test process: 0, or the number of the worker."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.netloc}{parts.path}?db={worker}"
    return parts._replace(path=f"/{worker}").geturl()


def take_lasting(wire: Wire, others: Collection[str]) -> set[str]:
    """Delete all keys but ``others`` and return those that had no TTL."""
    lasting = texts(wire.call("EVAL", _LASTING_KEYS, 0)).difference(others)
    if left := texts(wire.call("KEYS", "*")).difference(others):
        wire.call("DEL", *left)
    return lasting


def without(keys: Collection[str], patterns: Collection[str]) -> list[str]:
    """Return the keys that no pattern covers."""
    return sorted(key for key in keys if not any(fnmatchcase(key, each) for each in patterns))


def texts(reply: object) -> set[str]:
    assert isinstance(reply, list)
    return set(reply)


def assert_no_connections(wire: Wire) -> None:
    """Fail if any connection but ``wire`` stays open; a server needs a moment to see them go."""
    me = wire.call("CLIENT", "ID")
    never = Event()
    others: list[str] = []
    for _ in range(int(_CLOSE_WITHIN / _PAUSE)):
        clients = str(wire.call("CLIENT", "LIST")).splitlines()
        others = [each for each in clients if not each.startswith(f"id={me} ")]
        if not others:
            return
        never.wait(_PAUSE)
    pytest.fail("connections left open:\n" + "\n".join(others))
