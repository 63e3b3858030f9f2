"""A tour of duty: one opening of a worker, from its first step to the one in which it leaves.

::

    enter: queues open, lifespans entered --> loops, listeners, runners, cron, watchdog
                                                 |
    close: nothing more is claimed, what runs goes on --.  until all is done, or time is over
    cancel: functions are cancelled ------------------> |  what swallows that is abandoned
                                                        v
    leave: one last step settles what there is, gives back the rest, ends the lease
                                                 |
    exit: lifespans end as after any block; if the tour was cancelled, within a bounded time

All tasks are in one group, so that none outlives the tour; the last step is shielded, and bounded.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_effective_deadline,
    current_time,
    move_on_after,
    sleep_forever,
)

from aiopatterns.backends.publishing import Publisher
from aiopatterns.core.clock import call_later, rng, sleep
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import BackendError
from aiopatterns.core.lifecycle import OwnerState, raise_bare
from aiopatterns.jobs.crew import Crew
from aiopatterns.jobs.emptiness import is_empty
from aiopatterns.jobs.ledger import add_up
from aiopatterns.jobs.schedule import CronRunner
from aiopatterns.jobs.shop import Shop
from aiopatterns.jobs.slots import Slots
from aiopatterns.jobs.turns import AGAIN, Turns
from aiopatterns.jobs.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.jobs.ledger import Ledger
    from aiopatterns.jobs.queue import JobQueue

    class Timer(Protocol):
        """What a timer of the loop can do."""

        def cancel(self) -> None: ...


__all__ = ["EXIT_WITHIN", "LEAVE_WITHIN", "Duty"]

#: Seconds within which the last step has to be answered; without it the lease ends by itself.
LEAVE_WITHIN: Final = 2.0
#: Seconds that the lifespans of a tour that was cancelled have to close what they opened.
EXIT_WITHIN: Final = 2.0
# Seconds between two looks at whether all is done, while somebody waits for that: first, longest.
_LOOK: Final = (0.002, 0.25)


@final
class Duty:
    """One opening of a worker.

    Args:
        name: The worker's.
        queues: What it works for.
        concurrency: How many jobs run at once.
        patience: Seconds that a cancelled function has to come to its end.
        max_jobs: Jobs after which :attr:`over` is set; None: never.
        publish: Whether to tell the figures by the backend.

    Attributes:
        over: Set when the worker has run as many jobs as it should.
        gone: Set when the tour has ended, with its lifespans.
    """

    __slots__ = (
        "_ended",
        "_exit",
        "_last_calls",
        "_left",
        "_name",
        "_patience",
        "_publish",
        "_queues",
        "_slots",
        "_tasks",
        "_turns",
        "_working",
        "crew",
        "gone",
        "ledgers",
        "over",
        "worker",
    )

    def __init__(
        self,
        name: str,
        queues: Sequence[JobQueue],
        *,
        concurrency: int,
        patience: float,
        max_jobs: int | None = None,
        publish: bool = True,
    ) -> None:
        self._name = name
        self._publish = publish
        self._queues = queues
        self._patience = patience
        self._left = max_jobs
        self._slots = Slots(concurrency)
        self._turns: list[Turns] = []
        self._working = 0  # loops that have not ended
        self._ended = Event()
        self._exit = CancelScope()  # around all, for the lifespans to close in
        self._last_calls: list[Timer] = []
        self._tasks: TaskGroup | None = None
        self.crew: Crew | None = None
        self.ledgers: list[Ledger] = []
        self.over: Event = Event()
        self.gone: Event = Event()
        self.worker: str = new_id()

    # -------------------------------------------------------------------------------- the task

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Open what is closed, work until cancelled or closed and done, and leave."""
        try:
            with self._exit:
                async with AsyncExitStack() as stack:
                    await self._tour(stack, task_status)
        finally:
            self.gone.set()

    async def _tour(self, stack: AsyncExitStack, task_status: TaskStatus[None]) -> None:
        """Open, work and leave; what was opened is closed by ``stack``, after this."""
        shops = [await self._open(stack, queue) for queue in self._queues]
        self.ledgers.extend(each.ledger for each in shops)
        try:
            await self._work(shops, task_status)
        except BaseExceptionGroup as errors:
            raise_bare(errors)
        finally:
            for each in self._last_calls:
                each.cancel()
            await self._leave()
            if current_effective_deadline() == -inf:  # cancelled: lifespans may close yet
                self._exit.deadline = current_time() + EXIT_WITHIN
                self._exit.shield = True

    async def _open(self, stack: AsyncExitStack, queue: JobQueue) -> Shop:
        """Open a queue unless it is open, and enter its lifespan."""
        await stack.enter_async_context(queue.backend)  # ours, whoever closes the queue
        if queue.state is not OwnerState.RUNNING:
            await stack.enter_async_context(queue)
        state: Any = None
        if queue.lifespan is not None:
            state = await stack.enter_async_context(queue.lifespan())
        return Shop(queue, {} if state is None else state)

    async def _work(self, shops: Sequence[Shop], task_status: TaskStatus[None]) -> None:
        """Run all tasks until cancelled; functions that swallow it are abandoned in the end."""
        async with create_task_group() as tasks:
            self._tasks = tasks
            self.crew = crew = Crew(tasks, self._slots, self._count)
            for shop in shops:
                self._turns += self._loops(shop, crew)
            watchdog = self._watchdog()
            try:
                self._start(tasks)
                task_status.started()
                await sleep_forever()
            finally:
                if watchdog is not None:
                    watchdog.stop()
                self._last_calls.append(call_later(self._patience, crew.abandon))

    def _loops(self, shop: Shop, crew: Crew) -> list[Turns]:
        """Make a loop for each partition; one of them is at home, by the worker's id."""
        stores = shop.stores
        home = int(self.worker, 16) % len(stores)
        return [
            Turns(
                store,
                worker=self.worker,
                lease=shop.lease,
                slots=self._slots,
                shop=shop,
                admit=crew.admit,
                home=number == home,
            )
            for number, store in enumerate(stores)
        ]

    def _start(self, tasks: TaskGroup) -> None:
        self._working = len(self._turns)
        for each in self._turns:
            tasks.start_soon(self._loop, each)
            tasks.start_soon(each.listen)
        for queue in self._queues:
            tasks.start_soon(CronRunner(queue).run)
        if self._publish:
            for backend in {id(each.backend): each.backend for each in self._queues}.values():
                publisher = Publisher(
                    backend, kind="worker", name=self._name, figures=lambda: add_up(self.ledgers)
                )
                tasks.start_soon(publisher.run)

    def _watchdog(self) -> Watchdog | None:
        """Start the thread that keeps the leases; None if nobody could take the jobs."""
        found = [each.keeper() for each in self._turns]
        keepers = [each for each in found if each is not None]
        if not keepers:
            return None
        watchdog = Watchdog(self._name, keepers, lease=min(each.lease for each in self._turns))
        watchdog.start()
        return watchdog

    async def _loop(self, turns: Turns) -> None:
        try:
            await turns.run()
        finally:
            self._working -= 1
            if not self._working:
                self._ended.set()

    async def _leave(self) -> None:
        """Take the last step with every store, within a bounded time, whatever happens."""
        with move_on_after(LEAVE_WITHIN, shield=True):
            async with create_task_group() as tasks:
                for each in self._turns:
                    tasks.start_soon(_leave, each)

    # -------------------------------------------------------------------- what the worker calls

    async def close(self, within: float) -> None:
        """Claim nothing more; wait until what is held is done, at most ``within`` seconds."""
        self._slots.closed = True
        assert self.crew is not None
        self.crew.flush()
        for each in self._turns:
            each.signal()
        with move_on_after(within):
            await self._ended.wait()

    def end(self) -> None:
        """Cancel everything: functions, loops, this tour."""
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()

    def force(self) -> None:
        """End now: neither functions nor lifespans have time to come to their ends."""
        self._patience = 0.0
        assert self.crew is not None
        self.end()
        self._exit.cancel()
        self._last_calls.append(call_later(0.0, self.crew.abandon))

    async def emptied(self) -> None:
        """Wait until all is done; see :mod:`aiopatterns.jobs.emptiness`."""
        pause, longest = _LOOK
        while not await is_empty(self._turns):
            await sleep(pause)
            pause = min(pause * 2, longest)

    def _count(self, jobs: int) -> None:
        """So many jobs have left."""
        if self._left is not None:
            self._left -= jobs
            if self._left <= 0:
                self.over.set()


async def _leave(turns: Turns) -> None:
    failures = 0
    while True:
        try:
            await turns.leave()
        except BackendError:
            failures += 1
            await sleep(AGAIN.delay(failures, rng=rng()))
        else:
            return
