"""Broadcasts: which are known, which are kept for those who missed them, which go round now.

Each run of a node (name and epoch) numbers its broadcasts from 1. What is known of a run is "all
up to n" and a few numbers beyond, so "once each" costs a few numbers for each sender, not one for
each message::

    gossip    queue of what was heard lately, told a few times by everybody who has it
    store     all of the last KEEP seconds, for those who could not be told
    sync      "I know these": the other side answers with what it has beyond; a partition that has
              healed is made whole like that

Guarantees:

* A broadcast is new at most once in one process.
* What is told is kept, so the queue has the bounds of the store.
* Memory is bounded: :data:`KEEP` seconds, :data:`KEEP_COUNT` messages and :data:`KEEP_BYTES` bytes
  in the store, :data:`MAX_BEYOND` numbers beyond, :data:`MAX_RUNS` runs.

Not guaranteed: order between broadcasts, and what was said longer than :data:`KEEP` seconds before
a partition healed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.gossip import GossipQueue
from aiopatterns.cluster.messages import MAX_BROADCAST, Have, Rumour, piece

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KEEP", "KEEP_BYTES", "KEEP_COUNT", "MAX_BEYOND", "MAX_RUNS", "Rumours"]

KEEP: Final = 300.0
"""Seconds that a broadcast is kept for those who could not be told."""

KEEP_COUNT: Final = 1_000
"""Broadcasts kept at most; the oldest go first."""

KEEP_BYTES: Final = 1 << 21
"""Bytes of them at most: half of an exchange, so that all of them fit into one."""

MAX_BEYOND: Final = 1_000
"""Numbers known beyond a gap; after that the gap is given up."""

MAX_RUNS: Final = 10_000
"""Runs of nodes whose broadcasts are told apart; the one that was silent longest goes first."""


@final
class _Run:
    """What is known of the broadcasts of one run of one node."""

    __slots__ = ("beyond", "upto")

    def __init__(self) -> None:
        self.upto = 0
        self.beyond: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number <= self.upto or number in self.beyond

    def add(self, number: int) -> None:
        """Know one more."""
        self.beyond.add(number)
        self._close_gaps()

    def adopt(self, have: Have) -> None:
        """Know what somebody else knows."""
        self.upto = max(self.upto, have.upto)
        self.beyond = {number for number in self.beyond | set(have.beyond) if number > self.upto}
        self._close_gaps()

    def _close_gaps(self) -> None:
        """Count on as far as all is known; once too much is beyond a gap, that is given up."""
        beyond = self.beyond
        while self.upto + 1 in beyond:
            self.upto += 1
            beyond.remove(self.upto)
        if len(beyond) > MAX_BEYOND:
            self.upto = sorted(beyond)[-MAX_BEYOND - 1]
            self.beyond = {number for number in beyond if number > self.upto}
            self._close_gaps()


@final
class Rumours:
    """The broadcasts of one node's cluster.

    Args:
        name: The node.
        epoch: The incarnation with which it started.
    """

    __slots__ = ("_bytes", "_epoch", "_name", "_number", "_runs", "_store", "news")

    def __init__(self, name: str, epoch: int) -> None:
        self._name, self._epoch = name, epoch
        self._number = 0
        self._runs: dict[tuple[str, int], _Run] = {}  # in the order in which they were last heard
        self._store: deque[tuple[float, Rumour]] = deque()
        self._bytes = 0
        self.news: GossipQueue[tuple[str, int, int]] = GossipQueue()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._store)

    @property
    def crowded(self) -> bool:
        """Whether one more would push out one that is still being told."""
        store = self._store
        full = len(store) >= KEEP_COUNT or self._bytes + MAX_BROADCAST > KEEP_BYTES
        return full and _key(store[0][1]) in self.news

    def mine(self, payload: bytes, now: float) -> None:
        """Make a broadcast of this node, kept and queued for gossip."""
        self._number += 1
        self.note(Rumour(self._name, self._epoch, self._number, payload), now)

    def knows(self, rumour: Rumour) -> bool:
        """Whether it is known already."""
        run = self._runs.get((rumour.origin, rumour.epoch))
        return run is not None and rumour.number in run

    def note(self, rumour: Rumour, now: float) -> None:
        """Know it from now on, keep it and pass it on."""
        self._run(rumour.origin, rumour.epoch).add(rumour.number)
        self._store.append((now, rumour))
        self._bytes += len(rumour.payload)
        self.news.put(_key(rumour), piece(rumour))
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop from the store what is too old or too much."""
        store = self._store
        while store and (
            store[0][0] < now - KEEP or len(store) > KEEP_COUNT or self._bytes > KEEP_BYTES
        ):
            oldest = store.popleft()[1]
            self._bytes -= len(oldest.payload)
            self.news.drop(_key(oldest))

    def digest(self) -> list[Have]:
        """Return what is known, for :meth:`lacking` of another node."""
        return [
            Have(origin, epoch, run.upto, sorted(run.beyond))
            for (origin, epoch), run in self._runs.items()
        ]

    def lacking(self, known: Iterable[Have]) -> list[Rumour]:
        """Return what is kept here and not known to who sent that digest, oldest first."""
        theirs: dict[tuple[str, int], _Run] = {}
        for have in known:
            theirs.setdefault((have.origin, have.epoch), _Run()).adopt(have)
        nothing = _Run()
        return [
            rumour
            for _, rumour in self._store
            if rumour.number not in theirs.get((rumour.origin, rumour.epoch), nothing)
        ]

    def adopt(self, known: Iterable[Have]) -> None:
        """Take all that is known to others for known: it was said before this node was there."""
        for have in known:
            self._run(have.origin, have.epoch).adopt(have)

    def _run(self, origin: str, epoch: int) -> _Run:
        key = (origin, epoch)
        run = self._runs.pop(key, None) or _Run()
        self._runs[key] = run
        if len(self._runs) > MAX_RUNS:
            del self._runs[next(iter(self._runs))]
        return run


def _key(rumour: Rumour) -> tuple[str, int, int]:
    return rumour.origin, rumour.epoch, rumour.number
