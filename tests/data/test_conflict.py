"""Conflicts: dominance first, then a strategy; and the laws that make replicas agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopatterns.core import ConflictError
from aiopatterns.data import (
    Conflict,
    FirstWriteWins,
    LastWriteWins,
    Manual,
    Merge,
    Resolution,
    Stamp,
    Strategy,
    Versioned,
    VersionVector,
    frontier,
    merge_fields,
    reconcile,
    resolve,
    three_way,
)
from aiopatterns.testing import explore
from tests.data.histories import histories, version
from tests.data.replication import storm


def no_lattice(_base: Any, left: Any, right: Any) -> Any:
    """Neither commutative nor associative nor idempotent."""
    return [sum(left) - sum(right) * 2 + 1]


def sometimes(_base: Any, left: Any, right: Any) -> Any:
    """Cannot merge some values."""
    if (sum(left) + sum(right)) % 3 == 0:
        raise ConflictError
    return [*right, *left]


STRATEGIES: dict[str, Strategy] = {
    "last": LastWriteWins(),
    "first": FirstWriteWins(),
    "manual": Manual(),
    "union": Merge(lambda _base, left, right: sorted({*left, *right})),
    "greatest": Merge(lambda _base, left, right: max(left, right)),
    "no lattice": Merge(no_lattice),
    "sometimes": Merge(sometimes),
}
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


@every_strategy
@pytest.mark.promise("data-conflict-laws")
@settings(max_examples=60)
@given(history=histories(), data=st.data())
def test_any_order_and_any_grouping_come_to_the_same(strategy, history, data):
    whole = reconcile(history, strategy=strategy)
    shuffled = data.draw(st.permutations(history + history))
    assert reconcile(shuffled, strategy=strategy) == whole
    at = data.draw(st.integers(1, len(shuffled) - 1))
    left = reconcile(shuffled[:at], strategy=strategy)
    right = reconcile(shuffled[at:], strategy=strategy)
    assert reconcile(left + right, strategy=strategy) == whole
    assert reconcile(right + left, strategy=strategy) == whole
    assert reconcile(whole, strategy=strategy) == whole


@every_strategy
@pytest.mark.promise("data-conflict-laws")
@settings(max_examples=60)
@given(history=histories(), data=st.data())
def test_pairs_come_to_the_same_in_any_order(strategy, history, data):
    def fold(versions: list[Versioned]) -> Versioned | None:
        winner: Versioned | None = versions[0]
        for each in versions[1:]:
            if winner is None:
                return None
            winner = resolve(winner, each, strategy=strategy).winner
        return winner

    ends = [fold(data.draw(st.permutations(history))) for _ in range(3)]
    decided = [each for each in ends if each is not None]
    if strategy not in (STRATEGIES["manual"], STRATEGIES["sometimes"]):
        assert len(decided) == len(ends)
        assert reconcile(history, strategy=strategy) == (decided[0],)
    assert all(each == decided[0] for each in decided if each.vector == decided[0].vector)


@every_strategy
@given(history=histories())
def test_left_and_right_may_be_exchanged(strategy, history):
    left, right = history[0], history[-1]
    one, other = (resolve(*pair, strategy=strategy) for pair in ((left, right), (right, left)))
    assert one.winner == other.winner
    assert resolve(left, left, strategy=strategy).winner == left
    if one.winner is not None:
        assert one.winner.vector == left.vector.merge(right.vector)


@every_strategy
@pytest.mark.promise("data-conflict-converges")
@pytest.mark.untraced
def test_five_replicas_converge_whatever_the_network_does(strategy):
    async def scenario() -> None:
        await storm(strategy)

    explore(scenario, range(40))


@pytest.mark.promise("data-conflict-laws")
def test_an_edit_of_one_part_does_not_depend_on_what_was_merged_before():
    strategy = STRATEGIES["greatest"]
    first, other = version([5], a=1), version([1], time=2, node="d", d=1)
    edit = first.next([3], stamp=Stamp(3, 0, "b"))
    merged = resolve(first, other, strategy=strategy).settled()
    assert merged.value == [5]
    assert resolve(merged, edit, strategy=strategy).settled().value == [3]
    assert resolve(other, edit, strategy=strategy).settled().value == [3]


def test_who_knew_of_the_other_replaces_it_whatever_the_stamps_say():
    old = version("old", time=9, a=1)
    new = version("new", time=1, a=1, b=1)
    for strategy in STRATEGIES.values():
        assert resolve(old, new, strategy=strategy) == Resolution(new, "before")
        assert resolve(new, old, strategy=strategy) == Resolution(new, "after")
        assert resolve(new, new, strategy=strategy) == Resolution(new, "equal")


def test_a_conflict_is_told_also_when_it_was_decided():
    left, right = version("l", time=1, node="a"), version("r", time=2, node="b")
    found = resolve(left, right, strategy=LastWriteWins())
    assert found == Resolution(
        replace(right, vector=VersionVector({"a": 1, "b": 1})),
        "concurrent",
        Conflict(left, right),
    )
    assert found.conflict is not None
    assert found.conflict.key == "k"


def test_the_record_that_was_created_first_wins():
    left, right = version("l", time=1, node="a"), version("r", time=2, node="b")
    assert resolve(left, right, strategy=FirstWriteWins()).settled().value == "l"
    edited = left.next("edit", stamp=Stamp(7, 0, "c")), left.next("late", stamp=Stamp(9, 0, "d"))
    assert resolve(*edited, strategy=FirstWriteWins()).settled().value == "late"


def test_manual_keeps_all_until_one_knows_of_all():
    left, right = version("l", time=1, node="a"), version("r", time=2, node="b")
    gone = replace(version(None, time=3, node="c"), deleted=True)
    found = resolve(left, right, strategy=Manual())
    assert found.winner is None
    with pytest.raises(ConflictError, match="'k'") as caught:
        found.settled()
    assert caught.value.key == "k"
    kept = reconcile([gone, left, right], strategy=Manual())
    assert kept == (right, left, gone)
    written = Versioned.replacing(kept, "both", stamp=Stamp(4, 0, "a"))
    assert reconcile([*kept, written], strategy=Manual()) == (written,)


def test_a_winner_without_a_conflict_is_no_winner():
    with pytest.raises(ConflictError):
        Resolution(None, "concurrent").settled()


def test_where_a_clock_was_copied_what_was_written_decides():
    left = replace(version({"x": 1, "y": {1, 2}}, node="a"), origin="n")
    right = replace(left, value=[{"x": 2}], vector=VersionVector({"b": 1}))
    winners = {
        repr(resolve(*pair, strategy=LastWriteWins()).settled())
        for pair in ((left, right), (right, left))
    }
    assert len(winners) == 1
    twin = replace(left, value=[{"x": 2}])
    assert resolve(left, twin, strategy=Manual()) == resolve(twin, left, strategy=Manual())
    assert frontier([left, twin]) == frontier([twin, left])
    assert len(frontier([left, twin])) == 1


class Shortest:
    """A strategy of a user."""

    def decide(self, left: Versioned, right: Versioned, _base: Versioned | None, /) -> Any:
        return min(left, right, key=lambda each: len(each.value))


class Wrong:
    def decide(self, _left: Versioned, _right: Versioned, _base: Versioned | None, /) -> Any:
        return "left"


def test_a_strategy_of_a_user_need_not_cover_both():
    left, right = version("long", node="a"), version("r", node="b")
    winner = resolve(left, right, strategy=Shortest()).settled()
    assert (winner.value, winner.vector) == ("r", VersionVector({"a": 1, "b": 1}))
    with pytest.raises(TypeError, match="what decide returns must be a Versioned"):
        resolve(left, right, strategy=Wrong())


def test_bad_input():
    left, right = version("l"), version("r", node="b")
    bad: Any = "x"
    with pytest.raises(TypeError, match="left must be a Versioned"):
        resolve(bad, right, strategy=Manual())
    with pytest.raises(TypeError, match="right must be a Versioned"):
        resolve(left, bad, strategy=Manual())
    with pytest.raises(TypeError, match="base must be a Versioned or None"):
        resolve(left, right, strategy=Manual(), base=bad)
    with pytest.raises(TypeError, match="strategy must be a strategy"):
        resolve(left, right, strategy=bad)
    unmade: Any = Manual
    with pytest.raises(TypeError, match=r"not the class Manual; write its \(\)"):
        resolve(left, right, strategy=unmade)
    with pytest.raises(ValueError, match="right must have the key of left, 'k', not 'other'"):
        resolve(left, replace(right, key="other"), strategy=Manual())
    with pytest.raises(ValueError, match="of one record"):
        reconcile([], strategy=Manual())
    with pytest.raises(ValueError, match="of one record"):
        reconcile([left, replace(right, key="other")], strategy=Manual())
    with pytest.raises(TypeError, match="a version must be a Versioned"):
        reconcile([bad], strategy=Manual())


def test_merging_with_a_base_keeps_both_edits_in_any_order():
    base = version({"n": 1, "m": 1}, a=1)
    edits = [
        base.next({**base.value, name: 2}, stamp=Stamp(2 + at, 0, name))
        for at, name in enumerate("nmo")
    ]
    strategy = Merge(merge_fields({}, other=three_way))
    for order in (edits, edits[::-1]):
        (winner,) = reconcile(order, strategy=strategy, base=base)
        assert winner.value == {"n": 2, "m": 2, "o": 2}
