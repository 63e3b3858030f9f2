"""Drafts: what a transaction decides, seen without any store."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import CodecError
from aiopatterns.data.clock import HybridClock
from aiopatterns.data.conflict import LastWriteWins, Manual
from aiopatterns.data.draft import Draft, Held, State, fresh_state
from aiopatterns.data.merge import Merge
from aiopatterns.data.record import Row, packed, unpacked
from aiopatterns.data.vector import VersionVector
from tests.data.recordplaces import foreign


class Place:
    """The least that a store is: what was written is what the next draft reads."""

    def __init__(self) -> None:
        self.clock = HybridClock("a")
        self.state = fresh_state("a")
        self.rows: dict[str, Row] = {}
        self.held: dict[str, Held] = {}

    def draft(self) -> Draft:
        return Draft(self.clock, self.state, self.rows, self.held)

    def keep(self, draft: Draft) -> None:
        self.state, self.held = draft.state, draft.held
        for key in draft.removals:
            self.rows.pop(key, None)
        self.rows |= draft.writes


def test_a_state_is_bytes_and_back_and_each_store_has_its_epoch():
    state = fresh_state("a")
    assert State.unpack(state.pack()) == state
    assert state.epoch != fresh_state("a").epoch
    assert state.node == f"a:{state.epoch}"
    assert not state.forgot([])
    with pytest.raises(CodecError):
        State.unpack(b"\xff")


def test_numbers_follow_one_another_and_name_versions():
    draft = Place().draft()
    first, second = draft.put("a", 1), draft.put("b", 2)
    third = draft.put("a", 3)
    node = draft.state.node
    assert [each.vector[node] for each in (first, second, third)] == [1, 2, 3]
    assert draft.writes["a"].seq == 3
    assert draft.state.seen == VersionVector({node: 3})
    assert draft.written
    assert not Place().draft().written


def test_what_fails_changes_nothing():
    def fail(base: Any, left: Any, right: Any) -> Any:
        raise LookupError(f"{base}, {left} and {right}")

    draft = Place().draft()
    draft.put("k", 1)
    before = (draft.state, dict(draft.writes))
    with pytest.raises(CodecError):
        draft.put("k", object())
    with pytest.raises(LookupError):
        draft.take(foreign("k", 2), strategy=Merge(fail))
    with pytest.raises(CodecError):
        draft.take(foreign("k", 2), strategy=Merge(lambda *_: object()))
    with pytest.raises(ValueError, match="ahead"):
        draft.take(foreign("k", 2, ahead=1_000), strategy=LastWriteWins())
    assert (draft.state, dict(draft.writes)) == before


def test_what_has_come_is_shared_and_what_was_merged_is_not():
    place = Place()
    draft = place.draft()
    draft.take(foreign("k", 1), strategy=LastWriteWins())
    assert unpacked(draft.writes["k"]).shared
    draft.put("k", 2)
    kept = unpacked(draft.writes["k"])
    assert not kept.shared
    assert kept.bases[kept.leaves[0].vector].value == 1
    draft.put("k", 3)  # nobody has seen 2
    kept = unpacked(draft.writes["k"])
    assert kept.bases[kept.leaves[0].vector].value == 1
    draft.passed("z", draft.state.seq)
    draft.put("k", 4)
    kept = unpacked(draft.writes["k"])
    assert kept.bases[kept.leaves[0].vector].value == 3
    draft.take(foreign("k", 5, 9), strategy=Manual())
    draft.put("k", 6)  # after a conflict there is no one version that it came from
    assert unpacked(draft.writes["k"]).bases == {}


def test_a_base_is_kept_without_the_parts_that_it_was_merged_from():
    draft = Place().draft()
    draft.put("k", [1])
    draft.take(foreign("k", [2]), strategy=Merge(lambda _, left, right: left + right))
    (merged,) = unpacked(draft.writes["k"]).leaves
    assert len(merged.parts) == 2
    draft.passed("z", draft.state.seq)
    written = draft.put("k", [])
    base = unpacked(draft.writes["k"]).bases[written.vector]
    assert base.vector == merged.vector
    assert base.parts == ()


def test_a_record_that_was_written_and_removed_at_once_leaves_nothing():
    draft = Place().draft()
    draft.put("k", None, deleted=True)
    draft.remove("k")
    assert draft.writes == {}
    assert draft.record("k") is None
    assert draft.row("k") is None
    assert draft.state.horizon == 1
    assert draft.written


def test_quarantine_is_counted_however_often_it_changes():
    place = Place()
    draft = place.draft()
    row = packed(foreign("k", 1))
    draft.hold(row, peer="z", reason="a")
    draft.hold(row, peer="z", reason="b")
    assert draft.state.held == 1
    place.keep(draft)
    draft = place.draft()
    assert draft.held["k"].reason == "b"
    assert draft.release("k")
    assert not draft.release("k")
    assert draft.state.held == 0
    assert draft.holds == {"k": None}


def test_what_was_seen_only_grows():
    draft = Place().draft()
    draft.saw(VersionVector({"b:1": 5}))
    draft.saw(VersionVector({"b:1": 3, "c:1": 1}))
    assert draft.state.context == {"b:1": 5, "c:1": 1}


@pytest.mark.parametrize("way", ["take", "saw"])
def test_an_old_copy_of_itself_becomes_another_node_when_it_finds_out(way):
    place = Place()
    draft = place.draft()
    draft.put("k", 1)
    place.keep(draft)
    lost = place.draft()  # what was written after the copy was made
    lost.put("k", 2)
    lost.put("l", 3)
    draft = place.draft()
    if way == "take":
        draft.take(unpacked(lost.writes["l"]), strategy=LastWriteWins())
    else:
        draft.saw(lost.state.seen)
    assert draft.state.epoch != place.state.epoch
    assert draft.state.expired(place.state.seq)
    assert draft.state.seen.dominates(place.state.seen)
    new, old = draft.put("k", 4), lost.record("k")
    assert old is not None
    assert new.vector.relation(old.vectors[0]) == "concurrent"  # and not known already


def test_who_knows_what_this_store_has_written_is_no_reason():
    draft = Place().draft()
    draft.put("k", 1)
    state = draft.state
    draft.saw(VersionVector({state.node: 1, "b:1": 7}))
    assert draft.state.epoch == state.epoch


@pytest.mark.parametrize("readable", [True, False])
def test_what_is_buried_is_no_later_than_it_must_be_and_knows_what_was_forgotten(readable):
    place = Place()
    draft = place.draft()
    draft.take(foreign("k", 1, 4, ahead=30), strategy=LastWriteWins())
    place.keep(draft)
    (old,) = unpacked(place.rows["k"]).leaves
    if not readable:
        place.rows["k"] = place.rows["k"]._replace(body=b"\xff")
    draft = place.draft()
    tombstone = draft.bury("k", purged=VersionVector({"z:0": 9, "y:0": 1}))
    assert tombstone.deleted
    assert (tombstone.vector["z:0"], tombstone.vector["y:0"]) == (9, 1)
    assert tombstone.vector[draft.state.node] == 2
    if readable:
        assert tombstone.stamp == (old.stamp.time, old.stamp.counter + 1, "a")
        assert tombstone.created == old.created
    record = draft.record("k")
    assert record is not None
    assert record.leaves == (tombstone,)
