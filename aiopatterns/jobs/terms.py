"""On which terms one call is sent: when, how urgent, after what, and under which id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.names import check_name
from aiopatterns.core.codec import Header, pack
from aiopatterns.core.context import correlation_id, deadline
from aiopatterns.core.tracing import traceparent
from aiopatterns.core.validate import non_negative
from aiopatterns.jobs.context import hops_onward
from aiopatterns.jobs.envelope import EMPTY
from aiopatterns.jobs.handle import Handle
from aiopatterns.jobs.ids import partition_of
from aiopatterns.jobs.keys import place
from aiopatterns.jobs.options import check_priority
from aiopatterns.jobs.schedule import instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiopatterns.backends.queue import UniqueKey
    from aiopatterns.jobs.desk import Desk
    from aiopatterns.jobs.envelope import Envelopes
    from aiopatterns.jobs.queue import JobQueue
    from aiopatterns.jobs.schedule import Moment

__all__ = ["PLAIN", "Stamp", "Terms", "terms_of"]


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one call, or of many.

    Args:
        delay: Seconds until it may run.
        at: The time at which it may run, in seconds since 1970, instead of a delay.
        priority: 0 to 9; None: the job's.
        after: Ids of the jobs that must be done first.
        partition: The partition of those, if there are any.
        id: Its id; None makes one.
        unique: Its unique key, instead of the job's.
    """

    delay: float = 0.0
    at: float | None = None
    priority: int | None = None
    after: tuple[str, ...] = ()
    partition: int | None = None
    id: str | None = None
    unique: UniqueKey | None = None


#: As the job is defined, at once.
PLAIN: Final = Terms()


@final
class Stamp:
    """What all jobs of one enqueue share.

    Args:
        desk: Of this opening: the time, the ids, the partitions.
        envelopes: Encodes the calls.
    """

    __slots__ = ("_desk", "encode", "new_id")

    def __init__(self, desk: Desk, envelopes: Envelopes) -> None:
        now = desk.now()
        self._desk = desk
        # Makes a new id for a job of a partition, and an envelope of a call.
        self.new_id: Callable[[int], str] = desk.ids.at(now)
        self.encode: Callable[[str, Sequence[Any], Mapping[str, Any]], bytes] = envelopes.encoder(
            _header(now), now
        )

    def place(self, terms: Terms, route: str | None) -> int:
        """Return the partition of a job.

        Args:
            terms: Its terms.
            route: The key that decides, if it has one.

        Raises:
            ValueError: It is to run after jobs of another partition than its key says.
        """
        partitions = len(self._desk.stores)
        if partitions == 1:
            return 0
        if route is None and terms.partition is None and terms.id is None:
            return self._desk.next_turn()
        wanted = place(route or terms.id or "", partitions)
        if terms.partition is None:
            return wanted
        if route is not None and wanted != terms.partition:
            msg = (
                f"after names jobs of partition {terms.partition}, but the key of this job belongs"
                f" to partition {wanted}; jobs after others must be in their partition"
            )
            raise ValueError(msg)
        return terms.partition


def _header(now: float) -> bytes:
    """Return the header of what is sent from here, as bytes; most have an empty one."""
    hops, parent = hops_onward(), traceparent()
    if not hops and parent is None and correlation_id() is None and deadline() is None:
        return EMPTY
    return pack(Header.here(sent_at=now, traceparent=parent, hops=hops), b"")


def terms_of(
    queue: JobQueue,
    *,
    delay: float,
    at: Moment | None,
    priority: int | None,
    after: Iterable[Handle[Any] | str],
    id: str | None,
) -> Terms:
    """Return checked terms; for what they are and what is refused see :meth:`Job.using`."""
    non_negative("delay", delay)
    if at is not None and delay:
        msg = f"delay must be 0 if at is given, not {delay!r}"
        raise ValueError(msg)
    if isinstance(after, (str, Handle)):
        msg = f"after must be a collection of handles or ids, not the single {after!r}"
        raise TypeError(msg)
    parents = list(after)
    return Terms(
        delay=delay,
        at=None if at is None else instant("at", at),
        priority=None if priority is None else check_priority(priority),
        after=tuple(_id_of(each, queue) for each in parents),
        partition=_common({_partition_of(each, queue): each for each in parents}),
        id=None if id is None else check_name("id", id),
    )


def _id_of(parent: Handle[Any] | str, queue: JobQueue) -> str:
    if isinstance(parent, Handle):
        if parent.queue != queue.name:
            msg = f"after must name jobs of queue {queue.name!r}, not of {parent.queue!r}"
            raise ValueError(msg)
        return parent.job_id
    return check_name("after", parent)


def _partition_of(parent: Handle[Any] | str, queue: JobQueue) -> int:
    """Return the partition of a parent, which a bare id must tell."""
    if isinstance(parent, Handle) and parent.partition is not None:
        return parent.partition
    job_id = parent.job_id if isinstance(parent, Handle) else parent
    found = partition_of(job_id, queue.partitions)
    if found is None:
        msg = (
            f"after must name jobs whose partition is known; {job_id!r} is an id of your own, and"
            f" the queue has {queue.partitions} partitions: give the handle of its enqueue"
        )
        raise ValueError(msg)
    return found


def _common(parents: dict[int, Handle[Any] | str]) -> int | None:
    """Return the one partition of all parents, if there are any."""
    if len(parents) > 1:
        msg = f"after must name jobs of one partition, not of {sorted(parents)}"
        raise ValueError(msg)
    return next(iter(parents), None)
