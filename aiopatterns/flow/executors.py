"""Where functions run: here, in threads, or in worker processes, behind one call.

A pattern that runs user functions takes an *executor* and awaits ``executor.run(fn, *args)``; the
same program then runs inline in a test, in threads for blocking calls, and in processes for work
that needs the processor::

    run(fn, *args) --> [ waiting line, first come first served ] --> at most `capacity` at once
                          cancelled here: withdrawn,                  Inline     on this loop
                          fn never runs                               Threads    in a thread
                                                                      Processes  in a worker process

Guarantees, for all three:

* Never more than ``capacity`` calls run at once, also when callers are cancelled.
* A caller that is cancelled while its call waits withdraws it. When a cancelled caller resumes,
  its function no longer runs: the inline coroutine was cancelled, the thread has *ended by
  itself* (a thread cannot be stopped), the worker process was *killed* and is replaced.
* What the function raises leaves ``run`` bare.
* Leaving the block normally waits for the calls under way and for those in line. Leaving it by an
  error or a cancellation does not: callers in line, and callers whose worker process is ended, get
  :class:`ClosedError`.

Guarantees of :class:`Processes`:

* A worker process runs one call at a time. One that dies under a call (killed, out of memory, hard
  crash) takes no other call with it; that call is tried again in a fresh process, up to
  ``attempts`` times in all, then :class:`WorkerCrashedError` is raised. So a function may run more
  than once if processes are killed; ``attempts=1`` forbids it.
* No worker process survives the block, an interpreter exit or a killed parent. Processes come from
  a fork server or are spawned, never forked from a program that has threads and loops. (The fork
  server itself, one idle process for the whole interpreter, belongs to :mod:`multiprocessing` and
  ends with the interpreter.)

Not guaranteed: a thread that never returns keeps a cancelled caller waiting, and the interpreter
from exiting.

This module uses asyncio itself, for thread and transport seams that anyio has no form of.
"""

from __future__ import annotations

import asyncio
import atexit
from abc import abstractmethod
from collections.abc import Iterable
from contextvars import copy_context
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, cast, final, overload

from anyio import CancelScope, move_on_after

from aiopatterns.core.errors import ClosedError, WorkerCrashedError
from aiopatterns.core.lifecycle import Owner, OwnerState
from aiopatterns.core.validate import (
    choice,
    count,
    function,
    is_async,
    optional_count,
    plain_function,
    text,
)
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow import child
from aiopatterns.flow.child import HEADER
from aiopatterns.flow.process import WorkerProcess, processors, start_methods
from aiopatterns.flow.threadcall import ThreadCall

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from multiprocessing.context import SpawnContext

    from anyio.abc import TaskGroup

    from aiopatterns.flow.process import StartMethod

__all__ = ["Executor", "ExecutorStatistics", "Inline", "Processes", "Threads"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How long idle worker processes get to leave by themselves (exit handlers, coverage data).
_GRACE: Final = 5.0
# One read takes a whole short answer; longer ones get a buffer of their own size.
_SHORT_ANSWER: Final = 65536
# Bytes on their way in one direction; with the system's 200 KB, 5 MB take three times as long.
_IN_FLIGHT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ExecutorStatistics:
    """Figures of an executor.

    Args:
        capacity: How many calls may run at once.
        running: Calls that run now.
        queued: Calls that wait for a place.
        done: Calls that returned.
        failed: Calls that raised, lost their process for good or were cancelled while running.
        crashes: Worker processes that died under a call (Processes only).
    """

    capacity: int
    running: int
    queued: int
    done: int
    failed: int
    crashes: int = 0


class Executor(Owner):
    """Base of all executors; subclass it and implement :meth:`_call` to bring another engine.

    Args:
        capacity: How many calls may run at once.
        name: How statistics and errors call it.

    An executor is an owner: ``async with executor:`` runs it, and it can be entered again later.
    """

    __slots__ = ("_done", "_failed", "_free", "_line", "_loop", "_quiet", "capacity")

    def __init__(self, capacity: int, name: str) -> None:
        super().__init__(text("name", name))
        self.capacity: int = capacity
        self._free = capacity
        self._done = self._failed = 0
        self._line = Waiters()
        self._quiet = Waiters()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``fn(*args)`` and return what it returns.

        Args:
            fn: A synchronous function (:class:`Inline` takes asynchronous ones as well); for
                :class:`Processes` importable by name.
            *args: Its positional arguments; for :class:`Processes` picklable.

        Raises:
            Exception: What the function raised, bare.
            ClosedError: The executor is not open, or was closed under the call.
            TypeError: The function is asynchronous, or cannot be sent where it should run, or
                cannot be imported there.
            WorkerCrashedError: Every worker process that tried the call died.

        Cancellation: a waiting call is withdrawn; a running one has ended when this returns, see
            the module's text.

        Complexity: O(1); about 1 us inline, 50 us in a thread, 100 us in a process.
        """
        self._check(fn)
        group = self._running()
        await self._claim(group)
        try:
            value = cast("T", await self._call(fn, args))
        except BaseException:
            self._failed += 1
            raise
        else:
            self._done += 1
            return value
        finally:
            self._release(group)

    def statistics(self) -> ExecutorStatistics:
        """Return the figures of this moment."""
        return ExecutorStatistics(
            capacity=self.capacity,
            running=self.capacity - self._free,
            queued=len(self._line),
            done=self._done,
            failed=self._failed,
        )

    @abstractmethod
    async def _call(self, fn: Callable[..., object], args: tuple[object, ...]) -> object:
        """Run one call; a place is claimed. Raises what the function raises."""

    def _check(self, fn: Callable[..., object]) -> None:
        """Refuse what cannot run here."""
        if is_async(function("fn", fn)):
            raise TypeError(
                f"{type(self).__name__} runs synchronous functions; "
                f"{child.named(fn)} is asynchronous and runs on this loop only: use Inline()"
            )

    def _running(self) -> TaskGroup:
        """Return the task group of this run.

        Raises:
            ClosedError: Not open, or draining.
            RuntimeError: Open, but on another event loop.
        """
        group = self._open_group()
        if self._state is not OwnerState.RUNNING:
            raise ClosedError(f"{type(self).__name__} {self.name!r} is closing; it takes no calls")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                f"{type(self).__name__} {self.name!r} is open on another event loop; "
                "use it on the loop that entered it"
            )
        return group

    async def _start(self, tasks: TaskGroup) -> None:
        del tasks
        self._loop = asyncio.get_running_loop()
        self._free = self.capacity
        self._done = self._failed = 0

    async def _drain(self) -> None:
        while self._free < self.capacity:
            await self._quiet.wait()

    def _settle(self) -> None:
        self._free = self.capacity
        self._line.wake_all()

    async def _claim(self, group: TaskGroup) -> None:
        """Take a place, in turn; the place of a woken caller is claimed for it already."""
        if self._free:
            self._free -= 1
            return
        await self._line.wait(lost=lambda: self._release(group))
        if self._group is not group:
            raise self._closed()

    def _release(self, group: TaskGroup) -> None:
        """Give a place of that run back, or on to the next in line."""
        if self._group is group and not self._line.wake():
            self._free += 1
            if self._free == self.capacity:
                self._quiet.wake_all()

    def _closed(self) -> ClosedError:
        return ClosedError(f"{type(self).__name__} {self.name!r} was closed under the call")


@final
class Inline(Executor):
    """Run functions right here, on the loop: for asynchronous functions, quick ones, and tests.

    Args:
        limit: How many asynchronous functions may be under way at once; a synchronous one blocks
            the loop while it runs.
        name: How statistics and errors call it.
    """

    __slots__ = ()

    def __init__(self, limit: int = 8, *, name: str = "inline") -> None:
        super().__init__(count("limit", limit), name)

    @overload
    async def run(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T: ...
    @overload
    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T: ...
    async def run(self, fn: Callable[..., object], *args: object) -> object:
        """Run ``fn(*args)`` on this loop, awaiting it if it is asynchronous."""
        return await super().run(fn, *args)

    def _check(self, fn: Callable[..., object]) -> None:
        function("fn", fn)

    async def _call(self, fn: Callable[..., object], args: tuple[object, ...]) -> object:
        value = fn(*args)
        return await value if isawaitable(value) else value


@final
class Threads(Executor):
    """Run functions in threads of its own: for calls that block.

    Args:
        workers: How many threads.
        name: How statistics and errors call it; also the threads' name.

    Context variables of the caller are visible in the function. A cancelled caller waits until its
    running function has ended, because a thread cannot be stopped.
    """

    __slots__ = ("_threads",)

    def __init__(self, workers: int, *, name: str = "threads") -> None:
        super().__init__(count("workers", workers), name)
        self._threads: ThreadPoolExecutor | None = None

    async def _start(self, tasks: TaskGroup) -> None:
        from concurrent.futures import ThreadPoolExecutor

        await super()._start(tasks)
        self._threads = ThreadPoolExecutor(self.capacity, thread_name_prefix=self.name)

    def _settle(self) -> None:
        super()._settle()
        _shut(self._threads)

    async def _call(self, fn: Callable[..., object], args: tuple[object, ...]) -> object:
        loop = asyncio.get_running_loop()
        call = ThreadCall(fn, args)
        ended = loop.run_in_executor(self._threads, copy_context().run, call)
        try:
            await asyncio.wait((ended,))
        except asyncio.CancelledError as cancelled:
            if call.withdraw():
                ended.cancel()
            else:
                await _outlast(ended)
            if call.error is not None:
                raise cancelled from call.error
            raise
        if call.error is not None:
            raise call.error
        return call.value


def _shut(threads: ThreadPoolExecutor | None) -> None:
    """Let threads end when they are idle; None if starting them has failed."""
    if threads is not None:
        threads.shutdown(wait=False)


async def _outlast(future: asyncio.Future[None]) -> None:
    """Wait for the end of ``future``, however often this task is cancelled meanwhile."""
    with CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError:  # raised again by the caller
                continue


@final
class Processes(Executor):
    """Run functions in worker processes: for work that needs the processor.

    Args:
        workers: How many processes; None takes one for each processor this program may use.
        attempts: How often a call is tried when its process dies, the first included.
        initializer: Called once in each process before its first call, for state that calls share
            through module globals; importable, without arguments (``functools.partial`` brings
            some). If it raises, the call that waits for the process raises its error.
        preload: Modules that the fork server imports once, so that processes start with them in
            milliseconds; counts only if this is the first use of the fork server.
        method: ``"forkserver"`` or ``"spawn"``; None takes the fork server where there is one.
        max_calls: Replace a process after that many calls (for functions that leak memory).
        name: How statistics and errors call it; also the processes' name.

    Functions, arguments and results are pickled. The processes are started when the block is
    entered, in the background, and replaced when the next call needs them. They are daemonic:
    functions in them cannot start :mod:`multiprocessing` children.

    Example::

        async with Processes(4, preload=["myapp.images"]) as processes:
            thumbnail = await processes.run(resize, picture, 64)
    """

    __slots__ = (
        "_attempts",
        "_crashes",
        "_initializer",
        "_max_calls",
        "_method",
        "_preload",
        "_seats",
        "_starter",
        "_workers",
    )

    def __init__(
        self,
        workers: int | None = None,
        *,
        attempts: int = 2,
        initializer: Callable[[], object] | None = None,
        preload: Sequence[str] = (),
        method: StartMethod | None = None,
        max_calls: int | None = None,
        name: str = "processes",
    ) -> None:
        super().__init__(processors() if workers is None else count("workers", workers), name)
        self._attempts = count("attempts", attempts)
        self._initializer = (
            None if initializer is None else plain_function("initializer", initializer)
        )
        self._preload = _modules(preload)
        self._method = None if method is None else choice("method", method, start_methods())
        self._max_calls = optional_count("max_calls", max_calls)
        self._crashes = 0
        self._seats: list[WorkerProcess] = []
        self._workers: set[WorkerProcess] = set()
        self._starter: ThreadPoolExecutor | None = None

    def statistics(self) -> ExecutorStatistics:
        """Return the figures of this moment."""
        return replace(super().statistics(), crashes=self._crashes)

    async def _start(self, tasks: TaskGroup) -> None:
        from concurrent.futures import ThreadPoolExecutor

        await super()._start(tasks)
        self._crashes = 0
        # Asked here, which imports multiprocessing: its modules import each other, so that two
        # threads that began with it at once would see halves of it.
        self._method = self._method or start_methods()[0]
        # A thread of our own: anyio's would keep an interpreter from exiting inside the block.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name}-start")
        atexit.register(self._kill)
        self._seats = [self._hire() for _ in range(self.capacity)]

    async def _drain(self) -> None:
        await super()._drain()
        for worker in self._workers:
            worker.hang_up()
        with move_on_after(_GRACE):
            for worker in tuple(self._workers):
                await worker.gone()

    def _settle(self) -> None:
        super()._settle()
        atexit.unregister(self._kill)
        _shut(self._starter)
        self._seats = []
        for worker in tuple(self._workers):
            worker.dismiss()
            worker.bury()

    def _kill(self) -> None:
        """End every process when the interpreter exits inside the block."""
        for worker in self._workers:
            worker.kill()

    def _hire(self) -> WorkerProcess:
        """Begin to start a worker process in the background."""
        worker = WorkerProcess(ended=self._workers.discard)
        self._workers.add(worker)
        self._open_group().start_soon(self._boot, worker)
        return worker

    async def _boot(self, worker: WorkerProcess) -> None:
        """Start a worker process; what goes wrong reaches the call that waits for it."""
        try:
            with await _connect(worker) as link:
                await self._started(worker, link)
        except Exception as error:
            worker.dismiss(error)

    async def _started(self, worker: WorkerProcess, link: socket.socket) -> None:
        """Wait until the process runs; a start that has begun is not left half done."""
        start = asyncio.get_running_loop().run_in_executor(
            self._starter, self._start_one, worker, link
        )
        try:
            await asyncio.wait((start,))
        except asyncio.CancelledError:
            await _outlast(start)
            start.exception()  # it has been seen; the cancellation is what counts
            raise
        start.result()

    def _start_one(self, worker: WorkerProcess, link: socket.socket) -> None:
        """Start the process of ``worker``; blocks, so it runs in a thread."""
        import multiprocessing

        context = cast("SpawnContext", multiprocessing.get_context(self._method))
        context.set_forkserver_preload(["__main__", child.__name__, *self._preload])
        process = context.Process(
            target=child.serve, args=(link, self._initializer), name=self.name, daemon=True
        )
        worker.start(process)

    async def _call(self, fn: Callable[..., object], args: tuple[object, ...]) -> object:
        frame = child.pack_call(fn, args)
        group = self._group
        worker = self._seats.pop()
        try:
            for _ in range(self._attempts):
                if not worker.takes(self._max_calls):
                    worker = self._hire()
                if (reply := await worker.answer(frame)) is not None:
                    return child.unpack_reply(reply)
                if self._group is not group:
                    raise self._closed()
                self._crashes += 1
            raise WorkerCrashedError(
                f"{worker.death(child.named(fn))}; attempts: {self._attempts}",
                attempts=self._attempts,
            )
        finally:
            if self._group is group:
                self._seats.append(worker)


@final
class _Link(asyncio.BufferedProtocol):
    """The transport's side of one worker process: collects frames, reports the end.

    Args:
        worker: Who gets the answers.
    """

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._buffer = bytearray(_SHORT_ANSWER)
        self._used = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the worker process send."""
        self._worker.connected(cast("asyncio.Transport", transport))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        del sizehint
        return memoryview(self._buffer)[self._used :]

    def buffer_updated(self, nbytes: int) -> None:
        """Collect one frame; there is never more than one under way."""
        self._used += nbytes
        if self._used < HEADER.size:
            return
        end = HEADER.size + HEADER.unpack_from(self._buffer)[0]
        if self._used == end:
            body, self._used = memoryview(self._buffer)[HEADER.size : end], 0
            if end > _SHORT_ANSWER:
                self._buffer = bytearray(_SHORT_ANSWER)
            self._worker.answered(body)
        elif end > len(self._buffer):
            begun, self._buffer = self._buffer, bytearray(end)
            self._buffer[: self._used] = memoryview(begun)[: self._used]

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever the reason, the process is of no use any more."""
        del exc
        self._worker.lost()


async def _connect(worker: WorkerProcess) -> socket.socket:
    """Listen on one end of a new socket pair and return the other end."""
    import socket

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _IN_FLIGHT)
        unix = ours.family == getattr(socket, "AF_UNIX", None)
        connect = loop.create_unix_connection if unix else loop.create_connection
        await connect(lambda: _Link(worker), sock=ours)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return theirs


def _modules(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"preload must be a sequence of module names, not {names!r}")
    return tuple(text("preload", each) for each in names)
