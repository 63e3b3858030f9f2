"""Patterns: everything whose key fits a glob is invalidated, and nothing else.

::

    invalidate("user:*")
      1  a rule is written to the record of the cache, and told to all processes: from now on
         nothing counts that is older and fits                                 1 step, see rules.py
      2  all keys of the cache are looked at, a page at a time; what has become invalid is taken away
      3  rules that are older than any load that may still be stored have done their work, for this
         look has found all that they concern: they are dropped

The first step is what invalidates. The others are tidying up: who is cancelled there, or loses the
server, leaves values behind that nobody takes for valid, and rules that the next one drops. A
tombstone takes the place of what is taken away: an empty one would let in a fill that was refused
before.

A fill that was under way when the rule was written may be stored for :data:`GRACE` seconds after
it, with the old version. So a rule is dropped only by a look that began later than that.

Not guaranteed: that rules are dropped on a cluster. Keys that move from one server to another may
be missed by a look there; so they stay until they fill the record, and then all is cleared. Nor
that a value which is valid stays: one whose name does not tell its key (it is too long) is taken
away if it is older than any of the rules.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.records import Change
from aiopatterns.cache.envelope import is_tombstone, opened, tombstone
from aiopatterns.cache.farnames import GRACE, LONGEST, WRITTEN_WITHIN
from aiopatterns.cache.invalidation import ALL, MATCHING, Item
from aiopatterns.cache.rules import Rules, beginning, matcher
from aiopatterns.core.clock import monotonic, yield_now

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.cache.farnames import FarNames
    from aiopatterns.cache.gate import Gate
    from aiopatterns.cache.owed import Outbox
    from aiopatterns.cache.pieces import Pieces
    from aiopatterns.cache.rules import Rule
    from aiopatterns.cache.serverclock import ServerClock

__all__ = ["Patterns"]

# Attempts to add a rule while others do so too; then everything is cleared.
_ATTEMPTS: Final = 10
# Keys that the server looks at for one page, and values that are read in one command.
_PAGE: Final = 1_000
_VALUES: Final = 100


@final
class Patterns:
    """Invalidates by pattern in the shared tier of one cache.

    Args:
        backend: Where that is.
        gate: How it is asked.
        pieces: How keys are read and changed there.
        clock: What time it is there.
        names: The names of the keys.
        outbox: How others are told.
    """

    __slots__ = ("_backend", "_clock", "_gate", "_names", "_outbox", "_pieces", "_record")

    def __init__(
        self,
        backend: Backend,
        gate: Gate,
        pieces: Pieces,
        *,
        clock: ServerClock,
        names: FarNames,
        outbox: Outbox,
    ) -> None:
        self._backend = backend
        self._gate = gate
        self._pieces = pieces
        self._clock = clock
        self._names = names
        self._outbox = outbox
        self._record = names.version("")

    async def invalidate(self, pattern: str) -> None:
        """Let nobody see what was loaded before of keys that fit ``pattern``, and take it away.

        If the server cannot be told, everything is owed.

        Cancellation: the same, if it was not told yet.

        Complexity: 2 round trips to tell; then all keys of the server are looked at.
        """
        self._names.version(pattern)  # refuses what cannot be told before it is owed
        items, told = (Item(MATCHING, pattern),), False
        ticket = self._outbox.owed.add(items)
        try:
            told = await self._tell(pattern)
        finally:
            self._outbox.owed.settle(items, ticket, told=told)
        if told:
            await self._tidy()

    async def _tell(self, pattern: str) -> bool:
        """Write a rule; return whether it is there, or a new version in its place."""
        for _ in range(_ATTEMPTS):
            read = await self._read()
            if read is None:
                return False
            raw, rules = read
            until = self._clock.time(monotonic() + WRITTEN_WITHIN)
            made = rules.added(pattern, until)
            item = Item(ALL) if made is None else Item(MATCHING, pattern)
            value = beginning() if made is None else made.sealed()
            change = Change(self._record, value, expected=raw, ttl=LONGEST, before=until)
            (done,) = await self._pieces.change([self._outbox.told(item, change)])
            if done is not False:
                return done is True
        return await self._outbox.tell([Item(ALL)])

    async def _read(self) -> tuple[bytes | None, Rules] | None:
        """Return the record as it is and what it says, or None if it could not be read."""
        stored = await self._pieces.get([self._record])
        if stored is None:
            return None
        raw = stored.get(self._record)
        return raw, Rules(beginning()) if raw is None else Rules.opened(raw)

    async def _tidy(self) -> None:
        """Take away what is invalid, and drop the rules that have done their work."""
        began = self._clock.time(monotonic())
        read = await self._read()
        if read is None or not await self._take_away(read[1]):
            return
        done = {rule for rule in read[1].rules if rule.before + GRACE <= began}
        if done and not self._backend.url.startswith("redis+cluster:"):
            await self._drop(done)

    async def _take_away(self, rules: Rules) -> bool:
        """Look at all keys; return whether that went well to the end."""
        fits = matcher(*(rule.pattern for rule in rules.rules))
        scan, cursor = partial(self._backend.kv.scan, self._names.keys, limit=_PAGE), None
        while True:
            page = await self._gate.call(partial(scan, cursor=cursor))
            if page is None or not await self._take(page.keys, fits, rules):
                return False
            cursor = page.cursor
            if cursor is None:
                return True
            await yield_now()  # a server in memory never waits

    async def _take(
        self, names: Collection[str], fits: Callable[[object], bool], rules: Rules
    ) -> bool:
        """Take away those of some keys that are invalid."""
        texts = {name: self._names.shown(name) for name in names}
        fitting = [name for name, text in texts.items() if text is None or fits(text)]
        stored = await self._pieces.get(fitting, piece=_VALUES) if fitting else {}
        if stored is None:
            return False
        gone = [
            Change(name, tombstone(), expected=raw, ttl=GRACE)
            for name, raw in stored.items()
            if not is_tombstone(raw) and not _counts(raw, texts[name], rules)
        ]
        return None not in await self._pieces.change(gone)

    async def _drop(self, done: Collection[Rule]) -> None:
        """Drop rules; if the record has just changed, the next one will do it."""
        read = await self._read()
        if read is not None and read[0] is not None:
            value = read[1].without(done).sealed()
            await self._pieces.change([Change(self._record, value, expected=read[0], ttl=LONGEST)])


def _counts(raw: bytes, text: str | None, rules: Rules) -> bool:
    """Whether what a key holds may be valid; what is no envelope is of no use to anybody."""
    envelope = opened(raw, None)
    if envelope is None:
        return False
    mark = dict(envelope.versions).get("")
    return mark is not None and rules.allows(mark, text)
