"""Run the fault book and write docs/reliability.md: ``make stress``.

Every test that holds an item is run, in its long form and its short one, in this order::

    soak        |==========================|            one process, SOAK_MINUTES
    simulated   |==================|                    seeds, fuzzers, cancellation; two processes
    real                           |==============|     kills, clusters, clocks; two processes
    again                                         |=|   what failed beside others, alone
    disaster                                        |=| beside five job queues

``--only 1 --only 12`` runs these items and prints them; the page is left as it is, unless ``--add``
asks for them in the page of the last run. Exit code 1 if an item is not held.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import psycopg

from aiopatterns import __version__
from aiopatterns.backends.redis.binaries import installed_binaries
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import PostgresServer
from tests import faultbook, figures, promises

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUILD: Final = promises.ROOT / "build" / "stress"
MEASURED: Final = BUILD / "figures.jsonl"
HELD: Final = BUILD / "held.json"
RUN: Final = BUILD / "run.json"
SOAK: Final = "tests/stress/test_soak.py::test_all_at_once_for_a_while_over_a_server_that_is_killed"
FUZZ: Final = "10"  # seconds for each decoder, unless FUZZ_SECONDS says otherwise
PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--timeout", "1800")
TWO: Final = ("-n", "2", "--dist", "worksteal")
ENDED: Final = (0, 1, 5)  # all passed, some failed, there were none
SHOWN: Final = 300  # characters of a command
AGAIN: Final = 12  # failed tests that get one more chance; more are no accident


def main() -> int:
    """Run what is asked for, and tell."""
    arguments = _arguments()
    BUILD.mkdir(parents=True, exist_ok=True)
    broken: list[str] = []
    book = _book(broken)
    wanted = [each for each in book if not arguments.only or each.number in arguments.only]
    run = _run(wanted, arguments.minutes, broken)
    if arguments.add and RUN.exists():
        run = faultbook.Run.load(RUN).with_more(run)
    if arguments.only:
        for item in wanted:
            print(faultbook.section(item, faultbook.verdict(item, run), run))
    if arguments.add or not arguments.only:
        run.save(RUN)
        faultbook.PAGE.write_text(faultbook.page(book, run), encoding="utf-8")
        print(f"wrote {faultbook.PAGE.relative_to(promises.ROOT)}")
    broken = [each.title for each in wanted if not faultbook.verdict(each, run).held]
    print(f"not held: {', '.join(broken)}" if broken else f"{len(wanted)} items, all held")
    return bool(broken or run.broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ITEM",
        type=lambda number: f"{int(number):02d}",
        help="the number of an item",
    )
    parser.add_argument("--add", action="store_true", help="add to the page of the last run")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to soak")
    return parser.parse_args()


def _book(broken: list[str]) -> list[faultbook.Item]:
    """Ask pytest which tests hold what."""
    command = [*PYTEST, "--collect-only", "-m", "", f"--promises-to={HELD}"]
    done = subprocess.run(command, cwd=promises.ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:])
        broken.append(f"not all tests could be collected: {done.returncode}")
    return faultbook.items(promises.read_report(HELD))


def _run(book: Sequence[faultbook.Item], minutes: float, broken: list[str]) -> faultbook.Run:
    began = time.monotonic()
    MEASURED.unlink(missing_ok=True)
    names = sorted({test.partition("::")[0] for each in book for test in each.tests})
    tests = [word for each in book for word in ("--hold", each.row)]
    tests += ["--deselect", SOAK, *names]
    # A soak waits much of its time, and what is simulated does not care how long it takes.
    with _soak(book, minutes):
        if names:
            _pytest(broken, "-m", "not real", "--suite-loops", "sim", *TWO, *tests)
    if names:
        _pytest(broken, "-m", "real", "--suite-loops", "asyncio", *TWO, *tests)
    if 0 < len(failed := _failed()) <= AGAIN:
        # Each has one loop again, for its name is without it; what is real runs on asyncio's.
        _pytest(broken, "-m", "", "--suite-loops", "sim", *failed)
    disaster = _disaster() if any(each.row == faultbook.DISASTER for each in book) else {}
    machine = {**_machine(), "took": f"{(time.monotonic() - began) / 60:.0f} minutes"}
    return faultbook.Run(machine, *_measured(), disaster, broken)


def _command(*arguments: str) -> list[str]:
    command = [*PYTEST, f"--figures={MEASURED}", *arguments]
    print(f"\n$ python {shlex.join(command[1:])[:SHOWN]}", flush=True)
    return command


def _pytest(broken: list[str], *arguments: str) -> None:
    """Run tests; how they end is in the figures. A run that was none is noted in ``broken``."""
    environment = {"FUZZ_SECONDS": FUZZ, **os.environ}
    command = _command(*arguments)
    done = subprocess.run(command, cwd=promises.ROOT, env=environment, check=False)
    if done.returncode not in ENDED:
        broken.append(f"pytest {' '.join(arguments[:4])} ended with {done.returncode}")


@contextmanager
def _soak(book: Sequence[faultbook.Item], minutes: float) -> Iterator[None]:
    """Soak while the block runs, if it is wanted; what is printed is kept in a file."""
    if not any(SOAK in each.tests for each in book):
        yield
        return
    with (BUILD / "soak.log").open("wb") as log:
        child = subprocess.Popen(
            _command("-m", "stress", "--suite-loops", "asyncio", SOAK),
            cwd=promises.ROOT,
            env={**os.environ, "SOAK_MINUTES": f"{minutes:g}"},
            stdout=log,
            stderr=log,
        )
        try:
            yield
            child.wait()
        finally:
            child.kill()
            child.wait()


def _measured() -> tuple[Sequence[figures.Figure], Sequence[figures.Ending]]:
    return figures.read(MEASURED) if MEASURED.exists() else ((), ())


def _failed() -> list[str]:
    last = {each.test: each.outcome for each in _measured()[1]}
    return [test for test, outcome in last.items() if outcome == "failed"]


def _disaster() -> dict[str, Any]:
    """Strike all queues whose environments can be made; nothing, if even ours cannot be struck."""
    target = BUILD / "disaster.json"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.jobs.disaster", "--json", str(target)]
    subprocess.run(command, cwd=promises.ROOT, check=False)
    told: dict[str, Any] = json.loads(target.read_text("utf-8")) if target.exists() else {}
    return told


def _machine() -> dict[str, str]:
    """What the run has to do with, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": time.strftime("%Y-%m-%d"),
        "aiopatterns": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.release()}",
        "machine": f"{len(os.sched_getaffinity(0))} processors, {memory:.0f} GiB of memory",
        "Redis": ", ".join(sorted({each.version for each in installed_binaries()})) or "none",
        "redis-py": metadata.version("redis"),
        "PostgreSQL": _postgres(),
    }


def _postgres() -> str:
    try:
        with PostgresServer() as server, psycopg.connect(server.dsn) as connection:
            return connection.info.parameter_status("server_version") or "unknown"
    except BackendUnavailableError:
        return "none"


if __name__ == "__main__":
    sys.exit(main())
