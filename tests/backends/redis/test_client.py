from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiopatterns.backends.redis.client import RedisClient
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.scripts import Script
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.backends.url import parse
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing.proxy import FaultProxy
from tests.backends.redis.fakeserver import FakeServer, info, open_backend, server_of

pytestmark = [pytest.mark.real, pytest.mark.leaves("*")]
INCR = Script("kv_incr")


@pytest.fixture
async def client(redis_url):
    async with open_backend(redis_url) as backend:
        yield backend.client


def test_keys_and_tags():
    client = RedisClient(parse("redis://h"), namespace="shop")
    assert client.key("kv", "a") == "shop:kv:a"
    assert client.key("lim", "api", "user:1") == "shop:lim:api:user:1"
    assert client.tag("q", "mail") == "{shop:q:mail}"
    assert not client.cluster
    assert RedisClient(parse("redis+cluster://h")).cluster


async def test_replies_are_those_of_resp2(client):
    assert client.version >= (6, 2, 0)
    assert await client.write("SET", "a", b"\x00\xff") == b"OK"
    assert await client.read("GET", "a") == b"\x00\xff"
    assert await client.read("GET", "none") is None
    assert await client.once("INCRBY", "n", 5) == 5
    assert await client.write("HSET", "h", "f", "v") == 1
    assert await client.read("HGETALL", "h") == [b"f", b"v"]
    assert await client.write("ZADD", "z", 1.5, "m") == 1
    assert await client.read("ZSCORE", "z", "m") == b"1.5"
    assert await client.read("LRANGE", "none", 0, -1) == []


async def test_each_and_scripts(client):
    assert await client.once_each([("SET", "a", 1), ("SET", "b", 2)]) == [b"OK", b"OK"]
    assert await client.read_each([("GET", "b"), ("GET", "x"), ("GET", "a")]) == [b"2", None, b"1"]
    assert await client.read_each([]) == []
    assert await client.run(INCR, ["n"], [2, ""]) == b"2"
    assert await client.run(INCR, ["n"], [2, ""], repeatable=True) == b"4"
    assert await client.run_each(INCR, [(["x"], [1, ""]), (["n"], [1, ""])]) == [b"1", b"5"]
    assert await client.run_each(INCR, []) == []


@pytest.mark.promise("backends-retry-classes")
async def test_a_script_flush_is_not_noticed(client, redis_url):
    await client.run(INCR, ["n"], [1, ""])
    with Wire(redis_url) as wire:
        wire.call("SCRIPT", "FLUSH")
    assert await asyncio.gather(*(client.run(INCR, ["n"], [1, ""]) for _ in range(10)))
    assert await client.read("GET", "n") == b"11"
    with pytest.raises(BackendError, match="NOSCRIPT"):
        await client.read("EVALSHA", "0" * 40, 0)


async def test_a_refusal_is_the_callers_alone(client):
    await client.write("SET", "text", "x")
    replies = await asyncio.gather(
        client.read("GET", "text"),
        client.once("INCRBY", "text", 1),
        client.read("GET", "text"),
        return_exceptions=True,
    )
    assert list(replies[::2]) == [b"x", b"x"]
    assert type(replies[1]) is BackendError
    assert "not an integer" in str(replies[1])


async def test_closed():
    client = RedisClient(parse("redis://:p@h"))
    with pytest.raises(ClosedError):
        client.get("a")
    for call in (
        client.read("GET", "a"),
        client.write("SET", "a", 1),
        client.once("INCR", "a"),
        client.read_each([("GET", "a")]),
        client.run(INCR, ["n"], []),
    ):
        with pytest.raises(ClosedError, match=r"redis://:\*\*\*@h is not open.*async with"):
            await call
    with pytest.raises(ClosedError):
        client.route()
    assert not client.is_open


@pytest.mark.promise("backends-retry-classes")
async def test_reads_and_repeatable_writes_survive_a_lost_reply(redis_url):
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        client = backend.client
        await client.write("SET", "a", 1)
        for fault in (proxy.drop_replies, proxy.drop_requests):
            fault(1, matching=b"GET")
            assert await client.read("GET", "a") == b"1"
            fault(1, matching=b"SADD")
            await client.write("SADD", "s", "m")
            fault(1, matching=b"EVAL")
            await client.run(INCR, ["n"], [0, ""], repeatable=True)
        statistics = backend.statistics()
        assert statistics.retries >= 6
        assert statistics.reconnects >= 6


@pytest.mark.promise("backends-retry-classes")
async def test_what_must_not_run_twice_runs_once(redis_url):
    """The reply is lost: the caller is told, and the effect is there at most once."""
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        client = backend.client
        for number in range(1, 6):
            proxy.drop_replies(1, matching=b"INCRBY")
            with pytest.raises(BackendUnavailableError, match="no Redis answers"):
                await client.once("INCRBY", "n", 1)
            assert await client.read("GET", "n") == str(number).encode()
        await client.run(INCR, ["m"], [1, ""])
        proxy.drop_replies(1, matching=INCR.sha.encode())
        with pytest.raises(BackendUnavailableError):
            await client.run(INCR, ["m"], [1, ""])
        assert await client.read("GET", "m") == b"2"
        proxy.drop_replies(1, matching=b"INCRBY")
        with pytest.raises(BackendUnavailableError):
            await client.once_each([("INCRBY", "k", 1)])
        assert await client.read("GET", "k") == b"1"


async def test_what_was_never_sent_is_sent_when_there_is_a_connection(redis_url):
    """Nobody answers for a while: also a command that must not run twice waits for that."""
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        proxy.refuse()
        proxy.cut()
        await sleep(0.05)
        task = asyncio.create_task(backend.client.once("INCRBY", "n", 1))
        await sleep(0.3)
        assert not task.done()
        proxy.accept()
        assert await task == 1


@pytest.mark.promise("backends-outage-bounded")
async def test_an_outage_ends_in_bounded_time(redis_url, monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.client.RETRY_FOR", 0.4)
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:
        proxy.refuse()
        proxy.cut()
        began = monotonic()
        replies = await asyncio.gather(
            *(backend.client.read("GET", "a") for _ in range(500)),
            *(backend.client.once("INCR", "a") for _ in range(500)),
            return_exceptions=True,
        )
        assert {type(each) for each in replies} == {BackendUnavailableError}
        assert len({id(each) for each in replies}) == 1000
        assert monotonic() - began < 0.4 + 2
        assert proxy.statistics().refused < 100  # a thousand callers, one attempt at a time
        proxy.accept()
        assert await backend.client.read("GET", "a") is None


@pytest.mark.promise("backends-outage-bounded")
async def test_a_silent_server_is_given_up_in_bounded_time(redis_url, monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.client.RETRY_FOR", 0.4)
    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url, timeout=0.2) as backend:
        proxy.partition()
        began = monotonic()
        with pytest.raises(BackendUnavailableError, match=r"silent|no answer"):
            await backend.client.once("INCR", "a")
        assert 0.1 < monotonic() - began < 1
        began = monotonic()
        with pytest.raises(BackendUnavailableError):
            await backend.client.read("GET", "a")
        assert monotonic() - began < 0.4 + 1.5
        proxy.heal()


@pytest.mark.promise("backends-no-stray-reply")
async def test_a_cancelled_caller_disturbs_nobody(client):
    async def echo(number):
        return await client.read("ECHO", str(number))

    for turn in range(30):
        tasks = [asyncio.create_task(echo(n)) for n in range(100)]
        for _ in range(turn % 6):
            await sleep(0)
        chance = random.Random(turn)
        doomed = {n for n in range(100) if chance.random() < 0.3}
        for n in doomed:
            tasks[n].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for n, reply in enumerate(done):
            assert reply == str(n).encode() or (n in doomed and isinstance(reply, BaseException))


@pytest.mark.promise("backends-no-stray-reply")
@pytest.mark.parametrize("seed", range(4))
async def test_under_cuts_and_cancellations_every_answer_is_ones_own(redis_url, seed):
    chance = random.Random(seed)

    async def work(client, worker):
        for step in range(20):
            text = f"{worker}:{step}"
            try:
                async with asyncio.timeout(chance.choice([5, 5, 0.001])):
                    verb = chance.choice([client.read, client.once, client.line("x").call])
                    assert await verb("ECHO", text) == text.encode()
            except (TimeoutError, BackendUnavailableError):
                pass

    async with FaultProxy(redis_url) as proxy, open_backend(proxy.url) as backend:

        async def cut():
            while True:
                await sleep(chance.random() * 0.02)
                proxy.cut()

        cutter = asyncio.create_task(cut())
        await asyncio.gather(*(work(backend.client, worker) for worker in range(20)))
        cutter.cancel()
        await asyncio.wait((cutter,))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from("gsdi"), st.integers(0, 3), st.booleans()), max_size=40))
def test_commands_of_one_task_run_in_order(redis_server, steps):
    """Against a model: what one caller issues runs in the order in which it was issued."""
    model: dict[str, bytes] = {}

    async def scenario():
        async with open_backend(redis_server.url, namespace="model") as backend:
            client = backend.client
            await client.write("DEL", "m0", "m1", "m2", "m3")
            waiters: list[tuple[asyncio.Future[object], object]] = []
            for verb, number, pause in steps:
                key = f"m{number}"
                if verb == "g":
                    waiters.append((client.send(("GET", key)), model.get(key)))
                elif verb == "s":
                    model[key] = str(len(waiters)).encode()
                    waiters.append((client.send(("SET", key, len(waiters))), b"OK"))
                elif verb == "d":
                    waiters.append(
                        (client.send(("DEL", key)), int(model.pop(key, None) is not None))
                    )
                else:
                    value = int(model.get(key, b"0")) + 1
                    model[key] = str(value).encode()
                    waiters.append((client.send(("INCR", key)), value))
                if pause:
                    await sleep(0)
            for waiter, expected in waiters:
                assert await waiter == expected
            await client.write("DEL", "m0", "m1", "m2", "m3")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "refusal",
    [b"-LOADING wait\r\n", b"-READONLY no\r\n", b"-TRYAGAIN\r\n", b"-BUSY script\r\n"],
)
async def test_not_now_is_asked_again_whatever_the_class(refusal):
    async with FakeServer(server_of([refusal, refusal, b":5\r\n"])) as server:
        async with open_backend(server.url) as backend:
            assert await backend.client.once("INCR", "a") == 5
            assert backend.statistics().retries == 2


async def test_not_now_for_too_long(monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.client.RETRY_FOR", 0.2)
    async with FakeServer(server_of([b"-LOADING wait\r\n"])) as server:
        async with open_backend(server.url) as backend:
            with pytest.raises(BackendUnavailableError, match="LOADING"):
                await backend.client.read("GET", "a")


async def test_a_replica_is_left():
    async with FakeServer(server_of([b"-READONLY no\r\n", b"+OK\r\n"])) as server:
        async with open_backend(server.url) as backend:
            await sleep(0.15)  # a connection younger than that is kept
            assert await backend.client.write("SET", "a", 1) == b"OK"
            assert server.connections == 2


async def test_a_single_server_of_a_cluster_is_told():
    async with FakeServer(server_of([b"-MOVED 1 h:1\r\n"])) as server:
        async with open_backend(server.url) as backend:
            with pytest.raises(BackendError, match=r"redis\+cluster://"):
                await backend.client.read("GET", "a")


async def test_opening_waits_for_a_server_that_loads():
    replies = [b"-LOADING wait\r\n", info("7.2")]
    async with FakeServer(lambda words: replies.pop(0)) as server:
        async with open_backend(server.url) as backend:
            assert backend.client.version == (7, 2, 0)


@pytest.mark.parametrize("version", ["6.0.16", "5", "2.8.0", ""])
async def test_a_server_that_is_too_old(version):
    async with FakeServer(lambda words: info(version)) as server:
        with pytest.raises(BackendError, match=r"6\.2 or newer is needed") as caught:
            await open_backend(server.url).__aenter__()
        assert type(caught.value) is BackendError
        assert version in str(caught.value)


async def test_a_server_that_tells_no_version():
    async with FakeServer(lambda words: b"$3\r\nabc\r\n") as server:
        with pytest.raises(BackendError, match=r"is 0\.0\.0"):
            await open_backend(server.url).__aenter__()


@pytest.mark.parametrize("reply", [b":4611686018427387904\r\n", b"*0\r\n", b"$-1\r\n"])
async def test_what_answers_is_no_redis(reply):
    async with FakeServer(lambda words: reply) as server:
        with pytest.raises(BackendError, match="is needed"):
            await open_backend(server.url).__aenter__()


@pytest.mark.parametrize("version", ["6.2.0", "7.2.4", "8.2", "255.255.255"])
async def test_a_server_that_is_new_enough(version):
    async with FakeServer(lambda words: info(version)) as server, open_backend(server.url):
        pass


async def test_a_full_server_refuses_and_recovers():
    """A private server: it is filled to the brim."""
    async with RedisServer(config={"maxmemory": "3mb"}, private=True) as server:
        async with open_backend(server.url) as backend:
            with pytest.raises(BackendError, match="raise maxmemory") as caught:
                for number in range(1000):
                    await backend.kv.set(f"k{number}", b"x" * 20_000)
            assert type(caught.value) is BackendError
            assert await backend.kv.get("k0") == b"x" * 20_000
            await backend.kv.delete(*(f"k{n}" for n in range(1000)))
            await backend.kv.set("again", b"1")


@pytest.mark.promise("backends-outage-bounded")
async def test_the_server_is_killed_and_comes_back():
    async with RedisServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        async with open_backend(server.url) as backend:
            kv = backend.kv
            written = 0

            async def write():
                nonlocal written
                while True:
                    try:
                        await kv.set(f"k{written}", b"1")
                    except BackendUnavailableError:
                        continue
                    written += 1

            task = asyncio.create_task(write())
            for _ in range(2):
                goal = written + 20
                while written < goal:
                    await sleep(0.005)
                server.kill()
                await sleep(0.05)
                server.restart()
                began, goal = monotonic(), written + 1
                while written < goal:
                    await sleep(0.005)
                assert monotonic() - began < 2
            task.cancel()
            await asyncio.wait((task,))
            found = await kv.get_many([f"k{n}" for n in range(written)])
            assert len(found) == written


async def test_statistics(redis_url):
    backend = open_backend(redis_url)
    async with backend:
        before = backend.statistics()
        await asyncio.gather(*(backend.client.read("GET", str(n)) for n in range(100)))
        await backend.client.line("x").call("PING")
        waiting = backend.client.send(("PING",))
        after = backend.statistics()
        assert after.users == 1
        assert after.commands == before.commands + 101
        assert after.round_trips == before.round_trips + 2
        assert after.in_flight == 1
        await waiting
    assert backend.statistics().users == 0
