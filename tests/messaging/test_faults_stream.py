"""The fault book for streams, short form: killed processes, killed servers, a bad network, SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.messaging import Message, Stream, StreamConsumer
from aiopatterns.testing.clusters import RedisSentinel
from aiopatterns.testing.proxy import FaultProxy
from tests.jobs.fleet import on_one_loop
from tests.messaging.streamworker import CLAIM_IDLE

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(60),
    pytest.mark.leaves("{ap:log:*", "ap:*lease*"),
]

PROGRAM = Path(__file__).with_name("streamworker.py")
ROOT = PROGRAM.parent.parent.parent
PREFETCH = 20


class Crew:
    """Processes that consume, and what they have noted."""

    def __init__(self, url: str, folder: Path, *words: str) -> None:
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.command = [sys.executable, str(PROGRAM), url, str(self.ledger), *words]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(self.command, env=environment)
        self.processes.append(process)
        return process

    def notes(self) -> list[tuple[str, int, int]]:
        lines = (line.split() for line in self.ledger.read_text().splitlines())
        return [(key, int(number), int(process)) for key, number, process in lines]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def crew(url: str, folder: Path, *words: str):
    made = Crew(url, folder, *words)
    try:
        yield made
    finally:
        made.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


async def until(condition, seconds: float = 30.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.02)


async def produce(stream: Stream, count: int) -> None:
    """Append numbers, each until it is acknowledged."""
    for number in range(count):
        while True:
            try:
                await stream.append(number)
                break
            except BackendUnavailableError:
                await anyio.sleep(0.02)
        await anyio.sleep(0.003)


async def kept_in(stream: Stream) -> set[int]:
    """Return the numbers that the server has."""
    entries = await stream.log.read(limit=10_000)
    return {stream.envelopes.decode(each.payload).payload for each in entries}


@pytest.mark.promise("messaging-stream-kill")
@pytest.mark.parametrize("ordered", [False, True], ids=["any-order", "by-key"])
def test_a_consumer_that_is_killed_loses_nothing_and_keys_stay_in_order(
    redis_url, tmp_path, ordered
):
    async def body() -> None:
        words = ("key",) if ordered else ()
        async with Stream("faults", redis_url) as stream:
            for number in range(150):
                payload = {"n": number, "seconds": 0.01}
                await stream.append(payload, key=f"k{number % 5}")
            with crew(redis_url, tmp_path, *words) as workers:
                for _ in range(2):
                    workers.start()
                await until(lambda: len(workers.notes()) >= 15)
                at_work = workers.notes()[-1][2]
                victim = next(each for each in workers.processes if each.pid == at_work)
                victim.kill()
                killed = monotonic()
                # Nothing is appended from now on: the stream is idle.
                await until(lambda: len({number for _, number, _ in workers.notes()}) == 150)
                assert monotonic() - killed < CLAIM_IDLE + 10
            again = Counter(number for _, number, _ in workers.notes())
            assert sum(again.values()) - 150 <= PREFETCH
            if ordered:
                first: dict[str, list[int]] = defaultdict(list)
                for key, number, _ in workers.notes():
                    if number not in first[key]:
                        first[key].append(number)
                assert all(numbers == sorted(numbers) for numbers in first.values())

    anyio.run(body)


@pytest.mark.promise("messaging-stream-stop")
@on_one_loop
async def test_sigterm_finishes_what_is_at_work_and_gives_back_the_rest(redis_url, tmp_path):
    async with Stream("faults", redis_url) as stream:
        await stream.append_many([{"n": number, "seconds": 0.3} for number in range(50)], key="k")
        with crew(redis_url, tmp_path) as workers:
            process = workers.start()
            await until(lambda: len(workers.notes()) >= 10)
            process.send_signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(lambda: process.wait(timeout=10))
            assert process.returncode == 0
            done = {number for _, number, _ in workers.notes()}
        left = await stream.log.pending("g")
        assert all(each.consumer == "" and each.deliveries == 0 for each in left)
        assert len(done) + len(left) + await stream.lag("g") == 50


@on_one_loop
async def test_a_second_sigterm_ends_at_once_and_what_was_in_hand_goes_to_others(
    redis_url, tmp_path
):
    async with Stream("faults", redis_url) as stream:

        async def until_held(*, at_work: int, given_back: int) -> None:
            with anyio.fail_after(10):
                while True:
                    found = Counter(bool(each.consumer) for each in await stream.log.pending("g"))
                    if (found[True], found[False]) == (at_work, given_back):
                        return
                    await anyio.sleep(0.02)

        await stream.append_many([{"n": n, "seconds": 1.0} for n in range(10)], key="k")
        await stream.append_many([{"n": n, "seconds": 0.01} for n in range(10, 20)], key="k")
        await stream.log.create_group("g")
        with crew(redis_url, tmp_path) as workers:
            first = workers.start()
            await until_held(at_work=20, given_back=0)
            await anyio.sleep(0.2)  # held is not yet at work: what has not begun is given back
            first.send_signal(signal.SIGTERM)
            await until_held(at_work=10, given_back=10)
            first.send_signal(signal.SIGTERM)
            sent = monotonic()
            await anyio.to_thread.run_sync(lambda: first.wait(timeout=10))
            assert monotonic() - sent < 0.5, "the handlers had longer to go"
            assert first.returncode == -signal.SIGTERM
            assert workers.notes() == []
            await until_held(at_work=10, given_back=10)  # it had no time to give them back
            second = workers.start()
            await until(lambda: len(workers.notes()) >= 20, CLAIM_IDLE + 10)
            second.send_signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(lambda: second.wait(timeout=10))
            assert second.returncode == 0
            assert sorted(number for _, number, _ in workers.notes()) == [*range(20)]
        assert await stream.log.pending("g") == []
        assert await stream.lag("g") == 0


@pytest.mark.promise("messaging-stream-restart")
@pytest.mark.parametrize("fsync", ["always", "everysec"])
@on_one_loop
async def test_a_server_that_is_killed_and_restarted_loses_nothing(fsync):
    """Nothing that the server kept: with ``everysec`` it may forget what it had just acknowledged."""
    config = {"appendonly": "yes", "appendfsync": fsync}
    with RedisServer(config=config, private=True) as server:
        stream, got = Stream("s", server.url), list[int]()
        consumer = StreamConsumer(stream, group="g", prefetch=PREFETCH)

        async def handler(message: Message) -> None:
            await anyio.sleep(0.002)
            got.append(message.payload)

        async with stream, anyio.create_task_group() as tasks:
            tasks.start_soon(consumer.run, handler)
            tasks.start_soon(produce, stream, 400)
            for _ in range(3):
                await anyio.sleep(0.3)
                server.kill()
                await anyio.to_thread.run_sync(server.restart)
            await until(lambda: 399 in got)
            kept = await kept_in(stream)
            await until(lambda: {*got} >= kept)
            consumer.stop()
        if fsync == "always":
            assert kept == {*range(400)}
            assert len(got) - 400 <= 3 * PREFETCH + 3


@on_one_loop
async def test_a_failover_ends_no_consumer_loses_nothing_and_keeps_the_order():
    """Replication has caught up with what was acknowledged, or it would be no consumer's fault."""
    with RedisSentinel(down_after=0.3) as pair:
        stream, got = Stream("s", pair.url), list[int]()
        consumer = StreamConsumer(stream, group="g", prefetch=PREFETCH, claim_idle=2.0)

        async def handler(message: Message) -> None:
            await anyio.sleep(0.002)
            got.append(message.payload)

        async def produce(*numbers: int) -> None:
            for number in numbers:
                while True:
                    try:
                        await stream.append(number, key=f"k{number % 5}")
                        break
                    except BackendUnavailableError:
                        await anyio.sleep(0.02)

        async with stream, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: consumer.run(handler, key=lambda message: message.key))
            await produce(*range(100))
            await until(lambda: len(got) >= 50)
            await anyio.sleep(0.1)
            pair.primary.kill()
            await produce(*range(100, 200))
            await until(lambda: {*got} == {*range(200)})
            assert await stream.dead_letters(group="g") == []
            consumer.stop()
        assert len(got) - 200 <= 2 * PREFETCH
        first = [*dict.fromkeys(got)]
        for lane in range(5):
            assert [each for each in first if each % 5 == lane] == [*range(lane, 200, 5)]


@pytest.mark.promise("messaging-stream-outage")
@on_one_loop
async def test_lost_replies_and_cut_connections_lose_nothing(redis_url):
    got: list[int] = []
    async with Stream("s", redis_url) as stream, FaultProxy(redis_url) as proxy:
        consumer = StreamConsumer(Stream("s", proxy.url), group="g", prefetch=PREFETCH)

        async def handler(message: Message) -> None:
            await anyio.sleep(0.002)
            got.append(message.payload)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consumer.run, handler)
            await until(lambda: consumer.statistics().claiming)
            proxy.storm(drop_reply_ratio=0.05, drop_request_ratio=0.05)
            await stream.append_many([*range(300)])
            for _ in range(3):
                proxy.cut()
                await anyio.sleep(0.2)
            proxy.calm()
            await until(lambda: len({*got}) == 300)
            consumer.stop()
        assert sorted(got) == [*range(300)], "no claim ended, so none came twice"
        assert await stream.log.pending("g") == []


@on_one_loop
async def test_a_server_that_is_killed_behind_a_slow_network_that_repeats_and_cuts_loses_nothing():
    config = {"appendonly": "yes", "appendfsync": "always"}
    with RedisServer(config=config, port=free_port()) as server:
        got: list[int] = []
        async with Stream("s", server.url) as stream, FaultProxy(server.tcp_url, seed=7) as proxy:
            consumer = StreamConsumer(
                Stream("s", proxy.url), group="g", prefetch=PREFETCH, claim_idle=2.0
            )

            async def handler(message: Message) -> None:
                await anyio.sleep(0.002)
                got.append(message.payload)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consumer.run, handler)
                await until(lambda: consumer.statistics().claiming)
                await stream.append_many([*range(600)])
                proxy.delay(0.002, jitter=0.002)
                proxy.storm(drop_reply_ratio=0.05, drop_request_ratio=0.05, duplicate_ratio=0.1)
                proxy.duplicate(3)
                for number in range(3):
                    await anyio.sleep(0.1)
                    proxy.cut()
                    if number == 1:
                        assert 0 < len({*got}) < 600, "under load"
                        server.kill()
                        await anyio.to_thread.run_sync(server.restart)
                proxy.calm()
                await until(lambda: {*got} == {*range(600)}, 15)
                consumer.stop()
            assert proxy.statistics().duplicated >= 3
            # Its own last acknowledgements were heard, whatever the network did before.
            assert await stream.log.pending("g") == []
            assert await stream.lag("g") == 0


@on_one_loop
async def test_a_blocked_read_that_is_cancelled_orphans_nothing(redis_url):
    async with Stream("s", redis_url) as stream:
        got: list[int] = []
        appended = 0
        for _ in range(20):
            async with StreamConsumer(stream, group="g") as consumer:
                await stream.append_many([*range(appended, appended + 5)])
                appended += 5
                with anyio.move_on_after(0.01):
                    while True:
                        async with await anext(consumer) as message:
                            got.append(message.payload)
        async with StreamConsumer(stream, group="g") as consumer:
            with anyio.move_on_after(5):
                while len(got) < appended:
                    async with await anext(consumer) as message:
                        assert message.attempt == 1
                        got.append(message.payload)
        assert sorted(got) == [*range(appended)]
        assert await stream.log.pending("g") == []
