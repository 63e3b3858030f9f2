"""Consistent hashing: the same everywhere, even, bounded, and few keys move."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import ConsistentHash
from aiopatterns.cluster.endpoint import Traffic
from tests.cluster.endpoints import endpoints

KEYS = [f"user:{number}" for number in range(20_000)]


def owners(weights, strategy=None, keys=KEYS):
    picker = (strategy or ConsistentHash()).picker(endpoints(weights), Traffic())
    return {key: picker.pick(key).id for key in keys}


@pytest.mark.promise("cluster-balancer-distribution")
def test_shares_are_even():
    counts = Counter(owners([1] * 10).values())
    for name in "abcdefghij":
        # The standard deviation of a share is 1 / sqrt(160) of it: 8 %.
        assert abs(counts[name] / 2_000 - 1) < 0.3


@pytest.mark.promise("cluster-balancer-distribution")
@pytest.mark.parametrize("unit", [0.01, 1, 100])
def test_shares_follow_the_weights_whatever_their_unit(unit):
    counts = Counter(owners([unit, 3 * unit]).values())
    assert 0.65 < counts["b"] / len(KEYS) < 0.85


def test_points_of_the_least_weight_and_of_none():
    assert len(owners([1, 1e-9], keys=KEYS[:100])) == 100
    made = endpoints([1, 1])
    for each in made:
        each.instance = type(each.instance)("users", "h", 1, id=each.id, weight=0)
    assert ConsistentHash().picker(made, Traffic()).pick("a") in made


def test_only_keys_of_what_is_gone_move():
    before = owners([1] * 10)
    picker = ConsistentHash().picker(endpoints([1] * 10)[:9], Traffic())
    moved = [key for key in KEYS if picker.pick(key).id != before[key]]
    assert {before[key] for key in moved} == {"j"}
    assert len(moved) == sum(owner == "j" for owner in before.values())


def test_a_newcomer_takes_keys_as_its_weight_grows_and_none_moves_between_others():
    last = owners([1] * 4)
    for step in range(1, 11):
        made = endpoints([1] * 5)
        made[4].weigh(step / 10, 1.0)
        picker = ConsistentHash().picker(made, Traffic())
        now = {key: picker.pick(key).id for key in KEYS[:4_000]}
        assert {now[key] for key in now if now[key] != last[key]} <= {"e"}
        last = now
    assert sum(owner == "e" for owner in last.values()) > 400


@pytest.mark.real
def test_all_processes_agree():
    code = (
        "from tests.cluster.test_consistent import owners, KEYS;"
        "print(','.join(owners([1, 2, 3], keys=KEYS[:200]).values()))"
    )
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert told.split(",") == list(owners([1, 2, 3], keys=KEYS[:200]).values())


def test_the_same_in_every_release():
    assert "".join(owners([1, 2, 3], keys=KEYS[:32]).values()) == GOLDEN


GOLDEN = "acccbbbcbbcccccbcbbacabbbbbacccb"


@pytest.mark.parametrize("key", ["a", b"a", 1, -1, "", b"", "\ud800", 2**70], ids=repr)
def test_keys_of_every_kind(key):
    picker = ConsistentHash().picker(endpoints([1] * 5), Traffic())
    assert picker.pick(key) is picker.pick(key)
    assert picker.beside(key, {picker.pick(key).id}) is not picker.pick(key)


def test_without_a_key_anybody():
    picker = ConsistentHash().picker(endpoints([1] * 3), Traffic())
    counts = Counter(picker.pick(None).id for _ in range(3_000))
    assert min(counts[name] for name in "abc") > 500


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize("key", [1.5, True, ("a",)])
def test_a_key_that_is_none(key):
    picker = ConsistentHash().picker(endpoints([1] * 3), Traffic())
    with pytest.raises(TypeError, match="key must be a string, bytes, a whole number or None"):
        picker.pick(key)


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"bound": 1}, ValueError, "bound must be a number > 1, not 1"),
        ({"bound": float("nan")}, ValueError, "bound must be"),
        ({"bound": "2"}, TypeError, "bound must be"),
        ({"points": 0}, ValueError, "points must be a whole number >= 1"),
    ],
)
def test_bad_input(options, error, text):
    with pytest.raises(error, match=text):
        ConsistentHash(**options)


@pytest.mark.promise("cluster-balancer-distribution")
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.floats(1.01, 3),
    st.lists(st.sampled_from(["hot", "warm", "cold", None]), max_size=80),
)
def test_no_endpoint_has_more_than_its_bound(weights, bound, keys):
    traffic = Traffic()
    made = endpoints(weights, traffic)
    picker = ConsistentHash(bound).picker(made, traffic)
    for number, key in enumerate(keys):
        endpoint = picker.pick(key)
        endpoint.begin(number, 0.0)
        share = endpoint.instance.weight / sum(weights)
        assert endpoint.in_flight <= bound * share * (number + 1) + 1 + 1e-9


def test_the_calls_of_a_hot_key_go_on_to_the_next_on_the_ring():
    traffic = Traffic()
    made = endpoints([1] * 5, traffic)
    picker = ConsistentHash().picker(made, traffic)
    owner = picker.pick("hot")
    following = picker.beside("hot", {owner.id})
    assert following is not None
    taken = []
    for number in range(50):
        taken.append(picker.pick("hot"))
        taken[-1].begin(number, 0.0)
    assert taken[:2] == [owner, following]
    assert Counter(each.in_flight for each in made).total() == 5
    assert max(each.in_flight for each in made) <= 13


def test_without_a_bound_a_key_stays():
    traffic = Traffic()
    picker = ConsistentHash(inf).picker(endpoints([1] * 5, traffic), traffic)
    owner = picker.pick("hot")
    for number in range(50):
        owner.begin(number, 0.0)
    assert picker.pick("hot") is owner


def test_beside_prefers_one_that_is_not_full():
    traffic = Traffic()
    picker = ConsistentHash().picker(endpoints([1] * 3, traffic), traffic)
    owner = picker.pick("hot")
    following = picker.beside("hot", {owner.id})
    assert following is not None
    for number in range(9):
        following.begin(number, 0.0)
    last = picker.beside("hot", {owner.id})
    assert last not in (owner, following)
    assert last is not None
    assert picker.beside("hot", {owner.id, last.id}) is following  # full, but all there is
    assert picker.beside("hot", {"a", "b", "c"}) is None
