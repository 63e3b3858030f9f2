"""Rules: what counts under a record, against a plain model; any bytes are a record."""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.rules import MOST_BYTES, Rules, beginning, matcher, shown

KEYS = ["user:1", "user:2", "org:1", "x"]
PATTERNS = ["user:*", "org:?", "*", "[xyz]", "nobody"]


@given(st.lists(st.one_of(st.sampled_from(PATTERNS), st.sampled_from(KEYS).map(lambda k: (k,)))))
def test_what_counts_is_what_no_later_rule_fits(steps):
    """Stored values are (key, mark); a rule makes those invalid that fit, once and for all."""
    rules = Rules(beginning())
    stored: list[tuple[str, bytes, bool]] = []
    for step in steps:
        if isinstance(step, tuple):
            stored.append((step[0], rules.mark, True))
            continue
        added = rules.added(step, 0.0)
        assert added is not None
        rules = Rules.opened(added.sealed())
        assert rules == added
        stored = [(k, m, good and not fnmatchcase(k, step)) for k, m, good in stored]
    for key, mark, good in stored:
        assert rules.allows(mark, key) == good
        assert rules.allows(mark, None) == (mark == rules.mark)
        assert not Rules(beginning(), rules.rules).allows(mark, key) or not steps


def test_the_same_pattern_is_one_rule_and_room_ends():
    rules = Rules(beginning())
    for number in range(1_000):
        added = rules.added("user:*", float(number))
        assert added is not None
        rules = added
    assert [(each.number, each.before) for each in rules.rules] == [(1_000, 999.0)]
    many: Rules | None = rules
    count = 0
    while many is not None:
        rules, count = many, count + 1
        many = rules.added(f"pattern-{count}", 0.0)
    assert 100 < count < MOST_BYTES
    assert len(rules.sealed()) <= MOST_BYTES
    other = rules.rules[0]._replace(before=1.5)
    assert rules.without([other]) == rules
    left = rules.without(rules.rules)
    assert left.sealed() == left.mark == rules.mark


def test_numbers_end():
    rules = Rules(b"\x07" * 6 + b"\xff\xff")
    assert rules.added("a", 0.0) is None
    assert rules.allows(b"\x07" * 6 + b"\x00\x01", "a")
    earlier = Rules(b"\x07" * 6 + b"\x00\x01")
    assert not earlier.allows(rules.mark, "a"), "of a later record"


@given(st.binary(max_size=40))
def test_any_bytes_are_a_record(raw):
    rules = Rules.opened(raw)
    assert len(rules.mark) == 8
    assert rules.allows(rules.mark, "k")
    assert Rules.opened(raw) == rules


class Text(str):
    """Of a type of one's own."""

    __slots__ = ()

    def __str__(self):
        return "something else"


class Colour(Text, Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("key", "text"),
    [("a", "a"), (7, "7"), (-7, "-7"), (b"\xff", r"b'\xff'"), (Colour.RED, "red"), (1.5, "1.5")],
)
def test_keys_as_text(key, text):
    assert shown(key) == text
    assert matcher(text.replace("\\", "?"))(key)
    assert not matcher("other*")(key)
    assert matcher("other*", text.replace("\\", "?"), "*no")(key)
    assert not matcher("other*", "*no")(key)
    assert not matcher()(key)
