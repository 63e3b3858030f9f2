from __future__ import annotations

import asyncio

import pytest

from aiopatterns.backends.redis.errors import LostError, RefusalError, UnsentError
from aiopatterns.backends.redis.pipeline import Pipeline
from aiopatterns.backends.redis.statistics import Tally
from aiopatterns.backends.url import parse
from aiopatterns.core.clock import monotonic, sleep
from tests.backends.redis.fakeserver import OK, FakeServer

pytestmark = pytest.mark.real


class Opened:
    """A pipeline to ``server``."""

    def __init__(self, url, *, patience=5.0, locate=None):
        self.target = parse(url)
        self.tally = Tally()
        self.patience = patience
        self.located = 0
        self._locate = locate or self._first

    async def _first(self):
        self.located += 1
        return self.target.addresses[0]

    async def __aenter__(self):
        self.pipeline = Pipeline(
            self.target, self._locate, patience=self.patience, tally=self.tally
        )
        return self

    async def __aexit__(self, *_):
        if ends := self.pipeline.drop("end"):
            await asyncio.wait(ends)

    async def __call__(self, *command):
        return await self.pipeline.send(command)


@pytest.mark.promise("backends-pipelining")
async def test_one_turn_is_one_write(redis_url):
    async with Opened(redis_url) as opened:
        await opened("PING")
        before = opened.tally.round_trips
        replies = await asyncio.gather(*(opened("ECHO", str(n)) for n in range(1000)))
        assert replies == [str(n).encode() for n in range(1000)]
        assert opened.tally.round_trips == before + 1
        assert opened.tally.commands == 1001
        assert opened.pipeline.in_flight == 0


async def test_in_flight_counts_what_is_not_answered(redis_url):
    async with Opened(redis_url) as opened:
        await opened("PING")
        waiter = opened.pipeline.send(("PING",))
        assert opened.pipeline.in_flight == 1
        await sleep(0)
        await sleep(0)
        assert opened.pipeline.in_flight <= 1
        await waiter
        assert opened.pipeline.in_flight == 0


async def test_a_word_of_a_wrong_type_is_the_callers_error(redis_url):
    async with Opened(redis_url) as opened:
        with pytest.raises(TypeError):
            opened.pipeline.send(("GET", None))
        assert await opened("ECHO", 5) == b"5"
        assert await opened("ECHO", 0.5) == b"0.5"


async def test_what_is_cancelled_before_the_flush_is_not_sent():
    async with FakeServer() as server, Opened(server.url) as opened:
        await opened("FIRST")
        one, two = opened.pipeline.send(("ONE",)), opened.pipeline.send(("TWO",))
        one.cancel()
        await two
        lonely = opened.pipeline.send(("LONELY",))
        lonely.cancel()
        await opened("LAST")
        assert [words[0] for words in server.seen[1:]] == [b"FIRST", b"TWO", b"LAST"]
        assert opened.tally.commands == 3


async def test_nothing_is_flushed_when_all_are_cancelled():
    async with FakeServer() as server, Opened(server.url) as opened:
        await opened("FIRST")
        lonely = opened.pipeline.send(("LONELY",))
        lonely.cancel()
        await sleep(0.01)
        assert opened.tally.round_trips == 1


async def test_nobody_answers(tmp_path):
    async with Opened(f"unix://{tmp_path}/none") as opened:
        replies = await asyncio.gather(*(opened("PING") for _ in range(10)))
        assert {type(each) for each in replies} == {UnsentError}
        assert opened.located == 1
        cancelled = opened.pipeline.send(("PING",))
        other = opened.pipeline.send(("PING",))
        cancelled.cancel()
        assert type(await other) is UnsentError
        assert opened.located == 2


async def test_attempts_pause_more_and_more(tmp_path):
    async with Opened(f"unix://{tmp_path}/none") as opened:
        began = monotonic()
        while monotonic() - began < 0.3:
            await opened("PING")
        assert 2 <= opened.located <= 20


async def test_a_refusal_of_the_greeting_is_everybodys():
    answer = lambda words: b"-WRONGPASS no\r\n"
    async with FakeServer(answer, greet=False) as server:
        async with Opened(server.url.replace("unix://", "unix://:p@")) as opened:
            assert type(await opened("PING")) is RefusalError


async def test_a_surprise_leaves_nobody_waiting(redis_url):
    async def locate():
        raise RuntimeError("lost the map")

    async with Opened(redis_url, locate=locate) as opened:
        reply = await opened("PING")
        assert type(reply) is UnsentError
        assert "lost the map" in str(reply)


async def test_what_was_not_sent_goes_over_the_next_connection():
    def answer(words):
        return None if words[0] == b"DIE" else OK

    async with FakeServer(answer) as server, Opened(server.url) as opened:
        await opened("HELLO")
        assert type(await opened("DIE")) is LostError
        assert await opened("AGAIN") == b"OK"
        assert server.connections == 2
        assert opened.tally.reconnects == 1


async def test_what_waits_for_room_goes_over_the_next_connection():
    async with FakeServer() as server, Opened(server.url) as opened:
        await opened("HELLO")
        opened.pipeline._connection.pause_writing()
        waiting = opened.pipeline.send(("PATIENT",))
        await sleep(0.02)
        assert not waiting.done()
        assert opened.pipeline.in_flight == 1
        opened.pipeline._connection.drop("cut")
        assert await waiting == b"OK"
        assert opened.tally.reconnects == 1


async def test_what_waits_for_room_goes_when_there_is_some():
    async with FakeServer() as server, Opened(server.url) as opened:
        await opened("HELLO")
        opened.pipeline._connection.pause_writing()
        waiting = opened.pipeline.send(("PATIENT",))
        await sleep(0.02)
        opened.pipeline._connection.resume_writing()
        assert await waiting == b"OK"


async def test_a_server_that_does_not_read_holds_back_the_rest(redis_server, redis_url):
    if not redis_server.private:
        pytest.fail("this test pauses its server")
    async with Opened(redis_url) as opened:
        await opened("PING")
        redis_server.pause()
        try:
            block = b"x" * 100_000
            waiters = []
            for _ in range(10):
                waiters += [opened.pipeline.send(("ECHO", block)) for _ in range(10)]
                await sleep(0.001)
            assert opened.pipeline._outgoing
        finally:
            redis_server.resume()
        assert all([await each == block for each in waiters])


async def test_many_commands_go_out_in_several_writes(redis_url):
    async with Opened(redis_url) as opened:
        await opened("PING")
        before = opened.tally.round_trips
        replies = await asyncio.gather(*(opened("ECHO", str(n)) for n in range(2_500)))
        assert replies == [str(n).encode() for n in range(2_500)]
        assert opened.tally.round_trips == before + 3
        assert opened.pipeline.in_flight == 0


async def test_much_waits_in_the_pipeline_and_not_in_the_transport(redis_url):
    """What one write takes is bounded, so a turn's commands are not in memory a second time."""
    async with Opened(redis_url) as opened:
        await opened("PING")
        longest = 0
        connection = opened.pipeline._connection
        send = connection._transport.write

        class Watched:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                nonlocal longest
                longest = max(longest, len(data))
                send(data)

        transport, connection._transport = connection._transport, Watched()
        body = b"x" * 100_000
        commands = (opened("ECHO", b"%d" % n + body) for n in range(300))
        replies = await asyncio.gather(*commands)
        assert replies == [b"%d" % n + body for n in range(300)]
        assert longest <= 1_100_000


@pytest.mark.leaves("*")
async def test_many_single_reads_are_several_commands(redis_url):
    async with Opened(redis_url) as opened:
        await asyncio.gather(*(opened("SET", f"k{n}", n) for n in range(2_500)))
        before = opened.tally.commands
        replies = await asyncio.gather(*(opened.pipeline.get(f"k{n}") for n in range(2_500)))
        assert replies == [str(n).encode() for n in range(2_500)]
        assert opened.tally.commands == before + 3


async def test_renewing_looks_where_the_server_is(redis_url):
    async with Opened(redis_url) as opened:
        opened.pipeline.renew("nothing to renew")
        await opened("PING")
        opened.pipeline.renew("too young")
        await opened("PING")
        assert opened.located == 1
        opened.pipeline._connected_at -= 1
        opened.pipeline.renew("old enough")
        await opened("PING")
        assert opened.located == 2


async def test_dropped_while_it_connects():
    async with FakeServer(lambda words: b"", greet=False) as server:
        async with Opened(server.url) as opened:
            waiter = opened.pipeline.send(("PING",))
            while not server.seen:
                await sleep(0.001)
            await asyncio.wait(opened.pipeline.drop("the end"))
            assert type(waiter.result()) is UnsentError
            assert str(waiter.result()) == "the end"


async def test_a_silent_server_is_given_up():
    answer = lambda words: b"" if words[0] == b"SLEEP" else OK
    async with FakeServer(answer) as server, Opened(server.url, patience=0.05) as opened:
        assert "silent for 0.05 s" in str(await opened("SLEEP"))
        assert await opened("PING") == b"OK"


@pytest.mark.promise("backends-pipelining")
async def test_single_reads_of_a_turn_are_one_command(redis_url):
    async with Opened(redis_url) as opened:
        pipeline = opened.pipeline
        await asyncio.gather(opened("SET", "a", 1, "PX", 9999), opened("SET", "b", 2, "PX", 9999))
        before = opened.tally.commands
        asked = [pipeline.get(key) for key in ("b", "none", "a", "b")]
        assert pipeline.in_flight == 4
        written = pipeline.send(("SET", "a", 3, "PX", 9999))
        assert [await each for each in asked] == [b"2", None, b"3", b"2"]  # behind the rest
        assert await written == b"OK"
        assert opened.tally.commands == before + 2
        assert await pipeline.get("a") == b"3"


async def test_single_reads_that_are_cancelled():
    def answer(words):
        if words[0] == b"MGET":
            return b"*%d\r\n" % (len(words) - 1) + b"".join(b"$1\r\n%b\r\n" % w for w in words[1:])
        return OK

    async with FakeServer(answer) as server, Opened(server.url) as opened:
        await opened("HELLO")
        del server.seen[:]
        early = [opened.pipeline.get(key) for key in "abcd"]
        early[1].cancel()
        lonely = None
        while len(server.seen) < 1:
            await sleep(0)
            if early[2].cancel():
                lonely = early[2]
        assert [await early[0], await early[3]] == [b"a", b"d"]
        assert lonely is early[2]
        assert b"b" not in server.seen[0]
        gone = [opened.pipeline.get(key) for key in "ef"]
        for each in gone:
            each.cancel()
        last = opened.pipeline.get("g")
        await last
        assert server.seen[1:] == [[b"GET", b"g"]]
        nobody = opened.pipeline.get("h")
        nobody.cancel()
        await opened("END")
        assert server.seen[2:] == [[b"END"]]


async def test_single_reads_that_fail(tmp_path):
    async with Opened(f"unix://{tmp_path}/none") as opened:
        asked = [opened.pipeline.get(key) for key in "abc"]
        assert {type(await each) for each in asked} == {UnsentError}
    answer = lambda words: None if words[0] == b"MGET" else OK
    async with FakeServer(answer) as server, Opened(server.url) as opened:
        await opened("HELLO")
        asked = [opened.pipeline.get(key) for key in "abc"]
        assert {type(await each) for each in asked} == {LostError}
    answer = lambda words: b"-NOPERM no\r\n" if words[0] == b"MGET" else OK
    async with FakeServer(answer) as server, Opened(server.url) as opened:
        await opened("HELLO")
        asked = [opened.pipeline.get(key) for key in "abc"]
        assert {type(await each) for each in asked} == {RefusalError}


async def test_single_reads_wait_for_the_next_connection():
    answer = lambda words: b"*2\r\n$1\r\na\r\n$1\r\nb\r\n" if words[0] == b"MGET" else OK
    async with FakeServer(answer) as server, Opened(server.url) as opened:
        await opened("HELLO")
        opened.pipeline._connection.pause_writing()
        asked = [opened.pipeline.get(key) for key in "ab"]
        await sleep(0.02)
        assert not asked[0].done()
        opened.pipeline._connection.drop("cut")
        assert [await each for each in asked] == [b"a", b"b"]
