"""Keys stay where they are unless they must move, and shares follow the weights."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import NoEndpointError
from aiopatterns.core.hashing import HashRing, Rendezvous, stable_hash

KEYS = [f"key:{n}" for n in range(2_000)]
names = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=2, max_size=6, unique=True)
both = pytest.mark.parametrize("kind", [HashRing, Rendezvous])


def places(owners):
    return {key: owners.owner(key) for key in KEYS[:300]}


def moved(before, after):
    return {key for key in before if before[key] != after[key]}


def test_the_hash_is_the_same_in_every_release():
    assert stable_hash("user:17") == 0xC4487F5FBC96711B
    assert stable_hash(b"user:17") == 0x7D9E89D37CB2CA26
    assert stable_hash(17) == 0xF87248538E481CE6
    assert stable_hash("user:17", key=b"secret") == 0x3206A5736F1CCA96


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from aiopatterns.core.hashing import *; print(stable_hash('a'), HashRing('xyz').owner(1))"
    )
    code = code.replace("'xyz'", "['x', 'y', 'z']")
    command = [sys.executable, "-R", "-c", code]
    found = {subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2)}
    assert found == {f"{stable_hash('a')} {HashRing(['x', 'y', 'z']).owner(1)}\n".encode()}


@given(st.text() | st.binary() | st.integers(), st.text() | st.binary() | st.integers())
def test_equal_keys_and_no_others_share_a_hash(left, right):
    assert 0 <= stable_hash(left) < 2**64
    assert (stable_hash(left) == stable_hash(right)) == (left == right)


def test_lone_surrogates_are_keys_too():
    assert stable_hash("\ud800") != stable_hash("\ud801")


@both
def test_owners_start_with_the_owner_and_are_all_different(kind):
    nodes = kind(["a", "b", "c"])
    for key in KEYS[:100]:
        ranked = nodes.owners(key, 5)
        assert ranked[0] == nodes.owner(key)
        assert sorted(ranked) == ["a", "b", "c"]
        assert nodes.owners(key, 2) == ranked[:2]


@pytest.mark.promise("core-keys-stay")
@both
@given(names)
def test_a_leaving_node_moves_only_its_own_keys(kind, members):
    nodes = kind(members)
    before = places(nodes)
    nodes.remove(members[0])
    after = places(nodes)
    assert moved(before, after) == {key for key in before if before[key] == members[0]}


@pytest.mark.promise("core-keys-stay")
@both
@given(names)
def test_a_joining_node_takes_keys_and_moves_no_other(kind, members):
    nodes = kind(members[1:])
    before = places(nodes)
    nodes.add(members[0])
    after = places(nodes)
    assert moved(before, after) == {key for key in after if after[key] == members[0]}
    assert places(kind(reversed(members))) == after  # the order of joining does not matter


@both
@given(names)
def test_a_heavier_node_takes_keys_and_loses_none(kind, members):
    nodes = kind(members)
    before = places(nodes)
    nodes.add(members[0], weight=3.0)
    after = places(nodes)
    assert all(after[key] == members[0] for key in moved(before, after))


@both
@given(names)
def test_the_next_owner_is_who_takes_over(kind, members):
    nodes = kind(members)
    heirs = {key: nodes.owners(key, 2) for key in KEYS[:100]}
    nodes.remove(members[0])
    for key, (owner, heir) in heirs.items():
        assert nodes.owner(key) == (heir if owner == members[0] else owner)


@pytest.mark.parametrize(("kind", "tolerance"), [(HashRing, 0.35), (Rendezvous, 0.12)])
def test_shares_follow_the_weights(kind, tolerance):
    nodes = kind({"a": 1.0, "b": 1.0, "c": 2.0})
    held = Counter(nodes.owner(key) for key in KEYS)
    for node, share in {"a": 0.25, "b": 0.25, "c": 0.5}.items():
        assert abs(held[node] / len(KEYS) - share) <= tolerance * share


def test_a_light_node_still_has_a_point():
    ring = HashRing({"a": 0.001, "b": 1.0}, points=4)
    assert len(ring._hashes) == 5


@both
def test_it_is_a_collection_of_its_nodes(kind):
    nodes = kind(["a", "b"])
    assert len(nodes) == 2
    assert list(nodes) == ["a", "b"]
    assert "a" in nodes
    assert "z" not in nodes
    with pytest.raises(KeyError):
        nodes.remove("z")


@both
def test_nobody_owns_anything_without_nodes(kind):
    nodes = kind()
    assert nodes.owners("key", 3) == []
    with pytest.raises(NoEndpointError, match="no node is left to own 'key'"):
        nodes.owner("key")


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("wrong", [None, 1.5, True, ["a"]], ids=repr)
def test_what_is_no_key_is_refused(wrong):
    with pytest.raises(TypeError, match="value must be a string, bytes or a whole number"):
        stable_hash(wrong)


@pytest.mark.promise("core-bad-input")
def test_a_secret_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="key"):
        stable_hash("a", key=b"x" * 65)


@pytest.mark.promise("core-bad-input")
@both
@pytest.mark.parametrize(
    ("nodes", "error", "match"),
    [
        ("abc", TypeError, "nodes must be names"),
        ([""], ValueError, "node must be a non-empty string"),
        ([1], TypeError, "node must be a non-empty string"),
        ({"a": 0}, ValueError, "weight must be a finite number > 0, not 0"),
        ({"a": float("nan")}, ValueError, "weight must be"),
    ],
    ids=repr,
)
def test_senseless_nodes_are_refused(kind, nodes, error, match):
    with pytest.raises(error, match=match):
        kind(nodes)
    with pytest.raises(ValueError, match="weight must be"):
        kind().add("a", weight=-1)
    with pytest.raises(ValueError, match="limit must be a whole number >= 1"):
        kind(["a"]).owners("key", 0)
    with pytest.raises(ValueError, match="points must be a whole number >= 1"):
        HashRing(points=0)
