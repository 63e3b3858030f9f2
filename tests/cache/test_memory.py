"""The near tier: bounds at every instant, lives, weights, and a bounded number of steps a call."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.memory import MOST_EXPIRED, MOST_STEPS, Entry, Near
from aiopatterns.cache.policy import MOST_LOOKS, MOST_USES
from aiopatterns.core import clock
from aiopatterns.core.clock import ClockSource, seeded, set_source

BOTH = pytest.mark.parametrize("eviction", ["s3fifo", "lru"])


@pytest.fixture
def at():
    """A clock that stands where a test puts it."""
    time = [0.0]
    previous = set_source(ClockSource(lambda: time[0], lambda: time[0], seeded(1)))
    yield time
    set_source(previous)


def put(near, key, value="v", *, until=math.inf):
    return near.put(key, value, fresh_until=until, stale_until=until)


def check(near) -> None:
    """What holds at every instant."""
    entries = [near._table.get(key) for key in list(near.keys())]
    assert len(near) == len(entries) <= near._max_size
    assert near.weight == sum(each.weight for each in entries) <= near._max_weight
    ring, node = set(), near._policy._mark.newer
    hand_seen = near._policy.hand is near._policy._mark
    while node is not near._policy._mark:
        hand_seen = hand_seen or near._policy.hand is node
        if isinstance(node, Entry):
            ring.add(node)
        node = node.newer
    assert ring == set(entries)
    assert hand_seen, "the hand is lost"


# ------------------------------------------------------------------------------------- entries


@BOTH
def test_an_entry_says_what_is_known_of_a_value(eviction):
    near: Near[str, int] = Near(max_size=3, eviction=eviction)
    tags = frozenset({("org:7", 1)})
    entry = near.put("k", 5, fresh_until=10.0, stale_until=20.0, cost=0.5, tags=tags)
    assert entry is not None
    assert (entry.key, entry.value, entry.weight) == ("k", 5, 1)
    assert (entry.fresh_until, entry.calm_until, entry.stale_until) == (10.0, 10.0, 20.0)
    assert (entry.cost, entry.tags, entry.retry_at) == (0.5, tags, -math.inf)
    assert near.find("k", 0.0) is entry
    assert near.find("other", 0.0) is None


@BOTH
def test_a_newer_value_takes_the_place_of_the_older(eviction):
    near: Near[str, int] = Near(max_size=3, eviction=eviction)
    first = near.put("k", 1, fresh_until=1.0, stale_until=1.0, cost=9.0)
    assert first is not None
    first.retry_at = 100.0
    second = near.put("k", 2, fresh_until=2.0, stale_until=3.0)
    assert second is not None
    assert (second.value, second.cost, second.tags) == (2, 0.0, frozenset())
    assert (second.calm_until, second.stale_until, second.retry_at) == (2.0, 3.0, -math.inf)
    assert len(near) == 1
    assert near.evictions == 0


def test_uses_are_counted_up_to_three():
    near: Near[str, str] = Near(max_size=3)
    entry = put(near, "k")
    assert entry.uses == 0, "to come in is no use"
    put(near, "k")
    assert entry.uses == 1, "to be stored again is"
    for _ in range(9):
        near.find("k", 0.0)
    assert entry.uses == MOST_USES


def test_with_lru_a_use_makes_the_newest():
    near: Near[str, str] = Near(max_size=2, eviction="lru")
    put(near, "a")
    put(near, "b")
    near.find("a", 0.0)
    put(near, "c")
    assert near.keys() == ["a", "c"]


@BOTH
def test_keys_can_be_dropped(eviction):
    near: Near[str, str] = Near(max_size=3, eviction=eviction)
    put(near, "a")
    assert near.drop("a")
    assert not near.drop("a")
    assert near.keys() == []
    check(near)


def test_what_left_is_freed_at_once():
    class Value:
        pass

    near: Near[int, Value] = Near(max_size=5)
    gone = []
    for key in range(50):
        value = Value()
        gone.append(weakref.ref(value))
        put(near, key, value)
        del value
    assert sum(each() is not None for each in gone) == len(near)
    for key in list(near.keys()):
        near.drop(key)
    assert all(each() is None for each in gone)


# ---------------------------------------------------------------------------------------- lives


@BOTH
def test_what_is_over_is_not_found(eviction):
    near: Near[str, str] = Near(max_size=3, eviction=eviction)
    put(near, "k", until=10.0)
    assert near.find("k", 9.99) is not None
    assert near.find("k", 10.0) is None
    assert len(near) == 0
    assert near.expired == 1
    assert near.evictions == 0
    check(near)


def test_the_hand_comes_by_everywhere(at):
    near: Near[int, str] = Near(max_size=100)
    for key in range(60):
        put(near, key, until=math.inf if key % 3 else 10.0)
    assert near.sweep(9.0, 1_000) == 0
    found = sum(near.sweep(10.0, 7) for _ in range(10))
    assert found == near.expired == 20
    assert all(key % 3 for key in list(near.keys()))
    check(near)


def test_what_expires_all_at_once_is_gone_after_a_few_puts(at):
    near: Near[int, str] = Near(max_size=2_000)
    for key in range(1_000):
        put(near, key, until=10.0)
    at[0] = 10.0
    puts = 0
    while near.expired < 1_000:
        put(near, 1_000 + puts)
        puts += 1
        check(near)
    assert puts <= 16 + 1_000 / 8


def test_the_hand_goes_slowly_where_nothing_is_over(at):
    near: Near[int, str] = Near(max_size=1_000)
    seen = []
    for key in range(64):
        put(near, key)
        seen.append(near._turn)
    assert seen == [*range(15, 0, -1), 16] * 4


@pytest.mark.promise("cache-bounded-steps")
def test_a_put_looks_at_a_bounded_number_of_lives(at, monkeypatch):
    near: Near[int, str] = Near(max_size=20_000)
    for key in range(10_000):
        put(near, key, until=10.0)
    at[0] = 10.0
    for key in range(10_000, 10_400):
        before = near.expired
        put(near, key)
        assert near.expired - before <= MOST_EXPIRED


# -------------------------------------------------------------------------------------- weights


def weighed(limit, *, count=1_000, eviction="s3fifo") -> Near[str, int]:
    return Near(max_size=count, max_weight=limit, weigh=lambda key, value: value, eviction=eviction)


@BOTH
def test_weight_is_bounded(eviction):
    near = weighed(100, eviction=eviction)
    for key in range(200):
        put(near, str(key), key % 9)
        check(near)
    assert near.evictions > 0


def test_what_weighs_more_than_the_small_queue_pushes_out_nobody_the_first_time():
    near = weighed(100)
    for key in range(100):
        put(near, str(key), 1)
    assert put(near, "heavy", 11) is None
    assert near.evictions == 0
    assert put(near, "heavy", 11) is not None, "it has come again soon"
    assert put(near, "all", 101) is None
    check(near)


def test_where_there_is_room_heavy_ones_come_in():
    near = weighed(100)
    assert put(near, "heavy", 90) is not None


@BOTH
def test_a_value_that_has_grown_makes_room_or_goes(eviction):
    near = weighed(100, eviction=eviction)
    put(near, "a", 50)
    put(near, "b", 50)
    assert put(near, "a", 101) is None
    assert near.find("a", 0.0) is None, "the older value is gone too"
    entry = put(near, "b", 60)
    assert entry.weight == 60
    assert near.weight == 60
    check(near)


def test_both_bounds_hold():
    near = weighed(100, count=3)
    for key in range(10):
        put(near, str(key), 0)
        check(near)
    assert len(near) == 3


def test_a_weight_that_is_none_is_refused_and_nothing_has_changed():
    near: Near[str, str] = Near(max_size=2, max_weight=2, weigh=lambda key, value: -1)
    with pytest.raises(ValueError, match="weight must be"):
        put(near, "a")
    wrong: Near[str, str] = Near(max_size=2, max_weight=2, weigh=lambda key, value: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        put(wrong, "a")
    assert len(near) == len(wrong) == 0


@pytest.mark.promise("cache-bounded-steps")
@BOTH
def test_a_heavy_value_makes_a_bounded_number_of_others_leave(eviction):
    near = weighed(20_000, count=30_000, eviction=eviction)
    for key in range(20_000):
        put(near, str(key), 1)
    attempts, entry = 0, None
    while entry is None:
        before = near.evictions
        entry = put(near, "heavy", 2_000)
        assert near.evictions - before <= MOST_STEPS
        attempts += 1
    assert 2 <= attempts <= 3
    check(near)


@pytest.mark.promise("cache-bounded-steps")
@BOTH
def test_a_put_makes_a_bounded_number_of_looks_where_all_are_in_use(eviction):
    near: Near[int, str] = Near(max_size=5_000, eviction=eviction)
    for key in range(5_000):
        put(near, key)
    for key in range(5_000):
        for _ in range(MOST_USES):
            near.find(key, 0.0)
    most = 0
    for key in range(5_000, 5_200):
        before = near._policy.looks
        put(near, key)
        most = max(most, near._policy.looks - before)
    assert 1 <= most <= MOST_LOOKS
    assert near.evictions == 200


# ---------------------------------------------------------------------------------------- clear


@BOTH
def test_clear_forgets_everything_at_once(eviction):
    near: Near[int, str] = Near(max_size=100, eviction=eviction)
    for key in range(50):
        put(near, key)
    near.clear()
    assert len(near) == near.weight == 0
    assert near.keys() == []
    assert all(near.find(key, 0.0) is None for key in range(50))
    assert not near._buried
    put(near, 1)
    check(near)


def test_clear_takes_apart_a_little_at_a_time():
    class Value:
        pass

    near: Near[int, Value] = Near(max_size=40_000)

    def stored(key: int) -> Value:
        value = Value()
        put(near, key, value)
        return value

    gone = weakref.WeakSet(stored(key) for key in range(12_000))
    near.clear()
    assert len(near) == 0
    gc.disable()
    try:
        before = len(gone)
        assert before == 8_000
        while near._buried:
            put(near, 1, Value())
            assert before - len(gone) <= MOST_EXPIRED + 1
            before = len(gone)
        assert not gone
    finally:
        gc.enable()
    check(near)


def test_an_entry_that_somebody_keeps_keeps_no_others():
    near: Near[int, str] = Near(max_size=3)
    kept = put(near, 0)
    put(near, 1)
    near.clear()
    assert not hasattr(kept, "newer")
    assert not hasattr(kept, "older")


# ------------------------------------------------------------------------------------ the model


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 25), st.integers(0, 12), st.integers(1, 30)),
            st.tuples(st.just("find"), st.integers(0, 25)),
            st.tuples(st.just("drop"), st.integers(0, 25)),
            st.tuples(st.just("wait"), st.integers(1, 9)),
            st.tuples(st.just("sweep"), st.integers(1, 20)),
            st.tuples(st.just("clear")),
        ),
        max_size=120,
    ),
    st.sampled_from(["s3fifo", "lru"]),
    st.integers(1, 12),
)
@pytest.mark.promise("cache-bounded")
def test_it_holds_its_bounds_and_never_tells_a_lie(steps, eviction, limit):
    now = 0.0
    previous = set_source(ClockSource(lambda: now, lambda: now, seeded(1)))
    try:
        near: Near[int, int] = Near(
            max_size=limit, max_weight=40, weigh=lambda key, value: value, eviction=eviction
        )
        truth: dict[int, tuple[int, float]] = {}
        for step, *given_ in steps:
            match step, given_:
                case "put", (key, value, life):
                    entry = put(near, key, value, until=now + life)
                    truth[key] = (value, now + life)
                    if entry is None:
                        del truth[key]
                case "find", (key,):
                    found = near.find(key, now)
                    if found is not None:
                        assert (found.value, found.stale_until) == truth[key]
                        assert now < found.stale_until
                case "drop", (key,):
                    near.drop(key)
                    truth.pop(key, None)
                case "wait", (seconds,):
                    now += seconds
                case "sweep", (some,):
                    near.sweep(clock.monotonic(), some)
                case _:
                    near.clear()
                    truth.clear()
            check(near)
    finally:
        set_source(previous)
