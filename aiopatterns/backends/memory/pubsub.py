"""Live messages between the tasks of one process.

A subscription is an inbox (see ``inbox.py``). Publishing puts the message into every inbox that
asked for its channel, in one synchronous step, so all subscribers see one order.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, final

from aiopatterns.backends.inbox import Inbox
from aiopatterns.backends.names import check_data, check_name, check_names, check_notices
from aiopatterns.backends.records import Notice
from aiopatterns.core.validate import count, optional_function

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.memory.home import MemoryHome

__all__ = ["MemoryPubSub", "MemorySubscribed"]


@final
class MemoryPubSub:
    """The protocol ``PubSub`` in memory.

    Args:
        home: The backend it belongs to.
    """

    __slots__ = ("_channels", "_home", "_patterns")

    def __init__(self, home: MemoryHome) -> None:
        self._home = home
        self._channels: dict[str, dict[MemorySubscribed, None]] = {}
        self._patterns: dict[MemorySubscribed, tuple[re.Pattern[str], ...]] = {}

    async def publish(self, channel: str, data: bytes) -> int:
        """Give ``data`` to all who are subscribed now; return how many they are."""
        check_name("channel", channel)
        check_data("data", data)
        self._home.require_open()
        return self.publish_nowait(channel, data)

    async def publish_many(self, notices: Sequence[Notice]) -> list[int]:
        """Publish each of ``notices``, in order; return how many received each."""
        check_notices(notices)
        self._home.require_open()
        return [self.publish_nowait(channel, data) for channel, data in notices]

    def publish_nowait(self, channel: str, data: bytes) -> int:
        """Do what :meth:`publish` does, as a part of another atomic step."""
        readers = self._channels.get(channel, {}).copy()
        raw = _bytewise(channel) if self._patterns else ""
        for reader, patterns in self._patterns.items():
            if reader not in readers and any(each.match(raw) for each in patterns):
                readers[reader] = None
        notice = Notice(channel, data)
        for reader in readers:
            reader.deliver(notice)
        return len(readers)

    def subscribe(
        self,
        *channels: str,
        patterns: Collection[str] = (),
        capacity: int = 1_000,
        on_gap: Callable[[], object] | None = None,
    ) -> MemorySubscribed:
        """Listen on ``channels``, and on all that fit ``patterns``, inside ``async with``."""
        check_names("channels", channels)
        check_names("patterns", patterns)
        if not channels and not patterns:
            msg = "subscribe needs at least one of channels and patterns"
            raise ValueError(msg)
        count("capacity", capacity)
        optional_function("on_gap", on_gap)
        return MemorySubscribed(self, channels, patterns, capacity=capacity, on_gap=on_gap)

    def add(self, reader: MemorySubscribed) -> None:
        """Put ``reader`` in force."""
        self._home.require_open()
        self._home.on_close(reader.close)
        for channel in reader.channels:
            self._channels.setdefault(channel, {})[reader] = None
        if reader.patterns:
            self._patterns[reader] = reader.patterns

    def remove(self, reader: MemorySubscribed) -> None:
        """Take ``reader`` out; harmless if it is out already."""
        self._home.forget(reader.close)
        self._patterns.pop(reader, None)
        for channel in reader.channels:
            readers = self._channels.get(channel, {})
            readers.pop(reader, None)
            if not readers:
                self._channels.pop(channel, None)


@final
class MemorySubscribed(Inbox):
    """An open subscription; made by :meth:`MemoryPubSub.subscribe`."""

    __slots__ = ("_pubsub", "channels", "patterns")

    def __init__(
        self,
        pubsub: MemoryPubSub,
        channels: Collection[str],
        patterns: Collection[str],
        *,
        capacity: int,
        on_gap: Callable[[], object] | None,
    ) -> None:
        super().__init__(capacity=capacity, on_gap=on_gap)
        self.channels: frozenset[str] = frozenset(channels)
        self.patterns: tuple[re.Pattern[str], ...] = tuple(_compile(each) for each in patterns)
        self._pubsub = pubsub

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            self._pubsub.add(self)
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more; what was received can still be read, then the iteration ends."""
        self._pubsub.remove(self)
        self._end()


def _bytewise(name: str) -> str:
    """Return ``name`` with one character for each byte, for to a server that is what names are."""
    return name if name.isascii() else name.encode().decode("latin-1")


def _compile(glob: str) -> re.Pattern[str]:
    r"""Compile a glob of ``*``, ``?`` and ``\``; everything else is literal."""
    literal, parts = False, list[str]()
    for character in _bytewise(glob):
        if character == "\\" and not literal:
            literal = True
            continue
        special = character == "[" or (literal and character in "*?")
        parts.append(f"[{character}]" if special else character)
        literal = False
    return re.compile(translate("".join(parts) + "\\" * literal))
