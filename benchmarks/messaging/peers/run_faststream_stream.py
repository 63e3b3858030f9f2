"""A stream consumed with faststream, in its own environment.

Follows: faststream documentation, "Redis Streams" (``StreamSub`` with a group), "Concurrent
processing" (``max_workers``, for one message at a time is the default).

``run_faststream_stream.py URL COUNT``; prints one line of JSON: seconds for COUNT messages that are
in the stream before the consumer starts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

import uvloop
from faststream.redis import RedisBroker, StreamSub

HANDLERS = 100


async def main(url: str, words: str) -> None:
    count = int(words)
    broker = RedisBroker(url, logger=None, log_level=logging.CRITICAL)
    done = asyncio.Event()
    handled = 0

    stream = StreamSub("bench", group="g", consumer="c", last_id="0", max_records=HANDLERS)

    @broker.subscriber(stream=stream, max_workers=HANDLERS)
    async def handle(body: dict[str, int]) -> None:
        nonlocal handled
        assert body["id"] == 17
        handled += 1
        if handled == count:
            done.set()

    async with broker:
        for _ in range(count):
            await broker.publish({"id": 17}, stream="bench")
        started = time.perf_counter()
        await broker.start()
        await asyncio.wait_for(done.wait(), 240)
        print(json.dumps({"seconds": time.perf_counter() - started}))


uvloop.run(main(*sys.argv[1:]))
