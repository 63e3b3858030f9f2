"""The rules of routing: where a block goes, by what is known of the copies."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendUnavailableError, BulkheadFullError
from aiopatterns.data.position import Position
from aiopatterns.data.replica import Follower
from aiopatterns.data.routing import ReadBlock, Routes, WriteBlock
from aiopatterns.data.session import ReplicaSession, session_of
from aiopatterns.resilience.bulkhead import Bulkhead
from aiopatterns.testing import Trial, cancel_everywhere, explore
from tests.data.replicaplaces import Node, places


async def routed(
    copies: int = 2, *, limit: int = 1, max_wait: float = 0.0
) -> tuple[Node, list[Node], Routes[Node]]:
    """Return routes whose copies were looked at."""
    primary, nodes = places(copies)
    followers = [Follower(each, router="r", max_lag=1.0, max_age=60.0) for each in nodes]
    routes = Routes(
        primary,
        followers,
        fallback=Bulkhead(limit),
        max_wait=max_wait,
        timeout=1.0,
        check=lambda: None,
    )
    await look(routes)
    return primary, nodes, routes


async def look(routes: Routes[Node]) -> None:
    for each in routes.followers:
        await routes.look_at(each)


async def read(routes: Routes[Node], max_lag: float | None = None) -> str:
    async with ReadBlock(routes, max_lag) as node:
        return node.name


async def write(routes: Routes[Node], value: int) -> None:
    async with WriteBlock(routes) as node:
        node.value = value


def session(routes: Routes[Node], start: Position | None = None) -> ReplicaSession:
    return ReplicaSession(routes, start)


async def test_reads_go_to_the_copies_in_turn():
    _, _, routes = await routed()
    assert {await read(routes) for _ in range(4)} == {"copy0", "copy1"}
    assert (routes.reads, routes.fallbacks, routes.writes) == (4, 0, 0)


async def test_the_copy_with_the_fewest_blocks_is_next():
    _, _, routes = await routed()
    async with ReadBlock(routes, None) as busy:
        assert [await read(routes) for _ in range(3)] != [busy.name] * 3
        assert busy.name not in {await read(routes) for _ in range(3)}
    assert [each.in_flight for each in routes.followers] == [0, 0]


async def test_a_late_copy_is_not_read_but_by_those_who_take_it():
    _, nodes, routes = await routed(1)
    nodes[0].late = 5.0
    await look(routes)
    assert await read(routes) == "primary"
    assert await read(routes, 6.0) == "copy0"
    assert await read(routes, 4.0) == "primary"


async def test_without_copies_the_primary_reads_as_much_as_its_bulkhead_lets():
    _, _, routes = await routed(0)
    async with ReadBlock(routes, None) as node:
        assert node.name == "primary"
        with pytest.raises(BulkheadFullError):
            await read(routes)
    assert await read(routes) == "primary"
    assert routes.fallbacks == 2


@pytest.mark.promise("data-replica-read-your-writes")
async def test_a_session_reads_what_it_wrote():
    _, nodes, routes = await routed()
    async with session(routes) as mine:
        await write(routes, 7)
        assert await read(routes) == "primary"
        nodes[1].value = 7
        await look(routes)
        assert [await read(routes) for _ in range(3)] == ["copy1"] * 3
        assert mine.required == Position(7)
    assert routes.writes == 1


async def test_a_write_outside_of_a_session_asks_nothing():
    primary, _, routes = await routed()
    await write(routes, 7)
    assert primary.asked == []
    assert "copy" in await read(routes)


async def test_a_write_that_failed_may_have_been_committed():
    primary, _, routes = await routed()
    async with session(routes) as mine:
        with pytest.raises(ValueError, match="lost"):
            async with WriteBlock(routes) as node:
                node.value = 7
                raise ValueError("lost")
        assert primary.asked == []
        assert await read(routes) == "primary"
        assert mine.required == Position(7)


async def test_a_write_whose_position_is_not_told_has_ended_well():
    primary, nodes, routes = await routed()
    nodes[0].value = 9
    await look(routes)
    async with session(routes) as mine:
        primary.down = True
        await write(routes, 7)
        assert await read(routes) == "primary"
        with pytest.raises(BackendUnavailableError, match="primary"):
            await mine.token()
        primary.down = False
        assert await read(routes) == "copy0"
        assert await mine.token() in {"0/9", "0/7"}


async def test_a_session_stays_at_its_copy_and_asks_nothing():
    primary, nodes, routes = await routed()
    async with session(routes):
        first = await read(routes)
        for each in (primary, *nodes):
            each.asked.clear()
        assert {await read(routes) for _ in range(5)} == {first}
        assert not any(each.asked for each in (primary, *nodes))


@pytest.mark.promise("data-replica-monotonic")
async def test_a_session_that_moves_needs_what_it_has_seen():
    _, nodes, routes = await routed()
    async with session(routes) as mine:
        async with ReadBlock(routes, None) as first:
            first.value = 5  # it moved on since it was looked at, and shows it
        first.late = 9.0
        await look(routes)
        assert await read(routes) == "primary"
        assert mine.required == Position(5)
        for each in nodes:
            each.value = 5
        await look(routes)
        assert await read(routes) != first.name


async def test_of_a_copy_that_is_gone_nobody_knows_what_it_showed():
    primary, nodes, routes = await routed()
    primary.value = 8
    async with session(routes) as mine:
        first = await read(routes)
        for each in nodes:
            each.down = each.name == first
        await look(routes)
        assert await read(routes) == "primary"
        assert mine.required == Position(8)


async def test_a_copy_that_does_not_tell_is_asked_no_more():
    primary, nodes, routes = await routed()
    primary.value = 8
    async with session(routes) as mine:
        first = await read(routes)
        for each in nodes:
            each.down = each.name == first
        routes.followers[0].lag = routes.followers[1].lag = 9.0
        assert await read(routes, 1.0) == "primary"
        assert mine.required == Position(8)


async def test_a_copy_that_breaks_while_it_is_asked():
    primary, nodes, routes = await routed(1)
    primary.value, nodes[0].slow = 8, 0.1
    async with session(routes) as mine:
        await read(routes)
        async with anyio.create_task_group() as group:
            group.start_soon(mine.token)
            await sleep(0.05)
            routes.followers[0].failed(OSError("gone"))
        assert mine.required == Position(8)


async def test_a_session_that_was_at_two_places_asks_both():
    _, _, routes = await routed()
    async with session(routes) as mine:
        async with ReadBlock(routes, None) as left, ReadBlock(routes, None) as right:
            left.value, right.value = 3, 4
        assert left is not right
        assert await read(routes) == "primary"
        assert mine.required == Position(4)


async def test_a_read_waits_for_a_copy_and_wakes_those_who_look():
    async def catch_up(routes: Routes[Node], node: Node) -> None:
        await routes.followers[0].nudge.wait()
        await look(routes)
        node.value = 7
        await look(routes)

    _, nodes, routes = await routed(1, max_wait=5.0)
    async with session(routes), anyio.create_task_group() as group:
        await write(routes, 7)
        group.start_soon(catch_up, routes, nodes[0])
        await sleep(0.01)
        assert await read(routes) == "copy0"
    assert (routes.waited, routes.waiting) == (1, 0)


async def test_a_read_waits_no_longer_than_allowed():
    _, _, routes = await routed(1, max_wait=0.2)
    async with session(routes):
        await write(routes, 7)
        began = monotonic()
        assert await read(routes) == "primary"
        assert monotonic() - began >= 0.19


async def test_a_read_does_not_wait_for_copies_that_are_lost():
    async def lose(routes: Routes[Node], node: Node) -> None:
        await routes.followers[0].nudge.wait()
        node.down = True
        await look(routes)

    _, nodes, routes = await routed(1, max_wait=60.0)
    async with session(routes), anyio.create_task_group() as group:
        await write(routes, 7)
        group.start_soon(lose, routes, nodes[0])
        await sleep(0.01)
        assert await read(routes) == "primary"
        assert await read(routes) == "primary"


async def test_a_block_that_fails_has_its_copy_looked_at():
    _, _, routes = await routed(1)
    looked: list[str] = []

    async def watch() -> None:
        await routes.followers[0].nudge.wait()
        looked.append("again")

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await sleep(0.01)
        with pytest.raises(ValueError, match="broken"):
            async with ReadBlock(routes, None):
                raise ValueError("broken")
    assert looked == ["again"]
    assert routes.followers[0].in_flight == 0


async def test_a_session_goes_on_by_its_token():
    _, nodes, routes = await routed()
    async with session(routes) as mine:
        await write(routes, 7)
        token = await mine.token()
    async with session(routes, Position.parse(token)):
        assert await read(routes) == "primary"
        nodes[0].value = 7
        await look(routes)
    async with session(routes, Position.parse(token)):
        assert await read(routes) == "copy0"


async def test_a_silent_copy_is_lost():
    _, nodes, routes = await routed(1)
    nodes[0].slow = 5.0
    await look(routes)
    assert not routes.followers[0].usable


def test_a_cancelled_read_holds_nothing():
    def scenario() -> Trial:
        made: list[Routes[Node]] = []

        async def work() -> None:
            primary, _, routes = await routed(1, max_wait=0.1)
            made.append(routes)
            primary.slow = 0.05
            async with session(routes) as mine:
                await write(routes, 7)
                async with ReadBlock(routes, None):
                    await sleep(0.01)
                await mine.token()

        def check() -> None:
            for routes in made:
                assert routes.waiting == 0
                assert routes.fallback.statistics().in_flight == 0
                assert [each.in_flight for each in routes.followers] == [0]
                assert session_of(routes) is None

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=4)


async def one_life(copies: int, steps: int) -> None:
    """Sessions write and read while copies follow, stop and restart; none ever goes back."""
    primary, nodes, routes = await routed(copies, limit=100, max_wait=0.02)
    dice = rng()

    async def live() -> None:
        for _ in range(steps * 3):
            node = dice.choice(nodes)
            await sleep(dice.random() * 0.01)
            node.down = dice.random() < 0.15
            if not node.down:
                node.value = dice.randint(node.value, max(node.value, primary.value))
                node.late = dice.choice((0.0, 0.0, 2.0))
            await routes.look_at(dice.choice(list(routes.followers)))

    async def use() -> None:
        seen = 0
        token = None
        for _ in range(steps):
            start = None if token is None else Position.parse(token)
            async with session(routes, start) as mine:
                for _ in range(dice.randint(1, 4)):
                    if dice.random() < 0.3:
                        async with WriteBlock(routes) as place:
                            place.value += 1
                            seen = max(seen, place.value)
                    else:
                        async with ReadBlock(routes, None) as place:
                            await sleep(dice.random() * 0.004)
                            assert place.value >= seen, place.name
                            seen = place.value
                token = await mine.token()

    async with anyio.create_task_group() as group:
        group.start_soon(live)
        for _ in range(3):
            group.start_soon(use)


@pytest.mark.untraced
@pytest.mark.promise("data-replica-sessions")
def test_no_session_goes_back_in_any_order_of_events():
    async def scenario() -> Any:
        await one_life(copies=3, steps=4)

    explore(scenario, range(150))
