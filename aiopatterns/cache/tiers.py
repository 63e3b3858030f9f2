"""Tiers: the part of a cache that all processes share.

::

    process 1: near --.                                          .-- near :process 2
                      '--> far tier: one key of Kv each  <-------'
                           value | tombstone | absent

A read remembers what the key held. A fill is a *compare-and-set*: it is stored if the key still
holds exactly that. An invalidation writes a tombstone, unlike any other, which lives longer than
any load whose value may be stored; so does what takes its place, however short its own life is::

    reader  read: absent        load (old row) ........ fill, expects absent: refused
    writer                 commit, invalidate: tombstone

The one hole of that rule would be a fill that arrives when the tombstone is over already, so every
fill names the time, the server's, after which it is too late: :data:`GRACE` less a margin after
its read began, also if it lay in a socket of a server that stood still.

Tags, and the cache as a whole, are versions: keys with bytes by chance. That of the whole cache has
rules with it, which make invalid what fits a pattern (``rules.py``). An entry carries those that
were read *before* its load, in the one command that read the key, and counts as long as they are
the same. A lost version is made anew and makes invalid what carried the old one.

Guarantees:

* Never an error because the server is not there, slow, full or read-only; nobody waits longer than
  0.25 s for an answer, of which a batch needs one for each 1,000 keys, and not at all while it is
  known to be down.
* Nothing counts of a load that began before its key, its tag, a pattern that its key fits or the
  whole cache was invalidated.
* An invalidation that could not be told is told when the server is back, before anything is read.
* Any bytes in the server are an envelope of ours or a miss.
* A life is never longer than the one that was given, whatever clocks say.

Not guaranteed: that other processes drop what they have near at once. They do when the message
arrives; a lost message is noticed a second or two later; and nothing lives near for longer than
:data:`NEAR_LIFE`. A server that evicts tombstones (``maxmemory-policy allkeys-*``) or fails over to
a replica that has missed one can let an old value be stored; it lives as long as its life.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar, final

from anyio import TASK_STATUS_IGNORED

from aiopatterns.backends.records import Change
from aiopatterns.cache.envelope import Envelope, codec_id, opened, sealed, version
from aiopatterns.cache.farnames import GRACE, LONGEST, WRITTEN_WITHIN, FarNames
from aiopatterns.cache.fetched import Fetched, Filled, Seen, Turn, unknown
from aiopatterns.cache.fleet import Fleet
from aiopatterns.cache.gate import Gate
from aiopatterns.cache.invalidation import ALL, KEYS, TAGS, Item, Key, News
from aiopatterns.cache.keeper import Keeper
from aiopatterns.cache.owed import Outbox
from aiopatterns.cache.patterns import Patterns
from aiopatterns.cache.pieces import Pieces
from aiopatterns.cache.rules import Rules, beginning, shown
from aiopatterns.cache.serverclock import ServerClock
from aiopatterns.cache.terms import MISSING, Life
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendUnavailableError, CodecError
from aiopatterns.core.telemetry import Event, emit, listening

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anyio.abc import TaskStatus

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.cache.fetched import Stored
    from aiopatterns.cache.invalidation import Local
    from aiopatterns.cache.terms import Missing
    from aiopatterns.core.codec import Codec

__all__ = ["NEAR_LIFE", "Far", "NotEncoded"]

K = TypeVar("K", bound=Key)
V = TypeVar("V")

#: Seconds that a value is fresh near at most, where there is a far tier.
NEAR_LIFE: Final = 60.0
# The same while the far tier cannot be asked.
_NEAR_LIFE_ALONE: Final = 1.0
# A load that took longer than that is not stored: its tombstone may be over.
_FILL_WITHIN: Final = GRACE - 1.0
# The version of this tag is that of the whole cache.
_WHOLE: Final = ""


class _Looked(NamedTuple):
    """What was read at once: of each key its bytes and what they are; versions; the rules."""

    raws: Sequence[bytes | None]
    envelopes: Sequence[Envelope | None]
    versions: Mapping[str, bytes]
    rules: Rules


@dataclass(frozen=True, slots=True)
class NotEncoded(Event):
    """A value was not stored in the shared tier, for the codec does not know how.

    Args:
        cache: Name of the cache.
        key: The key, as text.
        error: What the codec said.
    """

    name: ClassVar[str] = "aiopatterns.cache.not_encoded"
    level: ClassVar[str] = "warning"

    cache: str
    key: str
    error: CodecError


@final
class Far(Generic[K, V]):
    """The shared tier of one cache.

    Args:
        name: Name of the cache; processes with the same name share what it holds.
        backend: Where it is. :meth:`run` opens it, and closes it.
        local: Who is told what others have invalidated.
        codec: How values become bytes.
        type: What they are decoded into; by default what the codec makes of them.

    Raises:
        ValueError: ``name`` is longer than 128 bytes.

    Everything but :meth:`run` may be used while it is not running: nothing is found or stored
    then, and invalidations are owed.

    Example::

        fetched = (await far.read([key], tags))[key]
        if not fetched.known:
            turn = await far.lead(key, fetched, tags=tags)
            try:
                if not turn.answered:
                    value = await loader(key)
                    await far.fill(key, turn.fetched.seen, value, life, tags=tags)
            finally:
                far.finish(turn)
    """

    __slots__ = (
        "_backend",
        "_clock",
        "_codec",
        "_codec_id",
        "_decode",
        "_fleet",
        "_gate",
        "_keeper",
        "_name",
        "_names",
        "_outbox",
        "_patterns",
        "_pieces",
    )

    def __init__(
        self,
        name: str,
        backend: Backend,
        local: Local[K],
        *,
        codec: Codec,
        type: Any = Any,
    ) -> None:
        self._name = name
        self._backend = backend
        self._codec = codec
        self._codec_id = codec_id(codec.name)
        self._decode = codec.decoder(type)
        self._names = FarNames(name)
        self._gate = Gate(name)
        self._clock = ServerClock()
        self._fleet = Fleet(backend, self._gate)
        news = News(local)
        self._pieces = Pieces(backend, self._gate)
        self._outbox = Outbox(self._pieces, news, self._names)
        self._patterns = Patterns(
            backend,
            self._gate,
            self._pieces,
            clock=self._clock,
            names=self._names,
            outbox=self._outbox,
        )
        self._keeper = Keeper(
            backend,
            self._names.channel,
            gate=self._gate,
            clock=self._clock,
            news=news,
            outbox=self._outbox,
            fleet=self._fleet,
        )

    @property
    def up(self) -> bool:
        """Whether the server answers."""
        return self._gate.up

    def near(self, life: Life) -> Life:
        """Return the life of a value in this process: not fresh for longer than it can be trusted.

        That is :data:`NEAR_LIFE`, in case a message is lost, and a second while the server does not
        answer. The stale part keeps its length.
        """
        trusted = monotonic() + (NEAR_LIFE if self._gate.up else _NEAR_LIFE_ALONE)
        if life.fresh_until <= trusted:
            return life
        stale = life.stale_until - life.fresh_until if life.fresh_until < math.inf else 0.0
        return Life(trusted, trusted + stale)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hold the backend open, listen to the others, look after the server; until cancelled.

        See :meth:`aiopatterns.cache.keeper.Keeper.run`.
        """
        await self._keeper.run(task_status=task_status)

    async def read(self, keys: Collection[K], tags: Collection[str] = ()) -> dict[K, Fetched[V]]:
        """Return what is known of ``keys``.

        Args:
            keys: Each once.
            tags: Those that the loads of unknown keys will be stored with.

        Complexity: O(n), one ``get_many``; one or two more the first time that a tag is met.
        """
        at, owed = monotonic(), self._outbox.owed
        barred = {key for key in keys if owed.concerns(key, tags)}
        looked = await self._look([self._names.key(key) for key in keys], tags)
        if looked is None:
            nothing: Fetched[V] = unknown(Seen(None, at, None))
            return dict.fromkeys(keys, nothing)
        found: dict[K, Fetched[V]] = {}
        for key, raw, envelope in zip(keys, looked.raws, looked.envelopes, strict=True):
            if key in barred or owed.concerns(key, tags):
                found[key] = unknown(Seen(None, at, None))
            else:
                seen = Seen(raw, at, looked.versions)
                found[key] = self._fetched(key, seen, envelope, looked.rules)
        return found

    async def fill(
        self,
        key: K,
        seen: Seen,
        value: V | Missing,
        life: Life,
        *,
        cost: float = 0.0,
        tags: Sequence[str] = (),
    ) -> Stored:
        """Store a value that was loaded, unless its key has changed since it was read.

        Args:
            key: The key.
            seen: From the read before the load.
            value: The value; MISSING if the source has none.
            life: Its life, in monotonic seconds.
            cost: Seconds that the load took.
            tags: Its tags, all of which were given to the read.

        Complexity: O(size), one round trip.
        """
        return (await self.fill_many([Filled(key, seen, value, life, cost, tags)]))[0]

    async def fill_many(self, filled: Sequence[Filled[K, V]]) -> list[Stored]:
        """Store several values, each as :meth:`fill` does; one round trip."""
        changes = [self._change(each) for each in filled]
        sent = [change for change in changes if change is not None]
        written = iter(await self._pieces.change(sent))
        done = (None if change is None else next(written) for change in changes)
        return ["skipped" if each is None else "stored" if each else "refused" for each in done]

    async def lead(self, key: K, fetched: Fetched[V], *, tags: Collection[str] = ()) -> Turn[V]:
        """Wait until this process is the one to load ``key``, or another has loaded it.

        Args:
            key: The key.
            fetched: What was read of it, and is not good enough.
            tags: As for :meth:`read`.

        Cancellation: a turn that was just taken is given back.

        Complexity: two round trips if nobody else loads it.
        """
        while True:
            turn = await self._lead(key, fetched, tags)
            changed = turn.fetched.seen.raw != fetched.seen.raw
            if turn.answered or not changed:
                return turn
            # It was invalidated meanwhile: those who know that have another turn.
            self.finish(turn)
            fetched = turn.fetched

    def finish(self, turn: Turn[V]) -> None:
        """Give a turn back; never waits."""
        if turn.token is not None:
            self._fleet.give_back(turn.token)

    async def put(
        self,
        values: Mapping[K, V | Missing],
        life: Life,
        *,
        tags: Collection[str] = (),
    ) -> None:
        """Store ``values``, whatever the keys hold, and let the others forget what they have.

        What cannot be stored is invalidated instead. To be called *after* the values were stored
        near: a message of somebody who stores the same key later may come before this returns.

        Cancellation: the keys are invalidated.

        Complexity: O(size), two round trips.
        """
        items = [Item(KEYS, key) for key in values]
        for key in values:
            self._names.key(key)  # refuses bad keys before they are owed
        ticket = self._outbox.owed.add(items)
        told: list[Change] | None = None
        try:
            looked = await self._look((), tags)
            if looked is not None:
                told = self._told(values, life, looked.versions, tuple(tags))
        finally:
            if told is None:
                self._outbox.owed.settle(items, ticket, told=False)
        if told is None:
            return
        if len(told) < len(items):
            await self._outbox.tell(items)
        else:
            await self._outbox.send(items, told, ticket)

    async def invalidate(self, keys: Collection[K], *, strict: bool = False) -> None:
        """Let nobody see what was loaded of ``keys`` before; one round trip.

        What this process has near is to be forgotten before, without a wait in between.

        Args:
            keys: What is invalid.
            strict: Whether to raise if the server could not be told; it is owed then all the same.

        Raises:
            BackendUnavailableError: Only if ``strict``.

        Cancellation: it is told in the background.
        """
        told = await self._outbox.tell([Item(KEYS, key) for key in keys])
        if strict and not told:
            msg = f"the cache {self._name!r} could not tell {self._backend.url} what is invalid"
            raise BackendUnavailableError(f"{msg}; it will when it is back")

    async def invalidate_tags(self, tags: Collection[str]) -> None:
        """Let nobody see what was stored under one of ``tags``; as :meth:`invalidate`."""
        await self._outbox.tell([Item(TAGS, tag) for tag in tags])

    async def clear(self) -> None:
        """Let nobody see anything that was stored before; as :meth:`invalidate`. O(1)."""
        await self._outbox.tell([Item(ALL)])

    async def invalidate_matching(self, pattern: str) -> None:
        """Let nobody see what was loaded before of keys that fit a glob.

        See :class:`~aiopatterns.cache.patterns.Patterns`. While the server cannot be told, it is
        owed that everything is invalid: safe, and coarse.

        Complexity: all keys of the server are looked at.
        """
        await self._patterns.invalidate(pattern)

    async def _look(self, names: Collection[str], tags: Collection[str]) -> _Looked | None:
        """Return what keys hold and the versions of all tags that matter, or None if unknown."""
        marks = {tag: self._names.version(tag) for tag in (_WHOLE, *tags)}
        # Versions first: a rule may be dropped once what it is about was taken away, so who reads
        # a value in one piece must not read the rules in a later one.
        stored = await self._pieces.get([*marks.values(), *names])
        if stored is None:
            return None
        raws = [stored.get(name) for name in names]
        envelopes = [None if raw is None else opened(raw, self._codec_id) for raw in raws]
        versions = {tag: stored[name] for tag, name in marks.items() if name in stored}
        others = {tag for each in envelopes if each is not None for tag, _ in each.versions}
        others.difference_update(marks)
        lacking = [tag for tag in marks if tag not in versions]
        if (lacking or others) and not await self._complete(versions, lacking, others):
            return None
        rules = Rules.opened(versions.get(_WHOLE, b""))
        if _WHOLE in versions:
            versions[_WHOLE] = rules.mark
        return _Looked(raws, envelopes, versions, rules)

    async def _complete(
        self, versions: dict[str, bytes], lacking: Collection[str], others: Collection[str]
    ) -> bool:
        """Make the versions that are lacking, and read them and those of other tags."""
        changes = [
            Change(
                self._names.version(tag),
                beginning() if tag == _WHOLE else version(),
                expected=None,
                ttl=LONGEST,
            )
            for tag in lacking
        ]
        if None in await self._pieces.change(changes):
            return False
        names = {tag: self._names.version(tag) for tag in (*lacking, *others)}
        stored = await self._pieces.get(names.values())
        if stored is None:
            return False
        versions.update((tag, stored[name]) for tag, name in names.items() if name in stored)
        return True

    def _fetched(self, key: K, seen: Seen, envelope: Envelope | None, rules: Rules) -> Fetched[V]:
        """Return what an envelope says, if it counts."""
        versions, owed = seen.versions, self._outbox.owed
        if envelope is None or versions is None:
            return unknown(seen)
        for tag, number in envelope.versions:
            if versions.get(tag) != number and not (
                tag == _WHOLE and rules.allows(number, shown(key))
            ):
                return unknown(seen)
        life = self._clock.inside(Life(envelope.fresh_until, envelope.stale_until))
        if life.stale_until <= monotonic() or owed.concerns(key, dict(envelope.versions)):
            return unknown(seen)
        try:
            value = MISSING if envelope.payload is None else self._decode(envelope.payload)
        except CodecError:
            return unknown(seen)
        tags = [tag for tag, _ in envelope.versions if tag != _WHOLE]
        return Fetched(seen, True, value, life, envelope.cost, tags)

    async def _lead(self, key: K, fetched: Fetched[V], tags: Collection[str]) -> Turn[V]:
        """Take the turn for one writing of the key, or wait for whoever has it."""
        now = fetched

        async def look() -> bool:
            nonlocal now
            now = (await self.read((key,), tags))[key]
            return now.seen.raw != fetched.seen.raw

        name = self._names.turn(key, fetched.seen.raw)
        token = await self._fleet.take(name)
        if token is None:
            token = await self._fleet.wait(name, look)
        try:
            if token is not None:  # somebody may have filled it before the turn was taken
                await look()
        except BaseException:
            self.finish(Turn(now, answered=False, token=token))
            raise
        changed = now.seen.raw != fetched.seen.raw
        answered = changed and now.known and now.life.fresh_until > monotonic()
        return Turn(now, answered, token)

    def _change(self, filled: Filled[K, V]) -> Change | None:
        """Return the change that fills a key, or None if it must not be filled."""
        seen = filled.seen
        end = seen.at + _FILL_WITHIN
        if seen.versions is None or not self._gate.up or monotonic() >= end:
            return None
        change = self._sealed(filled)
        if change is None:
            return None
        return change._replace(expected=seen.raw, before=self._clock.time(end))

    def _told(
        self,
        values: Mapping[K, V | Missing],
        life: Life,
        versions: Mapping[str, bytes],
        tags: Sequence[str],
    ) -> list[Change]:
        """Return the changes that write ``values`` and tell of it; without what cannot be written.

        One that comes late is not made: it could undo what others have invalidated since.
        """
        seen = Seen(b"whatever", 0.0, versions)
        before = self._clock.time(monotonic() + WRITTEN_WITHIN)
        changes = {
            key: self._sealed(Filled(key, seen, value, life, 0.0, tags))
            for key, value in values.items()
        }
        return [
            self._outbox.told(Item(KEYS, key), change._replace(before=before))
            for key, change in changes.items()
            if change is not None
        ]

    def _sealed(self, filled: Filled[K, V]) -> Change | None:
        """Return the change that writes a value, or None if it cannot be written."""
        life, versions = filled.life, filled.seen.versions
        marks = (_WHOLE, *filled.tags)
        left = life.stale_until - monotonic()
        if left <= 0 or versions is None or not all(tag in versions for tag in marks):
            return None
        try:
            payload = None if filled.value is MISSING else self._codec.encode(filled.value)
        except CodecError as error:
            if listening():
                emit(NotEncoded(self._name, str(filled.key), error))
            return None
        numbers = [(tag, versions[tag]) for tag in marks]
        envelope = Envelope(payload, *self._clock.outside(life), filled.cost, numbers)
        # What it takes the place of may be a tombstone, which has its own time to stand there.
        least = 0.0 if filled.seen.raw is None else GRACE
        ttl = min(max(left, least), LONGEST)
        return Change(self._names.key(filled.key), sealed(envelope, self._codec_id), ttl=ttl)
