"""What the type checkers must conclude about scatter_gather."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from aiopatterns.flow.gathering import Gathered, scatter_gather


async def number() -> int:
    return 1


def total(values: Mapping[str, int]) -> float:
    return float(sum(values.values()))


async def check() -> None:
    by_key = await scatter_gather({"a": number, "b": number}, need=1)
    assert_type(by_key, Gathered[str, int, None])
    assert_type(by_key.values, Mapping[str, int])
    assert_type(by_key.missing, tuple[str, ...])
    by_position = await scatter_gather([number, number], timeout=1.0)
    assert_type(by_position, Gathered[int, int, None])
    merged = await scatter_gather({"a": number}, merge=total)
    assert_type(merged.merged, float)
