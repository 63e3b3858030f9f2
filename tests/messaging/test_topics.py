"""Topics: what is one, what meets what, and that the tree keeps nothing of what is gone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aiopatterns.core.telemetry import Subscription
from aiopatterns.messaging.topics import ANY, REST, TopicTrie, topic_name, topic_pattern

WORDS = st.sampled_from(["a", "b", "c"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(
    st.just(">"),
    st.tuples(
        st.lists(WORDS | st.just("*"), min_size=1, max_size=4).map(".".join),
        st.sampled_from(["", ".>"]),
    ).map("".join),
)


def meets(pattern: str, topic: str) -> bool:
    """The rules once more, as a regular expression."""
    translated = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(translated, topic) is not None


@pytest.mark.parametrize(
    ("pattern", "topics", "others"),
    [
        ("order.paid", ["order.paid"], ["order", "order.paid.late", "orders.paid"]),
        ("order.*", ["order.paid", "order.sent"], ["order", "order.paid.late", "user.paid"]),
        ("*.paid", ["order.paid"], ["paid", "order.sent", "a.order.paid"]),
        ("order.>", ["order.paid", "order.paid.late"], ["order", "user.paid"]),
        ("*.*.late", ["order.paid.late"], ["order.late"]),
        ("order.*.>", ["order.paid.late", "order.a.b.c"], ["order.paid"]),
        ("*", ["order", "$SRV"], ["order.paid"]),
        (">", ["order", "order.paid", "a.b.c.d"], []),
        ("$SRV.PING.ä-1_x:2/3", ["$SRV.PING.ä-1_x:2/3"], ["$SRV.PING"]),
    ],
)
def test_what_meets_what(pattern, topics, others):
    trie = TopicTrie[str]()
    trie.add(pattern, "it")
    for topic in topics:
        assert trie.match(topic) == ("it",)
        assert meets(pattern, topic)
    for topic in others:
        assert trie.match(topic) == ()
        assert not meets(pattern, topic)


def test_values_come_in_the_order_in_which_they_were_added():
    trie = TopicTrie[int]()
    for number, pattern in enumerate(["a.b", ">", "a.*", "*.b", "a.>", "a.b", "*.>", "c"]):
        trie.add(pattern, number)
    assert trie.match("a.b") == (0, 1, 2, 3, 4, 5, 6)
    assert trie.match("c") == (1, 7)
    assert len(trie) == 8


def test_one_value_twice_is_there_twice_until_each_is_closed():
    trie = TopicTrie[str]()
    with trie.add("a.*", "it"):
        inner = trie.add("a.*", "it")
        assert trie.match("a.b") == ("it", "it")
        inner.close()
        inner.close()
        assert trie.match("a.b") == ("it",)
    assert trie.match("a.b") == ()
    assert len(trie) == 0


def test_what_was_found_is_kept_until_something_changes():
    trie = TopicTrie[str]()
    place = trie.add("a.*", "one")
    found = trie.match("a.b")
    assert trie.match("a.b") is found
    trie.add("b", "other")
    assert trie.match("a.b") == found
    place.close()
    assert trie.match("a.b") == ()


def test_the_topics_that_are_remembered_are_bounded():
    trie = TopicTrie[str]()
    trie.add("a.*", "it")
    for number in range(3_000):
        assert trie.match(f"a.{number}") == ("it",)
        assert len(trie._found) <= 1_024
    assert trie.match("a.0") == ("it",)


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    "topic",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.*",
        ">",
        "a.>",
        "*",
        "a*",
        "a\n",
        "\ta",
        "a\x00",
        "a\udc80",
        "a\x7f",
        "a\xa0b",
        "x" * 256,
    ],
)
def test_what_is_no_topic(topic):
    with pytest.raises(ValueError, match="topic must be"):
        topic_name("topic", topic)
    with pytest.raises(ValueError, match="topic must be"):
        TopicTrie[str]().match(topic)


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "a.",
        "a..b",
        "a*",
        "*a",
        "**",
        "a.>.b",
        ">.a",
        ">>",
        "a.>>",
        "a>",
        "a b",
        "a.*\n",
        "*." * 128 + "a",
    ],
)
def test_what_is_no_pattern(pattern):
    trie = TopicTrie[str]()
    with pytest.raises(ValueError, match="pattern must be"):
        trie.add(pattern, "it")
    with pytest.raises(ValueError, match="on must be"):
        topic_pattern("on", pattern)
    assert len(trie) == 0


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize("value", [None, 7, b"a", ["a"], {}])
def test_what_is_no_text(value):
    with pytest.raises(TypeError, match="pattern must be a non-empty string"):
        TopicTrie[str]().add(value, "it")
    with pytest.raises(TypeError, match="topic must be a non-empty string"):
        TopicTrie[str]().match(value)


@given(PATTERNS)
def test_every_topic_is_a_pattern_and_those_with_wildcards_are_none(pattern):
    assert topic_pattern("it", pattern) == pattern
    if ANY in pattern or REST in pattern:
        with pytest.raises(ValueError):
            topic_name("it", pattern)
    else:
        assert topic_name("it", pattern) == pattern


@given(st.text(max_size=20))
def test_any_text_is_a_topic_or_refused(text):
    try:
        topic_name("it", text)
    except ValueError:
        return
    trie = TopicTrie[int]()
    trie.add(text, 1)
    trie.add(">", 2)
    assert trie.match(text) == (1, 2)


class TrieMachine(RuleBasedStateMachine):
    """The tree beside a list of patterns that are all tried one after the other."""

    @initialize()
    def begin(self):
        self.trie = TopicTrie[int]()
        self.kept: list[tuple[str, int, Subscription]] = []
        self.count = 0

    @rule(pattern=PATTERNS)
    def add(self, pattern):
        self.count += 1
        self.kept.append((pattern, self.count, self.trie.add(pattern, self.count)))

    @rule(data=st.data())
    def close(self, data):
        if self.kept:
            at = data.draw(st.integers(0, len(self.kept) - 1))
            self.kept.pop(at)[2].close()

    @rule(topic=TOPICS)
    def match(self, topic):
        expected = tuple(value for pattern, value, _ in self.kept if meets(pattern, topic))
        assert self.trie.match(topic) == expected

    @invariant()
    def nothing_is_left_of_what_is_gone(self):
        assert len(self.trie) == len(self.kept)
        if not self.kept:
            assert self.trie._root.empty

    def teardown(self):
        for _, _, place in self.kept:
            place.close()
        assert self.trie._root.empty


test_the_tree_does_what_a_list_does = pytest.mark.promise("messaging-bus-model")(
    TrieMachine.TestCase
)
