"""Streams, long form: consumers killed one after the other, with keys in order; memory stays flat."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter, defaultdict

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.messaging import Message, Stream, StreamConsumer
from tests.messaging.test_faults_stream import PREFETCH, crew

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.leaves("{ap:log:*", "ap:*lease*")]


@pytest.mark.parametrize("ordered", [False, True], ids=["any-order", "by-key"])
@pytest.mark.timeout(120)
def test_kills_lose_nothing_and_keep_the_order_of_each_key(redis_url, tmp_path, ordered):
    messages, kills = 3_000, 10

    async def body() -> None:
        async with Stream("faults", redis_url) as stream:
            for number in range(messages):
                payload = {"n": number, "seconds": 0.02}
                await stream.append(payload, key=f"k{number % 20}")
            with crew(redis_url, tmp_path, *(("key",) if ordered else ())) as workers:
                for _ in range(4):
                    workers.start()
                for _ in range(kills):
                    seen = len(workers.notes())
                    while len(workers.notes()) < min(seen + 60, messages):
                        await anyio.sleep(0.02)
                    at_work = workers.notes()[-1][2]
                    next(each for each in workers.processes if each.pid == at_work).kill()
                    workers.start()
                with anyio.fail_after(90):
                    while len({number for _, number, _ in workers.notes()}) < messages:
                        await anyio.sleep(0.1)
            notes = workers.notes()
        again = len(notes) - messages
        first: dict[str, list[int]] = defaultdict(list)
        met = Counter[int]()
        for key, number, _ in notes:
            met[number] += 1
            if met[number] == 1:
                first[key].append(number)
        print(f"{messages} messages, {kills} kills: 0 lost, {again} again")
        assert again <= kills * PREFETCH
        if ordered:
            assert all(numbers == sorted(numbers) for numbers in first.values())

    anyio.run(body)


@pytest.mark.timeout(120)
def test_memory_stays_flat(redis_url):
    """100,000 messages over Redis: at most 1 MiB more after the first 20,000."""
    done = 0

    async def body() -> tuple[int, float]:
        nonlocal done
        started = monotonic()
        async with Stream("soak", redis_url, max_length=1_000) as stream:
            consumer = StreamConsumer(stream, group="g")

            async def handler(message: Message) -> None:
                nonlocal done
                done += 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consumer.run, handler)
                before = 0
                for number in range(1, 101):
                    await stream.append_many([{"id": 17}] * 1_000)
                    while done < number * 1_000:
                        await sleep(0.001)
                    if number == 20:
                        gc.collect()
                        tracemalloc.start()
                        before = tracemalloc.get_traced_memory()[0]
                gc.collect()
                grown = tracemalloc.get_traced_memory()[0] - before
                tracemalloc.stop()
                consumer.stop()
            assert await stream.length() <= 2_000
        return grown, monotonic() - started

    grown, seconds = anyio.run(body)
    print(f"100,000 messages in {seconds:.1f} s, {grown / 1_024:.0f} KiB grown")
    assert grown <= 1_048_576
