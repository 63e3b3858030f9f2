"""Who is probed next."""

from __future__ import annotations

from collections import Counter

from aiopatterns.cluster.ring import WATCHERS, Ring
from aiopatterns.core.hashing import stable_hash

NAMES = [f"node-{number}" for number in range(20)]


def rings(names=NAMES) -> dict[str, Ring]:
    """A ring for each, that has all others."""
    made = {name: Ring(name) for name in names}
    for name, ring in made.items():
        for other in names:
            if other != name:
                ring.add(other)
    return made


def followers(ring: Ring, times: int) -> list[str]:
    return [name for _ in range(times) if (name := ring.next()) is not None]


def test_an_empty_ring_has_nobody():
    ring = Ring("a")
    assert (ring.next(), ring.next(), ring.sample(3), len(ring)) == (None, None, [], 0)


def test_everybody_is_watched_by_its_two_neighbours():
    order = sorted(NAMES, key=stable_hash)
    for at, name in enumerate(order):
        probed = followers(rings()[name], 9)
        assert probed[0::3] == [order[(at + 1) % len(order)]] * 3
        assert probed[1::3] == [order[at - 1]] * 3


def test_two_watch_each_other():
    ring = rings(["a", "b"])["a"]
    assert followers(ring, 6) == ["b"] * 6


def test_the_third_time_goes_round_robin_over_all_others():
    ring = rings()["node-3"]
    probed = followers(ring, 6 * 19)[2::3]
    assert Counter(probed[:19]) == Counter(probed[19:]) == Counter(set(NAMES) - {"node-3"})
    assert probed[:19] != probed[19:]  # shuffled anew


def test_who_is_removed_is_neither_probed_nor_picked():
    ring = rings()["node-0"]
    watched = ring.next()
    assert watched is not None
    ring.remove(watched)
    assert len(ring) == 18
    assert watched not in followers(ring, 100)
    assert watched not in ring.sample(100)


def test_who_joins_is_probed_within_one_round():
    ring = rings()["node-0"]
    followers(ring, 7)
    ring.add("new")
    assert "new" in followers(ring, 3 * 20)


def test_a_suspect_is_next_for_its_watchers_and_for_nobody_else():
    order = sorted(NAMES, key=stable_hash)
    suspect = order[2]
    alarmed = []
    for name, ring in rings().items():
        if name == suspect:
            continue
        ring.alarm(suspect)
        ring.alarm(suspect)  # once is enough
        if ring.next() == suspect:
            alarmed.append(name)
        assert ring.next() == order[order.index(name) - 1]
    nearest = [order[(2 - back) % 20] for back in range(1, WATCHERS + 1)]
    assert sorted(alarmed) == sorted(nearest)  # the first of them would have probed it anyhow


def test_a_suspect_that_is_gone_by_then_is_passed_over():
    ring = rings(["a", "b", "c"])["a"]
    ring.alarm("b")
    ring.remove("b")
    assert followers(ring, 4) == ["c"] * 4


def test_who_comes_and_goes_without_end_takes_no_more_room():
    ring = rings(["a", "b", "c", "d"])["a"]
    for _ in range(100):
        ring.remove("b")
        ring.add("b")
    assert len(ring._order) == 3


def test_samples_are_different_and_leave_one_out():
    ring = rings()["node-0"]
    for wanted in (0, 1, 5, 18, 30):
        sample = ring.sample(wanted, but="node-7")
        assert len(set(sample)) == len(sample) == min(wanted, 18)
        assert not {"node-0", "node-7"} & set(sample)
    assert len(ring.sample(19)) == 19
