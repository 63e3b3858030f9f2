"""The queue protocol: one state machine for jobs, driven by atomic steps.

A job is bytes under an id. It is in exactly one place at every instant::

                     after=            due / delay
       enqueue ---> WAITING --.   .--> SCHEDULED --.
          |                   |   |       ^        |
          |                   v   |       | retry  v
          '-----------------> QUEUED <----|---- promoted
                               | ^        |
                        claim  | | release, or its worker's lease ended (a suspect: alone)
                               v |        |
                              RUNNING ----'
                               |   |   '-----> CANCELLED   (kept as an outcome, if asked)
                               |   '---------> DEAD        (a dead letter, until requeued)
                               '-------------> DONE        (kept as an outcome, if asked)

Whoever works holds a *lease for itself*, not one for each job: a worker is a random id that is
new at each start, its lease is one entry, and every job that it claims is in its own set. Whoever
takes a step also looks after the whole queue: promotes what is due, takes back the jobs of
workers whose lease has ended, and wakes the next idle worker if work remains.

**The fence.** A settlement (``done``, ``retry`` ...) counts only while the job is in the set of
the worker that sends it. A worker that was taken for dead can neither finish nor fail a job that
another one has now; it learns so from ``stale`` and ``reaped``.

**A lost answer.** A worker numbers its turns. If the answer to one is lost, it sends the same
settlements under the same number, with ``free=0``: they are applied once. Then it asks
:meth:`Queue.held` what it holds, for the lost turn may have claimed. A turn whose number is not
new gives out nothing, so none that comes twice, or late, does behind its back. So nothing that is
claimed is ever unknown to its worker for longer than an outage.

**Suspects.** The jobs that a worker held when its lease ended count one attempt each, and one of
them may have killed it. Each is next given out *alone*: only to a worker that holds nothing, and
that worker gets nothing else until it is settled. While suspects wait, one worker at a time is
asked (``quarantine``) to run dry for them; the others go on.

**Limits.** A job may name buckets. A bucket with a concurrency holds back the job while that many
jobs of the bucket run (they keep their order), one with a rate schedules it for its turn.

**Unique keys.** While a key is taken, an enqueue under it makes no second job but returns the id
of the first: ``drop`` until the job ends, ``throttle`` for the window after the enqueue and until
the job ends, ``debounce`` while it is not started (its body becomes the new one, its delay, which
is its window at least, starts anew), ``keep_last`` while it is not started (its body becomes the
new one); a keep_last job that is enqueued while one of its key has started waits for that one to
end, however often that is retried. A key is free again when its job is dead or cancelled, but for
the rest of a throttle window it is not. Whether a key is taken goes by the mode of the job that
has it; bodies are replaced only between jobs of the last two modes.

**Dependencies.** A job that names others in ``after`` waits until all of them are done, and is
released in the same step as the last of them. It is cancelled with all that depends on it if one
is dead or cancelled, also if it was so before. One that is unknown, or done already, counts as
done.

Guarantees: at least once; each call below is one atomic step; every loop in it is bounded, and
what is left over is told by ``more``. After the last job is settled nothing is left but kept
outcomes, throttle windows, dead letters (10,000 at most, seven days at most), the pause and
limits, each with a life or a bound.

Times are the server's; a delay is in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.core.rate import Rate

__all__ = [
    "DEAD_LIMIT",
    "DEAD_TTL",
    "MAX_BATCH",
    "PRIORITIES",
    "Bucket",
    "ClaimedJob",
    "Counts",
    "Enqueued",
    "How",
    "JobState",
    "NewJob",
    "Outcome",
    "Page",
    "Queue",
    "QueueEvent",
    "Settled",
    "StoredJob",
    "Turn",
    "Turned",
    "UniqueKey",
]

#: Priorities of jobs; a higher one is claimed first, whatever waits below.
PRIORITIES: Final = range(10)
#: Jobs that one enqueue may carry, and that one turn claims, settles or takes back, at most.
MAX_BATCH: Final = 500
#: Dead letters that are kept, and for how many seconds.
DEAD_LIMIT: Final = 10_000
DEAD_TTL: Final = 7 * 24 * 3600.0

JobState: TypeAlias = Literal[
    "queued", "scheduled", "waiting", "running", "done", "dead", "cancelled", "unknown"
]
UniqueMode: TypeAlias = Literal["drop", "throttle", "debounce", "keep_last"]
How: TypeAlias = Literal["done", "retry", "demote", "release", "dead", "cancelled"]
EventKind: TypeAlias = Literal[
    "queued", "started", "progress", "retrying", "done", "dead", "cancelled", "gap"
]


class Bucket(NamedTuple):
    """A limit that jobs share by naming it.

    Args:
        key: Name of the bucket within the queue.
        rate: How many may start in how long, spaced evenly (GCRA with a burst of the rate's
            amount), or None.
        concurrency: How many may run at once, 1 or more, or None.
    """

    key: str
    rate: Rate | None = None
    concurrency: int | None = None


class UniqueKey(NamedTuple):
    """A key that one job at a time may have; ``window`` in seconds, for throttle and debounce."""

    key: str
    mode: UniqueMode = "drop"
    window: float = 0.0


class NewJob(NamedTuple):
    """One job to enqueue.

    Args:
        id: Made by the caller, unique; a second enqueue of an id that is known (or whose outcome
            is kept) changes nothing.
        body: What the worker gets.
        priority: 0 to 9, 9 first.
        delay: Seconds until it may run, from now.
        at: The server's time from which on it may run, instead of a delay.
        attempts: How often it may be started before a crash makes it a dead letter, 1 or more.
        keep: Seconds for which its outcome (done, cancelled) is kept; 0 keeps nothing.
        after: Ids of jobs of this queue that must be done first.
        unique: Its unique key.
        limits: Buckets that it needs a place in, 4 at most.
    """

    id: str
    body: bytes
    priority: int = 0
    delay: float = 0.0
    at: float | None = None
    attempts: int = 1
    keep: float = 0.0
    after: tuple[str, ...] = ()
    unique: UniqueKey | None = None
    limits: tuple[Bucket, ...] = ()


class Enqueued(NamedTuple):
    """The answer for one :class:`NewJob`: the id that stands, and whether this call made it."""

    id: str
    created: bool


class Settled(NamedTuple):
    """What a worker says of a job that it holds.

    Args:
        id: The job.
        how: ``done``; ``retry`` after ``delay``; ``demote``, the same with a priority that is one
            lower, if it is not 0; ``release`` gives it back to the head of its
            lane; ``dead`` makes it a dead letter; ``cancelled`` ends it.
        data: The result (done) or the error (retry, dead), as bytes.
        delay: Seconds until the retry.
        counted: Whether the attempt counts, for a retry and in the outcome; a release never does.
    """

    id: str
    how: How
    data: bytes = b""
    delay: float = 0.0
    counted: bool = True


class Turn(NamedTuple):
    """What a worker says and asks in one step.

    Args:
        worker: Id of the worker, new at each start.
        number: 1 in the worker's first turn, and one more in each; the same again means that the
            answer was lost.
        lease: Seconds for which the worker counts as alive from now.
        settled: Jobs that have come to an end; MAX_BATCH at most.
        free: How many jobs it can take, 0 to MAX_BATCH; none if the number is not new. It may get
            fewer though there are ``more``, as of very big ones.
        progress: Fractions, by job id, of jobs that it holds.
        leave: It ends: what it still holds is released (suspects stay suspects; MAX_BATCH at most,
            ``more`` says that it has to leave once more), its lease ends, and another worker is
            woken if there is work. A later turn makes it a worker again.
    """

    worker: str
    number: int
    lease: float
    settled: Sequence[Settled] = ()
    free: int = 0
    progress: Mapping[str, float] | None = None
    leave: bool = False


class ClaimedJob(NamedTuple):
    """A job in the hands of a worker; ``attempt`` counts from 1; ``alone``: it is a suspect."""

    id: str
    body: bytes
    attempt: int
    alone: bool = False


class Turned(NamedTuple):
    """The answer to a :class:`Turn`.

    Args:
        claimed: Jobs that the worker holds from now on.
        stale: Settled jobs that it did not hold; nothing was done for them.
        cancels: Jobs that it holds and that somebody wants cancelled; told again in every turn
            until settled.
        reaped: Its lease had ended and its jobs were taken back: it holds nothing but
            ``claimed``.
        quarantine: Suspects wait and this worker was chosen: it must take no more until it holds
            nothing, and then ask for one.
        more: There is more to look after, or to claim for a worker that may claim, right now.
        paused: The queue is paused; nothing is given out.
        next_due: Seconds until the next scheduled job, or None.
        now: The server's time, in seconds since 1970.
    """

    claimed: list[ClaimedJob]
    stale: list[str]
    cancels: list[str]
    reaped: bool
    quarantine: bool
    more: bool
    paused: bool
    next_due: float | None
    now: float


class Outcome(NamedTuple):
    """How a job ended; ``data`` is the result, or the error of a dead letter.

    The error of one whose workers crashed too often is empty.
    """

    state: Literal["done", "dead", "cancelled"]
    data: bytes
    attempts: int


class StoredJob(NamedTuple):
    """A job as it is stored.

    Args:
        id: The job.
        body: What the worker gets.
        state: Where it is.
        attempts: How many have counted so far.
        error: Of a dead letter, what made it one; empty after too many crashes.
        at: Of a scheduled job the time from which on it may run, of a dead letter that of its
            death, else 0.
    """

    id: str
    body: bytes
    state: JobState
    attempts: int
    error: bytes
    at: float


class Page(NamedTuple):
    """Some jobs, and where to go on (None: that was all)."""

    jobs: list[StoredJob]
    cursor: str | None


class Counts(NamedTuple):
    """How many jobs are where; a job held back by a limit's concurrency counts as queued.

    Attributes:
        queued: Jobs that a worker could take.
        scheduled: Jobs that wait for their time.
        waiting: Jobs that wait for others.
        running: Jobs that workers hold.
        dead: Dead letters.
        alive: Ids of the workers whose lease has not ended.
        paused: Whether nothing is given out.
    """

    queued: int
    scheduled: int
    waiting: int
    running: int
    dead: int
    alive: frozenset[str]
    paused: bool

    @property
    def workers(self) -> int:
        """How many workers are alive."""
        return len(self.alive)


class QueueEvent(NamedTuple):
    """Something that happened to a job; ``gap`` (without an id) says that some may be missing.

    ``queued`` says that a job was added (it may have to wait), given back, taken back or requeued.
    ``data`` is the error of retrying and dead, the fraction of progress as decimal text, else
    empty.
    """

    kind: EventKind
    id: str
    data: bytes = b""


class Queue(Protocol):
    """A queue of jobs. The file's docstring is the contract of all methods together."""

    @property
    def name(self) -> str:
        """The queue's name."""
        ...

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Add ``jobs``, at most MAX_BATCH, in order; each is added or recognised.

        One atomic step; repeated safely while the jobs are known. The jobs of one call may name
        each other in ``after``, in order. A worker is woken if there is something to run, or if
        something is due before all that was scheduled. After a lost answer it may be sent again,
        and ``created`` is then False for what the first one made.

        Raises:
            ValueError: More than MAX_BATCH jobs, a priority outside 0..9, an empty id.
            BackendError: The server is full or refuses; nothing was added.

        Complexity: O(jobs), 1 round trip.
        """
        ...

    async def step(self, turn: Turn) -> Turned:
        """Settle, renew, promote, take back, limit and claim, in this order, atomically.

        Complexity: O(settled + claimed + what was due), 1 round trip. Not repeated by the client:
        see "A lost answer". On a server that is full, settlements and the lease still work, and
        ``claimed`` may be empty.
        """
        ...

    async def held(self, worker: str) -> list[ClaimedJob]:
        """Return what ``worker`` holds now. O(held), 1 round trip; repeated safely."""
        ...

    async def wait(self, worker: str, *, timeout: float) -> bool:
        """Wait until there may be work, or ``worker`` is wanted; False after ``timeout`` seconds.

        Claims nothing. One idle worker is woken for each thing that happens, and its next step
        wakes another if work remains; a cancelled wait hands its wake-up on. One that could take
        no more at its last step is woken only by its name. True also when the lease of another
        worker may have ended, so that the jobs of the dead are taken back in time. Uses a
        connection of its own.
        """
        ...

    def keeper(self, worker: str, *, lease: float) -> Callable[[], bool] | None:
        """Return a function for another *thread* that renews the lease of ``worker``, or None.

        The function blocks for at most two seconds, has a connection of its own that ends with
        it, and answers whether the worker was still known; like every call it may raise
        BackendUnavailableError. None if no other process could take the jobs, as in memory.
        """
        ...

    async def cancel(self, ids: Collection[str]) -> dict[str, JobState]:
        """Cancel jobs; return the state of each afterwards.

        One that has not started ends at once (``cancelled``), and so do its dependents. For one
        that runs its worker is asked, and woken (``running``); if it is given back or taken back
        instead of being settled otherwise, it ends then. Others stay as they are. Repeated safely.
        O(ids x workers + dependents), 1 round trip for each MAX_BATCH.
        """
        ...

    async def states(self, ids: Collection[str]) -> dict[str, JobState]:
        """Return the state of each. O(ids x workers), 1 round trip for each MAX_BATCH."""
        ...

    async def outcomes(self, ids: Collection[str]) -> dict[str, Outcome]:
        """Return how those of ``ids`` ended that have ended and are kept.

        O(ids), 1 round trip for each MAX_BATCH.
        """
        ...

    async def progress(self, id: str) -> float | None:
        """Return the fraction that the running job last told, or None. O(1), 1 round trip."""
        ...

    async def counts(self) -> Counts:
        """Return how many jobs are where. O(workers), 1 round trip."""
        ...

    async def page(self, state: JobState, *, cursor: str | None = None, limit: int = 100) -> Page:
        """Return jobs that are queued, scheduled, waiting, running or dead, page by page.

        Dead letters come newest first, the others as they will run, as far as that is known. Jobs
        that move meanwhile may be missed or come twice, and a page may be shorter than ``limit``.
        O(limit) (a held-back or cancelled job may cost more), 1 round trip.
        """
        ...

    async def requeue(self, ids: Collection[str]) -> int:
        """Queue dead letters again, under their ids, attempts counted anew; return how many.

        Repeated safely. O(ids), 1 round trip.
        """
        ...

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """Remove dead letters, by default all (in bounded steps); return how many there were."""
        ...

    async def pause(self, *, paused: bool = True) -> None:
        """Give out nothing, or go on; what runs goes on either way. O(1), 1 round trip."""
        ...

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[QueueEvent]]:
        """Iterate over what happens to jobs from now on; live, so some may be missed (``gap``).

        While nobody watches, the queue says nothing and that costs nothing. Steps tell all that
        happened in them by one message.
        """
        ...
