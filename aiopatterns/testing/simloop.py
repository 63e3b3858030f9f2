"""The simulated event loop: virtual time, a seed for each schedule, and hangs that are errors.

Concurrency bugs hide in schedules that a test machine hardly ever produces, and behind timeouts
that no test can afford to wait for. ``SimLoop`` takes both hiding places away::

        ready steps of tasks           timers, by due time
        [ t3  t1  cb  t7 ]             [ 0.5  0.5  3600 ]
               |  the seed orders             |  nothing ready? the clock jumps there
               v                              v
        run one turn  <-----------------------'      no timer either? DeadlockError

Guarantees:

* **Virtual time.** ``loop.time()`` starts at 0 and jumps to the next timer when nothing is ready:
  an hour of sleeping takes microseconds. While the loop runs, :mod:`aiopatterns.core.clock` reads
  this clock and this seed, so the whole library moves with it.
* **One seed, one run.** Seed 0 keeps asyncio's own order. Every other seed permutes the steps of
  tasks that are ready in one turn, and the timers that are due at one time; half of the seeds
  also hold single steps back for some turns, so that one task falls behind the others.
  :attr:`SimLoop.trace` is a hash of all that ran and when: equal traces, equal runs, also in
  another process.
* **Legal schedules only.** Callbacks keep their order among each other, and no step of a task
  overtakes a callback that was scheduled before it: what asyncio documents, holds.
* **A hang is an error at once**, with the whole stack of every task; so is a run that makes no
  end within ``max_steps`` callbacks.
* **Threads run inline.** ``run_in_executor``, ``asyncio.to_thread`` and
  ``anyio.to_thread.run_sync`` call the function on this thread, some turns later by the seed.

Not simulated: sockets, pipes, subprocesses and signals raise
:class:`~aiopatterns.testing.RealWorldError`; threads that the code under test starts by itself
are not waited for. The library has one source of time, so a process runs one simulation at a
time, not several in threads.

Not under the seed: the global functions of ``random``, ``time.monotonic`` (``loop.time`` is), and
the order of a set whose members hash by address or are strings. Sets of tasks do have an order.
The order in which a set of something else wakes tasks, for example a cancel scope with other
scopes inside, makes a difference under seed 0 only: the other seeds sort what is ready before
they permute it.

A loop that stays busy is taken for one that polls: after 10,000 turns without rest each turn
costs 0.1 ms, about what it costs in reality, so polling for a time comes to its end.

Rests on ``asyncio.BaseEventLoop`` and on what is private in it but the same from Python 3.11 to
3.14: ``_run_once``, ``_ready``, ``_scheduled``, ``_stopping`` and ``_check_closed``; on
``Handle._run`` and ``Handle._callback``; and on the ``__self__`` of a task's step, which is the
task.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from contextvars import Context
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, TypeVarTuple, final

from aiopatterns.core.clock import ClockSource, set_source
from aiopatterns.core.validate import count
from aiopatterns.testing.sealed import SealedLoop, SimulationError
from aiopatterns.testing.stacks import describe_tasks
from aiopatterns.testing.threads import inline_threads

T = TypeVar("T")
Args = TypeVarTuple("Args")

if TYPE_CHECKING:
    import sys
    from collections import deque
    from collections.abc import Callable, Coroutine, Generator, Iterable
    from concurrent.futures import Executor

    if sys.version_info >= (3, 12):  # what a task can be made of
        Work: TypeAlias = Coroutine[Any, Any, T]
    else:
        Work: TypeAlias = Coroutine[Any, Any, T] | Generator[Any, None, T]

__all__ = ["DeadlockError", "LivelockError", "SimLoop"]

EPOCH: Final = 1_700_000_000.0
"""Where virtual wall time starts: 2023-11-14 22:13:20 UTC in every run."""

BUSY_TURNS: Final = 10_000
"""So many turns without rest count as polling."""

BUSY_TURN_SECONDS: Final = 100e-6
"""What a turn costs then."""

SWEEP_ABOVE: Final = 100
"""So many timers are never swept; above, whenever their number has doubled since."""

HOLDS: Final = (0.0, 0.0, 0.1, 0.3)
"""Chance that a step is held back for a turn; a seed takes one of these for its whole run."""

THREAD_TURNS: Final = 4
"""A thread call begins within so many turns."""

CALLBACK: Final = -2
"""Number of a callback that is no step of a task."""

FOREIGN: Final = -1
"""Number of a task that a task factory has made; others count from 1."""


class DeadlockError(SimulationError):
    """No task can ever run again: nothing is ready and no timer is set."""


class LivelockError(SimulationError):
    """More callbacks ran than ``max_steps`` allows."""


class Task(asyncio.Task[T]):
    """A task that hashes by its number, so that sets of tasks have one order in every run."""

    def __init__(self, coro: Work[T], number: int, **options: Any) -> None:
        self.number = number  # first: to register a task is to hash it
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


@final
class SimLoop(SealedLoop):
    """An event loop whose time is virtual and whose schedule a seed decides.

    A ``loop_factory`` for :class:`asyncio.Runner` and for pytest-asyncio. Most tests do not need
    it by name: :func:`~aiopatterns.testing.simulate` and :func:`~aiopatterns.testing.explore`
    make one for each run.

    Args:
        seed: Which schedule, a whole number >= 0; 0 is asyncio's own order.
        max_steps: How many callbacks may run until the run counts as one without an end.

    Raises:
        DeadlockError: From ``run_forever`` and ``run_until_complete``: nothing can run any more.
        LivelockError: From the same: ``max_steps`` callbacks ran.

    Complexity: a callback costs about 0.5 us more than on asyncio's loop, and O(n log n) for n
    ready callbacks in a turn under seeds above 0.

    Source: the seeded hold-back is a small relative of probabilistic concurrency testing
    (Burckhardt, Kothari, Musuvathi, Nagarakatte, ASPLOS 2010).

    Example::

        with asyncio.Runner(loop_factory=lambda: SimLoop(seed=7)) as runner:
            runner.run(scenario())
    """

    _closed = True  # until the arguments are accepted: the destructor looks at it
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool
    _check_closed: Callable[[], None]

    def __init__(self, seed: int = 0, *, max_steps: int = 1_000_000) -> None:
        self._seed = count("seed", seed, minimum=0)
        self._max_steps = count("max_steps", max_steps)
        super().__init__()
        chance = random.Random(seed)
        self._hold = chance.choice(HOLDS) if seed else 0.0
        self._dice = chance.random if seed else None
        self._random = random.Random(seed)  # the library's, apart from the schedule's
        self._now = 0.0
        self._created = 0  # tasks
        self._steps = 0  # callbacks that ran
        self._busy = 0  # turns without rest
        self._trace = 0
        self._sweep_above = SWEEP_ABOVE

    @property
    def seed(self) -> int:
        """The seed of this loop's schedule."""
        return self._seed

    @property
    def trace(self) -> str:
        """Hash of every callback so far, its task and its time, as 16 hex digits."""
        return f"{self._trace & 0xFFFF_FFFF_FFFF_FFFF:016x}"

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now

    def run_forever(self) -> None:
        """Run until :meth:`stop`; meanwhile the library's clock and dice are this loop's."""
        previous = set_source(ClockSource(self.time, self._wall, self._random))
        try:
            with inline_threads(self):
                super().run_forever()
        finally:
            set_source(previous)

    def create_task(
        self,
        coro: Work[T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Schedule a coroutine; tasks without a name are numbered from 1 on every loop."""
        self._check_closed()
        if self.get_task_factory() is not None:
            return super().create_task(coro, name=name, context=context, **options)
        self._created += 1
        label = f"Task-{self._created}" if name is None else name
        return Task(coro, self._created, loop=self, name=label, context=context, **options)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args
    ) -> asyncio.Future[T]:
        """Call ``func(*args)`` on this thread, some turns later; the executor is not used."""
        del executor
        self._check_closed()
        result: asyncio.Future[T] = self.create_future()
        turns = int(self._dice() * THREAD_TURNS) if self._dice else 0

        def begin(turns: int) -> None:
            if turns:
                self.call_soon(begin, turns - 1, context=Context())
            elif not result.done():  # else it was cancelled before its thread came to it
                self._call_inline(result, lambda: func(*args))

        self.call_soon(begin, turns, context=Context())  # a thread inherits no variables
        return result

    def _call_inline(self, result: asyncio.Future[T], call: Callable[[], T]) -> None:
        """Settle ``result`` with what ``call`` gives, as a thread would: without a running loop."""
        asyncio._set_running_loop(None)
        try:
            value = call()
        except BaseException as error:
            if not result.done():
                result.set_exception(error)
        else:
            if not result.done():
                result.set_result(value)
        finally:
            asyncio._set_running_loop(self)

    def _wall(self) -> float:
        return EPOCH + self._now

    def _run_once(self) -> None:
        """Run one turn; ``run_forever`` calls this until the loop is stopped."""
        self._advance()
        ready = self._ready
        turn = len(ready) if self._dice is None else self._order(self._dice)
        self._steps += turn
        if self._steps > self._max_steps:
            self._steps = 0  # what cleans up after the error has the same number again
            self._fail(LivelockError, f"{self._max_steps} callbacks ran, and there is no end")
        for _ in range(turn):
            handle = ready.popleft()
            if not handle.cancelled():
                self._trace = hash((self._trace, _number(handle), self._now))
                handle._run()

    def _advance(self) -> None:
        """Let time pass if nothing is ready, and make ready what is due."""
        self._sweep()
        timers = self._scheduled
        if self._ready or self._stopping:
            self._busy += 1
            if self._busy > BUSY_TURNS:
                self._now += BUSY_TURN_SECONDS
        elif not timers or timers[0].when() == math.inf:
            self._fail(DeadlockError, "nothing is ready and no timer is set")
        else:
            self._busy = 0
            self._now = max(self._now, timers[0].when())
        dice = self._dice or float  # float() is 0.0: no dice, no reordering
        due: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        while timers and timers[0].when() <= self._now:
            timer = heapq.heappop(timers)
            due.append((timer.when(), dice(), len(due), timer))
        due.sort()
        self._ready.extend(entry[-1] for entry in due)

    def _sweep(self) -> None:
        """Drop cancelled timers: all once the heap has doubled, else those at the head."""
        timers = self._scheduled
        if len(timers) > self._sweep_above:
            timers[:] = [timer for timer in timers if not timer.cancelled()]
            heapq.heapify(timers)
            self._sweep_above = 2 * len(timers) + SWEEP_ABOVE
        while timers and timers[0].cancelled():
            heapq.heappop(timers)

    def _order(self, dice: Callable[[], float]) -> int:
        """Put the ready callbacks in the seed's order; returns how many of them run now."""
        backwards: list[asyncio.Handle] = []
        held: list[asyncio.Handle] = []
        for _, number, handle in reversed(_sorted_steps(self._ready)):
            if number == CALLBACK:
                backwards.append(handle)  # in front of everything behind it
            elif dice() < self._hold:
                held.append(handle)
            else:  # anywhere behind the callbacks in front of it
                backwards.insert(int(dice() * (len(backwards) + 1)), handle)
        if not backwards:  # something must run
            backwards, held = held, backwards
        self._ready.clear()
        self._ready.extend(reversed(backwards))
        self._ready.extend(reversed(held))
        return len(backwards)

    def _fail(self, kind: type[SimulationError], problem: str) -> None:
        """Raise with the stacks of all tasks."""
        stacks = describe_tasks(asyncio.all_tasks(self))
        msg = f"{problem} (seed {self._seed}, time {self._now:g}); tasks alive:\n{stacks}"
        raise kind(msg)


def _number(handle: asyncio.Handle) -> int:
    """Return the number of the task of which ``handle`` is a step, or what it is instead."""
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    if isinstance(owner, Task):
        return owner.number
    return FOREIGN if isinstance(owner, asyncio.Task) else CALLBACK


def _sorted_steps(handles: Iterable[asyncio.Handle]) -> list[tuple[int, int, asyncio.Handle]]:
    """Sort neighbouring steps by task: what a set has woken in its own order, loses that order.

    Returns:
        Of each handle the number of callbacks up to it, its own number, and the handle.
    """
    callbacks = 0
    entries: list[tuple[int, int, asyncio.Handle]] = []
    for handle in handles:
        number = _number(handle)
        callbacks += number == CALLBACK
        entries.append((callbacks, number, handle))
    entries.sort(key=itemgetter(0, 1))  # a callback comes before the steps that follow it
    return entries
