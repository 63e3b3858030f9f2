"""What all adapter programs have in common: the three jobs, the command line, the meter.

An adapter is a small program for one library, run by the interpreter of that library's own
environment; this module is all it shares with the others and needs the standard library alone.
The program is told where things are by environment variables, because it is also imported by the
library's own worker command::

    JOBS_URL          redis://127.0.0.1:PORT, for not every library can do Unix sockets
    JOBS_CONCURRENCY  jobs at once in a worker
    JOBS_LEDGER       the file to which jobs append
    JOBS_FLAVOUR      for a library that is two contenders

and what to do by its command, each of which prints one line of JSON::

    enqueue TASK COUNT [--one-by-one]  put jobs on the queue; seconds and the server's cost
    drain COUNT                        put no-ops on the queue, then run them in this process,
                                       tuned, until every result is stored; cost of the middle
    probe COUNT PACE [--delay S]       one probe job each PACE seconds or so
    work                               become the library's own worker command, default settings
    held                               (keys on stdin) which of them the library will still run
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

URL = os.environ["JOBS_URL"]
CONCURRENCY = int(os.environ.get("JOBS_CONCURRENCY", "10"))
FLAVOUR = os.environ.get("JOBS_FLAVOUR", "")
TASKS = ("noop", "work", "probe")
WORK_SECONDS = 0.02
LONGEST = 60.0  # seconds until the last job of a drained queue must have started
PATIENCE = 10.0  # seconds until every result of a drained queue must be stored


class Adapter(Protocol):
    """One library, behind what the commands need."""

    async def open(self) -> None:
        """Connect, as a program that enqueues does."""

    async def one(self, task: str, key: str, delay: float) -> None:
        """Enqueue one job with the id ``key``."""

    async def many(self, task: str, keys: Sequence[str]) -> None:
        """Enqueue jobs by the fastest means the library documents."""

    async def work(self) -> None:
        """Run a worker in this process, tuned, until cancelled."""

    def command(self) -> list[str]:
        """The library's own worker command, default settings, ``CONCURRENCY`` at once."""

    async def stored(self, keys: Sequence[str]) -> int:
        """How many of these jobs have their result stored, and the right one."""

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """Those of these jobs that the library still has and will run."""


# --------------------------------------------------------------------------------- the three jobs


async def noop(key: str) -> int:
    """Do nothing, but be counted."""
    METER.start()
    return 1


async def work(key: str) -> int:
    """Take a while, then leave one line in the ledger."""
    await asyncio.sleep(WORK_SECONDS)
    _append(key)
    return 1


async def probe(key: str) -> int:
    """Leave in the ledger how late this job is; its key says when it should start."""
    _append(str(time.monotonic_ns() - int(key)))
    return 1


def _append(line: str) -> None:
    """One write to a file opened for appending: whole, unbuffered, and out of Redis."""
    if not _LEDGER:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        _LEDGER.append(os.open(os.environ["JOBS_LEDGER"], flags, 0o600))
    os.write(_LEDGER[0], line.encode() + b"\n")


_LEDGER: list[int] = []


# -------------------------------------------------------------------------------------- the meter


@dataclass
class Cost:
    """What had been spent at one moment, here and in the server."""

    seconds: float
    cpu: float
    reads: int
    commands: int
    server_cpu: float

    @classmethod
    def now(cls) -> Cost:
        """Ask the server over a connection of its own, blocking: nothing else runs meanwhile."""
        info = server_info()
        return cls(
            seconds=time.perf_counter(),
            cpu=time.process_time(),
            reads=int(info["total_reads_processed"]),
            commands=int(info["total_commands_processed"]),
            server_cpu=float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
        )

    def since(self, then: Cost, jobs: int) -> dict[str, float]:
        """What one job has cost since ``then``; seconds and CPU in microseconds."""
        return {
            "jobs": jobs,
            "us": (self.seconds - then.seconds) / jobs * 1e6,
            "cpu_us": (self.cpu - then.cpu) / jobs * 1e6,
            "reads": (self.reads - then.reads) / jobs,
            "commands": (self.commands - then.commands) / jobs,
            "server_us": (self.server_cpu - then.server_cpu) / jobs * 1e6,
        }


class Meter:
    """Measures the middle of a drain: from the start of one job to the start of the last.

    The first jobs, as many as run at once, are not counted, so that what is measured holds as
    many claims as acknowledgements, and neither start-up nor a library's way to stop.
    """

    def __init__(self) -> None:
        self.first = self.last = -1
        self.started = 0
        self.costs: list[Cost] = []
        self.over = asyncio.Event()

    def arm(self, count: int, concurrency: int) -> None:
        """Measure between these two of the jobs to come."""
        self.first, self.last = concurrency + 1, count

    def start(self) -> None:
        """One more job has started."""
        self.started += 1
        if self.started == self.first or self.started == self.last:
            self.costs.append(Cost.now())
            if self.started == self.last:
                self.over.set()

    def figures(self) -> dict[str, float]:
        """Cost of a job in the middle."""
        begin, end = self.costs
        return end.since(begin, self.last - self.first)


METER = Meter()


def server_info() -> dict[str, str]:
    """INFO of the server, by a socket: no client library's cost, and none of its reads."""
    parts = urlsplit(URL)
    with (
        socket.create_connection((parts.hostname, parts.port)) as line,
        line.makefile("rb") as replies,
    ):
        line.sendall(b"INFO\r\n")
        size = int(replies.readline()[1:])
        text = replies.read(size).decode()
    return dict(each.split(":", 1) for each in text.splitlines() if ":" in each)


# ---------------------------------------------------------------------------------- the commands


def main(adapter: Adapter) -> None:
    """Do what the command line says, and leave by the shortest way."""
    arguments = _arguments()
    if arguments.command == "work":
        command = adapter.command()
        os.execv(command[0], command)

    import uvloop  # every environment has it; all contenders run on it

    uvloop.run(_answer(_COMMANDS[arguments.command](adapter, arguments)))


async def _answer(told: Coroutine[Any, Any, object]) -> None:
    print(json.dumps(await told), flush=True)
    os._exit(0)  # how a library shuts down is not what is measured here


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    enqueue = commands.add_parser("enqueue")
    enqueue.add_argument("task", choices=TASKS)
    enqueue.add_argument("count", type=int)
    enqueue.add_argument("--one-by-one", action="store_true")
    drain = commands.add_parser("drain")
    drain.add_argument("count", type=int)
    probes = commands.add_parser("probe")
    probes.add_argument("count", type=int)
    probes.add_argument("pace", type=float)
    probes.add_argument("--delay", type=float, default=0.0)
    commands.add_parser("work")
    commands.add_parser("held")
    return parser.parse_args()


def keys(count: int) -> list[str]:
    """The ids of a run's jobs."""
    return [f"job-{number:06d}" for number in range(count)]


async def _enqueue(adapter: Adapter, arguments: argparse.Namespace) -> object:
    await adapter.open()
    names = keys(arguments.count)
    warm, names = names[:1], names[1:]  # connects, loads scripts
    await adapter.many(arguments.task, warm)
    before = Cost.now()
    if arguments.one_by_one:
        for name in names:
            await adapter.one(arguments.task, name, 0.0)
    else:
        await adapter.many(arguments.task, names)
    return Cost.now().since(before, len(names))


async def _drain(adapter: Adapter, arguments: argparse.Namespace) -> object:
    await adapter.open()
    names = keys(arguments.count)
    await adapter.many("noop", names)
    METER.arm(arguments.count, CONCURRENCY)
    worker = asyncio.ensure_future(adapter.work())
    over = asyncio.ensure_future(METER.over.wait())
    await asyncio.wait((worker, over), timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
    if not over.done():
        raise RuntimeError(f"{METER.started} of {len(names)} jobs started; the worker: {worker}")
    stored = await _until_stored(adapter, names)
    return METER.figures() | {"stored": stored}


async def _until_stored(adapter: Adapter, names: list[str]) -> int:
    deadline = time.monotonic() + PATIENCE
    while (stored := await adapter.stored(names)) < len(names):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{stored} of {len(names)} results stored after {PATIENCE} s")
        await asyncio.sleep(0.05)
    return stored


async def _probe(adapter: Adapter, arguments: argparse.Namespace) -> object:
    await adapter.open()
    delay = arguments.delay
    for _ in range(arguments.count):
        due = time.monotonic_ns() + int(delay * 1e9)
        await adapter.one("probe", str(due), delay)
        await asyncio.sleep(arguments.pace * random.uniform(0.5, 1.5))
    return {"probes": arguments.count}


async def _held(adapter: Adapter, arguments: argparse.Namespace) -> object:
    await adapter.open()
    return sorted(await adapter.held(json.loads(sys.stdin.read())))


_COMMANDS = {"enqueue": _enqueue, "drain": _drain, "probe": _probe, "held": _held}
