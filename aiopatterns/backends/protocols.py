"""Seven protocols for state: what may outlive a call, a task or a process.

Every room above keeps its state behind these, so that changing a URL moves it from memory to
Redis. What is written in the docstrings here is the contract: both implementations follow it,
and one conformance suite (``aiopatterns.testing.conformance``) holds them to it.

============  =====================================  ===========================================
protocol      holds                                  atomic step
============  =====================================  ===========================================
Kv            bytes under a key, with a life         ``compare_and_set``, ``incr``, a ``Change``
Queue         jobs (in ``queue.py``)                 ``enqueue``, ``step``
Log           an append-only stream with groups      ``append_many``, ``turn``
PubSub        nothing: live messages                 -
Lease         who may act, with a fencing token      ``try_acquire``, ``renew``, ``release``
Limiter       how often, over all processes          ``acquire``
Directory     members that expire, with a revision   ``put``, ``remove``
============  =====================================  ===========================================

For all of them:

* **Time** is the server's, also for expiry, so the clocks of the hosts do not matter. In memory it
  is monotonic time: a jump of the wall clock expires nothing.
* **A round trip** is one command or one script. "1 round trip" below is the worst case on Redis.
* **Names and keys** are text of at least one character and at most 1,024 bytes; anything else is a
  ``ValueError`` (``TypeError``) that names the parameter. Values are ``bytes``.
* **Life** (``ttl``) is in seconds, above 0, and is kept to the millisecond. ``None`` is for ever.
* **Unreachable**: every call may raise :class:`~aiopatterns.core.errors.BackendUnavailableError`;
  a call that changes state may then have happened or not, unless its docstring says that it is
  repeated safely. A server that refuses (full, read-only, no rights) raises
  :class:`~aiopatterns.core.errors.BackendError`. Both name the URL, never its password.
* **Closed**: every call on a backend that is not open raises
  :class:`~aiopatterns.core.errors.ClosedError`.
* **Cancellation**: a cancelled call may have happened or not; nothing is left half done, and its
  answer is never taken for another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.queue import Queue
    from aiopatterns.backends.records import (
        Change,
        Claimed,
        Delete,
        Entry,
        GroupTurn,
        GroupTurned,
        Members,
        Notice,
        PendingEntry,
        Scanned,
    )
    from aiopatterns.backends.statistics import BackendStatistics
    from aiopatterns.core.rate import Grant, Rate

__all__ = [
    "Backend",
    "Directory",
    "Held",
    "Kv",
    "Lease",
    "Limiter",
    "Log",
    "PubSub",
    "Subscribed",
    "Watching",
]


class Kv(Protocol):
    """Bytes under keys, each with a life of its own.

    A key is gone when its life is over, to every reader at once. Reads are repeated safely; a
    write is not repeated by the client when its answer is lost.
    """

    async def get(self, key: str) -> bytes | None:
        """Return the value of ``key``, or None. O(1), 1 round trip."""
        ...

    async def get_many(self, keys: Collection[str]) -> dict[str, bytes]:
        """Return those of ``keys`` that exist; the order is that of ``keys``.

        Not one instant on a cluster, where keys live on several servers. Empty ``keys`` give an
        empty mapping and ask nobody. O(n), 1 round trip (on a cluster one for each server, at
        the same time).
        """
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Write ``value`` under ``key``; an old life ends with the old value. O(1), 1 round trip."""
        ...

    async def set_many(self, values: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Write all of ``values``; each is atomic, all together are not. O(n), 1 round trip."""
        ...

    async def delete(self, *keys: str) -> int:
        """Remove ``keys``; return how many of them existed. O(n), 1 round trip."""
        ...

    async def incr(self, key: str, by: int = 1, *, ttl: float | None = None) -> int:
        """Add ``by`` to the whole number under ``key`` (0 if absent); return the sum.

        The number is kept as decimal digits, so ``get`` reads it as ``b"17"``. ``ttl`` is given
        to a key that this call creates; an existing life goes on.

        Raises:
            ValueError: What is stored is no whole number of at most 64 bits, or the sum is none.

        Complexity: O(1), 1 round trip.
        """
        ...

    async def compare_and_set(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | Delete,
        *,
        ttl: float | None = None,
        notify: str | None = None,
    ) -> bool:
        """Write ``value`` if ``key`` holds ``expected`` now; return whether it was written.

        Args:
            key: The key.
            expected: What it must hold; None means that it must be absent.
            value: What it holds afterwards; :data:`DELETE` removes it.
            ttl: Life of the new value.
            notify: A channel of :class:`PubSub`; if the value was written, the key, as UTF-8,
                is published there in the same atomic step.

        Complexity: O(size), 1 round trip.
        """
        ...

    async def change_many(self, changes: Sequence[Change]) -> list[bool]:
        """Make each of ``changes`` if its key holds what is expected; return which were written.

        Each is one atomic step, in which its notice is published as well; all together are not,
        and they are made in no certain order. If one fails, others may have been made.

        Complexity: O(n), 1 round trip (on a cluster one for each server, at the same time).
        """
        ...

    async def scan(self, prefix: str, *, cursor: str | None = None, limit: int = 1_000) -> Scanned:
        """Return some of the keys that begin with ``prefix``, and where to go on.

        For an operator's work and for tidying up, not for a normal path: all pages together look
        at every key of the server, whoever's it is. No page holds the server up for long.

        From the first page to the last, a key that exists all the while is in one page at least,
        and may be in several; one that comes or goes meanwhile may be in one. The order is no
        certain one. On a cluster, a key that moves to another server meanwhile may be missed.

        Args:
            prefix: What the keys begin with, taken literally; at least one character.
            cursor: None begins; then that of the page before.
            limit: About how many keys are looked at for the page, 1 to 10,000.

        Raises:
            BackendUnavailableError: Also if a connection was lost since the first page, or the
                servers of a cluster are others: nobody knows what was seen, so begin again.

        Complexity: O(limit), 1 round trip; in memory O(keys).
        """
        ...


class Subscribed(Protocol):
    """An open subscription: an async iterator of :class:`Notice` in order of arrival."""

    @property
    def gaps(self) -> int:
        """How often messages may have been missed so far: reconnections and overflows."""
        ...

    def __aiter__(self) -> AsyncIterator[Notice]:
        """Iterate; ends when the subscription is closed."""
        ...

    async def __anext__(self) -> Notice:
        """Wait for the next message; cancelling the wait loses none."""
        ...


class PubSub(Protocol):
    """Live messages to whoever listens now: at most once, in order for each publisher."""

    async def publish(self, channel: str, data: bytes) -> int:
        """Give ``data`` to all who are subscribed now.

        Returns:
            How many subscriptions received it, as far as the server knows (on a cluster: those
            of one node).

        Complexity: O(subscribers), 1 round trip. Never repeated by the client.
        """
        ...

    async def publish_many(self, notices: Sequence[Notice]) -> list[int]:
        """Publish each of ``notices``, in order; return how many received each.

        All together are not atomic: if one fails, others may have been given out. No notices ask
        nobody.

        Complexity: O(n), 1 round trip (on a cluster one for each server, at the same time). Never
        repeated by the client.
        """
        ...

    def subscribe(
        self,
        *channels: str,
        patterns: Collection[str] = (),
        capacity: int = 1_000,
        on_gap: Callable[[], object] | None = None,
    ) -> AbstractAsyncContextManager[Subscribed]:
        r"""Listen on ``channels``, and on all that fit ``patterns``; at least one of both.

        When the block is entered, the subscription is in force: what is published after that
        arrives. A message that fits several times arrives once. While the connection is lost
        nobody waits in vain: the subscription is renewed by itself and ``on_gap`` is called
        after that. A subscriber that is slower than its publishers loses the oldest messages
        beyond ``capacity``, and ``on_gap`` is called once for each such overflow.

        Args:
            channels: Names, taken literally.
            patterns: Globs: ``*`` is any run of characters, ``?`` is one byte
                of UTF-8, which is one character of ASCII; ``\\`` escapes.
            capacity: Messages that wait for the reader at most, 1 or more.
            on_gap: Called, on the loop, when messages may have been missed.

        Complexity: O(channels); all subscriptions of a backend share one connection.
        """
        ...


class Held(Protocol):
    """A lease that was held when it was given out."""

    @property
    def token(self) -> int:
        """The fencing token: above that of every earlier holder of this name, for ever."""
        ...

    async def renew(self, *, ttl: float | None = None) -> bool:
        """Hold on for ``ttl`` (by default as before) from now; False if it was lost.

        Repeated safely. O(1), 1 round trip.
        """
        ...

    async def release(self) -> bool:
        """Give the lease back; False if it was lost before. Repeated safely. O(1), 1 round trip."""
        ...


class Lease(Protocol):
    """One name that one holder at a time may hold.

    A lease ends by time, so its holder must not act on it alone: whoever is asked to do the work
    compares the token with the highest it has seen (Kleppmann, "How to do distributed locking",
    2016). Tokens grow also after the lease was unused so long that all trace of it is gone, and
    after the server has lost its data, as long as the server's clock does not go back.
    """

    async def try_acquire(self, *, ttl: float) -> Held | None:
        """Take the lease for ``ttl`` seconds if nobody holds it; never waits. O(1), 1 round trip."""
        ...


class Limiter(Protocol):
    """A rate over all processes: GCRA by the server's time, one state a key."""

    async def acquire(
        self, key: str, rate: Rate, *, cost: float = 1.0, burst: float | None = None
    ) -> Grant:
        """Take ``cost`` now if it is there; never waits.

        Args:
            key: Whose rate it is.
            rate: How many in how long; the same for every call of a key, or the newest counts.
            cost: What this call takes, 0 or more; 0 only looks.
            burst: How much may be saved up, 1 or more; by default the rate's amount (at
                least 1).

        Returns:
            The answer, with the times until more is there. ``cost`` above ``burst`` is never
            allowed, and ``retry_after`` is then infinite. A refused call takes nothing.

        Complexity: O(1), 1 round trip. A key at rest is forgotten by itself.
        """
        ...


class Watching(Protocol):
    """An open watch of a directory: an async iterator of :class:`Members`."""

    @property
    def confirmed(self) -> float:
        """When the server was last seen to hold what was given out last, or what comes next.

        In seconds of :func:`aiopatterns.core.clock.monotonic`, taken before it was asked; minus
        infinity before the first look. It grows while somebody waits for the next snapshot, as
        long as the server answers: so it tells how old the last one may be.
        """
        ...

    def __aiter__(self) -> AsyncIterator[Members]:
        """Iterate; ends when the watch is closed."""
        ...

    async def __anext__(self) -> Members:
        """Wait for the next snapshot; cancelling the wait loses none."""
        ...


class Directory(Protocol):
    """Members that expire by the server's time, and a revision that grows with every change.

    A fence keeps an old process from touching its successor's record: a ``put`` or ``remove``
    with a lower fence than the stored one is refused. Fences are whole numbers from 0 to 2**53, as
    the tokens of a lease are.
    """

    async def put(self, member: str, data: bytes, *, ttl: float, fence: int = 0) -> bool:
        """Add, change or renew ``member``; False if a higher fence is stored.

        The same data and fence again is a renewal: the life starts anew and the revision stays.
        Anything else makes a new revision. Repeated safely. O(log n), 1 round trip.
        """
        ...

    async def remove(self, member: str, *, fence: int | None = None) -> bool:
        """Remove ``member``; False if it was absent or a higher fence than ``fence`` is stored.

        Repeated safely. O(log n), 1 round trip.
        """
        ...

    async def snapshot(self) -> Members:
        """Return the members that are alive, and the revision. O(n), 1 round trip.

        Whoever looks first after members have expired makes the new revision.
        """
        ...

    def watch(self, *, interval: float = 1.0) -> AbstractAsyncContextManager[Watching]:
        """Iterate over snapshots: the first at once, then one after each new revision.

        A slow reader skips to the newest. Changes arrive by a live message; every ``interval``
        seconds the watcher looks by itself, so an expired member is noticed at most that late,
        and a lost message or connection delays, but loses nothing.
        """
        ...


class Log(Protocol):
    """An append-only log of bytes, read by anybody from anywhere, or shared out among a group.

    Within a group every entry goes to one consumer at a time, in order of the log for fresh
    entries; an abandoned or failed entry comes back, also when nothing new is appended. One that
    is trimmed away meanwhile can still be settled, but does not come back.

    Every call that names a group raises ``ValueError`` if there is none of that name, except
    :meth:`create_group` and :meth:`delete_group`.
    """

    async def append_many(
        self, payloads: Sequence[bytes], *, max_length: int | None = None, token: str | None = None
    ) -> list[str]:
        """Append ``payloads`` in order, all or none; return their ids.

        Args:
            payloads: What to append.
            max_length: Trim the log to about that many entries, never below it; groups may
                lose what they have not read.
            token: Name of this call. A second call with the token within ten minutes appends
                nothing and returns the ids of the first, so the call is repeated safely. The
                client gives one by itself.

        Complexity: O(n), 1 round trip.
        """
        ...

    async def read(self, *, after: str = "0", limit: int = 100) -> list[Entry]:
        """Return up to ``limit`` entries whose id is above ``after``, in order. O(n), 1 round trip."""
        ...

    async def length(self) -> int:
        """Return the number of entries. O(1), 1 round trip."""
        ...

    async def trim(self, *, max_length: int, keep_unread: bool = False) -> int:
        """Remove the oldest entries beyond exactly ``max_length``; return how many.

        Args:
            max_length: Entries to keep.
            keep_unread: Keep more, if they are entries that a group has not claimed, or that are
                held or wait for a retry in one, and all behind the oldest of these.

        Complexity: O(removed + held and parked), 1 round trip; 2 with ``keep_unread``.
        """
        ...

    async def create_group(self, group: str, *, after: str = "0") -> bool:
        """Make ``group`` start behind ``after`` (``"$"``: the newest entry); False if it exists.

        Repeated safely. O(1), 1 round trip.
        """
        ...

    async def delete_group(self, group: str) -> bool:
        """Forget ``group``, what it holds and its dead letters; False if there was none."""
        ...

    async def turn(self, group: str, consumer: str, turn: GroupTurn) -> GroupTurned:
        """Settle, renew and claim in one atomic step.

        Claims take failed entries whose time has come in the order of these times, then abandoned
        ones, the longest idle first but handed out in the order of the log, then fresh ones. If
        the answer is lost, the claimed entries are in :meth:`pending` under ``consumer`` and are
        fetched by :meth:`held`.

        Raises:
            ValueError: There is no such group.

        Complexity: O(entries named and claimed), 1 round trip. Not repeated by the client.
        """
        ...

    async def held(self, group: str, consumer: str) -> list[Claimed]:
        """Return all that ``consumer`` holds now, oldest first; counts no delivery. 1 round trip."""
        ...

    async def wait(self, group: str, *, timeout: float) -> bool:
        """Wait until there may be something to claim, at most ``timeout`` seconds.

        True if a fresh entry arrived or one's time has come, False on timeout. Claims nothing,
        so cancelling it loses nothing. Uses a connection of its own. On Redis the end of the time
        and a retry that is due may be noticed 0.1 s late. It knows nothing of abandoned entries:
        who wants those takes a turn from time to time.
        """
        ...

    async def pending(self, group: str, *, limit: int = 100) -> list[PendingEntry]:
        """Return the oldest entries that are claimed or wait for a retry. O(n), 1 round trip."""
        ...

    async def lag(self, group: str) -> int:
        """Return how many entries the group has not claimed yet. O(n) at worst, 1 round trip."""
        ...

    async def dead(self, group: str, *, limit: int = 100) -> list[tuple[Claimed, bytes]]:
        """Return the newest dead letters of ``group`` with their reasons; at most 10,000 are kept."""
        ...

    async def requeue(self, group: str, ids: Collection[str]) -> int:
        """Hand out these dead letters again, deliveries counted anew; return how many there were.

        Only to this group; O(n), 1 round trip. Repeated safely.
        """
        ...


Scheme: TypeAlias = Literal["memory", "redis"]


class Backend(Protocol):
    """Where state lives. Opened by ``async with``, as often and by as many as need it.

    The first entry opens, the last exit closes; entries may be concurrent. After that it can be
    opened again, also on another loop. Making one does no I/O.
    """

    @property
    def url(self) -> str:
        """Where it is, with the password masked."""
        ...

    @property
    def scheme(self) -> Scheme:
        """What is behind it."""
        ...

    @property
    def kv(self) -> Kv:
        """Keys and values."""
        ...

    @property
    def pubsub(self) -> PubSub:
        """Live messages."""
        ...

    def queue(self, name: str) -> Queue:
        """Return the job queue ``name``; cheap."""
        ...

    def log(self, name: str) -> Log:
        """Return the log ``name``; cheap."""
        ...

    def lease(self, name: str) -> Lease:
        """Return the lease ``name``; cheap."""
        ...

    def limiter(self, name: str) -> Limiter:
        """Return the limiter ``name``; cheap."""
        ...

    def directory(self, name: str) -> Directory:
        """Return the directory ``name``; cheap."""
        ...

    async def time(self) -> float:
        """Return the server's time in seconds since 1970. 1 round trip."""
        ...

    def statistics(self) -> BackendStatistics:
        """Return the figures so far; no I/O, callable at any time, also while closed."""
        ...

    async def __aenter__(self) -> Self:
        """Open, or count one more user. Raises BackendUnavailableError if nobody answers."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count one user less; the last one closes."""
        ...
