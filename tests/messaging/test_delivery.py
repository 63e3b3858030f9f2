"""Delivery: what its block leaves behind, and what becomes of one that is forgotten."""

from __future__ import annotations

import gc
import threading

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.context import correlation_id
from aiopatterns.core.errors import Reject
from aiopatterns.messaging import Stream, StreamConsumer


async def test_the_block_leaves_the_context_as_it_was_also_after_an_error():
    async with Stream("s", "memory://") as stream:
        await stream.append(1)
        async with StreamConsumer(stream, group="g") as consumer:
            with pytest.raises(Reject):
                async with await anext(consumer) as message:
                    assert correlation_id() == message.id
                    raise Reject
            assert correlation_id() is None


async def test_one_that_is_forgotten_is_given_back_at_once():
    async with Stream("s", "memory://") as stream:
        await stream.append(1)
        async with StreamConsumer(stream, group="g") as consumer:
            await anext(consumer)
            gc.collect()
            assert consumer.statistics().released == 1
            async with await anext(consumer) as message:
                assert message.attempt == 1
    assert consumer.statistics().acked == 1


async def test_one_that_another_thread_forgets_is_given_back_when_the_consumer_ends():
    async with Stream("s", "memory://") as stream:
        await stream.append(1)
        async with StreamConsumer(stream, group="g") as consumer:
            box = [await anext(consumer)]
            thread = threading.Thread(target=box.clear)
            thread.start()
            thread.join()
            await sleep(0.001)
            assert consumer.statistics().in_hand == 1
        assert consumer.statistics().released == 1
