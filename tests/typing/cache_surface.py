"""A cache keeps the types of keys, values and decorated functions, under both checkers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from aiopatterns.cache import MISSING, Cache, LoadTimeouts, Missing, Ttl, cached

users: Cache[int, str] = Cache("users", ttl=Ttl(60, stale=300), load=LoadTimeouts(hard=5))
names: Cache[str, str | None] = Cache("names", ttl=60)


async def load(user_id: int) -> str:
    return f"user {user_id}"


async def load_many(user_ids: list[int]) -> Mapping[int, str | Exception]:
    return {user_id: f"user {user_id}" for user_id in user_ids}


@cached(names, key="name:{user_id}")
async def name(user_id: int, *, upper: bool = False) -> str | None:
    return None if upper else f"{user_id}"


async def surface() -> None:
    assert_type(await users.get_or_load(1, load), str)
    assert_type(await users.get_or_load_many([1, 2], load_many), dict[int, str | Exception])
    assert_type(await users.get(1), str | Missing)
    assert_type(await users.get(1, None), str | None)
    assert_type(users.get_nowait(1), str | Missing)
    assert_type(users.get_nowait(1, 0), str | int)
    assert_type(await name(1), str | None)
    assert_type(await name.fresh(1, upper=True), str | None)
    await name.invalidate(1)
    await users.set(1, "x", ttl=None)
    if (value := users.get_nowait(1)) is not MISSING:
        assert_type(value, str)
    async with users as opened:
        assert_type(opened, Cache[int, str])
