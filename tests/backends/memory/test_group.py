from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from aiopatterns.backends.memory.entries import START, Entries
from aiopatterns.backends.memory.group import Group, id_of, key_of
from aiopatterns.backends.records import Claimed, GroupTurn, GroupTurned, PendingEntry
from aiopatterns.backends.turns import MAX_DEAD, checked

SECOND = 1_000_000


def group(number: int = 0) -> tuple[Group, Entries, list[str]]:
    """A group over so many entries ``0``, ``1`` ...; and their ids."""
    entries = Entries()
    ids = [id_of(entries.append(b"%d" % each, 1)) for each in range(number)]
    return Group(entries, START), entries, ids


def say(group: Group, consumer: str = "c", at: float = 0, **turn) -> GroupTurned:
    return group.turn(consumer, checked(GroupTurn(**turn)), round(at * SECOND))


def claimed_ids(group: Group, consumer: str = "c", at: float = 0, limit: int = 10, **turn):
    return [each.id for each in say(group, consumer, at, limit=limit, **turn).claimed]


def test_ids_are_read_as_they_were_written():
    assert key_of(id_of((17, 3))) == (17, 3)


def test_fresh_entries_go_to_one_consumer_each_in_order():
    g, entries, ids = group(3)
    assert say(g, limit=2).claimed == [Claimed(ids[0], b"0", 1), Claimed(ids[1], b"1", 1)]
    assert g.lag() == 1
    assert claimed_ids(g, "d") == [ids[2]]
    assert claimed_ids(g, "d") == []
    assert g.held("c") == [Claimed(ids[0], b"0", 1), Claimed(ids[1], b"1", 1)]
    assert len(entries) == 3


def test_claims_take_failed_then_abandoned_then_fresh_ones():
    g, entries, ids = group(4)
    claimed_ids(g, limit=3)
    say(g, retries={ids[1]: 5})
    say(g, at=1, releases=[ids[2]])
    assert g.due_in(1 * SECOND) == 0
    assert claimed_ids(g, "d", at=30) == [ids[2], ids[1], ids[0], ids[3]]
    assert [each.deliveries for each in g.held("d")] == [2, 2, 1, 1]
    assert g.due_in(31 * SECOND) is None
    entries.append(b"new", 1)
    assert g.due_in(31 * SECOND) == 0


def test_a_limit_is_a_limit_in_every_part():
    g, _, ids = group(6)
    claimed_ids(g, limit=4)
    say(g, releases=ids[:2])
    assert claimed_ids(g, "d", at=1, limit=1) == [ids[0]]
    assert claimed_ids(g, "d", at=40, limit=2) == [ids[1], ids[2]]
    assert claimed_ids(g, "d", at=40, limit=2) == [ids[0], ids[3]]
    assert claimed_ids(g, "d", at=40, limit=1) == [ids[4]]
    assert claimed_ids(g, "d", at=40, limit=0) == []


def test_released_entries_come_back_in_the_order_of_their_release():
    g, _, ids = group(3)
    claimed_ids(g)
    say(g, releases=[ids[2], ids[0], ids[1]])
    assert claimed_ids(g, "d", at=1) == [ids[2], ids[0], ids[1]]


def test_a_retry_waits_for_its_time():
    g, _, ids = group(2)
    claimed_ids(g)
    say(g, retries={ids[0]: 5, ids[1]: 2})
    assert g.due_in(0) == 2.0
    assert claimed_ids(g, at=1.999_999) == []
    assert say(g, at=2, limit=5).claimed == [Claimed(ids[1], b"1", 2)]
    assert g.due_in(2 * SECOND) == 3.0
    assert claimed_ids(g, at=5) == [ids[0]]


def test_a_renewed_entry_is_not_abandoned():
    g, _, ids = group(2)
    claimed_ids(g)
    assert say(g, at=20, renews=[ids[0]]).lost == []
    assert claimed_ids(g, "d", at=30, idle=30) == [ids[1]]
    assert claimed_ids(g, "d", at=49.999_999, idle=30) == []
    assert claimed_ids(g, "d", at=50, idle=30) == [ids[0]]


def test_what_a_consumer_does_not_hold_is_lost_to_it():
    g, _, ids = group(6)
    claimed_ids(g, limit=5)
    claimed_ids(g, "d", at=40, limit=5)
    lost = ["7-7", ids[0], ids[1], ids[2], ids[3], ids[4], ids[5]]
    turned = say(
        g,
        acks=lost[:2],
        releases=[lost[2]],
        retries={lost[3]: 0},
        buried={lost[4]: b""},
        renews=lost[5:],
    )
    assert turned == GroupTurned([], lost)
    assert len(g.held("d")) == 5


def test_an_id_named_twice_is_settled_once():
    g, _, ids = group(1)
    claimed_ids(g)
    assert say(g, acks=[ids[0], ids[0]], releases=[ids[0]]).lost == [ids[0]]
    assert g.pending(10, 0) == []


def test_settled_entries_are_removed_from_the_log_if_asked():
    g, entries, ids = group(4)
    claimed_ids(g)
    say(g, acks=[ids[0]], buried={ids[1]: b"why"}, delete=True)
    say(g, acks=[ids[2]])
    assert [id_of(key) for key, _ in entries.after(START)] == [ids[2], ids[3]]


def test_pending_tells_who_has_what_and_what_waits():
    g, _, ids = group(3)
    claimed_ids(g, at=1)
    say(g, at=3, retries={ids[1]: 50}, renews=[ids[2]])
    assert g.pending(10, 5 * SECOND) == [
        PendingEntry(ids[0], "c", 4.0, 1),
        PendingEntry(ids[1], "", 2.0, 1),
        PendingEntry(ids[2], "c", 2.0, 1),
    ]
    assert [each.id for each in g.pending(1, 5 * SECOND)] == ids[:1]


def test_dead_letters_are_kept_newest_first_and_handed_out_again():
    g, entries, ids = group(3)
    claimed_ids(g)
    say(g, buried={ids[1]: b"one", ids[0]: b"two"}, delete=True)
    assert g.dead(10) == [(Claimed(ids[0], b"0", 1), b"two"), (Claimed(ids[1], b"1", 1), b"one")]
    assert g.dead(1) == [(Claimed(ids[0], b"0", 1), b"two")]
    entries.trim(0)
    assert g.requeue([ids[0], ids[1], ids[1], ids[2], "9-9"], SECOND) == 2
    assert g.dead(10) == []
    assert g.pending(10, SECOND)[0] == PendingEntry(ids[0], "", 0.0, 0)
    again = [Claimed(ids[0], b"0", 1), Claimed(ids[1], b"1", 1)]
    assert say(g, "d", at=1, limit=5).claimed == again
    assert g.held("d") == again
    say(g, "d", at=1, acks=[ids[0]], buried={ids[1]: b"three"})
    assert g.dead(10) == [(Claimed(ids[1], b"1", 1), b"three")]
    assert g._bodies == {}


def test_the_oldest_dead_letters_make_room():
    g, entries, _ = group()
    for _ in range(MAX_DEAD + 5):
        entries.append(b"", 1)
    ids = claimed_ids(g, limit=MAX_DEAD + 5)
    say(g, buried=dict.fromkeys(ids, b""))
    assert len(g.dead(MAX_DEAD + 5)) == MAX_DEAD
    assert g.dead(1)[0][0].id == ids[-1]
    assert g.requeue(ids[:5], 0) == 0


def test_entries_that_were_trimmed_are_not_handed_out_again():
    g, entries, ids = group(4)
    claimed_ids(g)
    say(g, releases=[ids[0]])
    entries.trim(0)
    assert g.held("c") == []
    say(g, acks=[ids[3]], buried={ids[2]: b"why"})
    assert g.dead(1) == [(Claimed(ids[2], b"", 1), b"why")]
    assert claimed_ids(g, "d", at=40) == []
    assert g.pending(10, 0) == []


def test_parking_again_and_again_leaves_no_heap():
    g, _, ids = group(1)
    for number in range(5_000):
        claimed_ids(g, at=number)
        say(g, at=number, retries={ids[0]: 0})
    assert len(g._heap) < 200
    for number in range(5_000):
        g.requeue([], number)
        claimed_ids(g, at=10_000 + number)
        say(g, at=10_000 + number, buried={ids[0]: b""})
        g.requeue(ids, round((10_000 + number) * SECOND))
    assert len(g._heap) < 200


class GroupMachine(RuleBasedStateMachine):
    """Every entry is in exactly one place, in whatever order its consumers act."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.group, self.entries, _ = group()
        self.appended: list[str] = []
        self.done: set[str] = set()
        self.now = 0.0

    @rule(target=ids, number=st.integers(0, 4))
    def append(self, number):
        new = [id_of(self.entries.append(b"", 1)) for _ in range(number)]
        self.appended += new
        return multiple(*new)

    @rule(
        consumer=st.sampled_from("cd"),
        acks=st.lists(ids, max_size=3),
        releases=st.lists(ids, max_size=3),
        retries=st.dictionaries(ids, st.sampled_from([0, 1, 10]), max_size=3),
        buried=st.dictionaries(ids, st.just(b""), max_size=3),
        renews=st.lists(ids, max_size=3),
        limit=st.integers(0, 4),
        delete=st.booleans(),
        passed=st.sampled_from([0.0, 1.0, 5.0]),
    )
    def turn(self, consumer, passed, **turn):
        self.now += passed
        held = {each.id for each in self.group.held(consumer)}
        turned = say(self.group, consumer, self.now, idle=3, **turn)
        self.done |= held & set(turn["acks"])
        assert len(turned.claimed) <= turn["limit"]
        assert not {each.id for each in turned.claimed} & self.done

    @rule(which=st.lists(ids, max_size=3))
    def requeue(self, which):
        self.group.requeue(which, round(self.now * SECOND))

    @invariant()
    def every_entry_is_in_one_place(self):
        pending = [each.id for each in self.group.pending(1_000, round(self.now * SECOND))]
        dead = [letter.id for letter, _ in self.group.dead(1_000)]
        fresh = [id_of(key) for key, _ in self.entries.after(self.group._last)]
        places = [*pending, *dead, *fresh, *self.done]
        assert sorted(places) == sorted(self.appended)
        assert self.group.lag() == len(fresh)


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
