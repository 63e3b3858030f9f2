"""Pieces: bounded commands, each in its own time."""

from __future__ import annotations

from typing import Any, cast

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.backends.records import Change
from aiopatterns.cache.gate import TIMEOUT, Gate
from aiopatterns.cache.pieces import PIECE, Pieces
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate
from tests.cache.shaky import Shaky, shared

NAMES = [f"k{number}" for number in range(2 * PIECE + 1)]


def parts():
    shaky = Shaky(MemoryBackend())
    gate = Gate("n")
    gate.back()
    return shaky, gate, Pieces(cast("Any", shaky), gate)


async def test_many_keys_are_several_commands():
    shaky, _, pieces = parts()
    async with shaky.server:
        assert await pieces.get(NAMES) == {}
        assert await pieces.change([Change(name, b"v") for name in NAMES]) == [True] * len(NAMES)
        assert shaky.calls == ["get_many"] * 3 + ["change_many"] * 3
        assert await pieces.get(NAMES) == dict.fromkeys(NAMES, b"v")
        shaky.calls.clear()
        assert len(await pieces.get(NAMES[:PIECE]) or ()) == PIECE
        assert len(await pieces.get(NAMES[:5], piece=2) or ()) == 5
        assert shaky.calls == ["get_many"] * 4
        assert await pieces.change([]) == []
        assert await pieces.get([]) == {}


def test_a_server_that_is_lost_between_pieces():
    async def scenario():
        shaky, gate, pieces = parts()
        async with shaky.server:
            ways = 0

            async def way():
                nonlocal ways
                ways += 1
                await sleep(9 if ways > 2 else 0)

            shaky.way = way
            made = await pieces.change([Change(name, b"v") for name in NAMES])
            assert made == [True] * PIECE + [None] * (PIECE + 1)
            assert not gate.up
            assert await pieces.get(NAMES) is None
            assert await pieces.get(NAMES[:1]) is None

    simulate(scenario)


def test_a_batch_of_any_size_does_not_lose_the_server():
    """A server that needs 0.1 ms for each key answers 20,000 of them, a piece at a time."""

    async def scenario():
        shaky: Any = Shaky(MemoryBackend())
        keys = range(20_000)

        async def way():
            await sleep(PIECE * 0.0001)

        async with shared(shaky) as cache:
            shaky.way = way
            assert PIECE * 0.0001 * 2 < TIMEOUT

            async def load(missing):
                return {key: key for key in missing}

            assert len(await cache.get_or_load_many(keys, load)) == 20_000
            await cache.invalidate(*range(5_000))
            assert cache._far.up
            assert len(cache._far._outbox.owed) == 0
            await cache._far.clear()
            assert cache._far.up

    simulate(scenario)
