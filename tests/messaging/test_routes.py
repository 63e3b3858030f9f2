"""Routes: who gets a message, by a plain model; who is passed over, kept and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import sleep
from aiopatterns.messaging.listing import Listed, Listing
from aiopatterns.messaging.routes import GONE, KEEP, Place, Plan, Routes
from aiopatterns.testing import simulate

Subscribed = tuple[Any, ...]  # a pattern, a group, whether it answers


def members(**brokers: list[Subscribed]) -> dict[str, bytes]:
    return {name: listing(*subscribed).encode() for name, subscribed in brokers.items()}


def listing(*subscribed: Subscribed) -> Listing:
    return Listing(1, tuple(Listed(n, *each) for n, each in enumerate(subscribed, 1)))


def named(place: Place | None) -> str:
    return "" if place is None else f"{place.peer.member}{place.number}"


def picks(plan: Plan, count: int) -> set[str]:
    return {named(plan.callee()) for _ in range(count)}


def meets(pattern: str, topic: str) -> bool:
    wanted, tokens = pattern.split("."), topic.split(".")
    for n, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > n
        if n >= len(tokens) or token not in {"*", tokens[n]}:
            return False
    return len(wanted) == len(tokens)


PATTERNS = ("a", "a.b", "a.*", "*.b", "a.>", ">", "*")
TOPICS = ("a", "b", "a.b", "c.b", "a.b.c")
SUBSCRIBED = st.tuples(st.sampled_from(PATTERNS), st.sampled_from((None, "g", "h")), st.booleans())
LISTS = st.lists(SUBSCRIBED, max_size=4)


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), LISTS, max_size=3), max_size=4), LISTS)
def test_plans_are_those_of_a_plain_model(
    snapshots: list[Mapping[str, list[Subscribed]]], own: list[Subscribed]
):
    routes = Routes("me")
    for listed in listing(*own).subscriptions:
        routes.list_here(listed)
    known: dict[str, list[Subscribed]] = {"me": own}
    for snapshot in snapshots:
        known |= snapshot  # who is missing is kept for a while
        routes.heed(members(**snapshot) | {"me": b"whatever it says of us"})
        for topic in TOPICS:
            plan = routes.plan(topic)
            meeting = [
                (f"{name}{n}", group, answers)
                for name, subscribed in known.items()
                for n, (pattern, group, answers) in enumerate(subscribed, 1)
                if meets(pattern, topic)
            ]
            alone = sorted(place for place, group, _ in meeting if group is None)
            assert sorted(named(place) for place in plan.each) == alone
            groups = {group for _, group, _ in meeting if group is not None}
            assert [group.name for group in plan.groups] == sorted(groups)
            for group in plan.groups:
                own_places = {place for place, name, _ in meeting if name == group.name}
                assert {named(group.pick()) for _ in group.places} == own_places
            answering = [(place, group) for place, group, answers in meeting if answers]
            handling = {group for _, group in answering if group is not None}
            assert [group.name for group in plan.handling] == sorted(handling)
            for group in plan.handling:
                own_places = {place for place, name in answering if name == group.name}
                assert {named(group.pick()) for _ in group.places} == own_places
            callees = {named(place) for group in plan.callees for place in group.places}
            assert callees == {place for place, _ in answering}
            assert (plan.callee() is None) == (not answering)
    assert len(routes) == len(known) - 1


def test_who_answers_is_the_most_specific():
    routes = Routes("me")
    routes.heed(
        members(
            a=[(">", "g"), ("u.*", None), ("u.get", None), ("u.get", None)],
            b=[("u.>", "h"), ("u.*", "z"), ("u.*", "y")],
        )
    )
    assert picks(routes.plan("u.get"), 4) == {"a3", "a4"}
    assert picks(routes.plan("u.set"), 4) == {"b3"}
    assert picks(routes.plan("u.a.b"), 4) == {"b1"}
    assert picks(routes.plan("other"), 4) == {"a1"}
    plan = routes.plan("u.set")
    tried: list[Place] = []
    while (place := plan.callee(tried)) is not None:
        tried.append(place)
    assert [named(place) for place in tried] == ["b3", "b2", "a2", "b1", "a1"]


def test_plans_are_remembered_until_something_changes():
    routes = Routes("me")
    routes.heed(members(a=[("t", None)]))
    plan = routes.plan("t")
    routes.heed(members(a=[("t", None)]))
    assert routes.plan("t") is plan
    routes.list_here(Listed(1, "t"))
    assert [named(place) for place in routes.plan("t").each] == ["a1", "me1"]
    routes.unlist_here(Listed(1, "t"))
    assert [named(place) for place in routes.plan("t").each] == ["a1"]
    for number in range(1_024):
        routes.plan(f"topic.{number}")
    assert routes.plan("t").each != ()


def test_a_change_of_one_place_leaves_the_others_as_they_are():
    routes = Routes("me")
    routes.heed(members(a=[("t", None), ("t", "g")]))
    before = {*routes.plan("t").each}
    routes.heed(members(a=[("t", None)]))
    routes.heed(members(a=[("t", None), ("t", "h"), ("u", None)]))
    assert {*routes.plan("t").each} == before
    assert [group.name for group in routes.plan("t").groups] == ["h"]


def test_members_that_no_broker_can_be_are_none():
    routes = Routes("me")
    routes.heed({name: listing(("t", None)).encode() for name in ("x" * 1_000, "\u00e9", "b")})
    assert [named(place) for place in routes.plan("t").each] == ["b1"]


def test_patterns_of_a_newer_release_that_are_none_here_are_left_out():
    routes = Routes("me")
    routes.heed(members(a=[("not a pattern", None), ("t", None)]))
    assert [named(place) for place in routes.plan("t").each] == ["a2"]
    with pytest.raises(ValueError, match="topic"):
        routes.plan("t.*")


def test_who_is_gone_is_passed_over_for_a_while():
    async def main() -> None:
        routes = Routes("me")
        routes.heed(members(a=[("t", "g")], b=[("t", "g")]))
        plan = routes.plan("t")
        (group,) = plan.groups
        for place in group.places:
            if place.peer.member == "a":
                place.peer.pass_over()
        assert picks(plan, 4) == {"b1"}
        await sleep(GONE)
        assert picks(plan, 4) == {"a1", "b1"}
        for place in group.places:
            place.peer.pass_over()
        assert plan.callee() is None
        routes.hope()
        assert picks(plan, 4) == {"a1", "b1"}

    simulate(main)


def test_who_is_missing_is_kept_and_then_forgotten():
    async def main() -> None:
        routes = Routes("me")
        routes.heed(members(a=[("t", None)], b=[("t", None)]))
        routes.heed(members(b=[("t", None)]))
        assert routes.missing
        await sleep(KEEP / 2)
        assert routes.bury() == []
        routes.heed(members(b=[("t", None)]))  # it is missing since then, not since now
        assert len(routes.plan("t").each) == 2
        await sleep(KEEP / 2)
        assert [peer.member for peer in routes.bury()] == ["a"]
        assert not routes.missing
        assert [named(place) for place in routes.plan("t").each] == ["b1"]
        routes.heed({})
        routes.heed(members(b=[("t", None)]))  # it was forgotten and is back
        await sleep(KEEP)
        assert routes.bury() == []
        assert len(routes) == 1

    simulate(main)
