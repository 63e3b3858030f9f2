"""Carrying out a decision: tell each participant, and find out who has done the opposite.

Telling is repeated until it has worked, so it may find that there is nothing to do any more. Then
the participant is asked what it remembers, and the answer is judged::

    decided   told        remembers     so
    commit    did it                    DONE
    commit    nothing     COMMITTED     DONE: it was told before
    commit    nothing     PREPARED      PENDING: somebody is at it
    commit    nothing     nothing       OPPOSED: it was rolled back by hand, or lost
    abort     did it                    DONE
    abort     nothing     COMMITTED     OPPOSED: it was committed by hand
    abort     nothing     nothing       DONE

Whoever does not answer is PENDING. Before anybody is taken to be OPPOSED, the log is asked: if the
transaction has ended, another one has carried it out, and all were told to forget it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, final

from anyio import fail_after

from aiopatterns.core.clock import wall
from aiopatterns.core.notes import in_words
from aiopatterns.data.decisions import Decision
from aiopatterns.data.participants import Fate
from aiopatterns.flow.mapping import amap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.data.decisions import DecisionLog
    from aiopatterns.data.participants import Participant

__all__ = ["ANSWERED_WITHIN", "Carried", "Standing", "carry_out", "judged"]

#: Seconds that a participant may take to carry out a decision; then recovery tells it again.
ANSWERED_WITHIN: Final = 10.0
_AT_ONCE: Final = 8


class Standing(Enum):
    """Where a participant stands to a decision."""

    DONE = "done"
    PENDING = "pending"
    OPPOSED = "opposed"


@final
@dataclass(frozen=True, slots=True)
class Carried:
    """How far a decision has been carried out.

    Attributes:
        done: Participants that have done it, with the time of that.
        pending: Those that have not, with what is wrong.
        opposed: Those that have done the opposite.
    """

    done: dict[str, float] = field(default_factory=dict[str, float])
    pending: dict[str, str] = field(default_factory=dict[str, str])
    opposed: list[str] = field(default_factory=list[str])


def judged(decision: Decision, *, acted: bool, fate: Fate | None) -> Standing:
    """Return where a participant stands.

    Args:
        decision: What it was told.
        acted: Whether it did that just now.
        fate: What it remembers, if it did not.
    """
    if acted:
        return Standing.DONE
    if fate is Fate.PREPARED:
        return Standing.PENDING
    committed = fate is Fate.COMMITTED
    return Standing.DONE if committed is (decision is Decision.COMMIT) else Standing.OPPOSED


async def carry_out(
    gid: str,
    decision: Decision,
    participants: Iterable[Participant[Any]],
    *,
    log: DecisionLog | None = None,
) -> Carried:
    """Tell ``participants`` all at once; never raises for one of them.

    Args:
        gid: Id of the transaction.
        decision: What was decided.
        participants: Who is told.
        log: Where the decision is; None if there is none, for nothing was promised by all.

    Cancellation: some have been told, and some not.

    Complexity: 1 round trip for each; 2 for those that had nothing to do.
    """
    carried = Carried()

    async def tell(participant: Participant[Any]) -> None:
        name = participant.name
        try:
            with fail_after(ANSWERED_WITHIN):
                standing = await _told(participant, gid, decision, log)
        except Exception as error:
            carried.pending[name] = in_words(error)
            return
        if standing is Standing.DONE:
            carried.done[name] = wall()
        elif standing is Standing.PENDING:
            carried.pending[name] = "another one is at it"
        else:
            carried.opposed.append(name)

    await amap(tell, participants, limit=_AT_ONCE)
    return carried


async def _told(
    participant: Participant[Any], gid: str, decision: Decision, log: DecisionLog | None
) -> Standing:
    tell = participant.commit if decision is Decision.COMMIT else participant.rollback
    acted = await tell(gid)
    fate = None if acted else await participant.outcome(gid)
    standing = judged(decision, acted=acted, fate=fate)
    if standing is Standing.OPPOSED and fate is Fate.UNKNOWN and log is not None:
        record = await log.read(gid)
        if record is None or record.ended_at is not None:
            return Standing.DONE
    return standing
