"""A participant in memory: it promises, locks, remembers and forgets as a database does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import ConflictError
from aiopatterns.data import Fate, MemoryLog, MemoryParticipant, TwoPhaseCommit, Vote
from aiopatterns.testing import simulate


async def test_nobody_sees_what_is_not_committed():
    a = MemoryParticipant("a")
    branch = a.branch("g")
    await branch.execute("x", 1)
    assert await branch.get("x") == 1
    assert a.get("x") is None
    assert await a.prepare("g") is Vote.YES
    assert await a.outcome("g") is Fate.PREPARED
    ((gid, age),) = await a.in_doubt()
    assert (gid, age >= 0) == ("g", True)
    assert await a.commit("g")
    assert a.get("x") == 1
    assert not await a.commit("g")
    assert await a.outcome("g") is Fate.COMMITTED
    await a.forget(["g"])
    assert await a.outcome("g") is Fate.UNKNOWN


async def test_none_removes_a_key():
    a = MemoryParticipant("a")
    for number, value in enumerate([1, None, None]):
        await a.branch(str(number)).execute("x", value)
        assert await a.commit_alone(str(number))
        assert a.get("x") == value
    assert a.version("x") == 3
    assert await a.outcome("0") is Fate.UNKNOWN, "there was no decision to remember"


async def test_what_was_read_must_not_change_before_the_vote():
    a = MemoryParticipant("a")
    reader, writer = a.branch("r"), a.branch("w")
    assert await reader.get("x") is None
    await writer.execute("x", 1)
    assert await a.prepare("w") is Vote.YES
    with pytest.raises(ConflictError, match="'x' was changed"):
        await a.prepare("r")  # it is locked
    assert await a.rollback("w")
    again = a.branch("r")
    await again.get("x")
    assert await a.prepare("r") is Vote.READ_ONLY
    assert await a.commit_alone(_read(a, "s"))
    assert not await a.rollback("r")


def _read(a: MemoryParticipant, gid: str) -> str:
    a.branch(gid)
    return gid


async def test_work_that_was_not_promised_is_rolled_back():
    a = MemoryParticipant("a")
    await a.branch("g").execute("x", 1)
    assert await a.rollback("g")
    assert not await a.rollback("g")
    assert repr(a) == "MemoryParticipant('a')"


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("xyz"), st.booleans())))
def test_transfers_conserve_the_sum(moves):
    async def run() -> None:
        a, b = MemoryParticipant("a"), MemoryParticipant("b")
        transfers = TwoPhaseCommit(MemoryLog(), [a, b])
        for source, target, fails in moves:
            try:
                async with transfers.transaction() as tx:
                    held = int(str(await tx[a].get(source) or 0))
                    owed = int(str(await tx[b].get(target) or 0))
                    await tx[a].execute(source, held - 1)
                    await tx[b].execute(target, owed + 1)
                    if fails:
                        raise LookupError
            except LookupError:
                pass
        total = sum(int(str(each.get(key) or 0)) for each in (a, b) for key in "xyz")
        assert total == 0
        assert transfers.statistics().committed == sum(not fails for *_, fails in moves)
        assert not await a.in_doubt()

    simulate(run)
