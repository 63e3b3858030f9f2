"""What this process knows of one service: the last that was read, and who is kept though missing.

Every look at the directory goes through here, whether by a watch or by a question, so that both
see one history: who was there before and is not now has either left or lapsed.

A record is read once and kept for as long as its bytes stay the same. So a look at a thousand
instances of which one has changed reads one record, and the other instances stay the very objects
that they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from aiopatterns.cluster.instance import InstanceState
from aiopatterns.cluster.preservation import Preservation
from aiopatterns.cluster.record import read
from aiopatterns.cluster.snapshot import Snapshot
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import CodecError
from aiopatterns.core.telemetry import Event, emit, listening

if TYPE_CHECKING:
    from aiopatterns.backends.records import Members
    from aiopatterns.cluster.record import Record

__all__ = ["Book", "LapseBelieved", "LapseDoubted"]


@dataclass(frozen=True, slots=True)
class LapseDoubted(Event):
    """So many instances lapsed at once that they are kept as stale.

    Args:
        service: Whose.
        ready: How many are ready.
        stale: How many are kept.
    """

    name: ClassVar[str] = "aiopatterns.registry.lapse_doubted"
    level: ClassVar[str] = "warning"

    service: str
    ready: int
    stale: int


@dataclass(frozen=True, slots=True)
class LapseBelieved(Event):
    """Nobody is kept as stale any more: they came back, or have been away for too long.

    Args:
        service: Whose.
        ready: How many are ready.
    """

    name: ClassVar[str] = "aiopatterns.registry.lapse_believed"

    service: str
    ready: int


class _Page(NamedTuple):
    data: bytes
    record: Record | None  # None for what nobody can read


@final
class Book:
    """What is known of one service.

    Args:
        service: Its name.
        ttl: Seconds of a lease.
        ratio: Share of the known that must remain for a lapse to be believed.

    Complexity: O(n) for a look; O(1) if the revision has not changed and nobody is stale.
    """

    __slots__ = ("_at", "_members", "_pages", "_preservation", "malformed", "service", "snapshot")

    def __init__(self, service: str, *, ttl: float, ratio: float) -> None:
        self.service: str = service
        self.malformed: int = 0
        self._preservation = Preservation(ttl=ttl, ratio=ratio)
        self._pages: dict[str, _Page] = {}
        self._members: Members | None = None
        self.snapshot: Snapshot = Snapshot()
        self._at = -math.inf

    @property
    def is_blank(self) -> bool:
        """Whether nobody is known, so that nothing is lost if this book is."""
        return not self._pages and not self.snapshot.stale

    @property
    def known(self) -> Snapshot | None:
        """The last good snapshot, with its age; None if there was none."""
        if self._members is None:
            return None
        return replace(self.snapshot, age=max(monotonic() - self._at, 0.0))

    def take(self, members: Members, *, asked: float) -> bool:
        """Take in what was just read; return whether callers would see a difference.

        Args:
            members: The answer.
            asked: When it was asked for, in monotonic seconds. Questions run side by side, so an
                answer may come after that to a later question; it is left out.
        """
        if self._members and members.revision < self._members.revision and asked < self._at:
            return False
        self._at = monotonic()
        if self._members is None or members.revision != self._members.revision:
            self._pages = {name: self._page(name, data) for name, data in members.members.items()}
        first, self._members = self._members is None, members
        return self.look() or first

    def confirm(self, at: float) -> None:
        """The backend held the same at ``at``, in monotonic seconds."""
        self._at = max(self._at, at)

    def look(self) -> bool:
        """Make the snapshot of now; return whether callers would see a difference."""
        if self._members is None:
            return False
        records = {name: page.record for name, page in self._pages.items() if page.record}
        states = {name: each.state for name, each in records.items() if each.state}
        ready = {
            name: records[name].instance
            for name in sorted(states)
            if states[name] is InstanceState.READY
        }
        stale = self._preservation.look(ready, self._pages, now=monotonic())
        before = self.snapshot
        self.snapshot = Snapshot(
            tuple(ready.values()), stale, self._members.revision, 0.0, MappingProxyType(states)
        )
        self._tell(len(before.stale))
        return _seen(before) != _seen(self.snapshot)

    def doubt(self) -> bool:
        """The backend was away: believe no absence for a while."""
        self._preservation.doubt(now=monotonic())
        return self.look()

    def due(self) -> float:
        """Seconds until :meth:`look` finds fewer stale ones; infinite for never."""
        return max(self._preservation.due() - monotonic(), 0.0)

    def _page(self, name: str, data: bytes) -> _Page:
        """Read a record, unless it is the one that was read before."""
        page = self._pages.get(name)
        if page is not None and page.data == data:
            return page
        try:
            return _Page(data, read(self.service, name, data))
        except CodecError:
            self.malformed += 1
            return _Page(data, None)

    def _tell(self, stale_before: int) -> None:
        """Tell whoever listens that self-preservation began or is over."""
        stale = len(self.snapshot.stale)
        if bool(stale) is bool(stale_before) or not listening():
            return
        ready = len(self.snapshot.instances)
        if stale:
            emit(LapseDoubted(self.service, ready, stale))
        else:
            emit(LapseBelieved(self.service, ready))


def _seen(snapshot: Snapshot) -> tuple[object, ...]:
    """What callers see of a snapshot."""
    return snapshot.instances, snapshot.stale, snapshot.states
