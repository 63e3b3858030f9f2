"""Checkpoints: how far one store has what another one had, noted on both sides.

Whoever says "the target has all up to change 500" must be right after any crash, and after one of
the two was put back to an older copy. So both keep the *history* of their runs, and one goes on
from the best of what both remember::

    target    {s1: 300, s2: 500}     written in the transaction that wrote the records
    source    {s1: 300, s2: 400}     written after it; a crash came before the last note
    start     400                    s2: both have it, and the lower number is sure

    target, put back to an older copy      {s1: 300}
    start                                  300

A run is a *session*, with a name that no other has. So two stores that only bear the names of
others have nothing in common, and start at 0.

Guarantees: all that the source had up to the start is durable at the target, or was replaced.

Not guaranteed: the latest such number. What is read again is found to be known, and skipped.

Source: the replication protocol of CouchDB, where histories of sessions are compared likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["History", "note_name"]

# Runs that are remembered; CouchDB's number.
_SESSIONS: Final = 50


def note_name(source: str, target: str) -> str:
    """Return under which name both stores keep the history of what went from one to the other."""
    return f"sync {source!r} to {target!r}"


@final
class History(msgspec.Struct, frozen=True):
    """How far runs have come, as one side remembers it.

    Attributes:
        reached: Numbers of changes of the source, by session, the oldest first.
    """

    reached: dict[str, int] = {}

    def with_reached(self, session: str, seq: int) -> Self:
        """Return this history with a session that has come to ``seq``; the oldest is forgotten."""
        reached = {name: at for name, at in self.reached.items() if name != session}
        reached[session] = seq
        kept = list(reached.items())[-_SESSIONS:]
        return type(self)(dict(kept))

    def common(self, other: History) -> int:
        """Return the highest number that both are sure of, 0 if there is none."""
        mine, theirs = self.reached, other.reached
        return max((min(mine[name], theirs[name]) for name in mine if name in theirs), default=0)

    def pack(self) -> bytes:
        """Return it as bytes."""
        return MSGPACK.encode(self)

    @classmethod
    def unpack(cls, note: bytes | None) -> History:
        """Return what :meth:`pack` made bytes of; of nothing, or of damaged bytes, an empty one."""
        if note is None:
            return cls()
        try:
            return _history_of(note)
        except CodecError:
            return cls()


_history_of: Final = MSGPACK.decoder(History)
