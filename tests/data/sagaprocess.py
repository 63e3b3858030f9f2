"""A process that runs a saga and is killed at a point of it: ``python -m ... DB LOG POINT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import anyio

from aiopatterns.data import Saga, SqliteSagaStore

STEPS: Final = ("a", "b", "c")
#: Where it is killed: before or after the effect of an action, or of a compensation.
POINTS: Final = [
    f"{moment}{sign}{name}"
    for sign, names in (("", STEPS), ("-", "ba"))
    for name in names
    for moment in "<>"
]


def trip(path: str, log: str, point: str) -> Saga[Any]:
    """Three steps whose effects are lines of a file; the last fails if a compensation is the point."""
    saga: Saga[Any] = Saga("trip", SqliteSagaStore(path), lease=0.05)

    def effect(name: str) -> None:
        if point == f"<{name}":
            os.kill(os.getpid(), signal.SIGKILL)
        with Path(log).open("a") as file:
            file.write(f"{name}\n")
        if point == f">{name}":
            os.kill(os.getpid(), signal.SIGKILL)

    def add(name: str) -> None:
        async def act(_: Any) -> None:
            effect(name)
            if name == "c" and "-" in point:
                raise ValueError(name)

        async def undo(_: Any) -> None:
            effect(f"-{name}")

        saga.step(name=name, compensate=undo)(act)

    for name in STEPS:
        add(name)
    return saga


if __name__ == "__main__":
    _, path, log, point = sys.argv
    anyio.run(lambda: trip(path, log, point).run({}, id="1"))
