"""The sweep in its long form: 20,000 seeds over all rooms; ``python -m tests.sweep`` is the same."""

from __future__ import annotations

import pytest

from tests.sweep.rooms import ROOMS
from tests.sweep.sweeping import swept

pytestmark = [pytest.mark.stress, pytest.mark.untraced, pytest.mark.timeout(1_200)]

SEEDS = 20_000 // len(ROOMS)


@pytest.mark.promise("fault-11-seeds")
@pytest.mark.parametrize("room", ROOMS)
def test_thousands_of_seeds(room, figures):
    [found] = swept([room], SEEDS, processes=1)
    figures.record("violations", len(found.failures), f"of {found.seeds:,} seeds of {room}")
    figures.record("time", round(found.seconds, 1), "s")
    figures.record("digest of all traces", found.digest, "the same for the same code and Python")
    assert found.failures == [], "\n".join(map(str, found.failures[:5]))
