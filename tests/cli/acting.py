"""Acts and terminals for the tests of the demo."""

from __future__ import annotations

import io

from aiopatterns.cli.scene import Bar, Figure, Scene
from aiopatterns.core.clock import sleep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Toy:
    """An act that counts seconds."""

    name = "toy"
    title = "a toy"

    def __init__(self, seconds: int = 3, *, error: Exception | None = None, good=True) -> None:
        self.seconds, self.error, self.good = seconds, error, good
        self.passed = 0

    async def run(self) -> None:
        for _ in range(self.seconds):
            await sleep(1.0)
            self.passed += 1
        if self.error is not None:
            raise self.error

    def scene(self) -> Scene:
        bars = (Bar("time", self.passed / max(1, self.seconds), "of it"),)
        notes = tuple(f"second {each + 1}" for each in range(self.passed))
        return Scene((Figure("passed", f"{self.passed}", "good"),), bars, notes, 4)

    def facts(self):
        return {"passed": self.passed}

    def ending(self) -> str:
        return f"{self.passed} s passed"

    def well(self) -> bool:
        return self.good
