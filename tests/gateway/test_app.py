"""The gateway as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked
from opentelemetry.trace import SpanKind

import aiopatterns
from aiopatterns.backends.opening import open_backend
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.clock import rng, sleep, yield_now
from aiopatterns.core.context import correlation_id, deadline
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.policy import BreakerRules, HttpCache, Limits, RoutePolicy, Timeouts
from aiopatterns.gateway.routing import Route
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.trip import Consecutive, Trip
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate
from tests.contrib.spans import attributes, id_of, seen, trace_of
from tests.gateway.memory import (
    Answer,
    Client,
    Handler,
    MemoryTransport,
    Reply,
    answering,
    ask,
    body_of,
    failing,
)

QUICK = Retry(Exception, attempts=3, backoff=Constant(0.01))


def gateway(handler: Handler | None = None, *routes: Route, **rest: Any) -> Gateway:
    transport = MemoryTransport(handler or answering(Answer(200, (), b"hello")))
    return Gateway(routes or [Route("/", to="http://s")], transport=transport, **rest)


# -- opening and closing -------------------------------------------------------------------------


async def test_it_has_to_be_open():
    door = gateway()
    with pytest.raises(ClosedError, match="is not open"):
        await ask(door)
    with pytest.raises(ClosedError):
        await door.reload([])
    for _ in range(2):
        async with door:
            assert (await ask(door)).body == b"hello"
        with pytest.raises(ClosedError):
            await ask(door)
    assert door.statistics().requests == 2


class Server:
    """The lifespan side of an ASGI server."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.stop = Event()
        self.begun = False

    async def receive(self) -> Any:
        if not self.begun:
            self.begun = True
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Any) -> None:
        self.told.append(message)

    async def run(self, app: Any) -> None:
        await app({"type": "lifespan"}, self.receive, self.send)


async def test_a_server_opens_and_closes_it():
    door = gateway()
    for _ in range(2):
        server = Server()
        async with create_task_group() as tasks:
            tasks.start_soon(server.run, door)
            await wait_all_tasks_blocked()
            assert [each["type"] for each in server.told] == ["lifespan.startup.complete"]
            assert (await ask(door)).status == 200
            server.stop.set()
        assert server.told[1:] == [{"type": "lifespan.shutdown.complete"}]
        assert not door.is_open


async def test_a_server_leaves_one_that_is_open_as_it_is():
    door, server = gateway(), Server()
    server.stop.set()
    async with door:
        await server.run(door)
        assert (await ask(door)).status == 200
    assert [each["type"] for each in server.told] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


class Broken(MemoryTransport):
    def __init__(self, *, late: bool) -> None:
        super().__init__(answering(Answer()))
        self.late = late

    async def _start(self, tasks: Any) -> None:
        if not self.late:
            raise OSError("no route")

    async def _drain(self) -> None:
        raise OSError("no route")


@pytest.mark.parametrize(("late", "phase"), [(False, "startup"), (True, "shutdown")])
async def test_a_server_is_told_what_went_wrong(late, phase):
    server = Server()
    server.stop.set()
    door = Gateway([Route("/", to="http://s")], transport=Broken(late=late))
    with pytest.raises(OSError, match="no route"):
        await server.run(door)
    assert server.told[-1] == {"type": f"lifespan.{phase}.failed", "message": "no route"}
    assert not door.is_open


@pytest.mark.promise("gateway-one-answer")
async def test_leaving_waits_for_requests_and_takes_no_more():
    step = Event()

    async def handler(outgoing: Any) -> Any:
        await step.wait()
        return Answer(200, (), b"done")

    door, first = gateway(handler), Client()
    async with create_task_group() as tasks:
        async with door:
            tasks.start_soon(first.ask, door)
            await wait_all_tasks_blocked()
            tasks.start_soon(_late, door, step)
        assert first.reply.body == b"done"


async def _late(door: Gateway, step: Event) -> None:
    await wait_all_tasks_blocked()
    reply = await ask(door)
    with pytest.raises(ClosedError):
        await door.reload(door.routes)
    assert (reply.status, reply.headers[b"connection"]) == (503, b"close")
    assert b"x-request-id" in reply.headers
    step.set()


async def test_leaving_by_an_error_does_not_wait():
    async def handler(outgoing: Any) -> Any:
        await Event().wait()

    door = gateway(handler)
    async with create_task_group() as tasks:
        with pytest.raises(KeyError):
            async with door:
                tasks.start_soon(Client().ask, door)
                await wait_all_tasks_blocked()
                raise KeyError
        assert not door.is_open
        with pytest.raises(ClosedError):
            await ask(door)
        await sleep(0.1)  # it becomes a slow one now, and nobody looks out for its client
        tasks.cancel_scope.cancel()
    assert door.statistics().in_flight == 0


# -- what it is ----------------------------------------------------------------------------------


async def test_other_kinds_of_connections():
    door = gateway()
    async with door:
        with pytest.raises(ValueError, match="serves http, websocket and lifespan, not 'udp'"):
            await door({"type": "udp"}, Client().receive, Client().send)


def test_what_it_may_not_be():
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"routes": [7]}, TypeError, "routes must be Routes"),
        ({"routes": [Route("/", to="users")]}, ValueError, "registry must be given.*'users'"),
        ({"registry": 7}, TypeError, "registry must be"),
        ({"defaults": 7}, TypeError, "defaults must be"),
        ({"limits": 7}, TypeError, "limits must be"),
        ({"transport": "slow"}, ValueError, "transport must be one of 'aiohttp', 'fast'"),
        ({"name": ""}, ValueError, "name must be"),
    ]
    for values, error, message in wrong:
        given = {"routes": [], **values}
        with pytest.raises(error, match=message):
            Gateway(given.pop("routes"), **given)


def test_what_it_is():
    door = Gateway([Route("/", to="http://s")], name="door")
    assert door.name == "door"
    assert [each.path for each in door.routes] == ["/"]
    assert repr(door).startswith("Gateway(1 routes, transport=<")
    assert type(Gateway([], transport="fast")._transport).__name__ == "FastTransport"
    assert aiopatterns.Gateway is Gateway


def test_one_of_a_file(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(
        'name = "door"\n[limits]\nmax_body = 7\n[[routes]]\npath = "/a"\nto = "http://s"\n'
    )
    door = Gateway.from_toml(file)
    assert (door.name, door._limits) == ("door", Limits(max_body=7))
    assert [each.path for each in door.routes] == ["/a"]


async def test_a_reload_from_a_file_brings_its_limits(tmp_path):
    from aiopatterns.gateway.config import load_config

    file = tmp_path / "gateway.toml"
    file.write_text('[limits]\nmax_target = 7\n[[routes]]\npath = "/a"\nto = "http://s"\n')
    async with gateway() as door:
        await door.reload(load_config(file))
        assert (await ask(door, "GET", "/a")).status == 200
        assert (await ask(door, "GET", "/a/longer")).status == 414


# -- requests ------------------------------------------------------------------------------------


async def test_every_answer_carries_the_id_of_its_request():
    async with gateway(
        answering(Answer(200, [(b"x-request-id", b"theirs")])), Route("/a", to="http://s")
    ) as door:
        for path, status in [("/a", 200), ("/b", 404)]:
            reply = await ask(door, "GET", path, headers=[(b"x-request-id", b"mine")])
            assert (reply.status, reply.headers[b"x-request-id"]) == (status, b"mine")


async def test_what_is_bound_for_a_request_is_unbound_after_it():
    found = []

    async def page(request: Any) -> Any:
        found.append((correlation_id(), deadline()))
        return {}

    async with gateway(None, Route("/", to=page)) as door:
        await ask(door, headers=[(b"x-request-id", b"mine")])
        assert (correlation_id(), deadline()) == (None, None)
    assert found[0][0] == "mine"
    assert found[0][1] is not None


async def test_a_body_that_only_reading_tells_of():
    received = []

    async def handler(outgoing: Any) -> Any:
        received.append((await body_of(outgoing), outgoing.body is None))
        return Answer()

    async with gateway(handler) as door:
        assert (await ask(door, http_version="2")).status == 200
    assert received == [(b"", False)]


@pytest.mark.promise("gateway-sizes")
async def test_too_large_while_it_is_streamed_is_413_and_says_nothing_about_the_endpoint():
    async with gateway(limits=Limits(max_body=10)) as door:
        reply = await ask(door, "POST", "/", body=[b"12345", b"67890", b"1"])
        assert (reply.status, reply.headers[b"connection"]) == (413, b"close")
        assert door.statistics().answers == {413: 1}


@pytest.mark.promise("gateway-killed-instance")
def test_an_instance_that_is_killed_fails_no_request_that_can_be_repeated():
    async def scenario() -> None:
        killed: set[str] = set()
        backend = open_backend("memory://")

        async def handler(outgoing: Any) -> Any:
            await sleep(0.001 * rng().random())
            if outgoing.host in killed:
                raise failing(rng().choice(("connect", "closed")), sent=True)
            return Answer(200, (), outgoing.host.encode())

        async with backend, ServiceRegistry(backend) as registry:
            instances = [ServiceInstance("users", f"h{n}", 80, id=f"h{n}") for n in range(3)]
            async with (
                registry.register(instances[0]),
                registry.register(instances[1]),
                registry.register(instances[2]),
            ):
                policy = RoutePolicy(retry=QUICK, breaker=BreakerRules(Trip(Consecutive(3))))
                door = gateway(handler, Route("/", to="users", policy=policy), registry=registry)
                async with door:
                    for n in range(300):
                        if n == 100:
                            killed.add("h1")
                        reply = await ask(door)
                        assert reply.status == 200
                        assert reply.body.decode() not in killed
                    figures = door.statistics()
                    assert figures.answers == {200: 300}
                    assert 0 < figures.retries <= 20

    explore(scenario, range(4))


@pytest.mark.promise("gateway-circuits")
def test_a_circuit_opens_and_closes():
    async def scenario() -> None:
        well = False

        async def handler(outgoing: Any) -> Any:
            return Answer(200 if well else 503)

        rules = BreakerRules(Trip(Consecutive(3)), open_for=10.0)
        door = gateway(handler, defaults=RoutePolicy(retry=None, breaker=rules))
        async with door:
            assert [(await ask(door)).status for _ in range(5)] == [503] * 5
            reply = await ask(door)
            assert reply.headers[b"retry-after"] == b"10"
            assert len(_sent(door)) == 3
            assert door.statistics().endpoints[0].circuit is CircuitState.OPEN
            await sleep(10.0)
            assert (await ask(door)).status == 503
            assert len(_sent(door)) == 4
            well = True
            await sleep(30.0)
            assert (await ask(door)).status == 200
            assert door.statistics().endpoints[0].circuit is CircuitState.CLOSED

    simulate(scenario)


def _sent(door: Gateway) -> list[Any]:
    transport: Any = door._transport
    sent: list[Any] = transport.sent
    return sent


# -- everywhere ----------------------------------------------------------------------------------


async def _chunks() -> AsyncIterator[bytes]:
    yield b"one"
    await yield_now()
    yield b"two"


async def _service(outgoing: Any) -> Any:
    await yield_now()
    await body_of(outgoing)
    await yield_now()
    return Answer(200, (), _chunks())


def _whole(handler: Handler) -> tuple[Gateway, Client]:
    policy = RoutePolicy(retry=QUICK, bulkhead=2, rate_limit=Rate(100), cache=HttpCache())
    door = gateway(handler, Route("/", to="http://s", policy=policy))
    return door, Client("PUT", "/", body=[b"a", b"b"], headers=[(b"content-length", b"2")])


def _settled(door: Gateway) -> None:
    figures = door.statistics()
    assert figures.in_flight == 0
    assert figures.requests == sum(figures.answers.values())
    assert all(not each.in_flight for each in figures.endpoints)


@pytest.mark.promise("gateway-cancel")
def test_cancelled_at_every_await_nothing_is_left_behind():
    def scenario() -> Trial:
        door, client = _whole(_service)

        async def work() -> None:
            async with door:
                await client.ask(door)
                await door.reload([Route("/", to="http://t")])
                await ask(door)

        return Trial(work(), lambda: _settled(door))

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=10)


@pytest.mark.promise("gateway-fail-everywhere")
def test_failed_at_every_call_nothing_is_left_behind():
    def scenario(fault: Any) -> Trial:
        async def handler(outgoing: Any) -> Any:
            try:
                fault()
                await body_of(outgoing)
                fault()
            except Exception as error:
                raise failing("closed", sent=True) from error

            async def chunks() -> AsyncIterator[bytes]:
                fault()
                yield b"one"
                try:
                    fault()
                except Exception as error:
                    raise failing("closed", sent=True) from error

            return Answer(200, (), chunks())

        door, client = _whole(handler)

        async def work() -> None:
            async with door:
                await client.ask(door)

        def check() -> None:
            _settled(door)
            assert client.reply.status in {200, 502}

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=4)


@pytest.mark.promise("gateway-one-answer")
def test_every_request_gets_one_answer_or_is_cut_off():
    async def scenario() -> None:
        async def handler(outgoing: Any) -> Any:
            await sleep(rng().random() * 2)
            await body_of(outgoing)
            match rng().randrange(6):
                case 0:
                    raise failing("connect")
                case 1:
                    raise failing("closed", sent=True)
                case 2:
                    return Answer(503)
                case 3:
                    return Answer(200, (), [b"a"], error=failing("closed", sent=True))
                case _:
                    return Answer(200, (), _chunks())

        timeouts = Timeouts(total=2.5, idle=1.0)
        policy = RoutePolicy(timeouts=timeouts, retry=QUICK, bulkhead=15)
        door = gateway(handler, Route("/", to="http://s", policy=policy))
        clients = [_random_client() for _ in range(60)]
        async with door, create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, door)
                tasks.start_soon(_leave, client)
        _settled(door)
        figures = door.statistics()
        replies = [each.reply for each in clients]
        assert figures.requests == 60
        for status, count in figures.answers.items():
            assert count == sum((each.status or 499) == status for each in replies)
        assert figures.cut_short == sum(bool(each.status) and not each.complete for each in replies)
        assert {type(each) for each in replies} == {Reply}

    explore(scenario, range(8))


def _random_client() -> Client:
    client = Client(rng().choice(("GET", "POST", "PUT")), "/", body=[b"x"] * rng().randrange(4))
    client.stalled = bool(client.left) and rng().random() < 0.2
    return client


async def _leave(client: Client) -> None:
    await sleep(rng().random() * 9)
    client.gone.set()


# -- key sets ------------------------------------------------------------------------------------


def test_key_sets_are_fetched_like_anything_else():
    async def scenario() -> None:
        from joserfc import jwt
        from joserfc.jwk import ECKey

        from aiopatterns.core.codec import JSON
        from aiopatterns.gateway.jwt import JWTAuth

        key = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"})
        document = JSON.encode({"keys": [key.as_dict(private=False)]})
        asked = []

        async def handler(outgoing: Any) -> Any:
            asked.append((outgoing.host, outgoing.target))
            if outgoing.host == "idp":
                return Answer(404 if len(asked) == 1 else 200, (), document)
            return Answer()

        auth = JWTAuth("https://idp/keys?v=1", algorithms=["ES256"], issuer=None, audience=None)
        token = jwt.encode(
            {"alg": "ES256", "kid": "one"}, {"sub": "ann", "exp": 9_000_000_000}, key
        )
        headers = [(b"authorization", b"Bearer " + token.encode())]
        async with gateway(handler, Route("/", to="http://s", auth=auth)) as door:
            while (await ask(door, headers=headers)).status == 503:
                await sleep(0.1)
            assert (await ask(door, headers=headers)).status == 200
            assert (await ask(door)).status == 401
        assert asked[:2] == [("idp", b"/keys?v=1")] * 2

    simulate(scenario)


# -- tracing -------------------------------------------------------------------------------------


async def test_a_request_and_each_of_its_attempts_are_spans_of_the_trace_that_came():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    transport = MemoryTransport(answering(failing(), Answer(200, (), b"hello")))
    routes = [Route("/a", to="http://s:81/base", policy=RoutePolicy(retry=QUICK))]
    async with Gateway(routes, transport=transport) as door:
        with seen() as record:
            headers = [(b"traceparent", parent.encode()), (b"tracestate", b"v=1")]
            reply = await ask(door, path="/a/7", headers=headers)
    assert reply.status == 200
    failed, answered, served = record.spans
    assert (served.name, served.kind) == ("GET /a", SpanKind.SERVER)
    assert served.parent is not None
    assert served.parent.span_id == 0xB7AD6B7169203331
    assert attributes(served)["http.response.status_code"] == 200
    for each in (failed, answered):
        assert each.kind is SpanKind.CLIENT
        assert record.path(each) == ["GET /a", "GET"]
        assert attributes(each)["server.address"] == "s"
        assert attributes(each)["server.port"] == 81
    assert attributes(failed)["error.type"].endswith("UpstreamError")
    assert attributes(answered)["http.response.status_code"] == 200
    sent = [dict(each.headers)[b"traceparent"] for each in transport.sent]
    assert sent == [
        b"00-%032x-%016x-01" % (trace_of(each), id_of(each)) for each in (failed, answered)
    ]
    assert dict(transport.sent[0].headers)[b"tracestate"] == b"v=1"
    (point,) = record.metric("http.server.request.duration")
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/a",
        "url.scheme": "http",
    }
    assert sum(each.count for each in record.metric("http.client.request.duration")) == 2


async def test_a_request_that_no_route_is_for_is_a_span_too():
    async with gateway(None, Route("/a", to="http://s")) as door:
        with seen() as record:
            assert (await ask(door, path="/b")).status == 404
            assert (await ask(door, path="/a")).status == 200
    assert [each.name for each in record.spans] == ["GET", "GET", "GET /a"]
    assert attributes(record.spans[0])["http.response.status_code"] == 404
