"""Known failures of other libraries that concern executors, each a named test."""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from aiopatterns.core.errors import ClosedError, WorkerCrashedError
from aiopatterns.flow.executors import Inline, Processes, Threads

ROOT = Path(__file__).resolve().parent.parent.parent
REQUEST = contextvars.ContextVar("request", default="nobody")


def square(x):
    return x * x


def poison(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


@pytest.mark.real
@pytest.mark.promise("regression-22-worker-state-fails")
async def test_a_crashed_process_loses_only_the_call_that_crashed_it():
    async with Processes(2) as pool:
        ends = await asyncio.gather(
            *(pool.run(poison, i) for i in range(8)), return_exceptions=True
        )
    assert isinstance(ends.pop(3), WorkerCrashedError)
    assert ends == [i * i for i in range(8) if i != 3]


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
async def test_an_executor_used_after_its_end_or_on_another_loop_says_so():
    executor = Inline()
    with pytest.raises(ClosedError, match="async with"):
        await executor.run(square, 2)
    errors = []

    def elsewhere():
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(executor.run(square, 2))
        except RuntimeError as error:
            errors.append(str(error))

    async with executor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert "another event loop" in errors[0]
    with pytest.raises(ClosedError):
        await executor.run(square, 2)


@pytest.mark.promise("regression-26-context-travels")
async def test_context_reaches_a_thread_and_leaks_to_no_other_call():
    def leave_a_mark():
        seen = REQUEST.get()
        REQUEST.set("somebody else")
        return seen

    async with Threads(1) as pool:
        REQUEST.set("first")
        assert await pool.run(leave_a_mark) == "first"
        REQUEST.set("second")
        assert await pool.run(leave_a_mark) == "second"
        assert REQUEST.get() == "second"


SCRIPT = """
import asyncio, sys, time
from aiopatterns.flow.executors import Processes, Threads

def nap(path):
    import os
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)

async def main(path, end):
    async with Processes(2) as pool, Threads(1):
        call = asyncio.create_task(pool.run(nap, path))
        import os
        while not (os.path.exists(path) and open(path).read()):
            await asyncio.sleep(0.005)
        if end == "exit":
            sys.exit(7)
        if end == "error":
            raise KeyError("body")
        loop = asyncio.get_running_loop()
        loop.stop()
        await asyncio.sleep(60)

if __name__ == "__main__":
    if sys.argv[2] == "abandoned":
        loop = asyncio.new_event_loop()
        task = loop.create_task(main(*sys.argv[1:]))
        try:
            loop.run_forever()
        finally:
            task._log_destroy_pending = False
    else:
        asyncio.run(main(*sys.argv[1:]))
"""


UNGUARDED = """
import asyncio
from aiopatterns.flow.executors import Processes

async def main():
    async with Processes(1) as pool:
        print(await pool.run(pow, 2, 3))
        await pool.run(here)

def here():
    pass

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("file", "for pow ended with exit code 1 before it took calls: it imports the main module"),
        (
            "stdin",
            "for pow ended with exit code 1 before it took calls: it imports the main module",
        ),
        (
            "-c",
            "TypeError: the call cannot be read in the worker process.*Can't get attribute 'her",
        ),
    ],
)
def test_a_main_module_that_worker_processes_cannot_import_is_named(tmp_path, how, said):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    ended = subprocess.run(
        [sys.executable, *{"file": [script], "stdin": ["-"], "-c": ["-c", UNGUARDED]}[how]],
        input=UNGUARDED if how == "stdin" else "",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=30,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(said, ended.stderr), ended.stderr


@pytest.mark.promise("regression-27-interpreter-exit")
@pytest.mark.parametrize("end", ["exit", "error", "abandoned"])
def test_an_interpreter_exits_with_live_processes_and_leaves_none(tmp_path, end):
    script, path = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, script, path, end],
        env=environment,
        timeout=15,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == {"exit": 7, "error": 1, "abandoned": 0}[end], ended.stderr
    assert not Path("/proc", path.read_text()).exists()
