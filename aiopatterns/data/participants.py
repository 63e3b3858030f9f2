"""Participants: what takes part in a two-phase commit, and what it must be able to do.

A participant is a database that can promise. Until it has voted, all of a transaction's work may
vanish; from its YES on it can do both, commit and roll back, whatever happens to it, until it is
told which::

            branch(gid)           prepare(gid)            commit(gid)
    (none) ------------> working ------------> PREPARED -------------> COMMITTED, until forgotten
                            |         NO          |
                            '--------> (none) <---'  rollback(gid)

Users may bring their own; :class:`Participant` is the whole contract. Two more protocols are
optional: who can commit in one phase (:class:`CommitsAlone`), and who can keep the decision in its
own transaction and so needs no promise (:class:`LastResource`).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    NamedTuple,
    Protocol,
    TypeVar,
    final,
    runtime_checkable,
)

from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiopatterns.data.decisions import DecisionLog, DecisionRecord, Proposal

__all__ = [
    "CommitsAlone",
    "Fate",
    "LastResource",
    "Participant",
    "Prepared",
    "Vote",
    "participant_name",
]

B_co = TypeVar("B_co", covariant=True)

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")


class Vote(Enum):
    """What a participant says in the first phase."""

    YES = "yes"
    NO = "no"
    READ_ONLY = "read_only"


class Fate(Enum):
    """What a participant knows of a transaction."""

    PREPARED = "prepared"
    COMMITTED = "committed"
    UNKNOWN = "unknown"


@final
class Prepared(NamedTuple):
    """A transaction that a participant has promised.

    Attributes:
        gid: Its id.
        age: Seconds since the promise, by the participant's own clock.
    """

    gid: str
    age: float


@runtime_checkable
class Participant(Protocol[B_co]):
    """What takes part; ``B_co`` is what its work is done through."""

    @property
    def name(self) -> str:
        """Its name: the same for ever, unlike that of any other; see :func:`participant_name`."""
        ...

    def branch(self, gid: str) -> B_co:
        """Begin work under ``gid``; does no I/O yet."""
        ...

    async def prepare(self, gid: str) -> Vote:
        """Promise the work of ``gid``, durably.

        With READ_ONLY the work is over, for there was nothing to promise. What this raises counts
        as NO, and so does silence; ``rollback`` follows on both.
        """
        ...

    async def commit(self, gid: str) -> bool:
        """Commit what was promised; False if there is no such promise. Repeated safely."""
        ...

    async def rollback(self, gid: str) -> bool:
        """Undo the work, promised or not; False if there is none. Repeated safely."""
        ...

    async def in_doubt(self) -> Sequence[Prepared]:
        """Return what was promised and not resolved, by this process or any other."""
        ...

    async def outcome(self, gid: str) -> Fate:
        """Return what is known of ``gid``; a commit is known until it is forgotten."""
        ...

    async def forget(self, gids: Collection[str]) -> None:
        """Forget that ``gids`` were committed; nobody will ask again."""
        ...


@runtime_checkable
class CommitsAlone(Protocol):
    """A participant that can commit in one phase, where it is the only one."""

    async def commit_alone(self, gid: str) -> bool:
        """Commit the work; False if it was rolled back instead.

        Raises:
            OutcomeUnknownError: Nobody knows.
        """
        ...


@runtime_checkable
class LastResource(Participant[Any], Protocol):
    """A participant whose own commit is the decision; one of a transaction at most."""

    @property
    def log(self) -> DecisionLog:
        """The log that its transactions write to."""
        ...

    async def commit_with(self, gid: str, proposal: Proposal) -> DecisionRecord:
        """Commit the work and the decision in one transaction, unless there is a decision.

        Returns:
            The decision that is there then; if it is another, the work was rolled back.
        """
        ...


def participant_name(name: str) -> str:
    """Return ``name`` if it can be part of what databases call a transaction.

    Raises:
        ValueError: It is not up to 40 letters, digits, ``_`` and ``-``.
        TypeError: It is no text.
    """
    if not _NAME.fullmatch(text("name", name)):
        msg = f"name must be up to 40 letters, digits, _ and -, not {name!r}"
        raise ValueError(msg)
    return name
