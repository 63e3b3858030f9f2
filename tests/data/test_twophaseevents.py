"""Events of two-phase commit: what they are called, and how loud they are."""

from __future__ import annotations

import pytest

from aiopatterns.core.errors import TwoPhaseError
from aiopatterns.data import MemoryLog, MemoryParticipant, TwoPhaseCommit, twophaseevents
from aiopatterns.data.decisions import DecisionsVolatile
from aiopatterns.testing import capture_events

KINDS = [getattr(twophaseevents, each) for each in twophaseevents.__all__]


def test_every_event_has_a_name_of_its_own():
    assert len({each.name for each in KINDS}) == len(KINDS) == 9
    assert all(each.name.startswith("aiopatterns.twophase.") for each in KINDS)


def test_what_only_a_person_can_mend_is_an_error():
    loud = {each.__name__ for each in KINDS if each.level == "error"}
    assert loud == {"HeuristicFound", "TransactionUnknown"}


async def test_a_transaction_tells_why_it_was_aborted():
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = TwoPhaseCommit(MemoryLog(), [a, b])
    with capture_events() as events:
        with pytest.raises(TwoPhaseError):
            async with transfers.transaction() as tx:
                await tx[a].execute("x", 1)
                await tx[b].execute("x", 1)
                async with transfers.transaction() as faster:
                    await faster[a].execute("x", 2)
    assert [type(each) for each in events] == [
        DecisionsVolatile,
        twophaseevents.TransactionAborted,
    ]
    assert isinstance(events[1], twophaseevents.TransactionAborted)
    assert events[1].gid == tx.gid
    assert events[1].pending == ()
    assert "'x' was changed" in events[1].reason
