"""Databases for tests of replica routing: one primary and copies that move when they are told."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.data.position import Position


@dataclass
class Node:
    """A place with a value, which is its position as well."""

    name: str
    value: int = 0
    late: float = 0.0
    down: bool = False
    slow: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def position(self) -> Position:
        self.asked.append("position")
        await self._answer()
        return Position(self.value)

    async def lag(self) -> float:
        self.asked.append("lag")
        await self._answer()
        return self.late

    async def _answer(self) -> None:
        if self.slow:
            await sleep(self.slow)
        if self.down:
            raise BackendUnavailableError(f"{self.name} is down")


def places(copies: int = 2) -> tuple[Node, list[Node]]:
    return Node("primary"), [Node(f"copy{n}") for n in range(copies)]
