"""The server's clock: lives come back shorter, never longer."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.serverclock import ServerClock
from aiopatterns.cache.terms import Life
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import simulate


@given(st.lists(st.floats(0, 0.2), min_size=4, max_size=4), st.floats(-1e6, 1e6))
def test_a_life_is_never_longer_elsewhere(ways, shift):
    async def scenario():
        clocks = ServerClock(), ServerClock()
        for clock, there, back in zip(clocks, ways[:2], ways[2:], strict=True):
            asked = monotonic()
            await sleep(there)
            time = monotonic() + 1.7e9 + shift
            await sleep(back)
            clock.set(time, asked=asked)
        life = Life(monotonic() + 5, monotonic() + 9)
        writer, reader = clocks
        found = reader.inside(writer.outside(life))
        slack = 2 * sum(ways) + 1e-6
        for was, now in zip(life, found, strict=True):
            assert was - slack <= now <= was + 1e-6

    simulate(scenario)


def test_it_is_asked_again_after_a_minute():
    async def scenario():
        clock = ServerClock()
        assert clock.is_due
        clock.set(100.0, asked=monotonic())
        assert not clock.is_due
        await sleep(60)
        assert clock.is_due

    simulate(scenario)


def test_for_ever_is_for_ever():
    clock = ServerClock()
    clock.set(100.0, asked=monotonic())
    assert clock.outside(Life(math.inf, math.inf)) == (math.inf, math.inf)
    assert clock.inside(Life(math.inf, math.inf)) == (math.inf, math.inf)
