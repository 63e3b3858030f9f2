from __future__ import annotations

from aiopatterns.core.clock import sleep
from aiopatterns.jobs.slots import PATIENCE, Slots
from aiopatterns.testing import simulate


class Loop:
    """What slots see of a step loop."""

    def __init__(self, *, home=True) -> None:
        self.home = home
        self.signals = 0

    def signal(self) -> None:
        self.signals += 1


def make(limit, *homes):
    return Slots(limit), *(Loop(home=each) for each in homes)


async def test_one_loop_may_have_all_that_is_free():
    slots, loop = make(5, True)
    assert slots.grant(loop) == 5
    slots.want(loop)
    assert slots.grant(loop) == 5
    slots.served(loop)
    slots.reserve(5)
    assert (slots.free, slots.grant(loop), slots.open) == (0, 0, False)
    slots.arrive(5, 2)
    assert (slots.free, slots.used, slots.grant(loop), slots.open) == (3, 2, 3, True)
    slots.leave()
    assert slots.free == 4
    slots.closed = True
    assert (slots.grant(loop), slots.open) == (0, False)


async def test_loops_that_are_at_home_share_what_is_free():
    slots, one, two = make(5, True, True)
    slots.want(one)
    slots.want(two)
    assert (slots.grant(one), slots.grant(two)) == (3, 2)
    slots.served(one)  # has had its share, and settles something
    assert (slots.grant(two), slots.grant(one)) == (5, 2)


async def test_a_single_place_goes_to_who_waits_longest():
    slots, one, two = make(1, True, True)
    slots.want(two)
    slots.want(one)
    assert (slots.grant(one), slots.grant(two)) == (0, 1)
    slots.want(two)  # keeps its turn
    assert slots.grant(two) == 1


def test_a_loop_away_from_home_waits_a_moment():
    async def main() -> None:
        slots, home, away = make(4, True, False)
        assert slots.grant(away) == 4  # nobody else wants any
        slots.want(home)
        assert slots.grant(away) == 0
        slots.want(away)
        assert (slots.grant(home), slots.grant(away)) == (4, 0)
        assert slots.patient_until(away) == PATIENCE
        await sleep(PATIENCE)
        assert (slots.grant(home), slots.grant(away)) == (2, 2)
        assert slots.patient_until(away) > 1e300
        assert slots.patient_until(home) > 1e300
        slots.served(home)
        assert slots.grant(away) == 4

    simulate(main)


def test_loops_away_from_home_among_themselves():
    async def main() -> None:
        slots, one, two = make(4, False, False)
        slots.want(one)
        slots.want(two)
        assert slots.grant(one) == 4  # neither has waited long enough to be in the other's way

    simulate(main)


async def test_who_waits_is_told_when_places_are_free():
    slots, one, two = make(2, True, True)
    slots.reserve(2)
    slots.want(two)
    slots.arrive(2, 2)
    assert two.signals == 0
    slots.leave()
    assert (one.signals, two.signals) == (0, 1)
    slots.reserve(1)
    slots.arrive(1, 0)
    assert two.signals == 2


async def test_an_exclusive_loop_gets_one_place_once_all_are_free():
    slots, one, two = make(3, True, True)
    slots.used = 1
    slots.want(one)
    slots.want(two)
    slots.isolate(one, wanted=True)
    assert (slots.grant(one), slots.grant(two), slots.open) == (0, 0, False)
    slots.leave()
    assert (slots.grant(one), slots.grant(two)) == (1, 0)
    before = two.signals
    slots.isolate(one, wanted=False)
    assert two.signals == before + 1
    assert slots.grant(two) == 1
    slots.isolate(two, wanted=False)  # was not
    assert two.signals == before + 1
