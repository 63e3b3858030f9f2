"""What becomes of a batch at its target: decided without waiting, inside of one transaction.

For each record that has come::

    can it be read?  --no----------------------------------------------------> quarantine
    is it here, and all of it known?      -----------------------------------> nothing to do
    was it here, and deleted, and the tombstone purged?  --------------------> stays away
    a stamp too far ahead, or a merge that raises  --------------------------> quarantine
    else: the versions of both sides become one record ----------------------> written

A record in quarantine is kept as it came, and the queue moves on: one record that cannot be taken
stops no other. What comes of the same key later, from whatever store, is put to what is held, and
all of it is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from aiopatterns.core.errors import CodecError
from aiopatterns.data.conflict import Conflict, Manual
from aiopatterns.data.draft import Held
from aiopatterns.data.record import joined, packed, unpacked
from aiopatterns.data.vector import VersionVector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.data.conflict import Strategy
    from aiopatterns.data.draft import Draft, State
    from aiopatterns.data.record import Row

__all__ = ["Outcome", "bury", "receive", "retry"]


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction came to.

    Attributes:
        written: How many records were changed.
        conflicts: Concurrent pairs that met.
        quarantined: What could not be taken.
    """

    written: int = 0
    conflicts: tuple[Conflict, ...] = ()
    quarantined: tuple[Held, ...] = ()


def receive(draft: Draft, rows: Iterable[Row], *, peer: str, strategy: Strategy) -> Outcome:
    """Make records of another store a part of this one.

    Args:
        draft: The transaction.
        rows: What has come.
        peer: The store that it came from.
        strategy: Decides between concurrent versions.
    """
    written, conflicts, quarantined = 0, list[Conflict](), list[Held]()
    for row in rows:
        waiting = draft.held.get(row.key)
        try:
            written += _take(draft, row, strategy, conflicts)
        except Exception as error:
            whole = row if waiting is None else _both(waiting.row, row)
            quarantined.append(draft.hold(whole, peer=peer, reason=_reason(error)))
            continue
        if waiting is not None:
            quarantined += _take_held(draft, waiting, strategy, conflicts)
    return Outcome(written, tuple(conflicts), tuple(quarantined))


def retry(draft: Draft, held: Iterable[Held], *, strategy: Strategy) -> Outcome:
    """Take what is in quarantine, if it can be taken by now; else leave it as it is.

    Args:
        draft: The transaction.
        held: What was in quarantine when it was looked at.
        strategy: Decides between concurrent versions.
    """
    written, conflicts, quarantined = 0, list[Conflict](), list[Held]()
    for each in held:
        if draft.held.get(each.key) != each:
            continue  # something else has come, or it was given up
        try:
            written += _take(draft, each.row, strategy, conflicts)
        except Exception:
            quarantined.append(each)
    return Outcome(written, tuple(conflicts), tuple(quarantined))


def bury(draft: Draft, keys: Iterable[str], *, source: State) -> Outcome:
    """Delete what another store has seen, deleted and forgotten.

    Args:
        draft: The transaction.
        keys: Of records that the other store does not have.
        source: What the other store knows of itself.
    """
    written, purged = 0, VersionVector(source.purged)
    for key in keys:
        row = draft.row(key)
        if row is not None and not row.deleted and source.forgot(row.head().vectors):
            draft.bury(key, purged=purged)
            written += 1
    return Outcome(written)


def _take(draft: Draft, row: Row, strategy: Strategy, conflicts: list[Conflict]) -> bool:
    """Take a row; returns whether anything changes. What was held of its key is not any more."""
    theirs = unpacked(row)
    there = draft.row(row.key) is not None or row.key in draft.held
    if not there and draft.state.forgot(theirs.vectors):
        return False
    found = draft.take(theirs, strategy=strategy)
    if found is None:
        return False
    conflicts += found.conflicts
    return True


def _take_held(
    draft: Draft, held: Held, strategy: Strategy, conflicts: list[Conflict]
) -> tuple[Held, ...]:
    """Take what was held of a key that could be taken now; returns it if it has to go on waiting.

    If it cannot be read it is dropped: it can still be had from where it came.
    """
    try:
        theirs = unpacked(held.row)
    except CodecError:
        return ()
    try:
        found = draft.take(theirs, strategy=strategy)
    except Exception as error:
        return (draft.hold(held.row, peer=held.peer, reason=_reason(error)),)
    if found is not None:
        conflicts += found.conflicts
    return ()


def _both(held: Row, row: Row) -> Row:
    """Return one row with the versions of two of a key, or that one of them that can be read."""
    try:
        theirs = unpacked(row)
    except CodecError:
        return held
    try:
        found = joined(unpacked(held), theirs, strategy=Manual())
    except CodecError:
        return row
    return packed(replace(theirs, leaves=found.leaves, bases=found.bases))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
