"""What the gateway tells about itself."""

from __future__ import annotations

from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.events import GatewayAnswered, GatewayFailed, GatewayReloaded
from aiopatterns.gateway.routing import Route
from aiopatterns.testing import capture_events
from tests.gateway.memory import Answer, Client, MemoryTransport, answering, ask


def gateway(*routes: Route) -> Gateway:
    return Gateway(routes, transport=MemoryTransport(answering(Answer())), name="door")


async def test_every_request_that_ends_is_told():
    with capture_events() as events:
        async with gateway(Route("/api", to="http://s")) as door:
            await ask(door, "PUT", "/api/x", headers=[(b"x-request-id", b"one")])
            await ask(door, "GET", "/else")
            await ask(door, "GET", "/a/../b")
    told = [each for each in events if isinstance(each, GatewayAnswered)]
    assert told[0] == GatewayAnswered(
        "door", "/api", "PUT", "/api/x", "9.9.9.9", 200, told[0].seconds, True, "one"
    )
    assert 0 <= told[0].seconds < 5
    assert [(each.status, each.route, each.client) for each in told[1:]] == [
        (404, "", "9.9.9.9"),
        (400, "", ""),
    ]
    assert GatewayAnswered.name == "aiopatterns.gateway.answered"


async def test_a_function_that_fails_is_told(caplog):
    error = ZeroDivisionError("no")

    async def broken(request):
        raise error

    with capture_events() as events:
        async with gateway(Route("/x", to=broken)) as door:
            reply = await ask(door, "GET", "/x", headers=[(b"x-request-id", b"one")])
    assert reply.status == 500
    told = [each for each in events if isinstance(each, GatewayFailed)]
    assert told == [GatewayFailed("door", "/x", error, "one")]
    assert told[0].level == "error"
    assert "a request of route '/x' failed" in caplog.text


async def test_a_function_that_fails_is_logged_without_listeners(caplog):
    async def broken(request):
        return 7

    async with gateway(Route("/x", to=broken)) as door:
        assert (await ask(door, "GET", "/x")).status == 500
    assert "must return a Response or a mapping, not 7" in caplog.text


async def test_other_routes_are_told():
    with capture_events() as events:
        async with gateway(Route("/a", to="http://s")) as door:
            await door.reload([Route("/a", to="http://s"), Route("/b", to="http://s")])
    assert GatewayReloaded("door", 2) in events


async def test_a_client_that_has_gone_is_told_as_499():
    client = Client("POST", "/x", body=[b"a", b"b"])
    client.left = [b"a"]
    client.stalled = True
    client.gone.set()
    with capture_events() as events:
        async with gateway(Route("/", to="http://s")) as door:
            await client.ask(door)
            assert door.statistics().answers == {499: 1}
    told = [each for each in events if isinstance(each, GatewayAnswered)]
    assert [(each.status, each.complete) for each in told] == [(499, False)]
