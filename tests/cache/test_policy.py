"""Who leaves: S3-FIFO and LRU against plain models, bounded looks, and hit ratios on traces."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.memory import Near
from aiopatterns.cache.policy import (
    LRU,
    MOST_LOOKS,
    MOST_USES,
    S3FIFO,
    Ghosts,
    Node,
    Policy,
    policy_for,
)
from aiopatterns.cache.terms import Eviction


class Named(Node):
    __slots__ = ("name",)

    def __init__(self, name: int, weight: int = 1) -> None:
        super().__init__(name, weight, math.inf)
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def walk(policy: Policy[Named]) -> list[Named]:
    """All nodes, oldest first, with the small queue before main; checks that the ring is whole."""
    found, node = [], policy._mark.newer
    while node is not policy._mark:
        assert node.older.newer is node
        assert node.newer.older is node
        if isinstance(node, Named):
            found.append(node)
        node = node.newer
    return found


def queues(policy: S3FIFO[Named]) -> tuple[list[int], list[int]]:
    nodes = walk(policy)
    assert policy._small == sum(each.weight for each in nodes if not each.proven)
    assert policy._proven == sum(each.weight for each in nodes if each.proven)
    return [n.name for n in nodes if not n.proven], [n.name for n in nodes if n.proven]


def filled(limit: int) -> tuple[S3FIFO[Named], list[Named]]:
    policy: S3FIFO[Named] = S3FIFO(limit)
    nodes = [Named(name) for name in range(limit)]
    for node in nodes:
        policy.admit(node)
    return policy, nodes


def test_both_policies_are_found_by_name():
    assert type(policy_for("s3fifo", 10)) is S3FIFO
    assert type(policy_for("lru", 10)) is LRU


def test_a_policy_says_itself_who_leaves():
    bare: Policy[Named] = Policy()
    with pytest.raises(NotImplementedError):
        bare.victim()


# ------------------------------------------------------------------------------------- S3-FIFO


def test_while_there_is_room_main_is_filled_too():
    policy, _ = filled(20)
    small, main = queues(policy)
    assert len(small) == 2
    assert len(main) == 18


def test_what_was_not_used_leaves_and_is_remembered():
    policy, nodes = filled(20)
    small, _ = queues(policy)
    gone = policy.victim()
    assert gone is nodes[small[0]]
    assert not hasattr(gone, "newer"), "it keeps no neighbour"
    again = Named(gone.hashed)
    policy.admit(again)
    assert again.proven
    assert again.name in queues(policy)[1]


def test_one_use_in_the_small_queue_is_enough_for_main():
    policy, nodes = filled(20)
    first, second = queues(policy)[0]
    nodes[first].uses = 1
    # The small queue is below its share then, so it is main's turn.
    gone = policy.victim()
    assert gone.proven
    assert gone.name not in {first, second}
    assert nodes[first].proven
    assert nodes[first].uses == 0


def test_what_was_used_in_main_stays_once_for_each_use():
    policy, nodes = filled(20)
    for node in nodes:
        node.uses = MOST_USES
    left = [policy.victim().name for _ in range(20)]
    assert sorted(left) == list(range(20))
    assert queues(policy) == ([], [])


def test_a_victim_of_main_is_not_remembered():
    policy, nodes = filled(20)
    for name in queues(policy)[0]:
        policy.forget(nodes[name])
    gone = policy.victim()
    assert gone.proven
    assert gone.hashed not in policy._ghosts


def test_what_is_remembered_comes_back_to_main():
    policy, nodes = filled(20)
    small, main = queues(policy)
    for name in (small[0], *main[:3]):
        policy.forget(nodes[name])
        assert name not in policy._ghosts
    policy.remember(nodes[main[0]])
    back = Named(main[0])
    policy.admit(back)
    assert back.proven


def test_a_scan_leaves_main_alone():
    policy, _ = filled(100)
    hot = set(queues(policy)[1])
    for name in range(1_000, 3_000):
        policy.victim()
        policy.admit(Named(name))
    assert set(queues(policy)[1]) == hot


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11])
def test_small_limits_work(limit):
    policy, _ = filled(limit)
    for name in range(100, 130):
        policy.victim()
        policy.admit(Named(name))
        assert len(walk(policy)) == limit


def test_heavy_nodes_push_out_nobody_unless_they_come_again():
    policy, _ = filled(20)
    heavy = Named(77, weight=11)
    assert policy.fits(Named(78, weight=10), 100)
    assert not policy.fits(heavy, 100)
    policy.remember(heavy)
    assert policy.fits(heavy, 100)
    assert not policy.fits(Named(77, weight=91), 100)
    assert policy.fits(Named(79, weight=1), 5), "the small share is never nothing"


def test_clear_forgets_the_nodes_and_remembers_the_ghosts():
    policy, _ = filled(20)
    gone = policy.victim()
    policy.clear()
    assert queues(policy) == ([], [])
    assert policy.hand is policy._mark
    assert gone.hashed in policy._ghosts


@pytest.mark.promise("cache-bounded-steps")
@pytest.mark.parametrize("limit", [10, 1_000, 5_000])
def test_a_victim_costs_a_bounded_number_of_looks(limit):
    policy, nodes = filled(limit)
    for node in nodes:
        node.uses = MOST_USES
    for _ in range(min(50, limit)):
        before = policy.looks
        policy.victim()
        assert 1 <= policy.looks - before <= MOST_LOOKS
    # Looks are paid for by uses: on the average there are few.
    assert policy.looks <= limit * (MOST_USES + 1)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "drop", "clear"]), st.integers(0, 30)),
    max_size=300,
)


@given(STEPS, st.integers(1, 12))
def test_s3fifo_is_its_plain_model(steps, limit):
    model, near = PlainS3(limit), Near[int, int](max_size=limit)
    for step, key in steps:
        if step == "drop":
            assert near.drop(key) is model.drop(key)
        elif step == "clear":
            near.clear()
            model.clear()
        else:
            assert ask(near, key) is model.ask(key)
        assert set(near.keys()) == set(model.uses)


class PlainS3:
    """The same rules over lists."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.small: list[int] = []
        self.main: list[int] = []
        self.uses: dict[int, int] = {}
        self.ghosts: list[tuple[int, int]] = []
        self.serial = 0
        self.remembered = max(1, limit - limit // 10)

    def ask(self, key: int) -> bool:
        if key in self.uses:
            self.uses[key] = min(MOST_USES, self.uses[key] + 1)
            return True
        if len(self.uses) == self.limit:
            self.evict()
        self.uses[key] = 0
        ghost = key in [each for each, _ in self.ghosts]
        self.ghosts = [each for each in self.ghosts if each[0] != key]
        crowded = len(self.small) * 10 > len(self.small) + len(self.main)
        (self.main if ghost or crowded else self.small).append(key)
        return False

    def evict(self) -> None:
        while True:
            whole = len(self.small) + len(self.main)
            from_small = self.small and len(self.small) * 10 >= whole
            key = (self.small if from_small else self.main).pop(0)
            if not self.uses[key]:
                break
            self.uses[key] = 0 if from_small else self.uses[key] - 1
            self.main.append(key)
        del self.uses[key]
        if from_small:
            self.remember(key)

    def remember(self, key: int) -> None:
        self.serial += 1
        self.ghosts = [each for each in self.ghosts if each[0] != key]
        self.ghosts.append((key, self.serial))
        self.ghosts = [each for each in self.ghosts if each[1] > self.serial - self.remembered]

    def drop(self, key: int) -> bool:
        if key not in self.uses:
            return False
        del self.uses[key]
        if key in self.small:
            self.small.remove(key)
        else:
            self.main.remove(key)
            self.remember(key)
        return True

    def clear(self) -> None:
        self.small, self.main, self.uses = [], [], {}


# ----------------------------------------------------------------------------------------- LRU


@given(STEPS, st.integers(1, 12))
def test_lru_is_its_plain_model(steps, limit):
    model: OrderedDict[int, None] = OrderedDict()
    near = Near[int, int](max_size=limit, eviction="lru")
    for step, key in steps:
        if step == "drop":
            assert near.drop(key) is (key in model)
            model.pop(key, None)
        elif step == "clear":
            near.clear()
            model.clear()
        else:
            assert ask(near, key) is (key in model)
            model[key] = None
            model.move_to_end(key)
            if len(model) > limit:
                model.popitem(last=False)
        assert set(near.keys()) == set(model)


def test_lru_takes_what_weighs_no_more_than_all():
    policy: LRU[Named] = LRU()
    assert policy.fits(Named(1, weight=10), 10)
    assert not policy.fits(Named(1, weight=11), 10)
    policy.remember(Named(1, weight=11))


# -------------------------------------------------------------------------------------- ghosts


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20))), st.integers(1, 8))
def test_ghosts_are_the_last_that_were_added(steps, limit):
    ghosts, serial = Ghosts(limit), 0
    model: dict[int, int] = {}
    for adds, hashed in steps:
        if adds:
            serial += 1
            ghosts.add(hashed)
            model[hashed] = serial
            model = {key: at for key, at in model.items() if at > serial - limit}
        else:
            assert ghosts.take(hashed) is (model.pop(hashed, None) is not None)
        assert len(ghosts) == len(model) <= limit
        assert all(key in ghosts for key in model)
    assert len(ghosts._line) <= limit


# ---------------------------------------------------------------------------------- hit ratios


def ask(near: Near[int, int], key: int) -> bool:
    if near.find(key, 0.0) is not None:
        return True
    near.put(key, key, fresh_until=math.inf, stale_until=math.inf)
    return False


def hits(trace: list[int], limit: int, eviction: Eviction) -> int:
    near: Near[int, int] = Near(max_size=limit, eviction=eviction)
    return sum(ask(near, key) for key in trace)


def zipf(chance: random.Random, keys: int, skew: float, length: int) -> list[int]:
    weights = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    return chance.choices(range(keys), cum_weights=weights, k=length)


def scans(chance: random.Random, keys: int, skew: float, length: int) -> list[int]:
    """Popular keys, and every now and then a walk over ones that are asked for just once."""
    trace: list[int] = []
    fresh = keys
    while len(trace) < length:
        trace += zipf(chance, keys, skew, 600)
        trace += range(fresh, fresh + 400)
        fresh += 400
    return trace


def loops(chance: random.Random, keys: int, length: int) -> list[int]:
    """Walks around the same keys, again and again."""
    return (list(range(keys)) * (length // keys + 1))[:length]


def shifting(chance: random.Random, keys: int, skew: float, length: int) -> list[int]:
    """Popularity moves on: after each third of the trace other keys are the popular ones."""
    trace: list[int] = []
    order = list(range(keys))
    for _ in range(3):
        chance.shuffle(order)
        trace += [order[rank] for rank in zipf(chance, keys, skew, length // 3)]
    return trace


def drifting(chance: random.Random, keys: int, skew: float, length: int) -> list[int]:
    """Popularity moves on with every request: the newest keys are always the popular ones."""
    return [rank - at // 10 for at, rank in enumerate(zipf(chance, keys, skew, length))]


TRACES = {
    "zipf 0.7": lambda chance: zipf(chance, 5_000, 0.7, 15_000),
    "zipf 0.99": lambda chance: zipf(chance, 5_000, 0.99, 15_000),
    "zipf 1.2": lambda chance: zipf(chance, 5_000, 1.2, 15_000),
    "scans": lambda chance: scans(chance, 2_000, 0.9, 15_000),
    "loops": lambda chance: loops(chance, 1_100, 15_000),
    "loop in zipf": lambda chance: [
        key
        for pair in zip(zipf(chance, 3_000, 0.9, 8_000), loops(chance, 5_300, 8_000), strict=True)
        for key in pair
    ],
    "shifting": lambda chance: shifting(chance, 3_000, 0.9, 30_000),
    "drifting": lambda chance: drifting(chance, 3_000, 0.9, 15_000),
}


@pytest.mark.untraced
@pytest.mark.promise("cache-hit-ratio")
@pytest.mark.parametrize("limit", [50, 250, 1_000])
@pytest.mark.parametrize("name", TRACES)
def test_the_hit_ratio_is_never_below_that_of_lru(name, limit):
    for seed in (1, 2):
        trace = TRACES[name](random.Random(seed))
        assert hits(trace, limit, "s3fifo") >= hits(trace, limit, "lru")
