"""What the type checkers must conclude about map_reduce and executors."""

from __future__ import annotations

from typing import assert_type

from aiopatterns.flow.executors import Inline, Processes
from aiopatterns.flow.mapreduce import map_reduce


def length(text: str) -> int:
    return len(text)


async def async_length(text: str) -> int:
    return len(text)


def add(total: float, value: int) -> float:
    return total + value


def combine(left: float, right: float) -> float:
    return left + right


def first(text: str) -> str:
    return text[0]


async def check() -> None:
    assert_type(await map_reduce(["a"], length, add, initial=float), float)
    assert_type(await map_reduce(["a"], async_length, add, initial=float), float)
    assert_type(
        await map_reduce(["a"], length, add, initial=float, combine=combine, group_by=first),
        dict[str, float],
    )
    async with Processes(2) as processes, Inline() as here:
        assert_type(await processes.run(length, "abc"), int)
        assert_type(await here.run(async_length, "abc"), int)
        assert_type(await here.run(length, "abc"), int)
