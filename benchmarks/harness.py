"""One way to measure: contenders interleaved in one run, medians, and ratios inside each round.

A benchmark file declares cases. A case has one contender of ours, its named peers, and *the
limit*: the bare loop that does only the necessary work. Every contender is an async function of
no arguments that does the work, asserts that it was done, and returns how many operations it
did. One round runs each contender once, in an order that changes with the round; a figure is the
median over the rounds, and a ratio is the median of the ratios taken *inside* each round, which a
noisy machine disturbs least.

Example::

    bench = Bench("flow/channel")
    hand_over = bench.case("hand-over 1x1, capacity 100", clock="cpu", unit="us/item")


    @hand_over.ours("aiopatterns.Channel")
    async def channel() -> int: ...


    @hand_over.peer("asyncio.Queue", follows="docs.python.org, Queues")
    async def queue() -> int: ...


    @hand_over.limit("deque")
    async def bare() -> int: ...


    hand_over.at_most(0.6, of="asyncio.Queue")

    if __name__ == "__main__":
        bench.main()

A contender that cannot live in this process (its dependencies exclude another's, or the question
is not time) measures itself and returns a :class:`Figure` in the unit of the case; such a case
says ``warm=False``, for a process of its own starts cold every time.

The command line: ``--rounds N``, ``--loop asyncio|uvloop`` (may be repeated), ``--quick`` (one
round, for a smoke test), ``--json FILE``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """What a contender in a process of its own has measured, in the unit of the case."""

    value: float


Contender = Callable[[], Awaitable[int | Figure]]
Clock = Literal["cpu", "wall", "server cpu", "count"]
Role = Literal["ours", "peer", "limit"]
# Of the other two only figures can tell.
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
SCALES = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}


@dataclass
class Entry:
    """One contender of a case."""

    name: str
    role: Role
    run: Contender
    follows: str | None
    figures: list[float] = field(default_factory=list)


@dataclass
class Goal:
    """What ours may take at most: so many times another contender's figure, or so many units."""

    most: float
    of: str | None
    what: str


class Case:
    """One measured question; see the module's text.

    Args:
        name: What is measured.
        clock: ``"cpu"`` (of this process and its ended children) or ``"wall"``; ``"server cpu"``
            and ``"count"`` where contenders give figures.
        unit: ``us/item``, ``ns/call``, ``ms/run``...; its first part scales the figures.
        warm: Whether each contender runs once before it counts.
    """

    def __init__(self, name: str, clock: Clock, unit: str, *, warm: bool = True) -> None:
        self.name = name
        self.clock = clock
        self.unit = unit
        self.warm = warm
        self.entries: list[Entry] = []
        self.goals: list[Goal] = []

    def ours(self, name: str) -> Callable[[Contender], Contender]:
        """Add our contender."""
        return self._adder(name, "ours", None)

    def peer(self, name: str, *, follows: str) -> Callable[[Contender], Contender]:
        """Add a peer; ``follows`` names the part of its documentation it is tuned by."""
        return self._adder(name, "peer", follows)

    def limit(self, name: str) -> Callable[[Contender], Contender]:
        """Add the bare loop."""
        return self._adder(name, "limit", None)

    def at_most(self, factor: float, *, of: str, ours: str | None = None) -> None:
        """State the goal: ours takes at most ``factor`` times what ``of`` takes."""
        self.goals.append(Goal(factor, of, ours or self._first("ours").name))

    def under(self, figure: float, *, ours: str | None = None) -> None:
        """State the goal: ours takes at most ``figure``, in the unit of the case."""
        self.goals.append(Goal(figure, None, ours or self._first("ours").name))

    def _adder(
        self, name: str, role: Role, follows: str | None
    ) -> Callable[[Contender], Contender]:
        def add(run: Contender) -> Contender:
            self.entries.append(Entry(name, role, run, follows))
            return run

        return add

    def _first(self, role: Role) -> Entry:
        return next(entry for entry in self.entries if entry.role == role)

    def _named(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def measure(self, rounds: int, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        """Run every contender once a round, each on a fresh loop, in a rotating order."""
        for entry in self.entries:
            entry.figures.clear()
            if self.warm:  # imports, caches, the specialising interpreter
                self._once(entry, loop_factory)
        for number in range(rounds):
            turn = number % len(self.entries)
            for entry in self.entries[turn:] + self.entries[:turn]:
                entry.figures.append(self._once(entry, loop_factory))

    def _once(self, entry: Entry, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> float:
        clock = CLOCKS.get(self.clock, time.perf_counter)

        async def timed() -> float:
            gc.collect()
            gc.disable()
            try:
                start = clock()
                done = await entry.run()
                if isinstance(done, Figure):
                    return done.value
                return (clock() - start) / done * SCALES[self.unit.partition("/")[0]]
            finally:
                gc.enable()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(timed())

    def ratio(self, name: str, of: str) -> float:
        """Median over the rounds of one contender's figure over another's."""
        above, below = self._named(name).figures, self._named(of).figures
        return median(a / b for a, b in zip(above, below, strict=True))

    def report(self) -> dict[str, object]:
        """Return the figures as plain data."""
        ours = self._first("ours").name
        return {
            "case": self.name,
            "clock": self.clock,
            "unit": self.unit,
            "contenders": [
                {
                    "name": entry.name,
                    "role": entry.role,
                    "follows": entry.follows,
                    "median": median(entry.figures),
                    "min": min(entry.figures),
                    "max": max(entry.figures),
                    "ours_over_it": self.ratio(ours, entry.name),
                }
                for entry in self.entries
            ],
            "goals": [self._verdict(goal) for goal in self.goals],
        }

    def _verdict(self, goal: Goal) -> dict[str, object]:
        if goal.of is None:
            reached = median(self._named(goal.what).figures)
            bound = f"{goal.most:g} {self.unit}"
        else:
            reached = self.ratio(goal.what, goal.of)
            bound = f"{goal.most:g} times {goal.of}"
        met = reached <= goal.most
        return {"ours": goal.what, "bound": bound, "reached": reached, "met": met}


class Bench:
    """The cases of one benchmark file.

    Args:
        name: Room and file, as in ``flow/channel``.
        versions: Distributions whose versions go into the report.
        elsewhere: Versions of what is measured in other environments.
        loops: The loops on which to measure, unless the command line names some.
        rounds: At most so many rounds, where one takes long.
    """

    def __init__(
        self,
        name: str,
        *,
        versions: tuple[str, ...] = (),
        elsewhere: Mapping[str, str] | None = None,
        loops: Sequence[str] = ("asyncio", "uvloop"),
        rounds: int | None = None,
    ) -> None:
        self.name = name
        self.versions = ("anyio", "uvloop", *versions)
        self.elsewhere = dict(elsewhere or {})
        self.loops = loops
        self.rounds = rounds
        self.cases: list[Case] = []

    def case(self, name: str, *, clock: Clock, unit: str, warm: bool = True) -> Case:
        """Add a case."""
        case = Case(name, clock, unit, warm=warm)
        self.cases.append(case)
        return case

    def main(self, argv: list[str] | None = None) -> None:
        """Measure as the command line says; print a table, write JSON if asked."""
        arguments = _arguments(self.name, argv)
        rounds = 1 if arguments.quick else min(arguments.rounds, self.rounds or arguments.rounds)
        results: dict[str, object] = {}
        for loop in arguments.loop or self.loops:
            print(f"\n# {self.name} on {loop}, {rounds} rounds")
            results[loop] = []
            for case in self.cases:
                case.measure(rounds, _loop_factory(loop))
                report = case.report()
                results[loop].append(report)  # type: ignore[attr-defined]
                _print(report)
        if arguments.json:
            page = {"bench": self.name, "environment": self._environment(), "loops": results}
            Path(arguments.json).write_text(json.dumps(page, indent=1), encoding="utf-8")

    def _environment(self) -> dict[str, object]:
        found = {name: _version(name) for name in self.versions}
        return {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
            "versions": {name: version for name, version in found.items() if version}
            | self.elsewhere,
        }


def _arguments(name: str, argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"benchmark {name}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", action="append", choices=["asyncio", "uvloop"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    return parser.parse_args(argv)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def clock_text(clock: object) -> str:
    """What to say of the clock behind the unit of a case."""
    return "" if clock == "count" else f", {clock} time"


def _print(report: dict[str, object]) -> None:
    print(f"\n{report['case']} ({report['unit']}{clock_text(report['clock'])})")
    for each in report["contenders"]:  # type: ignore[attr-defined]
        spread = f"{each['min']:.3g}-{each['max']:.3g}"
        ratio = "" if each["role"] == "ours" else f"ours = {each['ours_over_it']:.2f} x this"
        print(f"  {each['role']:<6}{each['name']:<44}{each['median']:>9.3g}  ({spread})  {ratio}")
    for goal in report["goals"]:  # type: ignore[attr-defined]
        verdict = "met" if goal["met"] else "MISSED"
        print(f"  goal: {goal['ours']} at most {goal['bound']}: {goal['reached']:.3g} {verdict}")
    sys.stdout.flush()
