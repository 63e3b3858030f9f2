"""Heartbeats: a fixed deadline."""

from __future__ import annotations

import math

import pytest

from aiopatterns.cluster import DetectorStatistics, Heartbeats
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


def test_silence_kills_and_a_beat_revives():
    async def main():
        peers = Heartbeats(timeout=30)
        peers.beat("a")
        await sleep(10)
        peers.beat("b")
        await sleep(19.9)
        assert (peers.is_alive("a"), peers.is_alive("b"), peers.dead()) == (True, True, ())
        await sleep(0.1)
        assert (peers.is_alive("a"), peers.is_alive("b"), peers.dead()) == (False, True, ("a",))
        await sleep(10)
        assert peers.dead() == ("a", "b")
        peers.beat("a")
        assert (peers.is_alive("a"), peers.dead()) == (True, ("b",))
        assert peers.statistics() == DetectorStatistics(alive=1, dead=1, beats=3)

    simulate(main)


def test_the_list_of_the_dead_looks_at_no_more_than_one_of_the_living():
    async def main():
        peers = Heartbeats(timeout=5)
        for at in range(10):
            peers.beat(str(at))
            await sleep(1)
        peers.beat("0")
        assert peers.dead() == ("1", "2", "3", "4", "5")

    simulate(main)


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
@pytest.mark.promise("cluster-bad-input")
def test_bad_input(timeout):
    with pytest.raises(ValueError, match="timeout must be a finite number > 0"):
        Heartbeats(timeout)
