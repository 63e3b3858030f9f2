"""The contract's own values, and that both implementations have its shape."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

from aiopatterns.backends.memory.queue import MemoryQueue
from aiopatterns.backends.queue import (
    DEAD_LIMIT,
    DEAD_TTL,
    MAX_BATCH,
    PRIORITIES,
    JobState,
    NewJob,
    Queue,
    Settled,
    Turn,
)
from aiopatterns.backends.redis.queue import RedisQueue


def test_bounds():
    assert (MAX_BATCH, DEAD_LIMIT, DEAD_TTL) == (500, 10_000, 604_800.0)
    assert list(PRIORITIES) == list(range(10))
    assert len(get_args(JobState)) == 8


def test_defaults_ask_for_nothing():
    assert NewJob("a", b"")[2:] == (0, 0.0, None, 1, 0.0, (), None, ())
    assert Settled("a", "done")[2:] == (b"", 0.0, True)
    assert Turn("w", 1, 15.0)[3:] == ((), 0, None, False)


@pytest.mark.parametrize("kind", [MemoryQueue, RedisQueue])
def test_both_implementations_have_the_protocols_verbs(kind):
    for name, verb in inspect.getmembers(Queue, inspect.isfunction):
        if not name.startswith("_"):
            ours = inspect.signature(getattr(kind, name)).parameters
            theirs = inspect.signature(verb).parameters
            assert [(each.name, each.kind, each.default) for each in ours.values()] == [
                (each.name, each.kind, each.default) for each in theirs.values()
            ]
