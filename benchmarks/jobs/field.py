"""What the benchmarks of jobs have in common: one server, and figures told by the contenders."""

from __future__ import annotations

import atexit
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache

from aiopatterns.backends.redis.embedded import RedisServer
from benchmarks.harness import Bench, Case, Figure
from benchmarks.jobs.contenders import Contender, free_port, ours_and_peers

Measure = Callable[[Contender, str], Mapping[str, float]]
"""Runs a contender against the empty server at a URL; returns its figures by name."""
MeasuredTurn = Callable[[], Awaitable[Figure]]


def bench_of_jobs(name: str, *, rounds: int) -> Bench:
    """A bench whose contenders are processes: they run on uvloop, whatever runs the bench."""
    held = {each.home or each.name: each.versions() for each in ours_and_peers()}
    told = {}
    for home, versions in held.items():
        (first, version), *others = versions.items()
        over = ", ".join(f"{name} {one}" for name, one in others)
        told[home if home == first else f"{home} ({first})"] = f"{version} ({over})"
    return Bench(name, elsewhere=told, loops=("uvloop",), rounds=rounds)


@cache
def server() -> RedisServer:
    """The one server of this process; it keeps nothing on disk."""
    started = RedisServer(port=free_port())
    started.start()
    atexit.register(started.stop)
    return started


class Runs:
    """Several cases over the same runs: the first case runs the contenders, the others read.

    Every case of a bench asks each contender equally often and in the same order, so a reading
    case finds for each of its turns the figures of the run that belongs to it.

    Args:
        contenders: Who runs.
        measure: How.
    """

    def __init__(self, contenders: Sequence[Contender], measure: Measure) -> None:
        self.contenders = contenders
        self.measure = measure
        self.kept: defaultdict[tuple[Case, Contender], deque[Mapping[str, float]]]
        self.kept = defaultdict(deque)
        self.cases: list[Case] = []

    def add(self, case: Case, figure: str, *, only: Sequence[Contender] | None = None) -> None:
        """Let ``case`` show one of the figures, of all contenders or ``only`` of some."""
        self.cases.append(case)
        for contender in self.contenders if only is None else only:
            run = self._turn(case, contender, figure)
            if contender.role == "peer":
                case.peer(contender.name, follows=contender.follows)(run)
            else:
                (case.ours if contender.role == "ours" else case.limit)(contender.name)(run)

    def _turn(self, case: Case, contender: Contender, figure: str) -> MeasuredTurn:
        async def turn() -> Figure:
            if case is self.cases[0]:
                self._run(contender)
            return Figure(self.kept[case, contender].popleft()[figure])

        return turn

    def _run(self, contender: Contender) -> None:
        server().command("FLUSHALL")
        figures = self.measure(contender, server().tcp_url)
        for case in self.cases:
            self.kept[case, contender].append(figures)
