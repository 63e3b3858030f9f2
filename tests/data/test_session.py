"""Sessions: what they need, and where they are found."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.data.position import Position
from aiopatterns.data.session import ReplicaSession, Use, session_of


class Router:
    """One that settles nothing."""

    def __init__(self) -> None:
        self.settled: list[ReplicaSession] = []

    async def settle(self, session: ReplicaSession) -> None:
        self.settled.append(session)


async def test_it_is_found_by_context_and_router():
    one, two = Router(), Router()
    assert session_of(one) is None
    async with ReplicaSession(one, None) as outer:
        assert outer.outer is None
        async with ReplicaSession(two, None) as inner:
            assert inner.router is two
            assert inner.outer is outer
            assert session_of(one) is outer
            assert session_of(two) is inner
            async with ReplicaSession(one, None) as innermost:
                assert session_of(one) is innermost
        assert session_of(two) is None
        assert session_of(one) is outer
    assert session_of(one) is None


async def test_tasks_of_the_block_belong_to_it_and_others_do_not():
    router = Router()
    found: list[ReplicaSession | None] = []

    async def look() -> None:
        found.append(session_of(router))

    session = ReplicaSession(router, None)
    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(look)
        group.start_soon(look)
    assert found == [session, None]


async def test_it_may_be_entered_again_but_not_twice():
    session = ReplicaSession(Router(), Position(3))
    for _ in range(2):
        async with session:
            with pytest.raises(RuntimeError, match="entered already"):
                await session.__aenter__()
    assert session.required == Position(3)


async def test_a_token_is_what_it_needs_once_it_is_settled():
    router = Router()
    session = ReplicaSession(router, Position(3))
    assert await session.token() == "0/3"
    assert router.settled == [session]


def test_what_it_needs_only_grows():
    session = ReplicaSession(Router(), None)
    assert session.required == Position()
    first = session.use("a", 0)
    session.settle("a", first, Position(5))
    assert session.used == {}
    session.settle("a", first, Position(4))
    assert session.required == Position(5)


def test_a_use_while_one_asked_is_kept():
    session = ReplicaSession(Router(), None)
    first = session.use("a", 0)
    second = session.use("a", 0)
    session.settle("a", first, Position(5))
    assert session.used == {"a": second}
    session.settle("a", second, Position(6))
    assert session.used == {}


def test_the_earliest_epoch_of_a_place_counts():
    session = ReplicaSession(Router(), None)
    session.use("a", 1)
    assert session.use("a", 0) == Use(2, 0)
    assert session.use("a", 2) == Use(3, 0)
