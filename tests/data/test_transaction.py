"""One transaction: who is asked, what is decided, and what its caller is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    HeuristicOutcomeError,
    OutcomeUnknownError,
    TimeoutExceededError,
    TwoPhaseError,
)
from aiopatterns.data import (
    Decision,
    Fate,
    HeuristicFound,
    MemoryLog,
    MemoryParticipant,
    Proposal,
    SqliteLastResource,
    SqliteLog,
    TransactionAborted,
    TransactionPending,
    TransactionState,
    TransactionUnknown,
    TwoPhaseCommit,
    Vote,
)
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, fail_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable


VERBS = ("prepare", "commit", "rollback", "in_doubt", "outcome", "forget")


class Scripted:
    """A participant around one in memory, that fails where it is told to.

    It has no ``commit_alone``, so it takes part in two phases even when it is alone.
    """

    def __init__(self, name: str, **script: Any) -> None:
        self.name = name
        self.inner = MemoryParticipant(name)
        self.script = script
        if "commit_alone" in script:  # a protocol asks for attributes that are there, since 3.12
            self.commit_alone = self.__getattr__("commit_alone")

    def __getattr__(self, verb: str) -> Any:
        if verb not in VERBS and verb not in self.script:
            raise AttributeError(verb)

        async def call(*args: Any) -> Any:
            await sleep(0)
            said = self.script.get(verb)
            if isinstance(said, BaseException):
                raise said
            if said is not None:
                return await said(*args) if callable(said) else said
            return await getattr(self.inner, verb)(*args)

        return call

    def branch(self, gid: str) -> Any:
        return self.inner.branch(gid)


class Log:
    """A log in memory that fails where it is told to."""

    def __init__(self, **script: BaseException) -> None:
        self.inner = MemoryLog()
        self.script = script

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if verb in self.script:
                raise self.script[verb]
            return await getattr(self.inner, verb)(*args, **kwargs)

        return call


def made(*participants: Any, log: Any = None, **more: Any) -> TwoPhaseCommit:
    return TwoPhaseCommit(log or MemoryLog(), [*participants], **more)


async def written(transfers: TwoPhaseCommit, *participants: Any) -> Any:
    async with transfers.transaction() as tx:
        for each in participants:
            await tx[each].execute("x", 1)
    return tx


async def test_one_that_is_alone_needs_no_decision():
    a = MemoryParticipant("a")
    transfers = made(a, MemoryParticipant("b"))
    tx = await written(transfers, a)
    assert tx.state is TransactionState.COMMITTED
    assert a.get("x") == 1
    assert await transfers.outcome(tx.gid) is None
    assert repr(tx) == f"Transaction({tx.gid!r}, committed)"


@pytest.mark.parametrize(
    ("said", "error", "state"),
    [
        (False, TwoPhaseError, TransactionState.ABORTED),
        (BackendError("refused"), TwoPhaseError, TransactionState.ABORTED),
        (OutcomeUnknownError("lost", gid="g"), OutcomeUnknownError, TransactionState.UNKNOWN),
    ],
)
async def test_one_that_is_alone_and_does_not_commit(said, error, state):
    a: Any = Scripted("a", commit_alone=said)
    transfers = made(a)
    with capture_events() as events, pytest.raises(error):
        async with transfers.transaction() as tx:
            await tx[a].execute("x", 1)
    assert tx.state is state
    kinds = {type(each) for each in events}
    assert (TransactionUnknown in kinds) is (state is TransactionState.UNKNOWN)


async def test_one_that_cannot_commit_alone_is_asked_twice():
    a = Scripted("a")
    transfers = made(a)
    tx = await written(transfers, a)
    assert a.inner.get("x") == 1
    assert await transfers.outcome(tx.gid) is Decision.COMMIT


async def test_nothing_done_is_committed():
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = made(a, b)
    async with transfers.transaction() as tx:
        assert tx.state.value == "working"
    assert tx.state is TransactionState.COMMITTED
    async with transfers.transaction() as tx:
        assert await tx[a].get("x") is None
        assert await tx[b].get("x") is None
    assert tx.state is TransactionState.COMMITTED, "all have only read"
    assert await transfers.outcome(tx.gid) is None


async def test_a_no_stops_the_others():
    waited: list[str] = []

    async def slow(gid: str) -> Vote:
        try:
            await sleep(3600)
        finally:
            waited.append(gid)
        return Vote.YES

    async def no(gid: str) -> Vote:
        await sleep(0.001)
        return Vote.NO

    a, b = Scripted("a", prepare=slow), Scripted("b", prepare=no)
    transfers = made(a, b)
    with pytest.raises(TwoPhaseError, match="aborted by 'b': it voted no"):
        await written(transfers, a, b)
    assert len(waited) == 1


async def test_the_first_that_refuses_is_named():
    async def late(_: str) -> Vote:
        try:
            await sleep(3600)
        except BaseException:
            raise BackendError("second") from None
        return Vote.YES

    async def late_no(_: str) -> Vote:
        with anyio.CancelScope(shield=True):
            await sleep(0.01)
        return Vote.NO

    a = Scripted("a", prepare=BackendError("first"))
    b, c = Scripted("b", prepare=late), Scripted("c", prepare=late_no)
    with pytest.raises(TwoPhaseError, match=r"aborted by 'a': .*first") as caught:
        await written(made(a, b, c), b, c, a)
    assert isinstance(caught.value.__cause__, BackendError)


async def test_the_answer_of_the_log_is_lost_and_the_decision_is_there():
    log: Any = Log()

    async def lost(proposal: Proposal) -> Any:
        await log.inner.decide(proposal)
        del log.decide
        raise BackendUnavailableError("lost")

    log.decide = lost
    a, b = Scripted("a"), Scripted("b")
    tx = await written(made(a, b, log=log), a, b)
    assert tx.state is TransactionState.COMMITTED


async def test_the_log_is_silent_once_and_has_decided_nothing():
    log: Any = Log()

    async def away(_: Proposal) -> Any:
        del log.decide
        raise BackendUnavailableError("away")

    log.decide = away
    a, b = Scripted("a"), Scripted("b")
    transfers = made(a, b, log=log)
    with pytest.raises(TwoPhaseError, match="a silent log, has aborted it"):
        await written(transfers, a, b)
    assert a.inner.get("x") is None
    assert transfers.statistics().aborted == 1


async def test_the_log_stays_silent():
    a, b = Scripted("a"), Scripted("b")
    transfers = made(a, b, log=Log(decide=BackendUnavailableError("away")))
    with capture_events() as events:
        with pytest.raises(OutcomeUnknownError, match="nobody knows yet") as caught:
            await written(transfers, a, b)
    assert TransactionUnknown(caught.value.gid or "", "BackendUnavailableError: away") in events
    assert await a.inner.outcome(caught.value.gid or "") is Fate.PREPARED
    assert transfers.statistics().unknown == 1


async def test_one_that_is_away_is_told_by_recovery():
    a, b = Scripted("a", commit=BackendUnavailableError("away")), Scripted("b")
    transfers = made(a, b)
    with capture_events() as events:
        tx = await written(transfers, a, b)
    assert tx.pending == ("a",)
    (event,) = [each for each in events if isinstance(each, TransactionPending)]
    assert (event.gid, event.participants) == (tx.gid, ("a",))
    a.script.clear()
    assert (await transfers.recover_once()).committed == (tx.gid,)
    assert a.inner.get("x") == 1


@pytest.mark.promise("data-2pc-heuristic")
async def test_one_that_was_rolled_back_by_hand_is_told_to_the_caller():
    async def by_hand(gid: str) -> bool:
        await a.inner.rollback(gid)
        return False

    a, b = Scripted("a", commit=by_hand), Scripted("b")
    transfers = made(a, b)
    with capture_events() as events:
        with pytest.raises(HeuristicOutcomeError, match="rolled back by a") as caught:
            await written(transfers, a, b)
    gid = caught.value.gid or ""
    assert HeuristicFound(gid, "commit", ("a",)) in events
    assert b.inner.get("x") == 1
    assert transfers.statistics().heuristic == 1


@pytest.mark.promise("data-2pc-heuristic")
async def test_one_that_was_committed_by_hand_is_told_of():
    async def by_hand(gid: str) -> bool:
        await a.inner.commit(gid)
        return False

    a, b = Scripted("a", rollback=by_hand), Scripted("b", prepare=BackendError("no"))
    transfers = made(a, b)

    async def waits(gid: str) -> Vote:
        await a.inner.prepare(gid)
        return Vote.YES

    a.script["prepare"] = waits
    with capture_events() as events, pytest.raises(TwoPhaseError):
        await written(transfers, a, b)
    assert [each.participants for each in events if isinstance(each, HeuristicFound)] == [("a",)]


async def test_nobody_needs_to_listen():
    a, b = Scripted("a"), Scripted("b")
    with pytest.raises(OutcomeUnknownError):
        await written(made(a, b, log=Log(decide=BackendUnavailableError("away"))), a, b)


async def test_a_caller_that_is_cancelled_again_while_it_rolls_back():
    rolling, go_on = anyio.Event(), anyio.Event()

    async def slow(gid: str) -> bool:
        rolling.set()
        await go_on.wait()
        done: bool = await a.inner.rollback(gid)
        return done

    a: Any = Scripted("a", rollback=slow)
    transfers = made(a)

    async def work() -> None:
        async with transfers.transaction() as tx:
            await tx[a].execute("x", 1)
            await sleep(3600)

    task = asyncio.ensure_future(work())
    await sleep(0.001)
    task.cancel()
    await rolling.wait()
    task.cancel()
    await sleep(0.001)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transfers.statistics().aborted == 1
    assert a.inner.get("x") is None


async def test_one_that_cannot_be_rolled_back_is_pending():
    a = Scripted("a", rollback=BackendUnavailableError("away"))
    b = Scripted("b", prepare=BackendError("no"))
    with capture_events() as events, pytest.raises(TwoPhaseError):
        await written(made(a, b), a, b)
    assert [each.pending for each in events if isinstance(each, TransactionAborted)] == [("a",)]


@pytest.mark.parametrize("verb", ["end", "note"])
async def test_the_log_is_away_behind_the_decision(verb):
    away = BackendUnavailableError("away")
    a = Scripted("a", **({"commit": away} if verb == "note" else {}))
    b = Scripted("b")
    tx = await written(made(a, b, log=Log(**{verb: away})), a, b)
    assert tx.state is TransactionState.COMMITTED


async def test_its_time_is_over():
    a = MemoryParticipant("a")
    transfers = made(a, timeout=0.01)
    with pytest.raises(TimeoutExceededError, match=r"longer than 0\.01 s"):
        async with transfers.transaction() as tx:
            await tx[a].execute("x", 1)
            await sleep(60)
    assert tx.state is TransactionState.ABORTED
    assert a.get("x") is None


async def test_who_is_asked_in_the_wrong_moment():
    a, stranger = MemoryParticipant("a"), MemoryParticipant("a")
    unfit: Any = object()
    transfers = made(a)
    tx = transfers.transaction()
    with pytest.raises(ClosedError, match="inside 'async with"):
        tx[a]
    async with tx:
        assert tx[a] is tx[a]
        with pytest.raises(ValueError, match="participants must hold"):
            tx[stranger]
        with pytest.raises(ValueError, match="participants must hold"):
            tx[unfit]
        with pytest.raises(RuntimeError, match="only once"):
            await tx.__aenter__()
    with pytest.raises(ClosedError):
        tx[a]


@pytest.mark.real
async def test_only_one_can_be_the_last(tmp_path):
    log = SqliteLog(tmp_path / "log.db")
    one, two = SqliteLastResource("one", log), SqliteLastResource("two", log)
    async with TwoPhaseCommit(log, [one, two]).transaction() as tx:
        assert tx[one] is tx[one]
        with pytest.raises(ValueError, match="'two' would be the second last resource"):
            tx[two]
    await log.aclose()


async def test_a_log_that_is_away_when_it_begins():
    a = MemoryParticipant("a")
    transfers = made(a, log=Log(identity=BackendUnavailableError("away")))
    with pytest.raises(BackendUnavailableError):
        async with transfers.transaction():
            pytest.fail("entered")
    assert transfers.statistics().active == 0


def conserved(transfers: TwoPhaseCommit, a: Scripted, b: Scripted) -> Callable[[], Any]:
    async def check() -> None:
        statistics = transfers.statistics()
        assert statistics.active == 0
        assert statistics.unknown == 0
        assert a.inner.get("x") == b.inner.get("x")
        assert (a.inner.get("x") == 1) is (statistics.committed == 1)
        assert not await a.inner.in_doubt()
        assert not await b.inner.in_doubt()

    return check


@pytest.mark.untraced
def test_all_or_nothing_wherever_the_caller_is_cancelled():
    def scenario() -> Trial:
        a, b = Scripted("a"), Scripted("b")
        transfers = made(a, b)
        return Trial(written(transfers, a, b), conserved(transfers, a, b))

    visited = cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"))
    assert visited.positions >= 2


@pytest.mark.untraced
def test_all_or_nothing_wherever_a_step_of_the_caller_fails():
    def scenario(fault: Callable[[], None]) -> Trial:
        a: Any = Scripted("a")
        b: Any = Scripted("b")
        transfers = made(a, b)

        async def work() -> None:
            async with transfers.transaction() as tx:
                fault()
                await tx[a].execute("x", 1)
                fault()
                await tx[b].execute("x", 1)
                fault()

        return Trial(work(), conserved(transfers, a, b))

    fail_everywhere(scenario, minimum=3)


async def test_many_at_once():
    a, b = MemoryParticipant("a"), MemoryParticipant("b")
    transfers = made(a, b)

    async def transfer(number: int) -> None:
        async with transfers.transaction() as tx:
            await tx[a].execute(str(number), number)
            await tx[b].execute(str(number), number)

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(transfer, number)
    assert transfers.statistics().committed == 50
    assert all(a.get(str(n)) == b.get(str(n)) == n for n in range(50))
