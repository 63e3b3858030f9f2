"""Two-phase commits and sagas whose processes die, beside stores that are parted and meet again."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ConflictError,
    HeuristicOutcomeError,
    OutcomeUnknownError,
    SagaError,
    TwoPhaseError,
)
from aiopatterns.data import (
    MemoryLog,
    MemoryParticipant,
    MemorySagaStore,
    Saga,
    TwoPhaseCommit,
)
from aiopatterns.data.sagajournal import SagaState
from aiopatterns.resilience import Retry
from aiopatterns.resilience.backoff import Constant
from tests.data.syncstorm import storm
from tests.data.test_conflict import STRATEGIES
from tests.data.twophaseplaces import Died, Mortal
from tests.sweep.run import FOREVER

if TYPE_CHECKING:
    from tests.sweep.run import Run

__all__ = ["data"]

TRANSFERS = 9
KEYS = 3
SAGAS = 5
STEPS = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
PATIENCE = 100.0


async def data(run: Run) -> None:
    """All three at once, while the wall clock jumps by a little and by much."""
    strategies = [*STRATEGIES.values()]
    async with create_task_group() as tasks:
        tasks.start_soon(transfers, run)
        tasks.start_soon(sagas, run)
        tasks.start_soon(parted, run.dice.choice(strategies))
        for _ in range(3):
            await sleep(run.dice.random())
            run.step_clock(run.dice.choice([-1.0, 1.0, 3_600.0]))


async def parted(strategy: Any) -> None:
    """Stores that lose sight of each other end with the same."""
    await storm(strategy, steps=5)


class Peril:
    """The life of one process: at any call it may die, and any answer may be lost."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.dead = False

    async def at(self, *point: str) -> None:
        """Before or after a call."""
        del point
        await sleep(self.run.dice.choice([0.0, 0.0, 0.05, 0.4]))
        self.dead = self.dead or self.run.chance(0.02)
        if self.dead:
            raise Died
        if self.run.chance(0.03):
            raise BackendUnavailableError("the answer is lost")


async def transfers(run: Run) -> None:
    """Each transfer has happened in both places or in none, as its caller was told.

    Each moves another power of two, so the balances tell which of them have happened.
    """
    log, places = MemoryLog(), [MemoryParticipant("left"), MemoryParticipant("right")]
    told: dict[str, int] = {"committed": 0, "aborted": 0}

    async def transfer(number: int) -> None:
        amount, key = 1 << number, f"k{number % KEYS}"
        await sleep(run.dice.random() * 2)
        peril: Any = Peril(run)
        ends = [Mortal(each, peril, each.name) for each in places]
        commit: Any = TwoPhaseCommit(Mortal(log, peril, "log"), ends, timeout=1.0)
        try:
            async with commit.transaction() as tx:
                for sign, end in zip((-1, 1), ends, strict=True):
                    held = await tx[end].get(key) or 0
                    await tx[end].execute(key, held + sign * amount)
        except HeuristicOutcomeError:
            raise
        except (Died, OutcomeUnknownError, BackendUnavailableError):
            return
        except (TwoPhaseError, ConflictError) as error:
            if not peril.dead and not isinstance(error.__cause__, Died):
                told["aborted"] += amount
        else:
            told["committed"] += amount

    async def recover() -> None:
        while True:
            await sleep(run.dice.random())
            await TwoPhaseCommit(log, places, timeout=1.0).recover_once()

    async with create_task_group() as tasks:
        tasks.start_soon(recover)
        async with create_task_group() as clients:
            for number in range(TRANSFERS):
                clients.start_soon(transfer, number)
        tasks.cancel_scope.cancel()
    await until_at_rest(log, places)
    left, right = (sum(balances(each)) for each in places)
    assert left == -right
    assert right & told["committed"] == told["committed"]
    assert right & told["aborted"] == 0


def balances(place: MemoryParticipant) -> list[Any]:
    return [place.get(f"k{key}") or 0 for key in range(KEYS)]


async def until_at_rest(log: MemoryLog, places: list[MemoryParticipant]) -> None:
    """Recover until nothing is in doubt any more."""
    deadline = monotonic() + PATIENCE
    while True:
        report = await TwoPhaseCommit(log, places, timeout=1.0).recover_once()
        assert not report.heuristic
        if not report.pending and not any([await each.in_doubt() for each in places]):
            return
        assert monotonic() < deadline
        await sleep(0.5)


class Store:
    """A store of sagas whose answers are lost at times."""

    def __init__(self, run: Run, inner: MemorySagaStore) -> None:
        self.run = run
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def call(*args: Any, **options: Any) -> Any:
            await self.peril()
            answer = await method(*args, **options)
            await self.peril()
            return answer

        return call

    async def peril(self) -> None:
        await sleep(self.run.dice.choice([0.0, 0.0, 0.02]))
        if self.run.chance(0.03):
            raise BackendUnavailableError("the answer is lost")


async def sagas(run: Run) -> None:
    """Each saga is done as a whole, or all that it began is undone, by whatever process."""
    inner = MemorySagaStore()
    store: Any = Store(run, inner)
    done: defaultdict[int, list[str]] = defaultdict(list)

    def process() -> Saga[Any]:
        saga: Saga[Any] = Saga(
            "sweep",
            store,
            context=dict[str, int],
            retry=Retry(on=OSError, attempts=3, backoff=Constant(0.05)),
        )
        for name, after in STEPS.items():
            add(saga, name, after)
        return saga

    def add(saga: Saga[Any], name: str, after: tuple[str, ...]) -> None:
        async def act(context: dict[str, int]) -> None:
            if run.chance(0.15):
                raise run.dice.choice([OSError, ValueError])(name)
            done[context["number"]].append(name)
            await sleep(run.dice.random() * 0.2)

        async def undo(context: dict[str, int]) -> None:
            await sleep(run.dice.random() * 0.2)
            if run.chance(0.05):
                raise OSError(name)
            done[context["number"]].append(f"-{name}")

        saga.step(name=name, after=after, compensate=undo)(act)

    async def one(number: int) -> None:
        with (
            suppress(SagaError, BackendUnavailableError),
            move_on_after(run.dice.choice([0.1, 0.5, FOREVER, FOREVER])),
        ):
            await process().run({"number": number}, id=f"s{number}")

    async with create_task_group() as tasks:
        for number in range(SAGAS):
            tasks.start_soon(one, number)
    await finished(process())
    for number in range(SAGAS):
        found = await inner.read("sweep", f"s{number}")
        if found is None:
            assert not done[number]
        elif found.state is SagaState.COMPLETED:
            assert set(done[number]) == STEPS.keys()
        else:
            assert found.state is SagaState.COMPENSATED
            assert undone(done[number])


async def finished(saga: Saga[Any]) -> None:
    """Recover until no saga is under way; what was given up, a person tells to go on."""
    deadline = monotonic() + PATIENCE
    while True:
        with suppress(BackendUnavailableError, SagaError):
            await saga.recover_once()
            left = await saga.unfinished()
            if not left:
                return
            for each in left:
                if each.state is SagaState.STUCK:
                    await saga.resume(each.id)
        assert monotonic() < deadline
        await sleep(1)


def undone(log: list[str]) -> bool:
    """Whether after the last beginning of each step comes its undoing."""
    last = {each.lstrip("-"): each for each in log}
    return all(each.startswith("-") for each in last.values())
