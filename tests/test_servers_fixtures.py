from __future__ import annotations

import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.wire import Wire
from tests import servers_fixtures
from tests.servers_fixtures import assert_no_connections, own_database, take_lasting, without

pytestmark = pytest.mark.real


@pytest.fixture
def server():
    with RedisServer(private=True) as started:
        yield started


def test_keys_without_a_life_are_found_and_others_are_spared(server):
    with Wire(server.url) as wire:
        wire.call("SET", "theirs", 1)
        wire.call("SET", "lasting", 1)
        wire.call("SET", "mortal", 1, "EX", 60)
        assert take_lasting(wire, {"theirs"}) == {"lasting"}
        assert wire.call("KEYS", "*") == ["theirs"]
        assert take_lasting(wire, {"theirs"}) == set()


def test_patterns_are_owners():
    keys = {"{ap:q:mail}:ctl", "{ap:q:mail}:jobs", "ap:kv:x"}
    assert without(keys, ["{ap:q:*}:ctl", "ap:kv:*"]) == ["{ap:q:mail}:jobs"]


def test_connections_that_stay_open_are_found(server, monkeypatch):
    monkeypatch.setattr(servers_fixtures, "_CLOSE_WITHIN", 0.05)
    with Wire(server.url) as wire:
        assert_no_connections(wire)
        with Wire(server.url), pytest.raises(pytest.fail.Exception, match="left open"):
            assert_no_connections(wire)
        assert_no_connections(wire)


def test_each_process_has_a_database_of_its_own(monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert own_database("redis://host:1") == "redis://host:1/0"
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    assert own_database("redis://:pw@host:1/0") == "redis://:pw@host:1/3"
    assert own_database("unix:///x/r.sock") == "unix:///x/r.sock?db=3"


def test_every_test_begins_with_an_empty_server_and_may_leave_what_lives_for_a_time(redis_url):
    with Wire(redis_url) as wire:
        assert wire.call("DBSIZE") == 0
        wire.call("SET", "mortal", 1, "EX", 60)


def test_databases_of_postgresql_are_fresh(postgres_dsn, postgres_server):
    import psycopg

    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("select count(*) from pg_stat_user_tables").fetchone() == (0,)
    assert postgres_dsn != postgres_server.dsn
