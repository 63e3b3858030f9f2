"""The command ``aiopatterns``: its command line, and how it ends (:mod:`aiopatterns.cli.exits`).

Guarantees: on an error, standard error holds exactly one line; a traceback comes only with
``--debug``. Results go to standard output, a screen that moves goes only to a terminal.

The modules behind a command are imported when it runs, so that ``--help`` answers at once and
worker processes, which import this module as the main one, stay light.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn

import aiopatterns
from aiopatterns.cli.exits import FAILED, INTERRUPTED, USAGE, UsageError, complain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

# More worker processes than any machine has processors, and more jobs than one loop should have; a
# slip of the keyboard must not start more.
_MOST_WORKERS: Final = 1024
_LAST_PORT: Final = 65_535
# The acts of the demo.
_ACTS: Final = ("pool", "pipeline", "breaker", "chaos")
# Where a command is, if its module is called otherwise.
_MODULES: Final = MappingProxyType({"bench": "selfbench"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; None takes those of this process.

    Returns:
        The exit code.
    """
    given = sys.argv[1:] if argv is None else [*argv]
    _open_standard_files()
    try:
        return _run(given)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
            return _code(error)
        return complain(_told(error), _code(error))


def _open_standard_files() -> None:
    """Have 0, 1 and 2 open, so that none of them becomes a pipe of a loop or of a worker."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(given: list[str]) -> int:
    """Parse and run; standard output is flushed here, where its errors can still be told."""
    options = _parser().parse_args(given)
    try:
        code = _dispatch(options)
        sys.stdout.flush()
    except OSError:
        _give_up_stdout()
        raise
    return code


def _dispatch(options: argparse.Namespace) -> int:
    """Import the module behind a command, and run it."""
    name: str = options.command
    module = import_module(f"aiopatterns.cli.{_MODULES.get(name, name)}")
    command: Callable[[argparse.Namespace], int] = getattr(module, name)
    return command(options)


def _give_up_stdout() -> None:
    """Keep the interpreter from flushing once more what cannot be written, if that is so."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _code(error: Exception) -> int:
    return USAGE if isinstance(error, (UsageError, ValueError)) else FAILED


def _told(error: Exception) -> str:
    """Say an error in one line: a system's error by its own words and its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def _parser() -> _Parser:
    """Describe the command line."""
    # Given on both levels, so that `--debug` works before and after the command.
    common = _Parser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
    )
    parser = _Parser(prog="aiopatterns", parents=[common])
    parser.description = "Concurrency, resilience and distributed patterns: the command line."
    parser.add_argument(
        "--version", action="version", version=f"aiopatterns {aiopatterns.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands, common)
    _add_worker(commands, common)
    _add_gateway(commands, common)
    _add_top(commands, common)
    _add_bench(commands, common)
    _add_demo(commands, common)
    _add_dashboard(commands, common)
    _add_doctor(commands, common)
    return parser


def _add_run(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``run``."""
    parser = commands.add_parser(
        "run",
        parents=[common],
        help="the main job: process real files and report",
        description="Read files, count words and names, find key words, duplicates and outliers, "
        "and write one HTML report. By default the files are the *.py files of Python's standard "
        "library.",
    )
    add = parser.add_argument
    add("path", nargs="?", metavar="PATH", help="a folder or a file; every text in it counts")
    add("--backend", default="memory://", metavar="URL", help="where the jobs are (memory://)")
    add("--workers", type=_count, metavar="N", help="worker processes; default: one a processor")
    add("--id", metavar="ID", help="a run of this id that was killed goes on; with --backend")
    add(
        "--report",
        default="aiopatterns-report.html",
        metavar="FILE",
        help="where the report goes (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the result as JSON instead of text")
    add("--trace", metavar="FILE", help="write a timeline for Perfetto or chrome://tracing")
    add(
        "--executor",
        default="processes",
        metavar="WHERE",
        help="inline, processes or dask://host:port (default: %(default)s)",
    )


def _add_worker(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``worker``."""
    parser = commands.add_parser(
        "worker",
        parents=[common],
        help="run the jobs of a queue until Ctrl-C or SIGTERM",
        description="Import a JobQueue and run its jobs. A first Ctrl-C or SIGTERM finishes what "
        "runs, within the grace, and hands the rest back; a second one ends at once.",
    )
    add = parser.add_argument
    add("target", metavar="MODULE:QUEUE", help="where the queue is, as in shop.jobs:jobs")
    add(
        "--backend",
        metavar="URL",
        help="for a target that is a function of one, which makes a queue",
    )
    add("--concurrency", type=_count, default=100, metavar="N", help="jobs at once (100)")
    add("--processes", type=_count, default=1, metavar="N", help="worker processes (1)")
    add("--grace", type=_seconds, default=20.0, metavar="S", help="seconds to finish in (20)")
    add("--max-jobs", type=_jobs, metavar="N", help="jobs after which a process is replaced")
    add("--reload", action="store_true", help="restart when a Python file here changes")
    add("--child", action="store_true", help=argparse.SUPPRESS)


def _add_gateway(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``gateway``."""
    parser = commands.add_parser(
        "gateway",
        parents=[common],
        help="an API gateway from a TOML file, until Ctrl-C or SIGTERM",
        description="Read routes from a TOML file and serve them. SIGHUP reads the file again; a "
        "first Ctrl-C or SIGTERM answers what was accepted, within the grace, a second one ends at "
        "once.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the routes, as docs/guides/gateway-deployment.md has them")
    add("--host", default="127.0.0.1", help="the address to listen at (%(default)s)")
    add("--port", type=_port, default=8000, metavar="N", help="the port; 0 for any (8000)")
    add("--grace", type=_seconds, default=20.0, metavar="S", help="seconds to finish in (20)")
    add("--check", action="store_true", help="only say whether the file is right")


def _add_top(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``top``."""
    parser = commands.add_parser(
        "top",
        parents=[common],
        help="see what runs over a backend, in a terminal",
        description="Show queues, workers, services, streams and whatever else is published over "
        "a backend, again and again. Keys: q ends, p stands still, arrows move.",
    )
    add = parser.add_argument
    add("--backend", required=True, metavar="URL", help="where to look: redis://host:6379")
    add("--namespace", default="ap", metavar="NAME", help="first part of all keys (ap)")
    add(
        "--queue",
        action="append",
        default=[],
        metavar="NAME",
        help="show this queue also while it has no worker; may be repeated",
    )
    add("--interval", type=_interval, default=1.0, metavar="S", help="seconds between looks (1)")
    add("--once", action="store_true", help="look once, print, and end")
    add("--json", action="store_true", help="print one JSON object a look, in one line")


def _add_bench(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``bench``."""
    parser = commands.add_parser(
        "bench",
        parents=[common],
        help="measure what the library costs on this machine",
        description="Measure the main patterns, in this process and over an embedded Redis if one "
        "can be started: median and spread of repeats, and the facts of this machine.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter repeats, and fewer: less than 15 s")
    add("--html", metavar="FILE", help="also write a page")
    add("--json", metavar="FILE", help="also write the figures as JSON")


def _add_demo(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``demo``."""
    parser = commands.add_parser(
        "demo",
        parents=[common],
        help="see the library at work, in acts",
        description="Play some acts on a live screen. The last one is chaos: 2,000 jobs, worker "
        "processes and a private Redis, both killed every 2 seconds; nothing is lost.",
    )
    add = parser.add_argument
    add("--act", choices=_ACTS, metavar="NAME", help=f"only this one: {', '.join(_ACTS)}")
    add("--fast", action="store_true", help="shorter acts")
    add("--seed", type=int, default=0, metavar="N", help="decides what is left to chance (0)")
    add("--json", action="store_true", help="print the facts as JSON")


def _add_dashboard(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``dashboard``."""
    parser = commands.add_parser(
        "dashboard",
        parents=[common],
        help="a live web page of what runs over a backend, until Ctrl-C or SIGTERM",
        description="Print one address, whose token lets its holder look; the page shows queues, "
        "jobs, workers, services and flows, live. It changes nothing unless --allow-actions.",
    )
    add = parser.add_argument
    add("--backend", required=True, metavar="URL", help="what to look at, as redis://host:6379")
    add("--host", default="127.0.0.1", help="the address to listen at (%(default)s)")
    add("--port", type=_port, default=8765, metavar="N", help="the port; 0 for any (%(default)s)")
    add("--allow-actions", action="store_true", help="let the page requeue, cancel, pause, purge")
    several = parser.add_argument_group("may be given several times").add_argument
    several(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name browsers may use"
    )
    several(
        "--queue", action="append", default=[], metavar="NAME", help="show it without workers too"
    )
    add("--show-arguments", action="store_true", help="show arguments of jobs as text")


def _add_doctor(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    """Describe ``doctor``."""
    parser = commands.add_parser(
        "doctor",
        parents=[common],
        help="look at this machine, and at a Redis, and give advice",
        description="Print Python, event loop, packages and limits, and with --backend what a "
        "Redis is like; each line is ok, warn or fail, with a cure.",
    )
    add = parser.add_argument
    add("--backend", metavar="URL", help="also look at this server, such as redis://host:6379")
    add("--namespace", default="ap", metavar="NAME", help="first part of all keys (ap)")
    add("--acl", action="store_true", help="print the access rule the library needs, only that")


def _seconds(text: str) -> float:
    """Read seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds >= 0, not {text!r}")
    return value


def _interval(text: str) -> float:
    """Read seconds, above 0."""
    value = _seconds(text)
    if not value:
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, not {text!r}")
    return value


def _port(text: str) -> int:
    """Read a port."""
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to {_LAST_PORT}, not {text!r}")
    return int(text)


def _jobs(text: str) -> int:
    """Read a number of jobs."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    """Read a number of workers, or of jobs at once."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {_MOST_WORKERS}, not {text!r}"
        )
    return value
