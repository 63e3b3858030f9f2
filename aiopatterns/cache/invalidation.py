"""Invalidation: what processes tell each other, and what becomes of it while nobody can be told.

An invalidation is written to the server and told on the cache's channel in one atomic step. Every
process listens there and forgets what it has near::

    invalidate(k) --> server: k = tombstone, publish [origin, number, keys, [k]]
                                               |
          this process: has done so already <--+--> others: detach loads of k, drop k

The number counts the messages of one process. Messages may get lost with a connection, and then
the subscription tells of a gap; or without a sign, and then a number is missing: whoever misses
one for longer than :data:`PATIENCE` cannot know what it was and forgets everything. Each process
that has told something tells its last number once more a second later, so that the last message is
missed as well. What is not understood (a newer release has sent it) counts as lost.

Echoes of own messages are ignored by their origin, never by time: a suppression mark that lasts
for seconds would swallow what another process says meanwhile about the same key.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
    final,
)

from aiopatterns.core.clock import monotonic, rng
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ALL", "KEYS", "MATCHING", "PATIENCE", "TAGS", "Item", "Key", "Local", "News"]

Key: TypeAlias = "str | bytes | int"
"""What the keys of a cache may be that several processes share."""

K = TypeVar("K", bound=Key)
K_contra = TypeVar("K_contra", bound=Key, contravariant=True)

#: Seconds after which a message that others have overtaken is lost.
PATIENCE: Final = 1.0
_FORMAT: Final = 1
_ORIGIN_BYTES: Final = 8
_BEAT, KEYS, TAGS, ALL, MATCHING = range(5)
# What names are of, by kind.
_NAMES: Final = (
    frozenset[type](),
    frozenset({str, bytes, int}),
    frozenset({str}),
    frozenset({str}),
    frozenset({str}),
)
# Processes that are remembered; who was silent for longest is forgotten, and is new when it speaks.
_MOST_ORIGINS: Final = 1_000
# A jump beyond that is no reordering.
_MOST_MISSED: Final = 1_000


class Item(NamedTuple):
    """What is invalid: a key, a tag, all that fits a pattern, or everything."""

    kind: int
    name: Key = ""


class Local(Protocol[K_contra]):
    """The cache of this process, as it is told what happened elsewhere; it must not raise."""

    def forget(self, keys: Sequence[K_contra]) -> object:
        """Detach the loads of ``keys`` and drop them."""
        ...

    def forget_tags(self, tags: Sequence[str]) -> object:
        """Detach the loads that carry one of ``tags`` and drop all that does."""
        ...

    def forget_matching(self, pattern: str) -> object:
        """Detach the loads of keys that fit a glob and drop them."""
        ...

    def forget_all(self) -> object:
        """Detach all loads and drop everything: it was cleared, or messages were missed."""
        ...


@final
class News(Generic[K]):
    """What this process tells the others, and what it hears from them.

    Args:
        local: Who is told what was heard.

    Complexity: O(1) for a message and each of its keys.
    """

    __slots__ = ("_local", "_numbers", "_origin", "_others", "_told")

    def __init__(self, local: Local[K]) -> None:
        self._local = local
        self._origin = b""
        self._numbers = count(1)
        self._told = 0
        self._others: OrderedDict[bytes, _Heard] = OrderedDict()

    def begin(self) -> None:
        """Begin to listen: what was told before is missed, and what is told now has a new origin.

        A cache may be made before its process forks, so a name from the constructor would be that
        of all the children, who would take each other's news for echoes.
        """
        self._origin = rng().randbytes(_ORIGIN_BYTES)
        self._others.clear()
        self._local.forget_all()

    def message(self, item: Item) -> bytes:
        """Return the message that tells of ``item``."""
        self._told = next(self._numbers)
        return self._encoded(item.kind, [_plain(item.name)])

    def beat(self) -> bytes | None:
        """Return what tells the last number once more, or None if nothing was told since."""
        told, self._told = self._told, 0
        return self._encoded(_BEAT, [], told) if told else None

    def hear(self, data: bytes) -> None:
        """Do what a message says."""
        try:
            _, origin, number, kind, names = _decode(data)
        except CodecError:
            self.missed()
            return
        if origin != self._origin:
            kinds: set[type] = {type(name) for name in names}
            if not self._count(origin, number, kind) or not kinds <= _NAMES[kind]:
                self.missed()
            else:
                self._apply(kind, names)

    def missed(self) -> None:
        """Forget everything, for messages were missed."""
        for heard in self._others.values():
            heard.missing.clear()
        self._local.forget_all()

    def look(self) -> None:
        """Forget everything if a message is overdue; to be called every second or so."""
        late = monotonic() - PATIENCE
        if any(heard.is_overdue(late) for heard in self._others.values()):
            self.missed()

    def _apply(self, kind: int, names: Sequence[Any]) -> None:
        if kind == KEYS:
            self._local.forget(names)
        elif kind == TAGS:
            self._local.forget_tags(names)
        elif kind == MATCHING:
            for pattern in names:
                self._local.forget_matching(pattern)
        elif kind != _BEAT:
            self._local.forget_all()

    def _count(self, origin: bytes, number: int, kind: int) -> bool:
        """Note a number; False if more were skipped than can be on their way."""
        heard = self._others.get(origin)
        if heard is None:
            self._others[origin] = _Heard(number)
            if len(self._others) > _MOST_ORIGINS:
                self._others.popitem(last=False)
            return True
        self._others.move_to_end(origin)
        return heard.note(number, at=monotonic(), beat=kind == _BEAT)

    def _encoded(self, kind: int, names: list[Key], number: int | None = None) -> bytes:
        number = self._told if number is None else number
        return MSGPACK.encode((_FORMAT, self._origin, number, kind, names))


@final
class _Heard:
    """The numbers of one other process.

    Args:
        latest: The first that was heard.
    """

    __slots__ = ("latest", "missing")

    def __init__(self, latest: int) -> None:
        self.latest = latest
        self.missing: dict[int, float] = {}  # in order of time

    def note(self, number: int, *, at: float, beat: bool) -> bool:
        """Take a number in; a beat only says how far they go. False if too many are missing."""
        if number > self.latest:
            end = number + 1 if beat else number
            skipped = end - self.latest - 1
            first, self.latest = self.latest + 1, number
            if skipped + len(self.missing) > _MOST_MISSED:
                return False
            self.missing.update(dict.fromkeys(range(first, end), at))
        elif not beat:
            self.missing.pop(number, None)
        return True

    def is_overdue(self, late: float) -> bool:
        """Whether a number is missing since before ``late``."""
        return next(iter(self.missing.values()), late) < late


def _plain(name: Key) -> Key:
    """Return a name as what it is derived from: messages know no subclasses of text or numbers."""
    if isinstance(name, str):
        return str.__str__(name)
    return bytes(name) if isinstance(name, bytes) else int(name)


_decode: Final[Callable[[bytes], tuple[int, bytes, int, int, list[Any]]]] = MSGPACK.decoder(
    tuple[Literal[1], bytes, int, Literal[0, 1, 2, 3, 4], list[Any]]
)
