"""What is given to the protocols and what comes back: records without behaviour.

Each is a plain tuple of its fields, so it costs nothing to make and compares by value. The two
marks :data:`DELETE` and :data:`ANYTHING` stand where a value may be, and are no bytes. What a
record means is told by the call that takes or returns it, in ``protocols.py``; the records of
:class:`~aiopatterns.backends.queue.Queue` are beside it in ``queue.py``.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ANYTHING",
    "DELETE",
    "Anything",
    "Change",
    "Claimed",
    "Delete",
    "Entry",
    "GroupTurn",
    "GroupTurned",
    "Members",
    "Notice",
    "PendingEntry",
    "Scanned",
]


class Delete(Enum):
    """The type of :data:`DELETE`."""

    DELETE = "delete"


#: Given instead of a value: remove the key.
DELETE: Final = Delete.DELETE


class Anything(Enum):
    """The type of :data:`ANYTHING`."""

    ANYTHING = "anything"


#: Expected of a key that may hold what it likes, or be absent.
ANYTHING: Final = Anything.ANYTHING


class Change(NamedTuple):
    """What happens to one key in one atomic step: see :meth:`~aiopatterns.backends.protocols.Kv.change_many`.

    Attributes:
        key: The key.
        value: What it holds afterwards; :data:`DELETE` removes it.
        expected: What it must hold now; None means that it must be absent.
        ttl: Life of the new value.
        notify: A channel of :class:`~aiopatterns.backends.protocols.PubSub` on which ``notice`` is published if it was written.
        notice: What is published; None for the key, as UTF-8.
        before: Nothing is written from that time on, the server's in seconds since 1970: a
            change that was held up on its way does no harm when it arrives.
    """

    key: str
    value: bytes | Delete
    expected: bytes | Anything | None = ANYTHING
    ttl: float | None = None
    notify: str | None = None
    notice: bytes | None = None
    before: float | None = None


class Scanned(NamedTuple):
    """One page of a scan: see :meth:`~aiopatterns.backends.protocols.Kv.scan`.

    Attributes:
        keys: Some of the keys; there may be none, also when others follow.
        cursor: Where to go on; None when that was the last page.
    """

    keys: list[str]
    cursor: str | None


class Notice(NamedTuple):
    """One live message: see :meth:`~aiopatterns.backends.protocols.PubSub.publish`.

    Attributes:
        channel: The channel that it was published on.
        data: What was published.
    """

    channel: str
    data: bytes


class Members(NamedTuple):
    """The members of a directory at one instant: see :meth:`~aiopatterns.backends.protocols.Directory.snapshot`.

    Attributes:
        revision: Grows with every change of the members.
        members: The data of each member that is alive, by its name.
    """

    revision: int
    members: dict[str, bytes]


class Entry(NamedTuple):
    """One entry of a log: see :meth:`~aiopatterns.backends.protocols.Log.read`.

    Attributes:
        id: Text that grows along the log; :attr:`sort_key` orders it.
        payload: What was appended.
    """

    id: str
    payload: bytes

    @property
    def sort_key(self) -> tuple[int, int]:
        """The id as numbers, for comparing."""
        first, _, second = self.id.partition("-")
        return int(first), int(second or 0)


class Claimed(NamedTuple):
    """An entry in the hands of one consumer of a group: see :meth:`~aiopatterns.backends.protocols.Log.turn`.

    Attributes:
        id: Its id in the log.
        payload: What was appended.
        deliveries: How often it was handed out, from 1; releases are not counted.
    """

    id: str
    payload: bytes
    deliveries: int


class PendingEntry(NamedTuple):
    """An entry that was claimed and not settled: see :meth:`~aiopatterns.backends.protocols.Log.pending`.

    Attributes:
        id: Its id in the log.
        consumer: Who holds it; empty while it waits for a retry.
        idle: Seconds since it was claimed or renewed, or since its return for a retry.
        deliveries: How often it was handed out, from 1; releases are not counted.
    """

    id: str
    consumer: str
    idle: float
    deliveries: int


class GroupTurn(NamedTuple):
    """What one consumer of a group says and asks in one atomic step: see :meth:`~aiopatterns.backends.protocols.Log.turn`.

    Attributes:
        acks: Ids that are done.
        releases: Ids given back: claimable at once by anybody, and this delivery is not counted.
        retries: Ids that failed, with the seconds until they may be claimed again; the delivery
            counts.
        buried: Ids given up, with the reason: moved to the group's dead letters.
        renews: Ids that are still worked on: their idle time starts anew.
        limit: How many entries to claim at most, 0 for none.
        idle: Seconds after which an entry that its consumer neither settled nor renewed may be
            claimed by another.
        delete: Whether acknowledged and buried entries are removed from the log itself.
    """

    acks: Sequence[str] = ()
    releases: Sequence[str] = ()
    retries: Mapping[str, float] | None = None
    buried: Mapping[str, bytes] | None = None
    renews: Sequence[str] = ()
    limit: int = 0
    idle: float = 30.0
    delete: bool = False


class GroupTurned(NamedTuple):
    """The answer to a :class:`GroupTurn`.

    Attributes:
        claimed: The entries that are this consumer's from now on.
        lost: Ids that were acknowledged, released, retried, buried or renewed but are not held
            by this consumer any more; nothing was done for them.
    """

    claimed: list[Claimed]
    lost: list[str]
