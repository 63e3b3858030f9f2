from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import redis.asyncio
from anyio import create_task_group, fail_after
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import leak_guard
from aiopatterns.testing.proxy import FaultProxy

pytestmark = [pytest.mark.real, pytest.mark.leaves("*")]


def client(url, **options):
    """A client that never retries, with one connection."""
    options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 5.0, **options}
    return redis.asyncio.Redis.from_url(url, single_connection_client=True, **options)


LOST = (ConnectionError, redis.exceptions.ConnectionError)


async def nobody_is_left():
    with fail_after(2):
        while len(asyncio.all_tasks()) > 1:
            await sleep(0.002)


@pytest.fixture(params=["unix", "tcp"])
async def target(request, redis_url):
    """The server's URL on a Unix socket, or on a port that a plain proxy opens for it."""
    if request.param == "unix":
        yield redis_url
        return
    servers = []

    async def carry(reader, writer):
        other = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))

        async def pump(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except (OSError, asyncio.CancelledError):
                pass
            sink.close()

        await asyncio.gather(pump(reader, other[1]), pump(other[0], writer))

    servers.append(await asyncio.start_server(carry, "127.0.0.1", 0))
    yield f"redis://127.0.0.1:{servers[0].sockets[0].getsockname()[1]}"
    servers[0].close()
    await nobody_is_left()


async def test_all_passes_when_nothing_is_asked_for(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.set("k", b"v" * 200_000)
        assert await r.get("k") == b"v" * 200_000
        pipe = r.pipeline(transaction=True)
        for n in range(500):
            pipe.incrby("n", n)
        assert (await pipe.execute())[-1] == sum(range(500))
        figures = proxy.statistics()
    assert figures.requests == figures.replies
    assert figures.connections == figures.open == 2  # the client takes another for the pipeline
    assert figures.dropped_replies == figures.dropped_requests == figures.cut == 0


@pytest.mark.promise("testing-proxy-exact")
async def test_a_dropped_reply_belongs_to_a_request_that_was_carried_out(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        fault = proxy.drop_replies(matching=b"INCR")
        await r.set("other", 1)
        with pytest.raises(LOST):
            await r.incr("n")
        assert await r.get("n") == b"1"
        assert (fault.hits, fault.left) == (1, 0)
        assert await r.incr("n") == 2
        with fail_after(1):
            await fault.wait()
        assert proxy.statistics().dropped_replies == 1


@pytest.mark.promise("testing-proxy-exact")
async def test_a_dropped_request_was_not_carried_out(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        proxy.drop_requests(matching=lambda request: b"INCR" in request)
        await r.set("n", 5)
        with pytest.raises(LOST):
            await r.incr("n")
        assert await r.get("n") == b"5"
        assert proxy.statistics().dropped_requests == 1


async def test_a_duplicated_request_is_carried_out_twice_and_answered_once(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        proxy.duplicate(2, matching=b"INCR")
        pipe = r.pipeline(transaction=False)
        pipe.incr("n").incr("n").incr("n").get("n").echo("end")
        assert await pipe.execute() == [1, 3, 5, b"5", b"end"]
        assert proxy.statistics().duplicated == 2


@pytest.mark.promise("testing-proxy-exact")
@pytest.mark.parametrize("at", range(4))
async def test_each_step_of_an_exchange_can_lose_its_reply(target, at):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        proxy.drop_replies(skip=at)
        done = 0
        with pytest.raises(LOST):
            for _ in range(4):
                await r.rpush("l", done)
                done += 1
        assert done == at
        assert await r.llen("l") == at + 1


async def test_replies_before_a_dropped_one_arrive_also_in_a_pipeline(target):
    async with FaultProxy(target, seed=3) as proxy:
        host = proxy.url
        reader, writer = await (
            asyncio.open_unix_connection(host.removeprefix("unix://"))
            if host.startswith("unix")
            else asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
        )
        proxy.drop_replies(matching=b"three")
        writer.write(
            b"".join(
                b"*2\r\n$4\r\nECHO\r\n$5\r\n%b\r\n" % each
                for each in (b"first", b"secnd", b"three", b"forth")
            )
        )
        got = await reader.read(-1)
        assert got == b"$5\r\nfirst\r\n$5\r\nsecnd\r\n"
        writer.close()


async def test_cut_resets_what_is_open_and_nothing_else(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        assert proxy.cut() == 1
        with pytest.raises(LOST):
            await r.ping()
        assert await r.ping()
        assert proxy.statistics().cut == 1
        assert proxy.statistics().connections == 2


async def test_a_call_that_waits_for_its_reply_ends_with_the_connection(target):
    async with FaultProxy(target) as proxy, client(proxy.url, socket_timeout=None) as r:
        await r.ping()
        async with create_task_group() as tg:

            async def blocked():
                with pytest.raises(LOST):
                    await r.blpop("nothing", 30)

            tg.start_soon(blocked)
            while proxy.statistics().requests == proxy.statistics().replies:
                await sleep(0.002)
            proxy.cut()


async def test_refused_connections_and_open_ones(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        proxy.refuse()
        late = client(proxy.url)
        with pytest.raises(LOST):
            await late.ping()
        assert await r.ping()
        proxy.accept()
        assert await late.ping()
        await late.aclose()
        assert proxy.statistics().refused >= 1


async def test_delay_holds_both_directions(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        proxy.delay(0.03, jitter=0.01)
        start = monotonic()
        await r.ping()
        assert monotonic() - start >= 0.06
        proxy.delay(0)
        start = monotonic()
        await r.ping()
        assert monotonic() - start < 0.05


async def test_a_partition_loses_nothing_and_heals(target):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        proxy.partition()
        with pytest.raises(TimeoutError):
            with fail_after(0.05):
                await r.incr("n")
        async with create_task_group() as tg:
            tg.start_soon(r.incr, "n")
            await sleep(0.02)
            proxy.heal()
        assert await r.get("n") == b"2"


async def test_a_partition_of_replies_lets_requests_through(target, redis_server):
    async with FaultProxy(target) as proxy, client(proxy.url) as r:
        await r.ping()
        proxy.partition("replies")
        async with create_task_group() as tg:
            tg.start_soon(r.incr, "n")
            with fail_after(2):
                while redis_server.command("GET", "n") != "1":
                    await sleep(0.002)
            assert proxy.statistics().replies < proxy.statistics().requests
            proxy.partition("requests")
            proxy.heal()
        assert await r.get("n") == b"1"


async def test_a_storm_is_the_same_for_the_same_seed(redis_url):
    async def fates(seed):
        got = []
        async with FaultProxy(redis_url, seed=seed) as proxy:
            proxy.storm(drop_reply_ratio=0.2, drop_request_ratio=0.2, duplicate_ratio=0.2)
            got = [proxy.fate(b"PING") for _ in range(200)]
            proxy.calm()
            assert {proxy.fate(b"PING").value for _ in range(50)} == {"through"}
        return got

    first = await fates(1)
    assert first == await fates(1)
    assert first != await fates(2)
    assert len(set(first)) == 4


async def test_in_a_storm_what_was_answered_was_done(redis_url, redis_server):
    sure = tried = 0
    async with FaultProxy(redis_url, seed=5) as proxy, client(proxy.url) as r:
        proxy.storm(
            drop_reply_ratio=0.1, drop_request_ratio=0.1, duplicate_ratio=0.0, refuse_ratio=0.3
        )
        for n in range(200):
            tried += 1
            try:
                await r.set(f"k{n}", n, ex=60)
                sure += 1
            except LOST:
                pass
        figures = proxy.statistics()
        proxy.calm()
        assert await r.ping()
    stored = redis_server.command("DBSIZE")
    assert sure <= stored <= tried
    assert sure < tried
    assert figures.dropped_replies
    assert figures.dropped_requests
    assert figures.refused


async def test_a_fault_can_be_called_off(redis_url):
    async with FaultProxy(redis_url) as proxy, client(proxy.url) as r:
        fault = proxy.drop_replies(5)
        fault.cancel()
        await fault.wait()
        assert await r.ping()
        assert fault.hits == 0
        again = proxy.drop_requests(3)
        proxy.calm()
        assert again.left == 0
        assert await r.ping()


async def test_a_server_that_is_away(tmp_path):
    async with FaultProxy(f"unix://{tmp_path}/none.sock") as proxy:
        with pytest.raises(LOST):
            await client(proxy.url).ping()
        assert proxy.statistics().unreachable == 1
        assert proxy.statistics().open == 0


async def test_a_server_that_hangs_up_ends_the_connection(redis_url):
    async with FaultProxy(redis_url) as proxy:
        reader, writer = await asyncio.open_unix_connection(proxy.url.removeprefix("unix://"))
        writer.write(b"*1\r\n$4\r\nQUIT\r\n")
        assert await reader.read(-1) == b"+OK\r\n"
        writer.close()
        with fail_after(1):
            while proxy.statistics().open:
                await sleep(0.002)


async def test_pushes_are_no_replies(redis_url, redis_server):
    async with FaultProxy(redis_url) as proxy, client(proxy.url, protocol=3) as r:
        await r.ping()
        await r.execute_command("CLIENT", "TRACKING", "ON", "BCAST")
        proxy.drop_replies(matching=b"second")
        redis_server.command("SET", "tracked", 1, "EX", 60)
        await r.echo("first")
        with pytest.raises(LOST):
            await r.echo("second")


async def test_chunks_of_another_protocol():
    async def shout(reader, writer):
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(f"any://user:secret@127.0.0.1:{port}/x", framing="chunk") as proxy:
        assert "secret" in proxy.url
        assert "secret" not in proxy.name
        where = int(proxy.url.rpartition("/")[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", where)
        writer.write(b"abc")
        assert await reader.read(100) == b"ABC"
        proxy.duplicate(matching=b"d")
        writer.write(b"d")
        assert await reader.readexactly(2) == b"DD"
        proxy.drop_replies(matching=b"e")
        writer.write(b"e")
        assert b"E" not in await reader.read(-1)
        writer.close()
    server.close()
    await nobody_is_left()


async def test_leaving_ends_every_connection_and_task(redis_url):
    proxy = FaultProxy(redis_url)
    for _ in range(2):  # and it may be opened again
        async with leak_guard():
            async with proxy:
                inner = client(proxy.url)
                await inner.ping()
                proxy.partition()
            with pytest.raises(LOST):
                await inner.ping()
            await inner.aclose()
        assert proxy.statistics().open == 0


async def test_a_connection_on_its_way_to_the_server_ends_with_the_block(redis_url, monkeypatch):
    on_the_way = asyncio.Event()

    async def never(path):
        on_the_way.set()
        await asyncio.Event().wait()

    connect = asyncio.open_unix_connection
    monkeypatch.setattr(asyncio, "open_unix_connection", never)
    async with FaultProxy(redis_url) as proxy:
        reader, writer = await connect(proxy.url.removeprefix("unix://"))
        await on_the_way.wait()
    with pytest.raises(ConnectionResetError):
        assert await reader.read() == b""
        raise ConnectionResetError  # the end without a reset is as good
    writer.close()


async def test_a_proxy_that_cannot_listen_leaves_nothing(redis_url, monkeypatch):
    async def full(meet, path):
        raise OSError("no more files")

    proxy = FaultProxy(redis_url)
    monkeypatch.setattr(asyncio, "start_unix_server", full)
    with pytest.raises(OSError, match="no more files"):
        async with proxy:
            pass
    with pytest.raises(ClosedError):
        _ = proxy.url


async def test_the_url_is_there_while_it_is_open(redis_url):
    proxy = FaultProxy(redis_url)
    with pytest.raises(ClosedError, match="async with FaultProxy"):
        _ = proxy.url


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda url: FaultProxy("unix://"), "target"),
        (lambda url: FaultProxy("redis://host"), "host:port"),
        (lambda url: FaultProxy("rediss://host:1"), "'chunk' for rediss"),
        (lambda url: FaultProxy(url, framing=cast("Any", "lines")), "framing"),
        (lambda url: FaultProxy(url).drop_replies(0), "times"),
        (lambda url: FaultProxy(url).drop_replies(skip=-1), "skip"),
        (lambda url: FaultProxy(url).delay(-1), "seconds"),
        (lambda url: FaultProxy(url).delay(1, jitter=-1), "jitter"),
        (lambda url: FaultProxy(url).partition(cast("Any", "up")), "direction"),
        (lambda url: FaultProxy(url).storm(drop_reply_ratio=1.5), "drop_reply_ratio"),
        (lambda url: FaultProxy(url).storm(drop_reply_ratio=1, duplicate_ratio=1), "ratios"),
    ],
)
def test_wrong_arguments_are_refused_by_name(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong("unix:///nowhere")
