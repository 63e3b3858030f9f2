"""Decisions: made once, the same for everybody, in every log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.data import (
    Decision,
    DecisionsVolatile,
    Enlisted,
    FencedError,
    MemoryLog,
    PostgresLog,
    Proposal,
    SqliteLog,
)
from aiopatterns.testing import capture_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KINDS = [
    "memory",
    pytest.param("sqlite", marks=pytest.mark.real),  # its clock is that of the host
    pytest.param("postgres", marks=pytest.mark.real),
]


@pytest.fixture(params=KINDS)
async def log(request, tmp_path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryLog()
        return
    if request.param == "sqlite":
        made: Any = SqliteLog(tmp_path / "log.db")
    else:
        made = PostgresLog(request.getfixturevalue("postgres_dsn"))
    async with made:
        yield made


def commit(gid: str, **more: Any) -> Proposal:
    return Proposal(gid, Decision.COMMIT, (Enlisted("a", "Memory"),), "me", 1.0, 2.0, **more)


async def test_the_second_is_told_what_the_first_has_written(log):
    first = await log.decide(commit("g"))
    assert first.decision is Decision.COMMIT
    assert first.participants == (Enlisted("a", "Memory"),)
    assert (first.coordinator, first.created_at, first.deadline_at) == ("me", 1.0, 2.0)
    assert await log.decide(Proposal("g", Decision.ABORT)) == first
    assert await log.read("g") == first
    assert await log.read("h") is None
    aborted = await log.decide(Proposal("h", Decision.ABORT))
    assert (await log.decide(commit("h"))).decision is Decision.ABORT
    assert aborted.participants == ()


async def test_a_log_has_one_identity_for_ever(log):
    identity = await log.identity()
    assert identity == await log.identity()
    assert identity.isalnum()
    assert len(identity) <= 24


async def test_what_waits_is_found_until_it_has_ended(log):
    first = await log.decide(commit("a"))
    await log.decide(commit("b"))
    await log.decide(Proposal("c", Decision.ABORT))
    assert [each.gid for each in await log.unfinished()] == ["a", "b"]
    assert [each.gid for each in await log.unfinished(limit=1)] == ["a"]
    assert await log.unfinished(older_than=60) == []
    await log.note("a", {"x": 5.0}, "b is away")
    noted = replace(first, acked={"x": 5.0}, attempts=1, error="b is away")
    assert await log.read("a") == noted
    await log.end("a")
    await log.end("a")
    assert [each.gid for each in await log.unfinished()] == ["b"]
    assert await log.settled() == ["a"]


async def test_only_what_was_swept_is_forgotten_and_aborts(log):
    for gid in "abc":
        await log.decide(commit(gid))
    await log.decide(Proposal("d", Decision.ABORT))
    await log.end("a")
    await log.end("b")
    assert sorted(await log.settled()) == ["a", "b"]
    await log.swept(["a"])
    assert await log.settled() == ["b"]
    assert await log.purge(older_than=60) == 0
    assert await log.purge(older_than=0) == 2
    assert [await log.read(gid) is None for gid in "abcd"] == [True, False, False, True]


@pytest.mark.promise("data-2pc-fencing")
async def test_one_at_a_time_recovers_and_a_late_one_is_refused(log):
    epoch = await log.claim("a", ttl=0.05)
    assert epoch is not None
    assert await log.claim("a", ttl=0.05) == epoch, "renewed"
    assert await log.claim("b", ttl=60) is None
    await sleep(0.1)
    later = await log.claim("b", ttl=60)
    assert later is not None
    assert later > epoch
    late = Proposal("g", Decision.ABORT, coordinator="a", epoch=epoch)
    with pytest.raises(FencedError, match=f"epoch {epoch} is over"):
        await log.decide(late)
    assert await log.read("g") is None
    assert (await log.decide(late._replace(epoch=later))).epoch == later
    await log.release("a")  # it has not got it
    assert await log.claim("a", ttl=60) is None
    await log.release("b")
    again = await log.claim("a", ttl=60)
    assert again is not None
    assert again > later


async def test_a_log_in_memory_says_so_once():
    log = MemoryLog()
    assert "lost with the process" in repr(log)
    with capture_events() as events:
        identity = await log.identity()
        await log.identity()
    assert events == [DecisionsVolatile(identity)]
    await log.flush()
