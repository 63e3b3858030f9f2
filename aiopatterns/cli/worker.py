"""``aiopatterns worker``: runs the jobs of a queue, in this process or in several.

A worker ends with code 0 after a signal, also after a second one that forces it. The processes of a
supervisor are this same command with ``--child``: they print nothing and end when their standard
input does, which is a pipe from the supervisor.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from aiopatterns.cli.exits import DONE
from aiopatterns.core.telemetry import install_listener, log_events
from aiopatterns.jobs.supervisor import Supervisor
from aiopatterns.jobs.target import load_queue
from aiopatterns.jobs.worker import Worker
from aiopatterns.processor.units import seconds

if TYPE_CHECKING:
    from argparse import Namespace

    from aiopatterns.core.telemetry import Event, Listener
    from aiopatterns.jobs.ledger import WorkerStatistics
    from aiopatterns.jobs.queue import JobQueue

__all__ = ["worker"]

W = TypeVar("W", Worker, Supervisor)

# Threads that a synchronous function still keeps busy do not keep the process from ending.
_ANYIO_THREAD: Final = "AnyIO worker thread"


def worker(options: Namespace) -> int:
    """Run workers until a signal; returns the exit code.

    Args:
        options: What the command line says.

    Raises:
        ValueError: The target names no queue, or the options do not fit it.
        BackendUnavailableError: Nobody answers at the beginning.
        Exception: What importing the target raises.
    """
    log = log_events()
    # A line for each job would cost more than most jobs; --debug has them.
    listener = log if "debug" in options else partial(_log_rare, log)
    with install_listener(listener):
        if options.processes > 1 or options.reload:
            return _supervise(options)
        return _work(options)


def _log_rare(log: Listener, event: Event) -> None:
    """Log what is worth a line."""
    if event.level != "debug":
        log(event)


def _supervise(options: Namespace) -> int:
    supervisor = Supervisor(
        options.target,
        processes=options.processes,
        concurrency=options.concurrency,
        grace=options.grace,
        max_jobs=options.max_jobs,
        reload=options.reload,
        backend=options.backend,
    )
    _banner(load_queue(options.target, options.backend), options)
    return _ended(f"{_run(supervisor).statistics().restarts} restarts")


def _work(options: Namespace) -> int:
    queue = load_queue(options.target, options.backend)
    one = Worker(
        queue,
        concurrency=options.concurrency,
        grace=options.grace,
        max_jobs=options.max_jobs,
    )
    if options.child:
        _end_with_parent()
        return _leave(_run(one), quiet=True)
    _banner(queue, options)
    return _leave(_run(one), quiet=False)


def _leave(one: Worker, *, quiet: bool) -> int:
    """Say how it went, and end."""
    if not quiet:
        _ended(_summary(one.statistics()))
    _leave_threads()
    return DONE


def _ended(how: str) -> int:
    print(f"ended: {how}", flush=True)
    return DONE


def _run(owner: W) -> W:
    uvloop = {"use_uvloop": find_spec("uvloop") is not None}
    return anyio.run(_serve, owner, backend_options=uvloop)


async def _serve(owner: W) -> W:
    """Serve until a signal; returns who has served."""
    await owner.serve()
    return owner


def _banner(queue: JobQueue, options: Namespace) -> None:
    """Say what begins; the command is worthless if one cannot see that it does."""
    names = ", ".join(sorted(queue.jobs)) or "none"
    plural = "process" if options.processes == 1 else "processes"
    print(
        f"aiopatterns worker: queue {queue.name!r} at {queue.backend.url}\n"
        f"{options.processes} {plural}, {options.concurrency} jobs at once in each,"
        f" {options.grace:g} s grace\n"
        f"jobs: {names}\n"
        f"Ctrl-C ends it gracefully, twice at once",
        flush=True,
    )


def _summary(figures: WorkerStatistics) -> str:
    text = f"{figures.processed} done, {figures.failed} dead, {figures.retried} retried"
    lost = sum(each.lost + each.stale for each in figures.queues.values())
    if lost:
        text += f", {lost} lost to other workers"
    if figures.p50 is None or figures.p99 is None:
        return text
    return f"{text}; half within {seconds(figures.p50)}, 99 % within {seconds(figures.p99)}"


def _end_with_parent() -> None:
    """Stop, as after a signal, when the supervisor at the other end of the pipe is gone."""

    def watch() -> None:
        # Not by sys.stdin: its lock, held by a daemon thread, is fatal when the interpreter ends.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _leave_threads() -> None:
    """End now if a function that was abandoned still has a thread, for which Python would wait."""
    if any(each.name == _ANYIO_THREAD and each.is_alive() for each in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(DONE)
