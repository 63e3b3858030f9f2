from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiopatterns.testing.link import Counts, Fate, Link


class Transport:
    def abort(self) -> None:
        pass


class Writer:
    """The writing end of a peer, which keeps what it is told."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.transport = Transport()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


class Weather:
    """A network in which further bytes arrive while the first are being handled."""

    def __init__(self, fate: Fate, direction: str, reader: asyncio.StreamReader, late: bytes):
        self.counts = Counts()
        self._fates = [fate]
        self._direction = direction
        self._reader = reader
        self._late = late

    def fate(self, request: bytes) -> Fate:
        return self._fates.pop() if self._fates else Fate.THROUGH

    async def hold(self, direction: str) -> None:
        if direction == self._direction and self._late:
            self._reader.feed_data(self._late)
            self._late = b""


@pytest.mark.parametrize(
    ("fate", "direction"), [(Fate.DROP_REPLY, "replies"), (Fate.DROP_REQUEST, "requests")]
)
async def test_nothing_passes_after_a_loss(fate, direction):
    """A reply that came right behind a lost one would pass for it."""
    client, server = asyncio.StreamReader(), asyncio.StreamReader()
    to_client, to_server = Writer(), Writer()
    one, two = b"*1\r\n$3\r\nONE\r\n", b"*1\r\n$3\r\nTWO\r\n"
    ends: Any = (client, to_client), (server, to_server)
    if direction == "replies":
        network: Any = Weather(fate, direction, server, b"+TWO\r\n")
        client.feed_data(one + two)
        asyncio.get_running_loop().call_later(0.01, server.feed_data, b"+ONE\r\n")
    else:
        network = Weather(fate, direction, client, two)
        client.feed_data(one)
    await Link(network, *ends, framed=True).run()
    assert to_client.written == []
    assert to_server.written == ([one, two] if direction == "replies" else [])
