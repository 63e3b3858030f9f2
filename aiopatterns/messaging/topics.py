"""Topics: names of what is said, patterns over them, and which patterns a topic meets.

A topic is a name of tokens between dots. A pattern may have wildcards in the place of tokens::

    pattern      meets                                does not meet
    order.paid   order.paid                           order, order.paid.late
    order.*      order.paid                           order, order.paid.late
    order.>      order.paid, order.paid.late          order
    >            everything

Patterns are kept in a tree by their tokens, so that finding those of a topic costs by the topic's
length and not by the number of patterns; and programs use the same topics again and again, so what
was found for one is kept until a pattern comes or goes.

Source: the subject rules of NATS.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ANY", "LONGEST", "REST", "TopicTrie", "topic_name", "topic_pattern"]

T = TypeVar("T")

#: The wildcard of one token.
ANY: Final = "*"
#: The wildcard of one or more tokens, at the end.
REST: Final = ">"
#: Longest topic and pattern, in characters.
LONGEST: Final = 255

_DOT: Final = "."
# No blanks, no control characters and no halves of characters, which UTF-8 cannot hold: topics
# stand in keys, channels, log lines and addresses.
_WORD: Final = r"[^\s.*>\x00-\x1f\x7f\ud800-\udfff]+"
_NAME: Final = re.compile(rf"{_WORD}(\.{_WORD})*")
_PATTERN: Final = re.compile(rf"(?:(?:{_WORD}|\*)(?:\.(?:{_WORD}|\*))*(?:\.>)?|>)")
# Topics whose patterns are remembered.
_REMEMBERED: Final = 1_024


def topic_name(name: str, value: str) -> str:
    """Return ``value`` if it is a topic.

    Args:
        name: The caller's parameter, for the error message.
        value: Tokens between dots, without wildcards.

    Raises:
        ValueError: ``value`` is no topic.
        TypeError: ``value`` is no text.
    """
    return _checked(name, value, _NAME, "tokens between dots, without blanks and wildcards")


def topic_pattern(name: str, value: str) -> str:
    """Return ``value`` if it is a pattern; every topic is one.

    Args:
        name: The caller's parameter, for the error message.
        value: Tokens between dots; a token may be ``*``, the last one ``>``.

    Raises:
        ValueError: ``value`` is no pattern.
        TypeError: ``value`` is no text.
    """
    return _checked(
        name, value, _PATTERN, "tokens between dots, where '*' is any token and a last '>' the rest"
    )


@final
class _Node(Generic[T]):
    """What patterns with one beginning have in common."""

    __slots__ = ("children", "ends", "rests")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.ends: dict[int, T] = {}  # values of the patterns that end here, by their number
        self.rests: dict[int, T] = {}  # ... and of those whose next token is the last, ">"

    @property
    def empty(self) -> bool:
        return not (self.children or self.ends or self.rests)


@final
class TopicTrie(Generic[T]):
    """Values by patterns; :meth:`match` finds those whose patterns meet a topic.

    One loop's and one thread's. Nothing is left of a pattern whose values are gone.

    Complexity: O(tokens) to add and to remove. To match, O(1) for a topic that was matched since
    the last change and is among the last 1,024; else O(nodes that the topic meets), which is its
    tokens for patterns without ``*``, and at most the nodes of all patterns.

    Example::

        trie = TopicTrie[str]()
        trie.add("order.*", "billing")
        trie.match("order.paid")  # ("billing",)
    """

    __slots__ = ("_found", "_number", "_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._found: dict[str, tuple[T, ...]] = {}
        self._number = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: T) -> Subscription:
        """Keep ``value`` under ``pattern``, also if it is there already.

        Args:
            pattern: What topics have to meet.
            value: What :meth:`match` gives then.

        Returns:
            The place of this one value; closing it takes the value away.

        Raises:
            ValueError: ``pattern`` is none.
            TypeError: ``pattern`` is no text.
        """
        tokens = topic_pattern("pattern", pattern).split(_DOT)
        self._number = number = self._number + 1
        node = self._root
        for token in tokens:
            if token == REST:
                node.rests[number] = value
                break
            node = node.children.setdefault(token, _Node())
        else:
            node.ends[number] = value
        self._changed(1)
        return Subscription(lambda: self._remove(tokens, number))

    def match(self, topic: str) -> tuple[T, ...]:
        """Return the values whose patterns ``topic`` meets, in the order in which they were added.

        Args:
            topic: A name without wildcards.

        Raises:
            ValueError: ``topic`` is no topic.
            TypeError: ``topic`` is no text.
        """
        try:
            return self._found[topic]
        except (KeyError, TypeError):
            pass
        tokens = topic_name("topic", topic).split(_DOT)
        numbered = sorted(_walk(self._root, tokens), key=itemgetter(0))
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[topic] = found = tuple(value for _, value in numbered)
        return found

    def _remove(self, tokens: list[str], number: int) -> None:
        """Take one value away, and the nodes that only its pattern needed."""
        path = [self._root]
        for token in tokens:
            if token == REST:
                break
            path.append(path[-1].children[token])
        values = path[-1].rests if tokens[-1] == REST else path[-1].ends
        del values[number]
        while len(path) > 1 and path.pop().empty:
            del path[-1].children[tokens[len(path) - 1]]
        self._changed(-1)

    def _changed(self, by: int) -> None:
        self._size += by
        self._found.clear()


def _walk(root: _Node[T], tokens: list[str]) -> Iterator[tuple[int, T]]:
    """Give the numbered values of all patterns that the tokens meet."""
    nodes = [root]
    for token in tokens:
        further: list[_Node[T]] = []
        for node in nodes:
            yield from node.rests.items()
            further.extend(
                child
                for child in (node.children.get(token), node.children.get(ANY))
                if child is not None
            )
        nodes = further
    for node in nodes:
        yield from node.ends.items()


def _checked(name: str, value: str, pattern: re.Pattern[str], allowed: str) -> str:
    if len(text(name, value)) > LONGEST or not pattern.fullmatch(value):
        msg = f"{name} must be {allowed}, at most {LONGEST} characters, not {value!r}"
        raise ValueError(msg)
    return value
