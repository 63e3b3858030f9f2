from __future__ import annotations

import asyncio

import pytest

from aiopatterns.backends.redis.cluster import ClusterRoute
from aiopatterns.backends.redis.errors import RefusalError, UnsentError
from aiopatterns.backends.redis.routing import SingleRoute, make_route
from aiopatterns.backends.redis.statistics import Tally
from aiopatterns.backends.url import Address, parse
from tests.backends.redis.fakeserver import FakeServer


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h", SingleRoute),
        ("unix:///a", SingleRoute),
        ("redis+sentinel://h/m", SingleRoute),
        ("redis+cluster://h", ClusterRoute),
    ],
)
async def test_every_scheme_has_its_route(url, kind):
    route = make_route(parse(url), None, patience=1, tally=Tally())
    assert type(route) is kind
    assert route.in_flight == 0
    assert route.drop("end") == []


async def test_one_server_needs_no_map():
    route = make_route(parse("redis://h:1"), None, patience=1, tally=Tally())
    assert await route.open() is None
    assert route.home(("GET", "a")) is None
    assert route.redirected(RefusalError("MOVED 1 h:1")) is None
    assert await route.locate(None) == Address("h", 1)


async def test_a_private_server_is_where_it_was_started():
    route = make_route(parse("embedded://"), Address("/s"), patience=1, tally=Tally())
    assert await route.locate(None) == Address("/s")


@pytest.mark.real
async def test_after_a_refusal_for_good_the_connection_stays():
    async with FakeServer() as server:
        route = make_route(parse(server.url), None, patience=1, tally=Tally())
        await route.send(("ONE",))
        await route.resend(("TWO",), UnsentError("why"))
        await route.resend(("THREE",), RefusalError("LOADING"))
        assert server.connections == 1
        await asyncio.wait(route.drop("end"))
