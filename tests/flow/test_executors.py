"""Executors: the three engines behind one call, their bounds, cancellation and ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import operator
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import ClosedError, RemoteError, WorkerCrashedError
from aiopatterns.flow import executors
from aiopatterns.flow.child import HEADER
from aiopatterns.flow.executors import Executor, Inline, Processes, Threads
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere

VARIABLE = contextvars.ContextVar("variable", default="unset")
STATE: list[int] = []
WRONG: Any = 3


def note_pid():
    STATE.append(os.getpid())


def noted():
    return list(STATE)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code):
    os._exit(code)


def die_unless(path):
    if not Path(path).exists():
        Path(path).touch()
        die()
    return "alive"


def linger(path, seconds):
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)


def broken_initializer():
    raise LookupError("no licence")


class Unpicklable(Exception):
    def __init__(self, *, code):
        super().__init__("odd one")
        self.code = code


def raise_unpicklable():
    raise Unpicklable(code=1)


def give_lambda():
    return lambda: None


def big(size):
    return bytes(size)


def boom(item):
    raise ValueError(f"no {item}")


async def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        await anyio.sleep(0.005)
    raise AssertionError("it never came true")


def is_alive(pid):
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def str_to_any(value: str) -> Any:
    return value


async def double(x):
    await yield_now()
    return 2 * x


class AsyncCallable:
    async def __call__(self):
        """Do nothing."""


ASYNC_CALL: Any = (double, 1)
CALLED_ASYNC: Any = AsyncCallable()


# -- Inline


async def test_inline_runs_both_kinds_of_functions():
    async with Inline() as here:
        assert await here.run(operator.add, 1, 2) == 3
        assert await here.run(double, 4) == 8
        with pytest.raises(ValueError, match="no 5"):
            await here.run(boom, 5)
        figures = here.statistics()
    assert (figures.capacity, figures.running, figures.done, figures.failed) == (8, 0, 2, 1)


async def test_limit_holds_and_order_is_first_come_first_served():
    running, most, started = 0, 0, []

    async def work(i):
        nonlocal running, most
        started.append(i)
        running += 1
        most = max(most, running)
        await yield_now()
        await yield_now()
        running -= 1

    async with Inline(2) as here, anyio.create_task_group() as group:
        for i in range(7):
            group.start_soon(here.run, work, i)
    assert most == 2
    assert sorted(started) == list(range(7))


def inline_scenario():
    ran = []
    here = Inline(1)

    async def work(i):
        ran.append(i)
        await yield_now()

    async def scenario():
        async with here, anyio.create_task_group() as group:
            group.start_soon(here.run, work, 1)
            group.start_soon(here.run, work, 2)
            await here.run(work, 3)

    def check():
        figures = here.statistics()
        assert figures.running == figures.queued == 0
        assert figures.done + figures.failed == len(ran)

    return Trial(scenario(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_a_cancelled_caller_leaves_no_claim_behind():
    cancel_everywhere(inline_scenario, minimum=3)


def thread_scenario():
    ran: list[int] = []
    pool = Threads(1)

    async def scenario():
        async with pool, anyio.create_task_group() as group:
            group.start_soon(pool.run, ran.append, 1)
            group.start_soon(pool.run, ran.append, 2)
            await pool.run(ran.append, 3)

    def check():
        figures = pool.statistics()
        assert figures.running == figures.queued == 0
        assert figures.done <= len(ran)

    return Trial(scenario(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_thread_calls_cancelled_anywhere():
    cancel_everywhere(thread_scenario, minimum=3)
    cancel_everywhere(thread_scenario, minimum=3, seed=5)


@pytest.mark.promise("flow-fail-everywhere")
def test_failures_anywhere():
    def factory(fault):
        pool = Threads(2)

        async def scenario():
            async with pool:
                for _ in range(3):
                    await pool.run(fault)

        return Trial(scenario(), lambda: None)

    fail_everywhere(factory, minimum=3)


@pytest.mark.promise("flow-seeds")
def test_threads_keep_their_limit_under_many_seeds():
    async def scenario():
        async with Threads(3) as pool:
            values = await asyncio.gather(*(pool.run(operator.mul, i, i) for i in range(8)))
        assert values == [i * i for i in range(8)]

    explore(scenario, range(200))


# -- life


@pytest.mark.parametrize("make", [Inline, lambda: Threads(1)])
async def test_unopened_and_left_executors_refuse(make):
    executor = make()
    with pytest.raises(ClosedError, match="async with"):
        await executor.run(int)
    async with executor:
        assert await executor.run(int) == 0
    with pytest.raises(ClosedError):
        await executor.run(int)
    async with executor:
        assert await executor.run(int) == 0


async def test_leaving_waits_for_calls_and_the_line():
    ended = []

    async def slow(i):
        for _ in range(5):
            await yield_now()
        ended.append(i)

    here = Inline(1)
    async with anyio.create_task_group() as group:
        async with here:
            group.start_soon(here.run, slow, 1)
            group.start_soon(here.run, slow, 2)
            await yield_now()
            await yield_now()
        assert ended == [1, 2]


async def test_a_call_during_the_drain_is_refused():
    here = Inline()

    async def nested():
        await yield_now()
        await yield_now()
        with pytest.raises(ClosedError, match="closing"):
            await here.run(int)

    async with anyio.create_task_group() as group:
        async with here:
            group.start_soon(here.run, nested)
            await yield_now()


async def test_an_error_in_the_block_ends_the_line():
    here = Inline(1)
    results = []

    async def forever():
        await anyio.sleep(1000)

    async def caller(fn):
        try:
            await here.run(fn)
        except ClosedError as error:
            results.append(str(error))

    async with anyio.create_task_group() as group:
        with pytest.raises(KeyError):
            async with here:
                group.start_soon(caller, forever)
                group.start_soon(caller, int)
                await yield_now()
                await yield_now()
                raise KeyError("body")
        await yield_now()
        await yield_now()
        assert results == ["Inline 'inline' was closed under the call"]
        group.cancel_scope.cancel()


async def test_a_waiter_cancelled_in_the_turn_of_the_close_returns_no_place():
    here = Inline(1)
    async with anyio.create_task_group() as group:
        with pytest.raises(KeyError):
            async with here:
                group.start_soon(here.run, anyio.sleep, 1000)
                await yield_now()
                await yield_now()
                waiter = asyncio.get_running_loop().create_task(here.run(int))
                await yield_now()
                raise KeyError
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert here.statistics().running == 0
        group.cancel_scope.cancel()


async def test_another_loop_is_refused():
    async with Inline() as here:

        async def elsewhere():
            await here.run(int)

        def run_elsewhere():
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(elsewhere())

        thread_error = []

        def guarded():
            try:
                run_elsewhere()
            except RuntimeError as error:
                thread_error.append(str(error))

        thread = threading.Thread(target=guarded)
        thread.start()
        thread.join()
    assert "another event loop" in thread_error[0]


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Inline(0), ValueError, "limit must be"),
        (lambda: Threads(0), ValueError, "workers must be"),
        (lambda: Threads(True), TypeError, "workers must be"),
        (lambda: Processes(-1), ValueError, "workers must be a whole number"),
        (lambda: Processes(1, attempts=0), ValueError, "attempts must be"),
        (lambda: Processes(1, initializer=WRONG), TypeError, "initializer must be a function"),
        (
            lambda: Processes(1, initializer=CALLED_ASYNC),
            TypeError,
            "initializer must be a plain function",
        ),
        (lambda: Processes(1, preload="json"), TypeError, "preload must be a sequence"),
        (
            lambda: Processes(1, preload=WRONG),
            TypeError,
            "preload must be a sequence of module names, not 3",
        ),
        (lambda: Processes(1, preload=[WRONG]), TypeError, "preload must be"),
        (lambda: Processes(1, method=str_to_any("fork")), ValueError, "method must be one of"),
        (lambda: Processes(1, max_calls=0), ValueError, "max_calls must be"),
        (lambda: Threads(1, name=""), ValueError, "name must be"),
    ],
)
def test_bad_constructor_arguments(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.promise("flow-bad-input")
async def test_bad_functions():
    async with Threads(1) as pool, Inline() as here:
        with pytest.raises(TypeError, match="fn must be a function, not 3"):
            await pool.run(WRONG)
        with pytest.raises(TypeError, match="fn must be a function"):
            await here.run(WRONG)
        with pytest.raises(TypeError, match="double is asynchronous"):
            await pool.run(*ASYNC_CALL)
        with pytest.raises(TypeError, match=r"AsyncCallable object.* is asynchronous"):
            await pool.run(CALLED_ASYNC)
    assert pool.statistics().failed == 0


def test_own_engines_subclass_executor():
    class Reversed(Executor):
        __slots__ = ()

        async def _call(self, fn, args):
            return fn(*reversed(args))

    async def main():
        async with Reversed(3, "reversed") as engine:
            return await engine.run(operator.sub, 1, 5)

    assert asyncio.run(main()) == 4


# -- Threads


@pytest.mark.real
async def test_threads_see_context_and_run_elsewhere():
    VARIABLE.set("mine")
    async with Threads(2, name="mill") as pool:
        assert await pool.run(VARIABLE.get) == "mine"
        assert (await pool.run(threading.current_thread)).name.startswith("mill")


async def test_thread_outcomes_that_futures_refuse():
    def stop():
        raise StopIteration

    async with Threads(1) as pool:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await pool.run(stop)


@pytest.mark.real
async def test_a_cancelled_caller_waits_for_its_thread():
    entered, release, ended = threading.Event(), threading.Event(), []

    def work():
        entered.set()
        release.wait(10)
        ended.append(True)
        raise ValueError("late")

    async with Threads(1) as pool:
        call = asyncio.get_running_loop().create_task(pool.run(work))
        queued = asyncio.get_running_loop().create_task(pool.run(ended.append, False))
        await wait_for(entered.is_set)
        queued.cancel()
        call.cancel()
        await anyio.sleep(0.01)
        call.cancel()
        await anyio.sleep(0.01)
        assert not call.done()
        assert queued.done()
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert isinstance(caught.value.__cause__, ValueError)
        assert ended == [True]
        assert await pool.run(int) == 0


@pytest.mark.real
async def test_what_is_no_exception_reaches_the_caller_or_its_cancellation():
    entered, release, reports = threading.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, report: reports.append(report))

    def leave():
        entered.set()
        release.wait(10)
        raise SystemExit(3)

    async with Threads(1) as pool:
        call = loop.create_task(pool.run(leave))
        await wait_for(entered.is_set)
        call.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert isinstance(caught.value.__cause__, SystemExit)
        with pytest.raises(SystemExit):
            await pool.run(leave)
    del call, caught
    gc.collect()
    assert not reports


async def test_threads_that_cannot_start_settle_nothing(monkeypatch):
    import concurrent.futures

    def refuse(*args, **options):
        raise OSError("no threads")

    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", refuse)
    with pytest.raises(OSError, match="no threads"):
        async with Threads(1):
            pass


# -- Processes


def test_frames_arrive_in_pieces():
    got = []

    class Worker:
        answered = staticmethod(lambda body: got.append(bytes(body)))

    worker: Any = Worker()
    link = executors._Link(worker)
    message = bytes(range(256)) * 1000
    frame = HEADER.pack(len(message)) + message
    for repeat in range(2):
        position = 0
        for size in (3, 7, 60_000, len(frame)):
            part = frame[position : position + size]
            view = link.get_buffer(-1)
            view[: len(part[: len(view)])] = part[: len(view)]
            link.buffer_updated(len(part[: len(view)]))
            position += len(part[: len(view)])
        while position < len(frame):
            view = link.get_buffer(-1)
            part = frame[position : position + len(view)]
            view[: len(part)] = part
            link.buffer_updated(len(part))
            position += len(part)
        assert got == [message] * (repeat + 1)


@pytest.mark.real
async def test_processes_run_and_report():
    async with Processes(2) as pool:
        assert await asyncio.gather(*(pool.run(operator.mul, i, i) for i in range(9))) == [
            i * i for i in range(9)
        ]
        assert len(await pool.run(big, 300_000)) == 300_000
        assert await pool.run(len, bytes(2_000_000)) == 2_000_000
        assert len(await pool.run(big, 3)) == 3
        with pytest.raises(ValueError, match="no 7") as caught:
            await pool.run(boom, 7)
        assert "in worker process" in caught.value.__notes__[0]
        with pytest.raises(RemoteError, match="Unpicklable: odd one") as substitute:
            await pool.run(raise_unpicklable)
        assert "raise_unpicklable" in substitute.value.__notes__[0]
        with pytest.raises(TypeError, match="give_lambda returned cannot be sent"):
            await pool.run(give_lambda)
        figures = pool.statistics()
        assert (figures.done, figures.failed, figures.crashes) == (12, 3, 0)
    assert not multiprocessing.active_children()


@pytest.mark.real
async def test_what_cannot_be_sent_is_named():
    async with Processes(1) as pool:
        with pytest.raises(TypeError, match=r"lambda> cannot be sent.*top level of a module"):
            await pool.run(lambda: 1)
        with pytest.raises(TypeError, match="argument 2 of add cannot be sent"):
            await pool.run(operator.add, 1, lambda: 2)
        with pytest.raises(TypeError, match="asynchronous"):
            await pool.run(*ASYNC_CALL)


@pytest.mark.real
async def test_a_crash_is_retried_in_a_fresh_process(tmp_path):
    flag = str(tmp_path / "flag")
    async with Processes(1) as pool:
        assert await pool.run(die_unless, flag) == "alive"
        assert pool.statistics().crashes == 1
        with pytest.raises(
            WorkerCrashedError, match=r"killed by signal 9 under die; attempts: 2"
        ) as caught:
            await pool.run(die)
        assert caught.value.attempts == 2
        with pytest.raises(WorkerCrashedError, match="ended with exit code 3"):
            await pool.run(leave, 3)
        assert await pool.run(int) == 0


@pytest.mark.real
async def test_cancelling_a_running_call_kills_its_process(tmp_path):
    path = tmp_path / "pid"
    async with Processes(1) as pool:
        call = asyncio.get_running_loop().create_task(pool.run(linger, str(path), 60))
        await wait_for(lambda: path.exists() and path.read_text())
        queued = asyncio.get_running_loop().create_task(pool.run(linger, "/nowhere", 60))
        await anyio.sleep(0)
        queued.cancel()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await pool.run(operator.add, 2, 3) == 5
        assert not is_alive(path.read_text())
        assert queued.cancelled()
        assert pool.statistics().crashes == 0


@pytest.mark.real
async def test_a_caller_cancelled_before_the_start_leaves_the_process_alone():
    async with Processes(1, name="fresh") as pool:
        with anyio.move_on_after(0):
            await pool.run(int)
        assert await pool.run(os.getpid) == await pool.run(os.getpid)


@pytest.mark.real
async def test_initializer_makes_state_and_max_calls_renews_it():
    async with Processes(1, initializer=note_pid, max_calls=2, preload=["json"]) as pool:
        first = await pool.run(noted)
        assert await pool.run(noted) == first == [await _pid_of(first)]
        assert await pool.run(noted) != first


async def _pid_of(noted_pids):
    return noted_pids[0]


@pytest.mark.real
async def test_a_failing_initializer_reaches_the_caller():
    async with Processes(1, initializer=broken_initializer) as pool:
        for _ in range(2):
            with pytest.raises(LookupError, match="no licence"):
                await pool.run(int)


@pytest.mark.real
async def test_spawned_processes_work_as_well():
    async with Processes(1, method="spawn") as pool:
        assert await pool.run(operator.add, 1, 1) == 2


@pytest.mark.real
async def test_no_process_survives_an_error_in_the_block(tmp_path):
    path = tmp_path / "pid"
    outcome = []
    pool = Processes(2)

    async def caller():
        try:
            await pool.run(linger, str(path), 60)
        except ClosedError as error:
            outcome.append(error)

    async with anyio.create_task_group() as group:
        with pytest.raises(KeyError):
            async with pool:
                group.start_soon(caller)
                await wait_for(lambda: path.exists() and path.read_text())
                raise KeyError
        assert not is_alive(path.read_text())
        assert not multiprocessing.active_children()
    assert len(outcome) == 1


@pytest.mark.real
async def test_leaving_at_once_waits_for_nobody():
    for _ in range(3):
        async with Processes(2):
            pass
        assert not multiprocessing.active_children()
    with pytest.raises(KeyError):
        async with Processes(2):
            await anyio.sleep(0)
            raise KeyError
    assert not multiprocessing.active_children()


@pytest.mark.real
async def test_what_goes_wrong_at_the_start_reaches_the_caller(monkeypatch):
    async def refuse(worker):
        raise OSError("no more sockets")

    monkeypatch.setattr(executors, "_connect", refuse)
    async with Processes(1) as pool:
        with pytest.raises(OSError, match="no more sockets"):
            await pool.run(int)


@pytest.mark.real
async def test_a_start_under_way_is_waited_for(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def start_one(self, worker, link):
        begun.set()
        go_on.wait(10)
        raise OSError("too late")

    monkeypatch.setattr(Processes, "_start_one", start_one)
    with pytest.raises(KeyError):
        async with Processes(1):
            await wait_for(begun.is_set)
            threading.Timer(0.02, go_on.set).start()
            raise KeyError
    assert go_on.is_set()


@pytest.mark.real
async def test_sockets_that_are_no_unix_sockets(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socketpair", _tcp_pair)
    async with Processes(1) as pool:
        assert await pool.run(operator.add, 1, 1) == 2


def _tcp_pair():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


@pytest.mark.real
async def test_a_failed_connection_closes_both_ends(monkeypatch):
    loop = asyncio.get_running_loop()

    async def refuse(*args, **options):
        raise OSError("refused")

    class Loop:
        def __getattr__(self, name):
            return refuse if name.startswith("create_") else getattr(loop, name)

    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    nobody: Any = None
    with pytest.raises(OSError, match="refused"):
        await executors._connect(nobody)


async def test_the_simulated_loop_says_why_there_are_no_processes():
    from aiopatterns.testing import SimLoop

    if not isinstance(asyncio.get_running_loop(), SimLoop):
        return
    async with Processes(1) as pool:
        with pytest.raises(RuntimeError, match="real world"):
            await pool.run(int)
