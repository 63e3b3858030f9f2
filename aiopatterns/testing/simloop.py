"""The simulated event loop: virtual time, one seed for one schedule, and a hang that is an error.

Concurrency bugs hide in schedules that a test machine rarely produces, and behind timeouts that no
test can afford to wait for. ``SimLoop`` removes both hiding places::

        ready steps of tasks          timers, by due time
        [ t3  t1  cb  t7 ]            [ 0.5  0.5  3600 ]
               |  a seed orders them        |  nothing ready? the clock jumps there
               v                            v
        run one turn  <---------------------'        nothing at all? DeadlockError

Guarantees:

* **Virtual time.** ``loop.time()`` starts at 0 and jumps to the next timer when nothing is ready.
  An hour of sleeping takes microseconds. While the loop runs, :mod:`aiopatterns.core.clock` reads
  this clock and this seed, so the whole library moves with it.
* **One seed, one run.** Seed 0 keeps asyncio's own order. Every other seed permutes the steps of
  tasks that are ready in one turn and the timers that are due at one time, and (half of the
  seeds) holds single steps back for a turn. :attr:`SimLoop.trace` is a hash of everything that
  ran; equal traces are equal runs.
* **Legal schedules only.** Callbacks keep their order among each other, and no step of a task
  overtakes a callback that was scheduled before it, so what asyncio documents still holds.
* **A hang is an error at once**, with the stack of every task; a run that never comes to rest is
  one after ``max_steps`` callbacks.
* **Threads run inline**: ``run_in_executor`` and ``anyio.to_thread.run_sync`` call the function
  on this thread, a few turns later by the seed.

Not simulated: sockets, pipes, subprocesses and signals raise :class:`RealWorldError`. Not under
the seed: the module ``random``, ``time.monotonic``, and the order of sets whose members hash by
address or by text (sets of tasks *are* in order).

Built on ``asyncio.BaseEventLoop`` and five of its attributes, unchanged from Python 3.11 to 3.14:
``_run_once``, ``_ready``, ``_scheduled``, ``_stopping`` and ``_timer_cancelled_count``.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.clock import ClockSource, set_source
from aiopatterns.core.validate import count
from aiopatterns.testing.stacks import describe_tasks
from aiopatterns.testing.threads import inline_threads

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine
    from contextvars import Context

__all__ = ["DeadlockError", "LivelockError", "RealWorldError", "SimLoop", "SimulationError"]

EPOCH: Final = 1_700_000_000.0
"""Where virtual wall time starts: 2023-11-14 22:13:20 UTC, the same in every run."""

BUSY_TURNS: Final = 10_000
"""So many turns without rest are taken for polling; from then on each turn costs time."""

BUSY_TURN_SECONDS: Final = 100e-6
"""What such a turn costs: about what it costs on a real machine."""

SWEEP_ABOVE: Final = 100
"""Cancelled timers are swept out when there are more than this, and more than half (asyncio)."""

HOLDS: Final = (0.0, 0.0, 0.1, 0.3)
"""Chance that a step is held back for a turn; a seed picks one of these for its whole run."""

THREAD_TURNS: Final = 4
"""An inline thread call waits fewer turns than this."""


class SimulationError(RuntimeError):
    """Base of what the simulated loop raises."""


class DeadlockError(SimulationError):
    """No task can ever run again: nothing is ready and no timer is set."""


class LivelockError(SimulationError):
    """More callbacks ran than ``max_steps`` allows."""


class RealWorldError(SimulationError):
    """Simulated code asked for a socket, a pipe, a subprocess or a signal."""


class _SimTask(asyncio.Task[Any]):
    """A task that hashes by its number, so that sets of tasks have the same order in every run."""

    def __init__(self, coro: Coroutine[Any, Any, Any], ordinal: int, **options: Any) -> None:
        self.ordinal = ordinal  # first: registering the task hashes it
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.ordinal


@final
class SimLoop(asyncio.BaseEventLoop):
    """An event loop whose time is virtual and whose schedule is chosen by a seed.

    A drop-in ``loop_factory`` for :class:`asyncio.Runner` and for pytest-asyncio; most tests use
    :func:`~aiopatterns.testing.simulate` and :func:`~aiopatterns.testing.explore` instead.

    Args:
        seed: Which schedule; 0 is asyncio's own order.
        max_steps: Callbacks that may run until the run counts as one that never ends.

    Raises:
        DeadlockError: From ``run_*``, when no task can ever run again.
        LivelockError: From ``run_*``, after ``max_steps`` callbacks.

    Example::

        with asyncio.Runner(loop_factory=lambda: SimLoop(seed=7)) as runner:
            runner.run(scenario())
    """

    _closed = True  # until the constructor has accepted its arguments; `__del__` looks at it
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self, seed: int = 0, *, max_steps: int = 1_000_000) -> None:
        self.seed: Final = count("seed", seed, minimum=0)
        self._max_steps = count("max_steps", max_steps)
        super().__init__()
        self._dice: random.Random | None = random.Random(seed) if seed else None  # noqa: S311
        self._hold = self._dice.choice(HOLDS) if self._dice else 0.0
        self._source = ClockSource(
            self.time,
            lambda: EPOCH + self._now,
            random.Random(seed),  # noqa: S311 - chance of a test, not keys
        )
        self._now = 0.0
        self._trace = 0
        self._steps = 0
        self._busy = 0
        self._tasks = 0

    @property
    def trace(self) -> str:
        """Hash of every step so far and its time; equal traces are equal runs."""
        return f"{self._trace & 0xFFFF_FFFF_FFFF_FFFF:016x}"

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now

    def run_forever(self) -> None:
        """Run until :meth:`stop`; the library's clock and dice are this loop's meanwhile."""
        previous = set_source(self._source)
        try:
            with inline_threads(lambda loop: loop is self):
                super().run_forever()
        finally:
            set_source(previous)

    def create_task(  # type: ignore[override]  # the options differ from version to version
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Schedule a coroutine; tasks without a name are numbered from 1 on every loop."""
        self._check_closed()
        self._tasks += 1
        name = f"Task-{self._tasks}" if name is None else name
        if self.get_task_factory() is not None:
            return super().create_task(coro, name=name, context=context, **options)
        options |= {"loop": self, "name": name, "context": context}
        return _SimTask(coro, self._tasks, **options)

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call ``func(*args)`` on this thread, a few turns later; the executor is not used."""
        del executor
        self._check_closed()
        done = self.create_future()
        turns = int(self._dice.random() * THREAD_TURNS) if self._dice else 0
        self.call_soon(self._run_inline, turns, done, func, args)
        return done

    def _run_inline(
        self,
        turns: int,
        done: asyncio.Future[Any],
        func: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        if done.done():  # cancelled before the "thread" began
            return
        if turns:
            self.call_soon(self._run_inline, turns - 1, done, func, args)
            return
        asyncio._set_running_loop(None)  # a thread sees no running loop
        try:
            result = func(*args)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)
        finally:
            asyncio._set_running_loop(self)

    def _run_once(self) -> None:
        """Run one turn; ``run_forever`` calls this until the loop is stopped."""
        self._advance()
        turn = self._order(list(self._ready)) if self._dice else len(self._ready)
        self._steps += turn
        if self._steps > self._max_steps:
            self._steps = 0  # what cleans up after the error has the same budget again
            msg = f"more than {self._max_steps} callbacks ran and there is no end in sight"
            raise LivelockError(self._explain(msg))
        ready = self._ready
        for _ in range(turn):
            handle = ready.popleft()
            if not handle._cancelled:
                task = _task_of(handle)
                ordinal = 0 if task is None else getattr(task, "ordinal", 0)
                self._trace = hash((self._trace, ordinal, self._now))
                handle._run()

    def _advance(self) -> None:
        """Move time if nothing is ready, and make ready what is due."""
        timers = self._scheduled
        self._sweep()
        if self._ready or self._stopping:
            self._busy += 1
            if self._busy > BUSY_TURNS:
                self._now += BUSY_TURN_SECONDS
        elif not timers or timers[0].when() == math.inf:
            raise DeadlockError(self._explain("nothing is ready and no timer is set"))
        else:
            self._busy = 0
            self._now = max(self._now, timers[0].when())
        due: list[tuple[float, float, asyncio.TimerHandle]] = []
        while timers and timers[0].when() <= self._now:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            due.append((handle.when(), self._dice.random() if self._dice else 0.0, handle))
        if len(due) > 1:
            due.sort(key=lambda entry: entry[:2])
        self._ready.extend(entry[2] for entry in due)

    def _sweep(self) -> None:
        """Drop cancelled timers: all when they are the majority, else those at the head."""
        timers = self._scheduled
        if self._timer_cancelled_count > max(SWEEP_ABOVE, len(timers) // 2):
            for handle in timers:
                handle._scheduled = not handle._cancelled
            timers[:] = [handle for handle in timers if not handle._cancelled]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1

    def _order(self, handles: list[asyncio.Handle]) -> int:
        """Put a turn in the seed's order; returns how many run now, the rest waits a turn."""
        dice = self._dice.random
        backwards: list[asyncio.Handle] = []
        held: list[asyncio.Handle] = []
        for handle in reversed(handles):
            if _task_of(handle) is None:
                backwards.append(handle)  # before everything behind it: callbacks keep their order
            elif self._hold and dice() < self._hold:
                held.append(handle)
            else:  # anywhere behind the callbacks in front of it
                backwards.insert(int(dice() * (len(backwards) + 1)), handle)
        if not backwards:
            backwards, held = held, backwards
        self._ready.clear()
        self._ready.extend(reversed(backwards))
        self._ready.extend(reversed(held))
        return len(backwards)

    def _explain(self, problem: str) -> str:
        stacks = describe_tasks(asyncio.all_tasks(self))
        return f"{problem} (seed {self.seed}, time {self._now:g}); tasks alive:\n{stacks}"

    def _process_events(self, event_list: object) -> None:
        """There are no events: the outside world does not exist."""

    def _write_to_self(self) -> None:
        """Nothing to wake: the loop never sleeps."""


def _task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task of which ``handle`` is a step, or None for a plain callback."""
    owner = getattr(handle._callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def _refusal(name: str) -> Callable[..., Any]:
    """Make the method that refuses ``name``."""

    def refuse(self: SimLoop, *args: object, **options: object) -> Any:
        del args, options
        msg = (
            f"{name} needs the real world, and the simulated loop (seed {self.seed}) has no "
            "sockets, pipes, processes or signals; mark the test with @pytest.mark.real, or run "
            "it on another loop"
        )
        raise RealWorldError(msg)

    refuse.__name__ = name
    refuse.__doc__ = f"Refuse: there is no outside world. Always raises RealWorldError ({name})."
    return refuse


for _name in (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
):
    setattr(SimLoop, _name, _refusal(_name))
