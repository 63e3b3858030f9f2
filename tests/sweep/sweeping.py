"""Sweep seeds over the scenarios of all rooms: ``python -m tests.sweep --seeds 20000``.

Each seed that fails is run again, to see that it fails alike, and printed with the command that
plays it once more. The digest of a room is that of the traces of all its runs: two sweeps of the
same seeds that print the same digest did the same, step by step. Seed 0, asyncio's own order, is
left out: there the order in which a set wakes tasks counts, and that is not the same in every run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

from tests.sweep.rooms import ROOMS
from tests.sweep.run import Outcome, play

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Failure", "Swept", "main", "sweep", "swept"]

CHUNK = 20  # seeds that a process takes at once
SHOWN = 5  # failures of a room that are shown with their traceback


class Failure(NamedTuple):
    """A seed that has failed."""

    room: str
    seed: int
    outcome: Outcome
    replays: bool

    @property
    def command(self) -> str:
        """What plays it once more."""
        return f"python -m tests.sweep --room {self.room} --first {self.seed} --seeds 1"

    def __str__(self) -> str:
        alike = "fails alike when it is played again" if self.replays else "DOES NOT FAIL ALIKE"
        return (
            f"{self.room}, seed {self.seed}: trace {self.outcome.trace}, {alike}\n"
            f"    {self.command}\n{self.outcome.error}"
        )


@dataclass
class Swept:
    """What a sweep over one room has found."""

    room: str
    seeds: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    traces: dict[int, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hash of the traces of all runs."""
        text = "".join(f"{seed}:{trace}\n" for seed, trace in sorted(self.traces.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def add(self, other: Swept) -> None:
        """Add what was found in other seeds."""
        self.seeds += other.seeds
        self.seconds += other.seconds
        self.failures += other.failures
        self.traces |= other.traces

    def __str__(self) -> str:
        return (
            f"{self.room:<12}{self.seeds:>7,} seeds {self.seconds:>8.1f} s "
            f"{len(self.failures):>4} failed   digest {self.digest}"
        )


def sweep(room: str, seeds: Iterable[int]) -> Swept:
    """Play a room's scenario under each seed, here."""
    found, began = Swept(room), time.perf_counter()
    for seed in seeds:
        outcome = play(ROOMS[room], seed)
        found.seeds += 1
        found.traces[seed] = outcome.trace
        if outcome.error:
            again = play(ROOMS[room], seed)
            found.failures.append(Failure(room, seed, outcome, again.trace == outcome.trace))
    found.seconds = time.perf_counter() - began
    return found


def swept(rooms: Sequence[str], seeds: int, *, first: int = 1, processes: int) -> list[Swept]:
    """Deal so many seeds to the rooms, and play them in processes of our own."""
    found = {room: Swept(room) for room in rooms}
    each, more = divmod(seeds, len(rooms))
    work: list[tuple[str, range]] = []
    for number, room in enumerate(rooms):
        end = first + each + (number < more)
        starts = range(first, end, CHUNK)
        work += [(room, range(start, min(start + CHUNK, end))) for start in starts]
    for piece in everywhere(work, processes):
        found[piece.room].add(piece)
    return list(found.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep as the arguments say; returns the exit code: 1 if a seed has failed."""
    args = parse(argv)
    began = time.perf_counter()
    found = swept(args.room, args.seeds, first=args.first, processes=args.processes)
    seconds = time.perf_counter() - began
    print(*found, sep="\n")
    failed = sum(len(each.failures) for each in found)
    print(f"{sum(each.seeds for each in found):,} seeds in {seconds:.0f} s: {failed} failed")
    for each in found:
        for failure in each.failures[:SHOWN]:
            print(f"\n{failure}")
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument("--room", action="append", choices=ROOMS, help="only this; repeatable")
    parser.add_argument("--seeds", type=int, default=1_000, help="of all rooms together")
    parser.add_argument("--first", type=int, default=1, help="seed to begin with in each room")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(argv)
    args.room = args.room or list(ROOMS)
    return args


def everywhere(work: list[tuple[str, range]], processes: int) -> Iterator[Swept]:
    """Sweep in other processes, in which strings hash alike in every run."""
    with (
        patch.dict(os.environ, PYTHONHASHSEED="0"),
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        for each in as_completed([pool.submit(sweep, *piece) for piece in work]):
            yield each.result()
