from __future__ import annotations

import asyncio
import socket

import pytest
from anyio import create_task_group, fail_after
from redis.asyncio.cluster import RedisCluster as ClusterClient
from redis.asyncio.sentinel import Sentinel as SentinelClient

from aiopatterns.backends.redis.embedded import EXISTING, RedisServer
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing import clusters
from aiopatterns.testing.clusters import RedisCluster, RedisSentinel

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster():
    with RedisCluster() as started:
        yield started


def test_a_cluster_serves_all_slots(cluster):
    owners = {cluster.owner(f"k{n}") for n in range(30)}
    assert owners == {0, 1, 2}
    for node in cluster.nodes:
        assert "cluster_slots_ok:16384" in str(node.command("CLUSTER", "INFO"))
    assert cluster.url.startswith("redis+cluster://127.0.0.1:")
    assert cluster.url.count(",") == 2
    with pytest.raises(RuntimeError, match="runs already"):
        cluster.start()


async def test_a_slot_moves_under_load_and_nobody_notices(cluster):
    async with ClusterClient.from_url(cluster.nodes[0].tcp_url) as client:
        sent = 0
        done = asyncio.Event()

        async def write():
            nonlocal sent
            while not done.is_set():
                await client.xadd("{slot}:log", {"n": sent})
                await client.set(f"{{slot}}:{sent % 50}", sent)
                sent += 1
                await sleep(0)

        await client.delete("{slot}:log")
        before = cluster.owner("{slot}")
        async with create_task_group() as tg:
            tg.start_soon(write)
            for to in ((before + 1) % 3, (before + 2) % 3):
                await sleep(0.05)
                await cluster.move_slot("{slot}", to=to)
                assert cluster.owner("{slot}") == to
                await cluster.move_slot("{slot}", to=to)  # it is there already
            await sleep(0.05)
            done.set()
        assert await client.xlen("{slot}:log") == sent > 20


async def test_there_is_no_such_node(cluster):
    with pytest.raises(ValueError, match="to must be between 0 and 2"):
        await cluster.move_slot("k", to=3)


def test_a_reply_that_makes_no_sense(cluster, monkeypatch):
    with pytest.raises(BackendError, match="that is none: 'nonsense'"):
        [*clusters._ranges(["nonsense"])]


def test_a_slot_that_nobody_has():
    one = RedisServer(config={"cluster-enabled": "yes"}, port=clusters._free_ports(1)[0])
    with one:
        lonely = RedisCluster()
        lonely._nodes = (one,)
        with pytest.raises(BackendError, match="no node has slot"):
            lonely.owner("k")


@pytest.fixture(scope="module")
def pair():
    with RedisSentinel("orders", down_after=0.2) as started:
        yield started


async def test_the_replica_takes_over_from_a_dead_primary(pair):
    first = pair.primary
    assert pair.replica is not first
    assert set(pair.servers) == {first, pair.replica}
    with fail_after(30):  # a server that was down needs a moment to learn its role
        while "role:slave" not in str(pair.replica.command("INFO", "replication")):
            await sleep(0.02)
    hosts = pair.url.removeprefix("redis+sentinel://").removesuffix("/orders").split(",")
    ask = SentinelClient([tuple(each.split(":")) for each in hosts])
    writer = ask.master_for("orders")
    await writer.set("k", 1)
    with fail_after(30):
        while pair.replica.command("GET", "k") != "1":
            await sleep(0.01)
        first.kill()
        while pair.primary is first:
            await sleep(0.02)
        second = pair.primary
        while "role:master" not in str(second.command("INFO", "replication")):
            await sleep(0.02)
        first.restart()
        first.command("REPLICAOF", "127.0.0.1", second.tcp_url.rpartition(":")[2])
        while pair.replica.command("GET", "k") != "1":
            await sleep(0.01)
    assert second.command("GET", "k") == "1"
    assert pair.replica is first
    await writer.aclose()
    for each in ask.sentinels:
        await each.aclose()
    with pytest.raises(RuntimeError, match="runs already"):
        pair.start()


@pytest.mark.parametrize("kind", [RedisCluster, RedisSentinel])
def test_what_cannot_come_up_leaves_nothing(kind, monkeypatch):
    monkeypatch.setattr(RedisCluster, "_agree", lambda self: False)
    monkeypatch.setattr(RedisSentinel, "_know_each_other", lambda self: False)
    monkeypatch.setenv(EXISTING, "unix:///nowhere")  # is not drawn in
    group = kind(start_timeout=0.5)
    pids = []
    stop = RedisServer.stop

    def noting(self):
        pids.append(self.pid)
        stop(self)
        assert not self.running

    monkeypatch.setattr(RedisServer, "stop", noting)
    with pytest.raises(BackendUnavailableError, match="agreement within"):
        group.start()
    assert len(pids) >= 2
    with pytest.raises(ClosedError):
        _ = group.url
    group.stop()


def test_a_sentinel_pair_that_fails_early_leaves_nothing(monkeypatch):
    monkeypatch.setattr(clusters, "_free_ports", lambda number: [1] * number)
    pair = RedisSentinel(config={"appendonly": "perhaps"})
    with pytest.raises(BackendUnavailableError, match="did not start"):
        pair.start()
    with pytest.raises(ClosedError, match="with RedisSentinel"):
        _ = pair.servers


def test_what_is_not_started_says_how():
    with pytest.raises(ClosedError, match="with RedisCluster"):
        _ = RedisCluster().url
    with pytest.raises(ClosedError, match="with RedisSentinel"):
        _ = RedisSentinel().url


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RedisCluster(2), "nodes"),
        (lambda: RedisCluster(start_timeout=0), "start_timeout must"),
        (lambda: RedisSentinel(down_after=0), "down_after"),
        (lambda: RedisSentinel(start_timeout=-1), "start_timeout"),
        (lambda: RedisSentinel(""), "service"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_ports_in_use_are_passed_over(monkeypatch):
    class Dice:
        def sample(self, ports, number):
            return [taken, bus - 10000, *ports]

    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        taken, bus = one.getsockname()[1], two.getsockname()[1]
        assert not clusters._is_free(taken)
        monkeypatch.setattr(clusters, "rng", Dice)
        monkeypatch.setattr(clusters, "_is_free", _only_free(taken, bus))
        found = clusters._free_ports(2)
    assert not {taken, bus - 10000} & set(found)
    assert len(found) == 2


def _only_free(*taken):
    is_free = clusters._is_free
    return lambda port: port not in taken and (port > 65535 or is_free(port))
