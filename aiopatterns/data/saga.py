"""Saga: several steps in several places, all of them, or what was done is undone.

No transaction spans a flight, a hotel and a card. A saga does the steps one after the other, or
side by side, and has for each a *compensation* that undoes it; when one fails, what was done is
undone in reverse order::

    checkout = Saga("checkout", SqliteSagaStore("sagas.db"))

    @checkout.step(compensate=release)          reserve ---> pay ---> ship
    async def reserve(order): ...                  |          |        |
                                                   |          |      fails
    @checkout.step(compensate=refund)              v          v
    async def pay(order): ...                   release <--- refund

    @checkout.step()
    async def ship(order): ...

What happens is written down before it happens, so another process goes on when this one dies.

Guarantees:

* A step is written down before its action is called. Whatever has been started is in the end
  done, or undone: by this process, or by one whose recovery takes over.
* A step whose outcome nobody knows (a timeout, a lost answer, a crash, a cancellation) is undone:
  a compensation has to accept that its action never happened, or happens while it runs. A
  :class:`~aiopatterns.data.SagaBarrier` makes that easy.
* Compensations run in reverse order, those of steps that ran side by side, side by side. They are
  repeated; one that is given up leaves the saga stuck, is told, and waits for ``resume``.
* Behind the pivot there is no way back: steps are repeated until they succeed.
* One process at a time has a saga. One that was thought dead is refused by the store and stops.
* An id runs once: another ``run`` of it waits for the end, takes over if the process that had it
  has died, and gives the same result.
* A saga that was begun by other steps than those of this process is left alone.

Not guaranteed: isolation. Others see what a step has done before the saga has ended, and what is
undone again. Nor that an action or a compensation is called only once: a process may die after
the call and before it is written down. Both have to be repeatable, or to ask a barrier.

Source: Garcia-Molina and Salem, "Sagas", SIGMOD 1987; Richardson, "Microservices Patterns", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, final, overload

import msgspec
from anyio import get_cancelled_exc_class

from aiopatterns.backends.names import check_name
from aiopatterns.core.clock import rng, sleep, wall
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import correlation_id, new_id
from aiopatterns.core.errors import CodecError, ConflictError, SagaError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.validate import count, instance, non_negative, positive
from aiopatterns.data.sagaevents import SagaStuck, SagaTakenOver
from aiopatterns.data.sagajournal import ENDED, Journal, SagaState, read_journal
from aiopatterns.data.sagarecovery import SagaRecovery, Sweep
from aiopatterns.data.sagarun import SagaLostError, SagaRun, SagaTerms
from aiopatterns.data.sagasteps import Steps
from aiopatterns.data.sagastore import Filed
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiopatterns.data.sagajournal import StepOutcome
    from aiopatterns.data.sagaplan import Action, Plan, Step
    from aiopatterns.data.sagarecovery import SagaReport
    from aiopatterns.data.sagastore import Listed, SagaStore

__all__ = ["LEASE", "Saga", "SagaResult", "SagaStatistics"]

C = TypeVar("C")
F = TypeVar("F", bound="Callable[..., object]")

#: Seconds for which a process that has a saga need not be heard of.
LEASE: Final = 10.0
# Seconds between looks at a saga that another process has.
_LOOK: Final = Exponential(initial=0.02, cap=0.5, jitter="equal")
_NEEDS: Final = ("create", "read", "save", "claim", "due", "unfinished", "purge")
_PLAIN: Final = (dict, list, str, bytes, int, float, type(None))


@final
@dataclass(frozen=True, slots=True)
class SagaResult(Generic[C]):
    """A saga as its store has it.

    Attributes:
        id: Its id.
        state: Where it is.
        context: What its steps are called with, with all that they have changed.
        outcomes: What became of each step, in the order of their declaration.
        cause: Why it was undone, in words; empty if it was not.
    """

    id: str
    state: SagaState
    context: C
    outcomes: tuple[StepOutcome, ...]
    cause: str


@final
@dataclass(frozen=True, slots=True)
class SagaStatistics:
    """What this process has done; recovery has figures of its own.

    Attributes:
        running: Calls of ``run`` and ``resume`` that have not returned.
        completed: Calls that returned a result.
        failed: Calls that raised ``SagaError``.
    """

    running: int
    completed: int
    failed: int


@final
class Saga(Generic[C]):
    """Steps, what undoes them, and where it is written down.

    A saga has no background work and may be made at module level; only its recovery has.

    Args:
        name: Its name, in its store and in events.
        store: Where it is kept.
        context: Type of what the steps are called with: a dataclass, a ``TypedDict``, a msgspec
            ``Struct``. Without it, plain data: dicts, lists, text, numbers.
        version: Of its steps. Change it when functions change so that a saga which is half done
            must not go on with the new ones; what is stored depends on it and on names, order,
            pivot and compensations of the steps.
        timeout: Seconds for the way to the pivot, or to the end; then it is undone.
        retry: How compensations, and steps behind the pivot, are repeated before a person has to
            look; by default any error, 8 attempts, up to 30 s apart.
        lease: Seconds for which a process that has a saga need not be heard of.
        grace: Seconds that ``run`` goes on undoing when it is cancelled; then recovery does.

    Attributes:
        name: Its name.
        steps: Its steps by their names; to be looked at only.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of its range.

    Example::

        checkout = Saga("checkout", PostgresSagaStore(dsn))


        @checkout.step(compensate=refund, timeout=10)
        async def pay(order): ...


        await checkout.run({"order": 17}, id="order-17")
    """

    __slots__ = (
        "_completed",
        "_decode",
        "_failed",
        "_kind",
        "_running",
        "_steps",
        "_terms",
        "name",
        "steps",
    )

    @overload
    def __init__(
        self: Saga[Any],
        name: str,
        store: SagaStore,
        *,
        context: None = None,
        version: int = 1,
        timeout: float | None = None,
        retry: Retry | None = None,
        lease: float = LEASE,
        grace: float = 30.0,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        store: SagaStore,
        *,
        context: type[C],
        version: int = 1,
        timeout: float | None = None,
        retry: Retry | None = None,
        lease: float = LEASE,
        grace: float = 30.0,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        store: SagaStore,
        *,
        context: type[C] | None = None,
        version: int = 1,
        timeout: float | None = None,
        retry: Retry | None = None,
        lease: float = LEASE,
        grace: float = 30.0,
    ) -> None:
        self.name: str = check_name("name", name)
        self._terms = SagaTerms(
            name=self.name,
            store=_check_store(store),
            lease=positive("lease", lease),
            retry=_PATIENT if retry is None else instance("retry", retry, Retry, "a Retry"),
            timeout=None if timeout is None else Timeout(positive("timeout", timeout)),
            grace=non_negative("grace", grace),
        )
        self._kind = context
        self._decode: Callable[[bytes], Any] = MSGPACK.decoder(Any if context is None else context)
        self._steps: Steps[C] = Steps(name, count("version", version, minimum=0))
        self.steps: dict[str, Step[C]] = self._steps.declared
        self._running = self._completed = self._failed = 0

    def __repr__(self) -> str:
        return f"Saga({self.name!r}, {len(self.steps)} steps)"

    # -- steps ---------------------------------------------------------------------------------

    @overload
    def step(self, fn: F, /) -> F: ...
    @overload
    def step(
        self,
        *,
        after: Iterable[Action[C] | str] | None = None,
        compensate: Callable[[C], object] | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        pivot: bool = False,
        name: str | None = None,
    ) -> Callable[[F], F]: ...
    def step(self, *given: Any, **options: Any) -> Any:
        """Make a function a step; use it as a decorator.

        The function stays what it is. It is called with the context, and may change it; a plain
        function is called in a thread.

        Args:
            *given: The function; by ``@saga.step`` without parentheses.
            **options: As follows.

                after: Steps (or their names) that must have succeeded before; by default the one
                that was declared before. Two steps after the same one run side by side.

                compensate: Function of the context that undoes it, also if it never happened, or
                only in part.

                retry: What is done about an action that fails, before the saga is undone.

                timeout: Seconds for one attempt of the action, and of the compensation. An action
                that takes longer has no known outcome.

                pivot: Nothing is undone any more once this step has succeeded.

                name: By default that of the function.

        Raises:
            ValueError: The name is taken, or ``after`` names what is no earlier step.
            TypeError: An option is of another type, or is none.
        """
        add = self._steps.add
        return add(*given) if given else partial(add, **options)

    # -- running -------------------------------------------------------------------------------

    async def run(self, context: C, *, id: str | None = None) -> SagaResult[C]:
        """Run a saga to its end, or find out how it ended.

        Args:
            context: What its steps are called with. With an ``id`` that is known already, the
                context of the first call counts.
            id: Names this run, for ever; text of at most 1,024 bytes. None makes a fresh one.

        Returns:
            The saga, completed.

        Raises:
            SagaError: A step failed, and what was done was undone, or is stuck (the message and
                ``outcomes`` say which); the step's error is its cause, if it was raised here. Or
                another call had it, and the store forgot it before its end was seen here.
            ConflictError: The id is that of a saga which other steps have begun.
            BackendError: The store does not answer. Nothing was called, or recovery goes on.
            CodecError: The context cannot be encoded; nothing was called.
            TypeError: It would come back from the store as another type.

        Cancellation: what was done is undone first, shielded, for the saga's ``grace``; what is
            left, and what is behind the pivot, is for recovery. A second ``Task.cancel()`` leaves
            it to recovery at once.

        Complexity: steps + 1 writes; 2 for a repetition.
        """
        plan = self._steps.plan()
        self._check_context(context)
        name = new_id() if id is None else check_name("id", id)
        self._running += 1
        try:
            return await self._run(plan, context, name)
        finally:
            self._running -= 1

    async def resume(self, id: str) -> SagaResult[C]:
        """Go on with a saga that is stuck: what was given up is tried again.

        One that is not stuck is waited for, as by ``run``.

        Args:
            id: Its id.

        Raises:
            ValueError: There is none of that id.
            SagaError: It was undone, or is stuck again.
            ConflictError: Other steps have begun it.
            BackendError: The store does not answer.

        Cancellation: as of ``run``.
        """
        plan = self._steps.plan()
        self._running += 1
        try:
            found = await self._terms.store.read(self.name, check_name("id", id))
            if found is None:
                msg = f"there is no saga {id!r} of {self.name!r}"
                raise ValueError(msg)
            if found.state is SagaState.STUCK:
                self._check_definition(found, plan)
                run = await self._take(id)
                if run is not None:
                    return await self._driven(plan, run)
            return await self._joined(plan, found)
        finally:
            self._running -= 1

    async def find(self, id: str) -> SagaResult[C] | None:
        """Return a saga as it is now, or None. 1 read.

        Raises:
            CodecError: Its context is of another type.
        """
        found = await self._terms.store.read(self.name, check_name("id", id))
        return None if found is None else self._result(found)

    async def unfinished(self, *, limit: int = 100) -> list[Listed]:
        """Return sagas that have not ended, also those that are stuck or need a migration.

        Args:
            limit: How many at most.
        """
        return await self._terms.store.unfinished(self.name, limit=count("limit", limit))

    def statistics(self) -> SagaStatistics:
        """Return the figures so far."""
        return SagaStatistics(self._running, self._completed, self._failed)

    # -- recovery ------------------------------------------------------------------------------

    def recovery(
        self, *, interval: float = 5.0, lease: float | None = None, limit: int = 16
    ) -> SagaRecovery:
        """Return the loop that ends what other processes have left: ``async with``.

        Args:
            interval: Seconds between looks.
            lease: Seconds for which this process need not be heard of while it has a saga; by
                default the saga's.
            limit: Sagas in hand at once.

        Raises:
            ValueError: A value is out of its range, or the steps make no saga.
            TypeError: A value is of another type.
        """
        sweep = self._sweep(lease)
        return SagaRecovery(sweep, interval=interval, limit=limit, grace=self._terms.grace)

    async def recover_once(self, *, lease: float | None = None, limit: int = 100) -> SagaReport:
        """End, now, what other processes have left.

        Args:
            lease: As of ``recovery``.
            limit: How many sagas at most; they go on side by side.

        Raises:
            BackendError: The store does not answer.

        Cancellation: what has not ended is given back.
        """
        return await self._sweep(lease).once(count("limit", limit))

    def _sweep(self, lease: float | None) -> Sweep:
        terms = self._terms
        if lease is not None:
            terms = replace(terms, lease=positive("lease", lease))
        plan = self._steps.plan()
        return Sweep(terms, plan.definition, partial(self._take, terms=terms))

    # --------------------------------------------------------------------------- private core

    def _check_context(self, context: C) -> None:
        """Refuse what would come back as something else.

        Raises:
            TypeError: It would.
        """
        if self._kind is None and type(context) not in _PLAIN and not isinstance(context, bool):
            msg = (
                "context must be plain data (dict, list, text, numbers), or its type must be known,"
                f" as in Saga({self.name!r}, store, context={type(context).__name__}): {context!r}"
            )
            raise TypeError(msg)

    async def _run(self, plan: Plan[C], context: C, id: str) -> SagaResult[C]:
        while True:
            run = SagaRun(self._terms, plan, *self._new(plan, context, id))
            try:
                if await run.create():
                    return await self._driven(plan, run)
            except get_cancelled_exc_class():
                await run.wind_up()
                raise
            found = await self._terms.store.read(self.name, id)
            if found is not None:  # else it was forgotten in between
                return await self._joined(plan, found)

    def _new(self, plan: Plan[C], context: C, id: str) -> tuple[Filed, Journal, C]:
        timeout = self._terms.timeout
        journal = Journal(
            MSGPACK.encode(context),
            {},
            deadline_at=None if timeout is None else wall() + timeout.seconds,
            correlation_id=correlation_id(),
        )
        owner = new_id()
        filed = Filed(self.name, id, plan.definition, SagaState.RUNNING, owner, 1, 0, b"")
        return filed, journal, context

    async def _driven(self, plan: Plan[C], run: SagaRun[C]) -> SagaResult[C]:
        """Drive a saga that is ours, for a caller who waits for its end."""
        try:
            await run.drive()
        except SagaLostError:
            found = await self._terms.store.read(self.name, run.filed.id)
            return await self._joined(plan, found or run.filed)
        except get_cancelled_exc_class():
            await run.wind_up()
            raise
        return self._concluded(self._result(run.filed, run), run.error)

    async def _joined(self, plan: Plan[C], found: Filed) -> SagaResult[C]:
        """Wait for the end of a saga that somebody has, or take it over when nobody has it."""
        looks = 0
        while found.state not in ENDED and found.state is not SagaState.STUCK:
            self._check_definition(found, plan)
            run = await self._take(found.id)
            if run is not None:
                return await self._driven(plan, run)
            looks += 1
            await sleep(_LOOK.delay(looks, rng=rng()))
            now = await self._terms.store.read(self.name, found.id)
            if now is None:
                msg = f"saga {found.id!r} of {self.name!r} was forgotten before its end was seen"
                raise SagaError(msg)
            found = now
        return self._concluded(self._result(found), None)

    def _check_definition(self, found: Filed, plan: Plan[C]) -> None:
        if found.definition != plan.definition:
            msg = (
                f"saga {found.id!r} of {self.name!r} was begun by other steps"
                f" ({found.definition}, here {plan.definition}); it needs a process that has them"
            )
            raise ConflictError(msg, key=found.id)

    async def _take(self, id: str, *, terms: SagaTerms | None = None) -> SagaRun[C] | None:
        """Claim a saga that nobody has; one whose record cannot be read becomes stuck."""
        terms = terms or self._terms
        filed = await terms.store.claim(self.name, id, owner=new_id(), lease=terms.lease)
        if filed is None:
            return None
        try:
            journal = read_journal(filed.body)
            context = cast("C", self._decode(journal.context))
        except CodecError as error:
            stuck = {"state": SagaState.STUCK, "revision": filed.revision + 1}
            await terms.store.save(msgspec.structs.replace(filed, **stuck), lease=0)
            if listening():
                emit(SagaStuck(self.name, id, (), str(error)))
            return None
        if listening():
            emit(SagaTakenOver(self.name, id, filed.fence))
        if filed.state is SagaState.STUCK:
            journal.release_stuck()
        run = SagaRun(terms, self._steps.plan(), filed, journal, context)
        run.take_up()
        return run

    def _result(self, filed: Filed, run: SagaRun[C] | None = None) -> SagaResult[C]:
        journal = read_journal(filed.body) if run is None else run.journal
        context = self._decode(journal.context) if run is None else run.context
        same = self._steps.plan().definition == filed.definition
        steps = self._steps.plan().steps if same else journal.notes
        state, outcomes = filed.state, journal.outcomes(steps)
        return SagaResult(filed.id, state, context, outcomes, journal.cause)

    def _concluded(self, result: SagaResult[C], error: Exception | None) -> SagaResult[C]:
        if result.state is SagaState.COMPLETED:
            self._completed += 1
            return result
        self._failed += 1
        cause = f": {result.cause}" if result.cause else ""
        how = "is stuck" if result.state is SagaState.STUCK else "was compensated"
        msg = f"saga {result.id!r} of {self.name!r} {how}{cause}"
        raise SagaError(msg, outcomes=result.outcomes) from error


_PATIENT: Final = Retry(
    on=Exception, attempts=8, backoff=Exponential(initial=0.2, cap=30.0, jitter="equal")
)


def _check_store(store: SagaStore) -> SagaStore:
    for each in _NEEDS:
        if not callable(getattr(store, each, None)):
            msg = f"store must be a store of sagas, such as MemorySagaStore(), not {store!r}"
            raise TypeError(msg)
    return store
