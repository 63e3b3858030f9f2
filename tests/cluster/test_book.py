"""The book of a service: what looks make of records, and what callers see of it."""

from __future__ import annotations

import math

from aiopatterns.backends import Members
from aiopatterns.cluster import InstanceState, ServiceInstance
from aiopatterns.cluster.book import Book, LapseBelieved, LapseDoubted
from aiopatterns.cluster.record import written
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import capture_events, simulate

STARTING, READY, DRAINING = InstanceState.STARTING, InstanceState.READY, InstanceState.DRAINING
TTL = 10.0


def book() -> Book:
    return Book("users", ttl=TTL, ratio=0.85)


def stale(kept: Book) -> str:
    return "".join(each.id for each in kept.snapshot.stale)


def who(name: str, port: int = 80) -> ServiceInstance:
    return ServiceInstance("users", "localhost", port, id=name)


def take(kept: Book, found: Members) -> bool:
    """Take in what was asked for just now."""
    return kept.take(found, asked=monotonic())


def members(revision: int, ready: str = "", **others: bytes) -> Members:
    """Return what a directory holds: some that are ready, and records in bytes."""
    records = {name: written(who(name), "ready", epoch=1) for name in ready}
    return Members(revision, records | others)


def test_a_blank_book():
    blank = book()
    assert blank.is_blank
    assert blank.known is None
    assert not blank.look()
    assert not blank.doubt()
    assert blank.due() == math.inf


def test_the_first_look_is_news_though_nobody_is_there():
    blank = book()
    assert take(blank, members(0))
    assert blank.is_blank
    assert blank.known is not None
    assert not take(blank, members(0))


def test_states_order_and_goodbyes():
    kept = book()
    seen = members(
        7,
        "cab",
        s=written(who("s"), "starting", epoch=1),
        d=written(who("d"), "draining", epoch=1),
        l=written(who("l"), "left", epoch=1),
    )
    assert take(kept, seen)
    snapshot = kept.snapshot
    assert snapshot.instances == (who("a"), who("b"), who("c"))
    assert dict(snapshot.states) == dict.fromkeys("abc", READY) | {"s": STARTING, "d": DRAINING}
    assert (snapshot.revision, snapshot.stale, snapshot.age) == (7, (), 0.0)
    assert not kept.is_blank


def test_an_answer_that_another_has_overtaken_is_left_out():
    async def main():
        kept = book()
        asked = monotonic()
        await sleep(1)
        assert take(kept, members(8, "ab"))
        assert not kept.take(members(7, "a"), asked=asked)
        assert (kept.snapshot.revision, kept.snapshot.instances) == (8, (who("a"), who("b")))
        assert kept.take(members(9, "a"), asked=asked)  # it was slow, and is the newest
        asked = monotonic()
        await sleep(1)
        kept.confirm(monotonic())
        assert not kept.take(members(8, "ab"), asked=asked)
        assert take(kept, members(1, "b"))  # the server has begun to count anew

    simulate(main)


def test_what_callers_do_not_see_is_no_news():
    kept = book()
    take(kept, members(1, "a", l=written(who("l"), "left", epoch=1)))
    assert not take(kept, members(2, "a"))
    assert kept.snapshot.revision == 2
    assert take(kept, members(3, "ab"))


def test_a_record_is_read_once_and_stays_the_same_object():
    kept = book()
    take(kept, members(1, "ab"))
    before = kept.snapshot.instances
    take(kept, members(2, "ab", c=written(who("c"), "ready", epoch=1)))
    assert all(one is two for one, two in zip(before, kept.snapshot.instances, strict=False))
    changed = Members(3, members(3, "ab").members | {"a": written(who("a", 81), "ready", epoch=1)})
    assert take(kept, changed)
    assert kept.snapshot.instances == (who("a", 81), who("b"))
    assert kept.snapshot.instances[1] is before[1]


def test_records_of_strangers_are_skipped_and_counted_once():
    kept = book()
    for revision in range(3):
        take(kept, members(revision, "a", x=b"\xff", y=b'{"format":2}'))
        assert kept.snapshot.instances == (who("a"),)
    assert kept.malformed == 2
    take(kept, members(4, "a", x=b"\xfe"))
    assert kept.malformed == 3
    assert not kept.is_blank


def test_a_record_that_becomes_unreadable_is_no_lapse():
    kept = book()
    take(kept, members(1, "abcd"))
    take(kept, members(2, "ab", c=b"of tomorrow", d=b"of tomorrow"))
    assert kept.snapshot.instances == (who("a"), who("b"))
    assert stale(kept) == ""


def test_a_mass_lapse_is_told_at_its_beginning_and_at_its_end():
    async def main():
        kept = book()
        take(kept, members(1, "abcd"))
        with capture_events() as events:
            assert take(kept, members(2, "a"))
            assert stale(kept) == "bcd"
            assert take(kept, members(3, "ab"))
            assert events == [LapseDoubted("users", 1, 3)]
            assert kept.due() == 10 * TTL
            await sleep(10 * TTL - 1)
            assert not kept.look()
            await sleep(kept.due())
            assert kept.look()
            assert events == [LapseDoubted("users", 1, 3), LapseBelieved("users", 2)]
        assert stale(kept) == ""
        assert kept.due() == math.inf

    simulate(main)


def test_a_mass_lapse_when_nobody_listens():
    kept = book()
    take(kept, members(1, "abcd"))
    take(kept, members(2, "a"))
    assert len(stale(kept)) == 3
    assert not kept.is_blank
    take(kept, members(3, "abcd"))
    assert stale(kept) == ""


def test_in_doubt_a_single_one_is_kept():
    async def main():
        kept = book()
        take(kept, members(1, "abc"))
        assert take(kept, members(2, "ab"))
        assert stale(kept) == ""
        assert kept.doubt()
        assert stale(kept) == "c"
        assert kept.due() == TTL

    simulate(main)


def test_the_age_is_since_the_last_look_that_confirmed():
    async def main():
        kept = book()
        take(kept, members(1, "a"))
        await sleep(3)
        assert kept.known is not None
        assert kept.known.age == 3.0
        kept.confirm(2.0)
        assert kept.known.age == 1.0
        kept.confirm(1.0)
        assert kept.known.age == 1.0
        assert kept.snapshot.age == 0.0

    simulate(main)
