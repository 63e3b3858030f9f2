"""News between processes: who is told what, and which losses are noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.invalidation import ALL, KEYS, PATIENCE, TAGS, Item, News
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.testing import simulate
from tests.cache.shaky import Deaf


def pair():
    here, there = Deaf(), Deaf()
    mine, theirs = begun(here), begun(there)
    here.told.clear()
    there.told.clear()
    return here, there, mine, theirs


def begun(local):
    news = News(local)
    news.begin()
    return news


def test_others_are_told_and_nobody_of_himself():
    here, there, mine, theirs = pair()
    items = [Item(KEYS, "k"), Item(KEYS, 7), Item(KEYS, b"\xff"), Item(TAGS, "t"), Item(ALL)]
    for item in items:
        message = mine.message(item)
        mine.hear(message)
        theirs.hear(message)
    assert here.told == []
    assert there.told == [["k"], [7], [b"\xff"], {"t"}, "all"]


@pytest.mark.promise("cache-lost-messages")
@pytest.mark.parametrize("last", [True, False])
def test_a_lost_message_is_missed(last):
    async def scenario():
        _, there, mine, theirs = pair()
        theirs.hear(mine.message(Item(KEYS, "a")))
        mine.message(Item(KEYS, "lost"))
        theirs.hear(mine.beat() if last else mine.message(Item(KEYS, "b")))
        theirs.look()
        assert "all" not in there.told
        await sleep(PATIENCE + 0.01)
        theirs.look()
        assert there.told.count("all") == 1
        theirs.look()
        assert there.told.count("all") == 1

    simulate(scenario)


def test_what_comes_late_is_not_lost():
    async def scenario():
        _, there, mine, theirs = pair()
        messages = [mine.message(Item(KEYS, number)) for number in range(6)]
        for number in (0, 3, 5, 1, 4, 2):
            theirs.hear(messages[number])
            await sleep(0.01)
        theirs.hear(messages[2])
        await sleep(9)
        theirs.look()
        assert there.told == [[0], [3], [5], [1], [4], [2], [2]]

    simulate(scenario)


def test_a_beat_is_told_once_after_news():
    _, there, mine, theirs = pair()
    assert mine.beat() is None
    theirs.hear(mine.message(Item(KEYS, "k")))
    beat = mine.beat()
    assert mine.beat() is None
    theirs.hear(beat)
    theirs.hear(beat)
    assert there.told == [["k"]]


def test_whoever_is_new_is_believed():
    _, there, mine, theirs = pair()
    for number in range(10):
        mine.message(Item(KEYS, number))
    theirs.hear(mine.message(Item(KEYS, "k")))
    assert there.told == [["k"]]


def test_a_jump_is_a_loss_at_once():
    _, there, mine, theirs = pair()
    theirs.hear(mine.message(Item(KEYS, "k")))
    for number in range(1_001):
        mine.message(Item(KEYS, number))
    theirs.hear(mine.message(Item(KEYS, "l")))
    assert there.told == [["k"], "all"]
    theirs.hear(mine.message(Item(KEYS, "m")))
    assert there.told[-1] == ["m"]


def test_a_gap_forgets_what_is_missing():
    async def scenario():
        _, there, mine, theirs = pair()
        theirs.hear(mine.message(Item(KEYS, "a")))
        mine.message(Item(KEYS, "lost"))
        theirs.hear(mine.message(Item(KEYS, "b")))
        theirs.missed()
        await sleep(9)
        theirs.look()
        assert there.told == [["a"], ["b"], "all"]

    simulate(scenario)


def test_processes_that_are_silent_for_longest_are_forgotten():
    there = Deaf()
    theirs = News(there)
    others = [begun(Deaf()) for _ in range(1_002)]
    for other in others:
        theirs.hear(other.message(Item(KEYS, "k")))
    others[0].message(Item(KEYS, "lost"))
    theirs.hear(others[0].message(Item(KEYS, "l")))
    assert "all" not in there.told


def test_who_was_made_before_a_fork_has_a_name_of_his_own():
    there = Deaf()
    news = News(there)
    news.begin()
    before = news.message(Item(KEYS, "k"))
    news.hear(before)
    assert there.told == ["all"]
    news.begin()
    news.hear(before)
    assert there.told == ["all", "all", ["k"]]


@pytest.mark.promise("cache-any-bytes")
@given(st.binary(max_size=60))
def test_any_message_is_understood_or_taken_for_a_loss(data):
    there = Deaf()
    News(there).hear(data)
    assert there.told == ["all"]


@pytest.mark.promise("cache-any-bytes")
@pytest.mark.parametrize(
    "message",
    [
        (2, b"o", 1, KEYS, ["k"]),
        (1, b"o", 1, 9, ["k"]),
        (1, b"o", "1", KEYS, ["k"]),
        (1, b"o", 1, KEYS, [{}]),
        (1, b"o", 1, KEYS, [1.5]),
        (1, b"o", 1, TAGS, [7]),
        (1, b"o", 1, 0, ["k"]),
        (1, b"o", 1, KEYS, ["k"], "more"),
    ],
)
def test_messages_of_another_release_are_a_loss(message):
    there = Deaf()
    News(there).hear(MSGPACK.encode(message))
    assert there.told == ["all"]


def test_names_of_derived_types_are_told_as_what_they_are_derived_from():
    class Text(str):
        __slots__ = ()

        def __str__(self):
            return "something else"

    class Number(int):
        pass

    class Raw(bytes):
        pass

    _, there, mine, theirs = pair()
    for item in (
        Item(KEYS, Text("k")),
        Item(KEYS, Number(7)),
        Item(KEYS, Raw(b"r")),
        Item(KEYS, True),
        Item(TAGS, Text("t")),
    ):
        theirs.hear(mine.message(item))
    assert there.told == [["k"], [7], [b"r"], [1], {"t"}]
