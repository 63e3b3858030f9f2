"""Synchronizer: two stores that are written apart, and come to the same.

A phone and a server, two offices, a cache that outlives its line: each writes in its own store, at
any time, and when the two can talk they exchange what the other one lacks::

    left                          right                       run("both")
    a1  b1  c1                    a1  b2                      pull   right -> left   b2, a conflict
                                                              push   left -> right   c1, what b became
    a1  b'  c1                    a1  b'  c1

Guarantees:

* Nothing is lost: what was written in one store is in both after a run, or was replaced by a
  version that knew of it, or has met a concurrent one, which is reported; or it is in quarantine.
* Nothing echoes: what came from a store is not sent back to it.
* A run that is killed anywhere, on any side, is followed by one that goes on; ends are equal.
* Any number of stores, synchronised in pairs in any topology that is connected, end with the same,
  if all use the same strategy.

Not guaranteed: a common snapshot. A batch is one transaction of its target, but two records that
one transaction of an application has written may come in two batches.

Source: the replication protocol of CouchDB (checkpoints on both sides, comparing before sending).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aiopatterns.core.context import new_id
from aiopatterns.core.validate import choice, count, instance, optional_function
from aiopatterns.data.conflict import Strategy
from aiopatterns.data.syncpass import SyncPass
from aiopatterns.data.syncstore import SyncStore
from aiopatterns.data.syncwatch import SyncWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.data.conflict import Conflict
    from aiopatterns.data.draft import Held
    from aiopatterns.data.syncplan import Outcome

__all__ = ["SyncDirection", "SyncProgress", "SyncReport", "Synchronizer"]

#: ``"pull"`` is from right to left, ``"push"`` from left to right, ``"both"`` is first pull, then
#: push.
SyncDirection: TypeAlias = Literal["both", "push", "pull"]

_DIRECTIONS: Final[tuple[SyncDirection, ...]] = ("both", "push", "pull")


@final
@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a run came to.

    Attributes:
        pushed: Records that it has changed at the right.
        pulled: Records that it has changed at the left.
        conflicts: Concurrent versions that met; each has a ``key``.
        quarantined: Records that could not be taken; each has a ``key`` and a ``reason``.
    """

    pushed: int = 0
    pulled: int = 0
    conflicts: tuple[Conflict, ...] = ()
    quarantined: tuple[Held, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a run is, after a batch.

    Attributes:
        direction: ``"pull"`` or ``"push"``.
        pushed: Records that it has changed at the right so far.
        pulled: Records that it has changed at the left so far.
        left: Changes that it may still have to look at, in this direction.
    """

    direction: SyncDirection
    pushed: int
    pulled: int
    left: int


@final
class Synchronizer:
    """Two stores and how to bring them together.

    Args:
        left: One store.
        right: Another one, of another name.
        strategy: Decides between concurrent versions: ``LastWriteWins()``, ``Merge(fn)`` and so
            on; the same for all stores that have to do with each other.
        batch: Records in one transaction.
        progress: Is called with a :class:`SyncProgress` after each batch; a plain function.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``batch`` is below 1, or both stores have one name.

    Example::

        sync = Synchronizer(MemorySyncStore("phone"), server, strategy=LastWriteWins())
        report = await sync.run()
        for conflict in report.conflicts:
            log.warning("both have changed %s", conflict.key)
    """

    __slots__ = ("_batch", "_progress", "_strategy", "left", "right")

    def __init__(
        self,
        left: SyncStore,
        right: SyncStore,
        *,
        strategy: Strategy,
        batch: int = 500,
        progress: Callable[[SyncProgress], object] | None = None,
    ) -> None:
        allowed = "a SyncStore, such as MemorySyncStore('phone')"
        self.left: SyncStore = instance("left", left, SyncStore, allowed)
        self.right: SyncStore = instance("right", right, SyncStore, allowed)
        if left.name == right.name:
            msg = f"right must have another name than left, not {right.name!r} as well"
            raise ValueError(msg)
        if isinstance(strategy, type):
            msg = f"strategy must be an object, not the class {strategy.__name__}; write its ()"
            raise TypeError(msg)
        wanted = "a strategy such as LastWriteWins() or Merge(fn)"
        self._strategy = instance("strategy", strategy, Strategy, wanted)
        self._batch = count("batch", batch)
        self._progress = optional_function("progress", progress)

    async def run(self, direction: SyncDirection = "both", *, dry_run: bool = False) -> SyncReport:
        """Bring over what is missing, once, up to where the stores were at the start.

        Args:
            direction: ``"pull"``: from right to left; ``"push"``: from left to right; ``"both"``:
                first pull, then push.
            dry_run: Whether to write nothing, and only say what would come over. A conflict is
                told for each direction then, and not counted on its way back.

        Returns:
            What it came to.

        Raises:
            ValueError: ``direction`` is another word.
            BackendUnavailableError: A store is out of reach. What was brought over so far stays,
                and the next run goes on there.
            BackendError: A store has failed.
            Exception: What ``progress`` raises.

        Cancellation: as with an error.

        Complexity: O(changes since the last run), in batches; O(records) where the change log does
        not reach back so far.
        """
        choice("direction", direction, _DIRECTIONS)
        instance("dry_run", dry_run, bool, "a bool")
        tally = _Tally(self._progress)
        session = new_id()
        for way in ("pull", "push") if direction == "both" else (direction,):
            ends = (self.right, self.left) if way == "pull" else (self.left, self.right)
            tally.direction = way
            run = SyncPass(
                *ends,
                strategy=self._strategy,
                batch=self._batch,
                session=session,
                dry_run=dry_run,
                told=tally.add,
            )
            await run.run()
        return tally.report()

    def watch(self, direction: SyncDirection = "both", *, interval: float = 5.0) -> SyncWatch:
        """Return an owner that goes on synchronising inside its ``async with`` block.

        It runs when a record is written through one of the two objects, and every ``interval``
        for what other processes have written; outages it outlives.

        Args:
            direction: As for :meth:`run`.
            interval: Seconds, above 0.

        Raises:
            TypeError: ``interval`` is no number.
            ValueError: A value is out of range.

        Example::

            async with sync.watch(interval=1):
                await phone.put("note", "milk")
        """
        choice("direction", direction, _DIRECTIONS)
        return SyncWatch(
            f"{self.left.name} and {self.right.name}",
            stores=(self.left, self.right),
            run=partial(self.run, direction),
            interval=interval,
        )

    def __repr__(self) -> str:
        return f"Synchronizer({self.left.name!r}, {self.right.name!r})"


@final
class _Tally:
    """The figures of a run that is under way."""

    __slots__ = ("_changed", "_conflicts", "_progress", "_quarantined", "direction")

    def __init__(self, progress: Callable[[SyncProgress], object] | None) -> None:
        self.direction: SyncDirection = "pull"
        self._changed = {"pull": 0, "push": 0}
        self._conflicts: list[Conflict] = []
        self._quarantined: list[Held] = []
        self._progress = progress

    def add(self, outcome: Outcome, left: int) -> None:
        self._changed[self.direction] += outcome.written
        self._conflicts += outcome.conflicts
        self._quarantined += outcome.quarantined
        if self._progress is not None:
            changed = self._changed
            self._progress(SyncProgress(self.direction, changed["push"], changed["pull"], left))

    def report(self) -> SyncReport:
        return SyncReport(
            self._changed["push"],
            self._changed["pull"],
            tuple(self._conflicts),
            tuple(self._quarantined),
        )
