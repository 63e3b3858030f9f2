"""The table of members: which claim is right, and that all who heard the same hold the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import Member, MemberState, Swim
from aiopatterns.cluster import membership as module
from aiopatterns.cluster.membership import FORGET, MAX_AHEAD, Membership, incarnation_now
from aiopatterns.cluster.messages import Update
from aiopatterns.core.codec import MSGPACK

ALIVE, SUSPECT, DEAD, LEFT = range(4)
STATES = tuple(MemberState)
LOW, HIGH = Swim().patience(1)


def table() -> tuple[Membership, list[tuple[str, str]]]:
    """A table of the node ``me``, and its changes as (name, state)."""
    changes: list[tuple[str, str]] = []

    def changed(before: Member | None, member: Member) -> None:
        assert before is None or before.state is not member.state
        changes.append((member.name, member.state.value))

    return Membership("me", "me:1", Swim(), now=0.0, changed=changed), changes


def claim(name: str, incarnation: int, state: int, accuser: str = "") -> Update:
    return Update(name, f"{name}:1", incarnation, state, accuser)


def state(members: Membership, name: str) -> MemberState:
    return members.members[name].state


def told(members: Membership) -> list[Update]:
    """What it would tell others now."""
    return [MSGPACK.decode(each, Update) for each in members.news.take(10_000, 99)]


def test_a_node_knows_itself_and_says_so():
    members, changes = table()
    me = members.me
    assert (me.name, me.address, me.state, me.since) == ("me", "me:1", MemberState.ALIVE, 0.0)
    assert me.incarnation == pytest.approx(incarnation_now(), abs=5_000)
    assert members.members == {"me": me}
    assert told(members) == [claim("me", me.incarnation, ALIVE)]
    assert (members.living, changes) == (1, [])


@pytest.mark.parametrize("state", [ALIVE, SUSPECT])
def test_the_living_are_met(state):
    members, changes = table()
    told(members)
    members.heed(claim("b", 1, state, "c"), 5.0)
    assert members.members["b"] == Member("b", "b:1", STATES[state], 1, 5.0)
    assert (members.living, len(members.ring)) == (2, 1)
    assert claim("b", 1, state, "c") in told(members)
    assert changes == [("b", STATES[state].value)]


@pytest.mark.parametrize("state", [DEAD, LEFT])
def test_who_is_gone_already_is_not_met(state):
    members, changes = table()
    members.heed(claim("b", 1, state), 5.0)
    assert (set(members.members), changes) == ({"me"}, [])


@pytest.mark.parametrize("known", range(4))
@pytest.mark.parametrize("heard", range(4))
@pytest.mark.parametrize("ahead", [-1, 0, 1])
def test_the_newer_claim_wins_and_of_two_equal_ones_the_worse(known, heard, ahead):
    members, _ = table()
    members.heed(claim("b", 5, ALIVE), 0.0)
    members.heed(claim("b", 5, known, "c"), 1.0)
    assert members.members["b"].state is STATES[known]
    members.heed(claim("b", 5 + ahead, heard, "c"), 2.0)
    wins = ahead > 0 or (ahead == 0 and heard > known)
    found = members.members["b"]
    assert found.state is STATES[heard if wins else known]
    assert found.incarnation == 5 + max(ahead, 0)
    assert members.living == len(members.ring) + 1 == 1 + found.living
    changed_at = 2.0 if wins and heard != known else 1.0 if known != ALIVE else 0.0
    assert found.since == changed_at


def test_a_newer_address_is_taken_over():
    members, _ = table()
    members.heed(claim("b", 1, ALIVE), 0.0)
    members.heed(Update("b", "elsewhere:2", 2, ALIVE), 0.0)
    assert members.members["b"].address == "elsewhere:2"


@pytest.mark.promise("cluster-peer-claims")
@given(
    st.lists(
        st.builds(
            claim,
            st.sampled_from("bcd"),
            st.integers(1, 4),
            st.integers(0, 3),
            st.sampled_from("xyz"),
        ),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_all_who_have_heard_the_same_hold_the_same(claims, dice):
    """In any order, and some of it twice; each has met the members before."""
    known = [claim(name, 0, ALIVE) for name in "bcd"]
    one, other = table()[0], table()[0]
    for members, heard in ((one, claims), (other, [*claims, *claims])):
        for each in known:
            members.heed(each, 0.0)
        if members is other:
            dice.shuffle(heard)
        for at, each in enumerate(heard):
            before = members.members[each.name].incarnation
            members.heed(each, float(at))
            assert members.members[each.name].incarnation >= before
            assert members.living == 1 + len(members.ring)
    for name in "bcd":
        left, right = one.members[name], other.members[name]
        assert (left.state, left.incarnation) == (right.state, right.incarnation)


def test_what_is_not_so_of_this_node_is_contradicted():
    members, changes = table()
    born = members.me.incarnation
    for state in (SUSPECT, DEAD, LEFT):
        members.heed(claim("me", members.me.incarnation, state, "b"), 1.0)
    assert members.me.incarnation == born + 3
    assert members.members["me"] is members.me
    assert told(members) == [claim("me", born + 3, ALIVE)]
    members.heed(claim("me", born, DEAD, "b"), 1.0)  # contradicted already
    members.heed(claim("me", born + 3, ALIVE), 1.0)  # so it is
    assert (members.me.incarnation, members.refuted, changes) == (born + 3, 3, [])


def test_a_node_whose_clock_went_back_tops_its_former_process():
    members, _ = table()
    ahead = members.me.incarnation + 1_000
    members.heed(claim("me", ahead, ALIVE), 1.0)
    assert members.me.incarnation == ahead + 1
    assert members.superseded is None


def test_a_newer_process_of_this_name_elsewhere_wins():
    members, _ = table()
    born = members.me.incarnation
    members.heed(Update("me", "other:1", born - 1, ALIVE), 1.0)  # a former one
    former = members.superseded
    members.heed(Update("me", "other:1", born + 1, ALIVE), 1.0)
    assert (former, members.superseded, members.me.incarnation) == (None, "other:1", born)


def test_a_node_that_leaves_contradicts_nothing():
    members, changes = table()
    told(members)
    members.leave(3.0)
    for incarnation in (members.me.incarnation, members.me.incarnation + 1):
        members.heed(claim("me", incarnation, DEAD, "b"), 4.0)
    assert members.me.state is MemberState.LEFT
    assert told(members) == [claim("me", members.me.incarnation, LEFT)]
    assert (members.refuted, changes) == (0, [("me", "left")])


@pytest.mark.promise("cluster-peer-claims")
def test_an_incarnation_that_no_clock_can_have_given_is_not_believed():
    members, _ = table()
    now = incarnation_now()
    members.heed(claim("b", now + 2 * MAX_AHEAD, ALIVE), 0.0)
    members.heed(claim("me", now + 2 * MAX_AHEAD, DEAD), 0.0)
    assert (set(members.members), members.unbelieved) == ({"me"}, 2)
    members.heed(claim("b", now + MAX_AHEAD // 2, ALIVE), 0.0)  # a clock that is wrong
    assert "b" in members.members


@pytest.mark.promise("cluster-peer-claims")
def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    members, _ = table()
    for name in "bcde":
        members.heed(claim(name, 1, ALIVE), 0.0)
    assert (set(members.members), members.unbelieved) == ({"me", "b", "c"}, 2)


def test_an_accusation_starts_a_suspicion_and_ends_in_death():
    members, changes = table()
    members.heed(claim("b", 7, ALIVE), 0.0)
    members.accuse("b", 10.0)
    told(members)
    assert state(members, "b") is MemberState.SUSPECT
    members.expire(10.0 + LOW - 0.01)
    assert state(members, "b") is MemberState.SUSPECT
    members.expire(10.0 + LOW)  # of two members nobody else can confirm
    assert state(members, "b") is MemberState.DEAD
    assert claim("b", 7, DEAD, "me") in told(members)
    assert changes == [("b", "alive"), ("b", "suspect"), ("b", "dead")]
    members.accuse("b", 20.0)
    members.accuse("nobody", 20.0)
    assert len(changes) == 3


def test_more_accusers_shorten_a_suspicion_and_are_passed_on():
    members, _ = table()
    for name in "bcdef":
        members.heed(claim(name, 7, ALIVE), 0.0)
    members.heed(claim("b", 7, SUSPECT, "c"), 10.0)
    told(members)
    members.heed(claim("b", 7, SUSPECT, "c"), 10.5)
    assert not [each for each in told(members) if each.accuser == "d"]
    members.expire(10.0 + LOW)
    assert state(members, "b") is MemberState.SUSPECT
    members.heed(claim("b", 7, SUSPECT, "d"), 11.0)
    assert claim("b", 7, SUSPECT, "d") in told(members)
    members.accuse("b", 11.0)
    members.expire(10.0 + LOW)
    assert state(members, "b") is MemberState.DEAD


def test_a_contradiction_ends_a_suspicion():
    members, _ = table()
    members.heed(claim("b", 7, ALIVE), 0.0)
    members.accuse("b", 10.0)
    members.heed(claim("b", 8, ALIVE), 10.5)
    members.expire(100.0)
    assert state(members, "b") is MemberState.ALIVE


def test_suspects_are_asked_a_last_time_once():
    members, _ = table()
    members.heed(claim("b", 7, ALIVE), 0.0)
    members.accuse("b", 10.0)
    assert members.last_calls(10.0 + LOW - 1.1) == []
    assert [each.name for each in members.last_calls(10.0 + LOW - 0.9)] == ["b"]
    assert members.last_calls(10.0 + LOW) == []


def test_time_in_which_this_node_was_stuck_counts_against_nobody():
    members, _ = table()
    members.heed(claim("b", 7, ALIVE), 0.0)
    members.accuse("b", 10.0)
    members.extend(5.0)
    members.expire(10.0 + LOW)
    assert state(members, "b") is MemberState.SUSPECT
    members.expire(15.0 + LOW)
    assert state(members, "b") is MemberState.DEAD


def test_a_suspect_is_told_so_and_one_that_is_believed_alive_is_not():
    members, _ = table()
    members.heed(claim("b", 7, ALIVE), 0.0)
    assert members.about("b") is None
    assert members.about("nobody") is None
    members.heed(claim("b", 7, SUSPECT, "c"), 1.0)
    about = members.about("b")
    assert about is not None
    assert MSGPACK.decode(about, Update) == claim("b", 7, SUSPECT, "c")
    members.bury("b", 2.0)
    about = members.about("b")
    assert about is not None
    assert MSGPACK.decode(about, Update) == claim("b", 7, DEAD)


def test_a_whole_table_is_told_with_this_node_first():
    members, _ = table()
    members.heed(claim("b", 7, SUSPECT, "c"), 0.0)
    assert members.claims() == [
        claim("me", members.me.incarnation, ALIVE),
        claim("b", 7, SUSPECT, "c"),
    ]


def test_the_dead_of_another_table_are_suspect_here():
    members, _ = table()
    for name in "bcd":
        members.heed(claim(name, 7, ALIVE), 0.0)
    members.merge(
        [
            claim("x", 1, ALIVE),
            claim("b", 7, DEAD, "x"),
            claim("c", 7, LEFT),
            claim("d", 8, ALIVE),
            claim("stranger", 1, DEAD),
            claim("me", members.me.incarnation, DEAD, "x"),
        ],
        "x",
        1.0,
    )
    states = {name: each.state.value for name, each in members.members.items()}
    assert states == {"me": "alive", "b": "suspect", "c": "left", "d": "alive", "x": "alive"}
    assert members.refuted == 1


def test_who_is_long_gone_is_forgotten():
    members, _ = table()
    for name in "bcd":
        members.heed(claim(name, 7, ALIVE), 0.0)
    members.heed(claim("b", 7, LEFT), 10.0)
    members.bury("c", 20.0)
    members.forget(FORGET + 10.5)
    assert set(members.members) == {"me", "c", "d"}
    members.forget(FORGET + 20.5)
    assert set(members.members) == {"me", "d"}
