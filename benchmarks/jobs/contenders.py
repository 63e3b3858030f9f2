"""The contenders of the jobs room, each a program in a process of its own.

Libraries whose dependencies exclude each other cannot be measured in one process. Every contender
is an adapter program under ``peers/`` with one command line (``peers/contract.py``), run by the
interpreter of its own environment (:mod:`benchmarks.peers`), ours by the one that runs this.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

from benchmarks import peers
from benchmarks.harness import Role

PROGRAMS = Path(__file__).resolve().parent / "peers"
LONGEST = 120.0  # seconds for one command


@dataclass(frozen=True, slots=True)
class Contender:
    """One library, or one of its brokers.

    Args:
        name: In tables.
        program: The adapter under ``peers/``.
        follows: The part of its documentation by which it is tuned; the adapter says more.
        role: Ours, a peer, or the bare loop that does only the necessary work.
        home: Its environment; None: ours.
        flavour: Which broker, for a library with two.
        delays: Whether its worker alone runs delayed jobs.
    """

    name: str
    program: str
    follows: str
    role: Role = "peer"
    home: str | None = None
    flavour: str = ""
    delays: bool = True

    @property
    def python(self) -> str | None:
        """Its interpreter; None if its environment cannot be made."""
        return sys.executable if self.home is None else peers.interpreter(self.home)

    def versions(self) -> dict[str, str]:
        """What is measured, and over which client."""
        if self.home is None:
            return {name: metadata.version(name) for name in ("aiopatterns", "redis")}
        return peers.versions(self.home)

    def call(
        self, url: str, *words: object, concurrency: int = 100, told: object = None
    ) -> dict[str, float]:
        """Run one command to its end and return what it has measured."""
        done = subprocess.run(
            [str(self.python), self.program, *map(str, words)],
            cwd=PROGRAMS,
            env=self._environment(url, concurrency, Path(os.devnull)),
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}, {' '.join(map(str, words))}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def worker(self, url: str, ledger: Path, log: IO[str], concurrency: int) -> Worker:
        """Start the library's own worker command, default settings but for the concurrency."""
        child = subprocess.Popen(
            [str(self.python), self.program, "work"],
            cwd=PROGRAMS,
            env=self._environment(url, concurrency, ledger),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return Worker(child)

    def _environment(self, url: str, concurrency: int, ledger: Path) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(PROGRAMS),
            "JOBS_URL": url,
            "JOBS_LEDGER": str(ledger),
            "JOBS_CONCURRENCY": str(concurrency),
            "JOBS_FLAVOUR": self.flavour,
        }


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker command that runs; it leads a process group, for some start children."""

    child: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.child.poll() is None

    def kill(self) -> None:
        """``kill -9`` to it and its children; nothing to do if it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def ours_and_peers() -> Sequence[Contender]:
    """Ours first, then every peer whose environment stands."""
    return [each for each in _CONTENDERS if each.python is not None]


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


_CONTENDERS = (
    Contender("aiopatterns", "run_aiopatterns.py", "defaults", role="ours"),
    Contender("arq", "run_arq.py", "reference, Worker: max_jobs, poll_delay", home="arq"),
    Contender("saq", "run_saq.py", "Worker: concurrency; Queue: max_concurrent_ops", home="saq"),
    Contender(
        "taskiq, list",
        "run_taskiq.py",
        "CLI, Other parameters: --max-async-tasks",
        home="taskiq",
        flavour="list",
        delays=False,
    ),
    Contender(
        "taskiq, stream",
        "run_taskiq.py",
        "CLI, Other parameters: --max-async-tasks, --max-prefetch",
        home="taskiq",
        flavour="stream",
        delays=False,
    ),
    Contender("streaq", "run_streaq.py", "Worker, Other configuration options", home="streaq"),
    Contender("docket", "run_docket.py", "Docket in Production, Core Settings", home="docket"),
)
LIMIT = Contender("list and results, no safety", "run_bare.py", "redis-py", role="limit")
