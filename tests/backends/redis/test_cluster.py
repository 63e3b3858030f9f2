from __future__ import annotations

import asyncio
from contextlib import contextmanager
from secrets import token_hex

import pytest

from aiopatterns.backends.records import GroupTurn
from aiopatterns.backends.redis.cluster import ClusterRoute
from aiopatterns.backends.redis.errors import LostError, RefusalError
from aiopatterns.backends.redis.statistics import Tally
from aiopatterns.backends.url import Address, parse
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.testing.clusters import RedisCluster
from tests.backends.redis.fakeserver import FakeServer, info, open_backend

pytestmark = pytest.mark.real
OK = b"+OK\r\n"


@pytest.fixture(scope="module")
def cluster():
    with RedisCluster(config={"appendonly": "yes", "cluster-node-timeout": "1000"}) as opened:
        yield opened


@pytest.fixture
async def backend(cluster):
    async with open_backend(cluster.url) as opened:
        yield opened
    for node in cluster.nodes:
        node.command("FLUSHALL")


def slots(*ranges):
    """The reply to CLUSTER SLOTS: ``(first, last, host, port)``."""
    out = b"*%d\r\n" % len(ranges)
    for first, last, host, port in ranges:
        name = host.encode()
        out += b"*3\r\n:%d\r\n:%d\r\n*2\r\n" % (first, last)
        out += b"$%d\r\n%b\r\n:%d\r\n" % (len(name), name, port)
    return out


async def test_every_key_finds_its_node(backend, cluster):
    kv = backend.kv
    keys = [f"k{n}" for n in range(300)]
    await kv.set_many({key: key.encode() for key in keys})
    assert await kv.get_many(keys) == {key: key.encode() for key in keys}
    assert await asyncio.gather(*(kv.get(key) for key in keys)) == [key.encode() for key in keys]
    sizes = [node.command("DBSIZE") for node in cluster.nodes]
    assert min(sizes) > 50
    assert sum(sizes) == 300
    before = backend.statistics()
    await kv.get_many(keys)
    after = backend.statistics()
    assert after.round_trips == before.round_trips + 3
    assert after.retries == 0
    assert await kv.delete(*keys) == 300


async def test_scripts_lines_and_messages(backend):
    assert [await backend.kv.incr(f"n{n}") for n in range(20)] == [1] * 20
    line = backend.client.line("mine")
    for key in ("a", "b", "c", "a"):
        assert await line.call("SET", key, key) == b"OK"
        assert await line.call("GET", key) == key.encode()
    async with backend.pubsub.subscribe("news", patterns=["n*"]) as notices:
        for number in range(20):
            await backend.pubsub.publish("news", b"%d" % number)
        assert sorted([int((await anext(notices)).data) for _ in range(20)]) == list(range(20))
    assert await backend.time() > 1.7e9


async def test_messages_of_one_publisher_do_not_overtake_each_other(backend):
    """Not even on different channels, whose slots are on different nodes."""
    run = token_hex(4)  # what an earlier run has published may still be on its way to this node
    channels = [f"news-{run}-{number}" for number in range(10)]
    async with backend.pubsub.subscribe(*channels) as notices:
        for number in range(200):
            await backend.pubsub.publish(channels[number % 10], b"%d" % number)
        assert [int((await anext(notices)).data) for _ in range(200)] == list(range(200))


@pytest.mark.promise("backends-cluster-moves")
async def test_slots_move_under_load(backend, cluster):
    """No caller sees an error; each counter is exact: nothing ran twice, nothing was lost."""
    keys = [f"{{t{n % 4}}}:{n}" for n in range(40)]
    counts = dict.fromkeys(keys, 0)
    stop = False

    async def count(worker):
        line = backend.client.line(f"worker {worker}")
        while not stop:
            for key in keys[worker::4]:
                await backend.kv.incr(key)
                await line.call("INCR", f"ap:kv:{key}", timeout=5)
                counts[key] += 2

    workers = [asyncio.create_task(count(n)) for n in range(4)]
    for turn in range(6):
        tag = f"ap:kv:{{t{turn % 4}}}:x"
        await cluster.move_slot(tag, to=(cluster.owner(tag) + 1) % 3)
        await sleep(0.03)
    stop = True
    await asyncio.gather(*workers)
    assert min(counts.values()) > 0
    found = await backend.kv.get_many(keys)
    assert {key: int(value) for key, value in found.items()} == counts


@contextmanager
def half_moved(cluster, key):
    """The slot of ``key`` is on its way to another node, and gets no further."""
    source = cluster.owner(key)
    target = (source + 1) % 3
    slot = int(cluster.nodes[0].command("CLUSTER", "KEYSLOT", key))
    ids = [str(node.command("CLUSTER", "MYID")) for node in cluster.nodes]
    cluster.nodes[target].command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    cluster.nodes[source].command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    try:
        yield
    finally:
        cluster.nodes[source].command("CLUSTER", "SETSLOT", slot, "STABLE")
        cluster.nodes[target].command("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_a_half_moved_slot_is_asked_for(backend, cluster):
    """New keys are at the target, behind ASK, for as long as it takes."""
    key = "ap:kv:half"
    with half_moved(cluster, key):
        await backend.kv.set("half", b"1")
        assert await backend.kv.get("half") == b"1"
        assert await backend.client.line("x").call("GET", key) == b"1"
        assert await asyncio.gather(*(backend.kv.incr("half") for _ in range(10)))
        assert await backend.kv.get("half") == b"11"


async def test_no_turn_is_half_done_while_its_slot_moves(backend, cluster):
    """All keys are there, but one vanishes by what the turn settles and is missed by its claim."""
    log = backend.log("l")
    await log.create_group("g")
    ids = await log.append_many([b"%d" % number for number in range(5)])
    await log.turn("g", "c", GroupTurn(limit=4))
    buried = dict.fromkeys(ids[:2], b"why")
    await log.turn("g", "c", GroupTurn(buried=buried, retries={ids[2]: 600}))
    await log.requeue("g", ids[:1])
    with half_moved(cluster, "{ap:log:l}:s"):
        with pytest.raises(BackendUnavailableError):
            await log.turn("g", "c", GroupTurn(acks=ids[3:4], limit=1, idle=600))
        with pytest.raises(BackendUnavailableError):
            await log.requeue("g", [ids[1], "1-1"])
    assert [each.id for each in await log.held("g", "c")] == ids[3:4]
    assert await log.lag("g") == 1
    assert await log.requeue("g", [ids[1], "1-1"]) == 1
    turned = await log.turn("g", "c", GroupTurn(acks=ids[3:4], limit=3, idle=600))
    assert turned.lost == []
    assert sorted(each.id for each in turned.claimed) == [ids[0], ids[1], ids[4]]


async def test_no_node_answers():
    began = monotonic()
    with pytest.raises(BackendUnavailableError, match="no Redis answers"):
        await open_backend("redis+cluster://127.0.0.1:1,127.0.0.1:2").__aenter__()
    assert monotonic() - began < 3


async def test_a_server_that_is_no_cluster():
    answer = lambda words: b"-ERR This instance has cluster support disabled\r\n"
    async with FakeServer(answer, host="127.0.0.1") as server:
        with pytest.raises(BackendError, match="cluster support disabled"):
            await open_backend(f"redis+cluster://127.0.0.1:{server.port}").__aenter__()


async def test_a_cluster_without_slots():
    async with FakeServer(lambda words: b"*0\r\n", host="127.0.0.1") as server:
        with pytest.raises(BackendUnavailableError, match="has no slots"):
            await open_backend(f"redis+cluster://127.0.0.1:{server.port}").__aenter__()


async def test_the_first_node_that_answers_tells_the_map():
    def answer(words):
        if words[0] == b"CLUSTER":
            return slots((0, 16383, "", server.port))  # "": as you called me
        return info() if words[0] == b"INFO" else OK

    async with FakeServer(answer, host="127.0.0.1") as server:
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{server.port},127.0.0.1:2"
        async with open_backend(url) as backend:
            assert await backend.client.write("SET", "a", 1) == b"OK"


async def test_a_slot_that_nobody_has():
    def answer(words):
        if words[0] == b"CLUSTER":
            return slots((0, 1, "127.0.0.1", server.port))
        return info() if words[0] == b"INFO" else OK

    async with FakeServer(answer, host="127.0.0.1") as server:
        async with open_backend(f"redis+cluster://127.0.0.1:{server.port}") as backend:
            await sleep(0.15)
            assert await backend.client.write("SET", "a", 1) == b"OK"
            assert await backend.client.line("x").call("SET", "a", 1) == b"OK"


async def test_redirections_without_end():
    def answer(words):
        if words[0] == b"CLUSTER":
            return slots((0, 16383, "127.0.0.1", server.port))
        return info() if words[0] == b"INFO" else b"-MOVED 1 127.0.0.1:%d\r\n" % server.port

    async with FakeServer(answer, host="127.0.0.1") as server:
        async with open_backend(f"redis+cluster://127.0.0.1:{server.port}") as backend:
            with pytest.raises(BackendError, match="MOVED"):
                await backend.client.read("GET", "a")
            with pytest.raises(BackendError, match="MOVED"):
                await backend.client.line("x").call("GET", "a")


async def test_the_map_is_read_again_but_not_all_the_time():
    readings = []

    def answer(words):
        if words[0] == b"CLUSTER":
            readings.append(1)
            return slots((0, 16383, "127.0.0.1", server.port))
        return OK

    async with FakeServer(answer, host="127.0.0.1") as server:
        target = parse(f"redis+cluster://127.0.0.1:{server.port}")
        route = ClusterRoute(target, patience=5, tally=Tally())
        assert await route.open() is None
        for _ in range(100):
            await route.resend(("GET", "a"), LostError("why"))
        assert len(readings) <= 2
        await sleep(0.12)
        await asyncio.gather(*(route.resend(("GET", "a"), LostError("why")) for _ in range(10)))
        await sleep(0.05)
        assert 2 <= len(readings) <= 3
        assert route.redirected(RefusalError("ERR no")) is None
        assert route.redirected(RefusalError("MOVED 5 :7")) == Address("127.0.0.1", 7)
        assert route.in_flight >= 0
        await asyncio.wait(route.drop("end"))


async def test_dropped_while_it_reads_the_map():
    def answer(words):
        return slots((0, 16383, "127.0.0.1", server.port)) if fresh.pop() else b""

    fresh = [False, True]
    async with FakeServer(answer, host="127.0.0.1") as server:
        target = parse(f"redis+cluster://127.0.0.1:{server.port}")
        route = ClusterRoute(target, patience=5, tally=Tally())
        await route.open()
        await sleep(0.12)
        route._refresh()
        await sleep(0.05)
        await asyncio.wait(route.drop("end"))


@pytest.mark.promise("backends-cluster-moves")
def test_a_node_that_comes_back(cluster, monkeypatch):
    """A node is killed and restarted with its data: callers wait, and none sees an error."""
    monkeypatch.setattr("aiopatterns.backends.redis.client.RETRY_FOR", 15.0)
    keys = [f"k{n}" for n in range(60)]

    async def scenario():
        async with open_backend(cluster.url) as backend:
            await backend.kv.set_many(dict.fromkeys(keys, b"1"))
            cluster.nodes[0].kill()
            reading = asyncio.create_task(backend.kv.get_many(keys))
            await sleep(0.1)
            cluster.nodes[0].restart()
            assert len(await reading) == 60
            await backend.kv.delete(*keys)

    asyncio.run(scenario())  # seconds: one loop is enough
