"""Recovery: what is done about a promise, by whom, and what a person is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.data import (
    Decision,
    Enlisted,
    Fate,
    HeuristicFound,
    MemoryLog,
    MemoryParticipant,
    Proposal,
    RecoveryReport,
    TransactionsForeign,
    TransactionsRecovered,
    TwoPhaseCommit,
    TwoPhaseRecoveryInterrupted,
    TwoPhaseRecoveryResumed,
    TwoPhaseRecoveryTakenOver,
    Vote,
)
from aiopatterns.data.recovery import KEPT, Move, next_move
from aiopatterns.testing import capture_events, simulate

OLD = 60.0


class Away:
    """Something that answers, or does not."""

    def __init__(self, inner: Any, *verbs: str) -> None:
        self.inner = inner
        self.verbs = verbs
        self.away = False

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self.inner, verb)
        if not callable(found) or verb == "branch":
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            await checkpoint()
            if self.away and (not self.verbs or verb in self.verbs):
                raise BackendUnavailableError("away")
            return await found(*args, **kwargs)

        return call


async def promised(log: MemoryLog, *participants: MemoryParticipant, id: str = "1") -> str:
    """Let participants promise, as a coordinator does that dies then."""
    gid = f"{await log.identity()}-{id}"
    for each in participants:
        await each.branch(gid).execute(id, "new")
        assert await each.prepare(gid) is Vote.YES
    return gid


def proposal(gid: str, *participants: MemoryParticipant) -> Proposal:
    enlisted = tuple(Enlisted(each.name, "Memory") for each in participants)
    return Proposal(gid, Decision.COMMIT, enlisted)


@pytest.mark.parametrize(
    ("decision", "age", "move"),
    [
        (Decision.COMMIT, 0.0, Move.COMMIT),
        (Decision.ABORT, 0.0, Move.ROLL_BACK),
        (None, 30.0, Move.WAIT),
        (None, 30.1, Move.CLAIM),
    ],
)
def test_what_is_to_be_done(decision, age, move):
    assert next_move(decision, age=age, timeout=30.0) is move


def test_a_promise_is_left_to_its_coordinator_until_its_time_is_over():
    async def run() -> None:
        log, a = MemoryLog(), MemoryParticipant("a")
        gid = await promised(log, a)
        transfers = TwoPhaseCommit(log, [a])
        await sleep(10)
        report = await transfers.recover_once()
        assert report == RecoveryReport(pending=(gid,), in_doubt=10.0)
        assert await log.read(gid) is None
        await sleep(OLD)
        with capture_events() as events:
            report = await transfers.recover_once()
        assert report == RecoveryReport(aborted=(gid,))
        assert events == [TransactionsRecovered((), (gid,))]
        assert await a.outcome(gid) is Fate.UNKNOWN
        assert await transfers.outcome(gid) is Decision.ABORT

    simulate(run)


async def test_what_was_decided_is_carried_out():
    log, a, b = MemoryLog(), MemoryParticipant("a"), MemoryParticipant("b")
    gid = await promised(log, a, b)
    await log.decide(proposal(gid, a, b))
    report = await TwoPhaseCommit(log, [a, b]).recover_once()
    assert report == RecoveryReport(committed=(gid,))
    assert a.get("1") == b.get("1") == "new"


async def test_a_decision_to_abort_is_carried_out_too():
    log, a = MemoryLog(), MemoryParticipant("a")
    gid = await promised(log, a)
    await log.decide(Proposal(gid, Decision.ABORT))
    assert await TwoPhaseCommit(log, [a]).recover_once() == RecoveryReport(aborted=(gid,))


async def test_a_promise_that_comes_after_the_end_is_committed():
    """The log says all have committed, and here is one that has not: it follows."""
    log, a = MemoryLog(), MemoryParticipant("a")
    gid = await promised(log, a)
    await log.decide(proposal(gid, a))
    await log.end(gid)
    assert await TwoPhaseCommit(log, [a]).recover_once() == RecoveryReport(committed=(gid,))


async def test_a_participant_that_is_away_is_asked_again():
    log, a = MemoryLog(), MemoryParticipant("a")
    b: Any = Away(MemoryParticipant("b"))
    gid = await promised(log, a, b.inner)
    await log.decide(proposal(gid, a, b))
    transfers = TwoPhaseCommit(log, [a, b])
    b.away = True
    report = await transfers.recover_once()
    assert report.unreachable == ("b",)
    assert report.pending == (gid,)
    record = await log.read(gid)
    assert record is not None
    assert {*record.acked} == {"a"}
    assert record.error == "BackendUnavailableError: away"
    b.away = False
    assert await transfers.recover_once() == RecoveryReport(committed=(gid,))


async def test_one_that_cannot_be_rolled_back_stays_pending():
    log = MemoryLog()
    a: Any = Away(MemoryParticipant("a"), "rollback")
    gid = await promised(log, a.inner)
    await log.decide(Proposal(gid, Decision.ABORT))
    a.away = True
    report = await TwoPhaseCommit(log, [a]).recover_once()
    assert report.pending == (gid,)


async def test_a_participant_that_is_not_known_here_is_waited_for():
    log, a, b = MemoryLog(), MemoryParticipant("a"), MemoryParticipant("b")
    gid = await promised(log, a, b)
    await log.decide(proposal(gid, a, b))
    report = await TwoPhaseCommit(log, [a]).recover_once()
    assert report.pending == (gid,)
    record = await log.read(gid)
    assert record is not None
    assert record.error == "b: no such"
    assert await TwoPhaseCommit(log, [a, b]).recover_once() == RecoveryReport(committed=(gid,))


@pytest.mark.promise("data-2pc-heuristic")
async def test_one_that_was_resolved_by_hand_is_reported_until_it_is_mended():
    log, a, b = MemoryLog(), MemoryParticipant("a"), MemoryParticipant("b")
    gid = await promised(log, a, b)
    await log.decide(proposal(gid, a, b))
    await a.rollback(gid)
    transfers = TwoPhaseCommit(log, [a, b])
    with capture_events() as events:
        for _ in range(3):
            assert (await transfers.recover_once()).heuristic == (gid,)
    assert events == [HeuristicFound(gid, "commit", ("a",))], "told once, reported always"
    await transfers.resolve(gid)
    assert await transfers.recover_once() == RecoveryReport()


@pytest.mark.promise("data-2pc-heuristic")
async def test_one_that_was_committed_by_hand_before_an_abort_is_reported():
    log, a, b = MemoryLog(), MemoryParticipant("a"), MemoryParticipant("b")
    gid = await promised(log, a, b)
    await a.commit(gid)
    await log.decide(Proposal(gid, Decision.ABORT))
    transfers = TwoPhaseCommit(log, [a, b])
    assert (await transfers.recover_once()).heuristic == (gid,)
    assert transfers.statistics().heuristic == 1


async def test_what_another_log_decides_is_left_alone():
    a = MemoryParticipant("a")
    gid = await promised(MemoryLog(), a)
    transfers = TwoPhaseCommit(MemoryLog(), [a], timeout=1e-9)
    with capture_events() as events:
        async with transfers.recovery(interval=0.01, lease=1) as recovery:
            while recovery.statistics().turns < 3:
                await sleep(0.01)
    assert recovery.statistics().last.foreign == (gid,)
    assert [each for each in events if isinstance(each, TransactionsForeign)] == [
        TransactionsForeign((gid,))
    ]
    assert await a.outcome(gid) is Fate.PREPARED


def test_it_recovers_while_it_is_open_and_forgets_what_is_over():
    async def run() -> None:
        log, a, b = MemoryLog(), MemoryParticipant("a"), MemoryParticipant("b")
        gid = await promised(log, a, b)
        await log.decide(proposal(gid, a, b))
        other = await promised(log, a, b, id="2")
        transfers = TwoPhaseCommit(log, [a, b])
        async with transfers.recovery() as recovery:
            await sleep(OLD)
            statistics = recovery.statistics()
            assert (statistics.committed, statistics.aborted) == (1, 1)
            assert statistics.leading
            assert await a.outcome(gid) is Fate.UNKNOWN, "forgotten"
            assert await transfers.outcome(gid) is Decision.COMMIT
            assert await transfers.outcome(other) is Decision.ABORT
        assert not recovery.statistics().leading
        async with transfers.recovery(interval=3600 * 6, lease=3600 * 12):
            await sleep(KEPT + 3600 * 8)
        assert await transfers.outcome(gid) is None

    simulate(run)


def test_another_process_takes_over():
    async def lead_for(transfers: TwoPhaseCommit, seconds: float) -> None:
        async with transfers.recovery() as recovery:
            await sleep(seconds)
            assert recovery.statistics().leading

    async def run() -> None:
        log, a = MemoryLog(), MemoryParticipant("a")
        one, two = TwoPhaseCommit(log, [a]), TwoPhaseCommit(log, [a])
        with capture_events() as events:
            async with anyio.create_task_group() as group:
                group.start_soon(lead_for, one, 20)
                await sleep(1)
                async with two.recovery() as second:
                    await sleep(18)
                    assert not second.statistics().leading
                    assert second.statistics().turns == 0
                    await sleep(20)
                    assert second.statistics().leading
        taken = [each.epoch for each in events if isinstance(each, TwoPhaseRecoveryTakenOver)]
        assert taken == [1, 2]

    simulate(run)


@pytest.mark.promise("data-2pc-fencing")
def test_one_that_stood_still_is_refused():
    async def run() -> None:
        log: Any = Away(MemoryLog())
        a = MemoryParticipant("a")
        gid = await promised(log, a)
        await sleep(OLD)
        transfers = TwoPhaseCommit(log, [a])
        decide = log.inner.decide
        struck: list[str] = []

        async def late(asked: Proposal) -> Any:
            if not struck:
                struck.append(asked.gid)
                await sleep(100)  # the lease ends meanwhile, and another one takes it
                await log.inner.claim("another", ttl=30)
            return await decide(asked)

        log.decide = late
        async with transfers.recovery() as recovery:
            await sleep(101)
            assert await log.read(gid) is None, "its claim was refused"
            assert not recovery.statistics().leading
            await sleep(OLD)
            assert recovery.statistics().aborted == 1, "it holds the lease again, later"

    simulate(run)


@pytest.mark.parametrize("what", ["log", "participant"])
def test_an_outage_is_told_once_and_its_end_too(what):
    async def run() -> None:
        log: Any = Away(MemoryLog())
        a: Any = Away(MemoryParticipant("a"))
        transfers = TwoPhaseCommit(log, [a])
        with capture_events() as events:
            async with transfers.recovery() as recovery:
                await sleep(10)
                struck = log if what == "log" else a
                struck.away = True
                await sleep(OLD)
                struck.away = False
                await sleep(OLD)
                turns = recovery.statistics().turns
        told = [type(each) for each in events if "interr" in each.name or "resum" in each.name]
        assert told == [TwoPhaseRecoveryInterrupted, TwoPhaseRecoveryResumed]
        assert turns > 5

    simulate(run)


def test_it_may_be_left_while_the_log_is_away():
    async def run() -> None:
        log: Any = Away(MemoryLog())
        async with TwoPhaseCommit(log, [MemoryParticipant("a")]).recovery():
            await sleep(10)
            log.away = True

    simulate(run)


def test_who_leaves_without_the_lease_gives_nothing_back():
    async def run() -> None:
        log, a = MemoryLog(), MemoryParticipant("a")
        assert await log.claim("another", ttl=OLD) == 1
        async with TwoPhaseCommit(log, [a]).recovery() as recovery:
            await sleep(10)
            assert not recovery.statistics().leading
        assert await log.claim("another", ttl=OLD) == 1

    simulate(run)


def test_it_needs_no_listener():
    async def run() -> None:
        log: Any = Away(MemoryLog())
        a = MemoryParticipant("a")
        gid = await promised(log, a)
        await promised(MemoryLog(), a, id="2")
        async with TwoPhaseCommit(log, [a]).recovery() as recovery:
            log.away = True
            await sleep(OLD)
            log.away = False
            await sleep(OLD)
            assert recovery.statistics().aborted == 1
        assert await a.outcome(gid) is Fate.UNKNOWN

    simulate(run)


async def test_a_decision_of_this_moment_is_left_to_its_coordinator():
    log, a = MemoryLog(), MemoryParticipant("a")
    gid = await promised(log, a)
    await log.decide(proposal(gid, a))
    async with TwoPhaseCommit(log, [a]).recovery(interval=1, lease=2) as recovery:
        while not recovery.statistics().turns:
            await sleep(0.001)
        last = recovery.statistics().last
        assert last.pending == (gid,)
        assert await a.outcome(gid) is Fate.PREPARED
