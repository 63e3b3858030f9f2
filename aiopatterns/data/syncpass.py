"""A pass: what one store has and another one lacks is brought there, batch by batch.

::

    source                                  target
    changes(since, batch)  ---- heads --->  heads(keys)           which of them are not known?
    fetch(those)           ---- rows ---->  ONE transaction:      records, quarantine, checkpoint
    checkpoint, peer       <--- durable --

A pass writes records at its target only. What it has written there stands in the target's log as
well, but in no version that the source does not know; so the pass back sends nothing of it, except
what was merged and is new to the source.

Guarantees:

* A crash between any two steps repeats part of a batch, which then is known and changes nothing.
* Bounded memory: one batch.
* Where the log does not reach back to the checkpoint, the two are *compared*: by a digest for each
  of 256 groups of keys, and key by key where digests differ. What the source has deleted, and has
  forgotten meanwhile, is deleted at the target.

When a pass has come to the end of the log, its target has seen all that the source had seen before.
It notes that: a store may only forget a tombstone for good of what it knows to have seen.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.telemetry import emit, listening
from aiopatterns.data.checkpoint import History, note_name
from aiopatterns.data.record import BUCKETS, covered
from aiopatterns.data.syncevents import SyncConflictFound, SyncQuarantined, SyncStartedOver
from aiopatterns.data.syncplan import bury, receive, retry
from aiopatterns.data.syncstore import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiopatterns.data.conflict import Strategy
    from aiopatterns.data.draft import Draft, State
    from aiopatterns.data.record import Head, Row
    from aiopatterns.data.syncplan import Outcome
    from aiopatterns.data.syncstore import SyncStore
    from aiopatterns.data.vector import VersionVector

__all__ = ["SyncPass"]


@final
class SyncPass:
    """One way, from one store to another.

    Args:
        source: Whose records are read.
        target: Where they are written.
        strategy: Decides between concurrent versions.
        batch: Records in a transaction.
        session: Name of the run, different from those of all others.
        dry_run: Whether to write nothing.
        told: Is called after each batch: with what it came to, and how many changes of the log
            are left at most.
    """

    __slots__ = (
        "_batch",
        "_dry_run",
        "_histories",
        "_missed",
        "_note",
        "_session",
        "_source",
        "_strategy",
        "_sure",
        "_target",
        "_told",
    )

    def __init__(
        self,
        source: SyncStore,
        target: SyncStore,
        *,
        strategy: Strategy,
        batch: int,
        session: str,
        dry_run: bool,
        told: Callable[[Outcome, int], object],
    ) -> None:
        self._source = source
        self._target = target
        self._strategy = strategy
        self._batch = batch
        self._session = session
        self._dry_run = dry_run
        self._told = told
        self._note: Final = note_name(source.name, target.name)
        self._histories = (History(), History())
        self._sure = 0  # what was purged up to here, the target has
        self._missed = False

    async def run(self) -> None:
        """Bring to the target what the source has, up to the end of its log.

        Cancellation: what was written is written, and noted or found out.
        """
        there = await self._target.state()
        if there.held:
            await self._retry()
        await self._once(there)
        while self._missed:
            await self._once(await self._target.state())

    async def _once(self, there: State) -> None:
        self._missed = False
        since = await self._checkpoint()
        state = await self._introduced(since)
        self._sure = state.horizon if state.expired(since) else since
        if state.expired(since):
            self._tell_of_start(since)
            await self._compare(state)
            since = state.seq
            await self._write((), since, None, left=0)
            if self._missed:
                return
        known = there.seen.dominates(state.seen)
        if since < state.seq or not known:
            await self._follow(state, since, known=known)

    # ------------------------------------------------------------------------- by the change log

    async def _follow(self, state: State, since: int, *, known: bool) -> None:
        """Read the log from ``since`` to its end, or to where it was at the start.

        Args:
            state: The source at the start.
            since: Where to begin.
            known: Whether the target has seen all that the source had seen at the start.
        """
        noted, at_end = since, False
        while not at_end and since <= state.seq:
            heads = await self._source.changes(since, self._batch)
            at_end = len(heads) < self._batch
            since = heads[-1].seq if heads else since
            rows = await self._missing(heads)
            seen = state.seen if at_end and not known and not state.held else None
            last = at_end or since > state.seq
            if rows or seen is not None or (last and noted < max(since, state.seq)):
                await self._write(rows, since, seen, left=max(state.seq - since, 0))
                if self._missed:
                    return
                noted = since

    async def _missing(self, heads: Sequence[Head]) -> Sequence[Row]:
        """Return the records of the source of which the target lacks something."""
        if not heads:
            return ()
        there = await self._target.heads([each.key for each in heads])
        keys = [
            each.key
            for each in heads
            if each.key not in there or not covered(each.vectors, there[each.key].vectors)
        ]
        return tuple((await self._source.fetch(keys)).values()) if keys else ()

    async def _write(
        self, rows: Sequence[Row], to: int | None, seen: VersionVector | None, *, left: int
    ) -> None:
        """Write a batch; then note at the source, too, how far the target has come.

        Args:
            rows: What has come.
            to: Up to which change the target has all then, if that is known.
            seen: What the target has seen then, if that is known.
            left: Changes that are left.
        """

        def plan(draft: Draft) -> Outcome:
            outcome = receive(draft, rows, peer=self._source.name, strategy=self._strategy)
            if seen is not None and not draft.state.held:  # what is held nobody has seen yet
                draft.saw(seen)
            if to is not None:
                draft.notes[self._note] = self._reached(1, to).pack()
            return outcome

        await self._transact([each.key for each in rows], plan, left=left)
        if to is not None:
            await self._passed(to)

    # ----------------------------------------------------------------------------- by comparison

    async def _compare(self, state: State) -> None:
        here, there = await self._source.digests(), await self._target.digests()
        for bucket in range(BUCKETS):
            if here.get(bucket) != there.get(bucket):
                await self._send(bucket, left=state.seq)
                if state.purged:
                    await self._bury(bucket, state)

    async def _send(self, bucket: int, *, left: int) -> None:
        """Bring over what the source has in a group of keys."""
        after = ""
        while heads := await self._source.scan(bucket, after, self._batch):
            after = heads[-1].key
            rows = await self._missing(heads)
            if rows:
                await self._write(rows, None, None, left=left)

    async def _bury(self, bucket: int, state: State) -> None:
        """Delete what the source has deleted and forgotten, of a group of keys."""
        after = ""
        while heads := await self._target.scan(bucket, after, self._batch):
            after = heads[-1].key
            keys = [each.key for each in heads if state.forgot(each.vectors)]
            if keys:
                kept = await self._source.heads(keys)
                keys = [key for key in keys if key not in kept]
            if keys:
                await self._transact(keys, partial(bury, keys=keys, source=state), left=state.seq)

    # ------------------------------------------------------------------------------- quarantine

    async def _retry(self) -> None:
        after = ""
        while held := await self._target.held(after, PAGE):
            after = held[-1].key
            plan = partial(retry, held=held, strategy=self._strategy)
            outcome = await self._target.transact(
                [each.key for each in held], plan, dry_run=self._dry_run
            )
            self._tell_of_conflicts(outcome)
            self._told(outcome, 0)

    # ------------------------------------------------------------------------------ checkpoints

    async def _checkpoint(self) -> int:
        """Return up to which change the target has all, as far as both sides know."""
        loaded = [await each.load(self._note) for each in (self._source, self._target)]
        source, target = (History.unpack(each) for each in loaded)
        self._histories = (source, target)
        return source.common(target)

    def _reached(self, side: int, to: int) -> History:
        return self._histories[side].with_reached(self._session, to)

    async def _introduced(self, since: int) -> State:
        """Return what the source knows of itself, and that the target has come as far as this.

        So what a purge takes away from now on, the target has; or it was taken away before.
        """
        state = await self._source.state()
        if state.peers.get(self._target.name, since + 1) <= since or self._dry_run:
            return state
        await self._source.transact((), lambda draft: draft.passed(self._target.name, since))
        return await self._source.state()

    async def _passed(self, to: int) -> None:
        """Note at the source how far the target has come, unless it has missed something.

        That is what was purged while it was under way, after the target was forgotten as a peer.
        """

        def plan(draft: Draft) -> bool:
            if draft.state.horizon > self._sure:
                return False
            draft.passed(self._target.name, to)
            draft.notes[self._note] = self._reached(0, to).pack()
            return True

        noted = await self._source.transact((), plan, dry_run=self._dry_run)
        self._missed = not noted and not self._dry_run
        self._sure = to if noted else self._sure

    # ---------------------------------------------------------------------------------- telling

    async def _transact(
        self, keys: Sequence[str], plan: Callable[[Draft], Outcome], *, left: int
    ) -> None:
        outcome = await self._target.transact(keys, plan, dry_run=self._dry_run)
        self._tell_of_conflicts(outcome)
        if listening() and not self._dry_run:
            for held in outcome.quarantined:
                emit(SyncQuarantined(self._source.name, self._target.name, held.key, held.reason))
        self._told(outcome, left)

    def _tell_of_conflicts(self, outcome: Outcome) -> None:
        if listening() and not self._dry_run:
            for conflict in outcome.conflicts:
                emit(SyncConflictFound(self._source.name, self._target.name, conflict.key))

    def _tell_of_start(self, since: int) -> None:
        if listening() and not self._dry_run:
            emit(SyncStartedOver(self._source.name, self._target.name, since))
