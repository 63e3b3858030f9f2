"""Authentication, limits and caches as the gateway uses them: from the client to the service."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from aiopatterns.core.clock import sleep, wall
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.auth import APIKeyAuth
from aiopatterns.gateway.jwt import JWTAuth
from aiopatterns.gateway.policy import HttpCache, Limits, RoutePolicy
from aiopatterns.gateway.request import Request
from aiopatterns.gateway.routing import Route
from aiopatterns.gateway.transport import Incoming, Outgoing
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.resilience.sharedlimit import SharedRateLimit
from aiopatterns.testing import simulate
from tests.gateway.memory import Answer, Client, MemoryTransport, Reply, answering, ask, failing
from tests.gateway.services import Service, Visit

SHOP = "http://shop.internal"
JWKS = "http://login.internal/keys?for=shop"
KEYS = [RSAKey.generate_key(2048, {"kid": f"k{n}"}, private=True) for n in range(4)]
CACHED = RoutePolicy(retry=None, cache=HttpCache())


def page(body: bytes = b"page", *, said: bytes = b"max-age=60", **headers: bytes) -> Answer:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Answer(200, [(b"cache-control", said), *named], body)


def gateway(*routes: Route, transport: Any = None, **options: Any) -> Gateway:
    transport = transport or MemoryTransport(answering(Answer(200, (), b"ok")))
    options.setdefault("defaults", RoutePolicy(retry=None))
    return Gateway(routes, transport=transport, **options)


def token(key: RSAKey, **changes: Any) -> bytes:
    claims = {"iss": "me", "aud": "api", "sub": "ann", "exp": int(wall()) + 600, **changes}
    return f"Bearer {jwt.encode({'alg': 'RS256', 'kid': key.kid}, claims, key)}".encode()


def bearer() -> JWTAuth:
    return JWTAuth(JWKS, algorithms=["RS256"], issuer="me", audience="api")


def published(*keys: RSAKey) -> Answer:
    document = {"keys": [each.as_dict(private=False) for each in keys]}
    return Answer(200, (), json.dumps(document).encode())


# -- who is there --------------------------------------------------------------------------------


async def test_the_service_is_told_who_was_verified_and_nothing_else():
    transport = MemoryTransport(answering(Answer()))
    route = Route("/", to=SHOP, auth=APIKeyAuth({"ann": "key-a"}))
    async with gateway(route, transport=transport) as app:
        spoofed = [
            (b"x-user-id", b"root"),
            (b"X-User-Id".lower(), b"root"),
            (b"x_user_id", b"root"),
        ]
        reply = await ask(app, headers=[(b"x-api-key", b"key-a"), *spoofed])
        assert reply.status == 200
        sent = transport.sent[0].headers
        assert [value for name, value in sent if b"user" in name] == [b"ann"]

        for headers in ([], [(b"x-api-key", b"wrong")], [(b"x-user-id", b"ann")]):
            reply = await ask(app, headers=headers)
            assert reply.status == 401
            assert reply.headers[b"www-authenticate"] == b'ApiKey realm="gateway"'
            assert b"key-a" not in reply.body
        assert len(transport.sent) == 1, "who is refused costs the service nothing"


async def test_a_function_behind_a_route_sees_who_is_there():
    async def me(request: Request) -> dict[str, object]:
        assert request.identity is not None
        return {"name": request.identity.subject}

    async with gateway(Route("/me", to=me, auth=APIKeyAuth({"ann": "key-a"}))) as app:
        reply = await ask(app, path="/me", headers=[(b"x-api-key", b"key-a")])
        assert json.loads(reply.body) == {"name": "ann"}


class Login:
    """An issuer and a shop behind one transport."""

    def __init__(self, *keys: RSAKey) -> None:
        self.keys = list(keys)
        self.down = False
        self.fetches = 0

    async def __call__(self, outgoing: Outgoing) -> Incoming:
        await sleep(0.001)
        if outgoing.host != "login.internal":
            return page(dict(outgoing.headers).get(b"x-user-id", b"nobody"))
        self.fetches += 1
        assert outgoing.target == b"/keys?for=shop"
        if self.down:
            raise failing()
        return published(*self.keys)


@pytest.mark.promise("gateway-jwks-shared")
async def test_key_sets_are_fetched_over_the_gateways_own_transport_once_for_all_routes():
    login = Login(KEYS[0])
    routes = [Route(f"/{name}", to=SHOP, auth=bearer()) for name in "abc"]
    async with gateway(*routes, transport=MemoryTransport(login)) as app:
        for name in "abc":
            for _ in range(2):
                reply = await ask(
                    app, path=f"/{name}", headers=[(b"authorization", token(KEYS[0]))]
                )
                assert (reply.status, reply.body) == (200, b"ann")
        assert login.fetches == 1
        await app.reload([Route("/d", to=SHOP, auth=bearer())])
        reply = await ask(app, path="/d", headers=[(b"authorization", token(KEYS[0]))])
        assert reply.status == 200
        assert login.fetches == 1, "a reload keeps the keys"


@pytest.mark.promise("gateway-jwks-rotation")
def test_keys_are_rotated_under_load_and_no_valid_token_is_refused():
    async def main() -> None:
        login, answered = Login(KEYS[0]), [0]

        async def rotate() -> None:
            for key in KEYS[1:]:
                await sleep(1.0)
                login.keys = [login.keys[-1], key]

        async def client(app: Gateway, n: int) -> None:
            for turn in range(60):
                value = token(login.keys[-1], sub=f"user-{n}-{turn % 3}")
                reply = await ask(app, headers=[(b"authorization", value)])
                assert reply.status == 200, reply.body
                assert reply.body == f"user-{n}-{turn % 3}".encode()
                answered[0] += 1
                await sleep(0.06)

        route = Route("/", to=SHOP, auth=bearer())
        async with gateway(route, transport=MemoryTransport(login)) as app:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(rotate)
                for n in range(10):
                    tasks.start_soon(client, app, n)
        assert answered == [600]
        assert login.fetches <= 5

    simulate(main)


@pytest.mark.promise("gateway-jwks-down")
def test_an_issuer_that_is_away_stops_nobody_who_is_known_and_lets_nobody_else_in():
    async def main() -> None:
        login = Login(KEYS[0])
        route = Route("/", to=SHOP, auth=bearer())
        async with gateway(route, transport=MemoryTransport(login)) as app:
            assert (await ask(app, headers=[(b"authorization", token(KEYS[0]))])).status == 200
            login.down = True
            for _ in range(20):
                await sleep(60)
                value = token(KEYS[0], sub="bob")
                assert (await ask(app, headers=[(b"authorization", value)])).status == 200
            reply = await ask(app, headers=[(b"authorization", token(KEYS[1]))])
            assert reply.status == 503
            assert b"retry-after" in reply.headers

        login = Login(KEYS[0])
        login.down = True
        async with gateway(route, transport=MemoryTransport(login)) as app:
            reply = await ask(app, headers=[(b"authorization", token(KEYS[2]))])
            assert reply.status == 503, "never a pass"

    simulate(main)


@pytest.mark.promise("gateway-jwks-rotation")
@pytest.mark.real
@pytest.mark.parametrize("transport", ["aiohttp", "fast"])
async def test_keys_are_rotated_under_load_over_sockets(transport):
    keys = [KEYS[0]]

    async def issuer(visit: Visit) -> None:
        while True:
            await visit.request()
            body = published(*keys).whole()
            assert body is not None
            await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def shop(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def client(app: Gateway, n: int, statuses: list[int]) -> None:
        for turn in range(40):
            value = token(keys[-1], sub=f"{n}-{turn}")
            statuses.append((await ask(app, headers=[(b"authorization", value)])).status)
            await sleep(0.002)

    statuses: list[int] = []
    async with Service(issuer) as login, Service(shop) as service:
        auth = JWTAuth(
            f"http://127.0.0.1:{login.port}/keys", algorithms=["RS256"], issuer="me", audience="api"
        )
        route = Route("/", to=f"http://127.0.0.1:{service.port}", auth=auth)
        async with Gateway([route], transport=transport) as app:
            async with anyio.create_task_group() as tasks:
                for n in range(5):
                    tasks.start_soon(client, app, n, statuses)
                for key in KEYS[1:]:
                    await sleep(0.03)
                    keys.append(key)
    assert statuses == [200] * 200
    assert len(login.heads) <= 5


# -- how often -----------------------------------------------------------------------------------


@pytest.mark.promise("gateway-limits")
def test_each_client_has_its_own_limit_and_is_told_how_it_stands():
    async def main() -> None:
        policy = RoutePolicy(retry=None, rate_limit=Rate(2, per=60))
        transport = MemoryTransport(answering(Answer()))
        async with gateway(Route("/", to=SHOP, policy=policy), transport=transport) as app:
            for left in (b"1", b"0"):
                reply = await ask(app, peer=("10.0.0.1", 1))
                assert reply.status == 200
                assert reply.headers[b"ratelimit-limit"] == b"2"
                assert reply.headers[b"ratelimit-remaining"] == left
            refused = await ask(app, peer=("10.0.0.1", 2))
            assert refused.status == 429
            assert refused.headers[b"ratelimit-remaining"] == b"0"
            assert json.loads(refused.body)["status"] == 429
            spoofed = [(b"x-forwarded-for", b"10.0.0.9"), (b"forwarded", b"for=10.0.0.9")]
            assert (await ask(app, peer=("10.0.0.1", 3), headers=spoofed)).status == 429
            assert (await ask(app, peer=("10.0.0.2", 1))).status == 200
            await sleep(int(refused.headers[b"retry-after"]))
            assert (await ask(app, peer=("10.0.0.1", 4))).status == 200
            assert len(transport.sent) == 4

    simulate(main)


async def test_behind_a_trusted_proxy_the_client_is_who_it_says():
    policy = RoutePolicy(retry=None, rate_limit=Rate(1, per=60))
    limits = Limits(trusted_proxies=("10.0.0.0/8",))
    async with gateway(Route("/", to=SHOP, policy=policy), limits=limits) as app:
        for address, status in ((b"1.1.1.1", 200), (b"1.1.1.1", 429), (b"2.2.2.2", 200)):
            reply = await ask(app, peer=("10.0.0.1", 1), headers=[(b"x-forwarded-for", address)])
            assert reply.status == status


async def test_who_has_a_name_is_limited_by_it_and_who_is_refused_uses_up_nothing():
    policy = RoutePolicy(retry=None, rate_limit=Rate(1, per=60))
    auth = APIKeyAuth({"ann": "key-a", "bob": "key-b"})
    async with gateway(Route("/", to=SHOP, auth=auth, policy=policy)) as app:
        for _ in range(5):
            assert (await ask(app)).status == 401
        for key, peer, status in (
            (b"key-a", "10.0.0.1", 200),
            (b"key-a", "10.0.0.2", 429),
            (b"key-b", "10.0.0.1", 200),
        ):
            reply = await ask(app, peer=(peer, 1), headers=[(b"x-api-key", key)])
            assert reply.status == status


async def test_one_limiter_for_two_routes_counts_for_both_and_a_reload_forgets_nothing():
    bucket = TokenBucket(Rate(2, per=60))
    policy = RoutePolicy(retry=None, rate_limit=bucket)
    own = RoutePolicy(retry=None, rate_limit=Rate(1, per=60))
    routes = [Route(path, to=SHOP, policy=policy) for path in ("/a", "/b")]
    routes.append(Route("/c", to=SHOP, policy=own))
    async with gateway(*routes) as app:
        assert [(await ask(app, path=path)).status for path in ("/a", "/b", "/a")] == [
            200,
            200,
            429,
        ]
        assert [(await ask(app, path="/c")).status for _ in range(2)] == [200, 429]
        await app.reload(routes)
        assert [(await ask(app, path=path)).status for path in ("/a", "/c")] == [429, 429]


@pytest.mark.promise("gateway-limits-shared")
@pytest.mark.real
async def test_a_limit_over_two_gateways(redis_url):
    def one() -> Gateway:
        limit = SharedRateLimit(Rate(3, per=60), redis_url, name="doors")
        return gateway(Route("/", to=SHOP, policy=RoutePolicy(retry=None, rate_limit=limit)))

    async with one() as left, one() as right:
        statuses = [(await ask(app)).status for app in (left, right, left, right, left)]
    assert statuses == [200, 200, 200, 429, 429]


# -- what is kept --------------------------------------------------------------------------------


async def test_an_answer_is_kept_and_each_request_has_its_own_id():
    transport = MemoryTransport(
        answering(page(x_request_id=b"theirs", connection=b"x-hop", x_hop=b"1"))
    )
    async with gateway(Route("/", to=SHOP, policy=CACHED), transport=transport) as app:
        replies = [await ask(app, headers=[(b"x-request-id", b"id-%d" % n)]) for n in range(3)]
        for n, reply in enumerate(replies):
            assert (reply.status, reply.body) == (200, b"page")
            assert [v for name, v in reply.pairs if name == b"x-request-id"] == [b"id-%d" % n]
            assert reply.headers[b"age"] == b"0"
            assert reply.headers[b"content-length"] == b"4"
            assert b"x-hop" not in reply.headers
        assert [each.headers[b"cache-status"] for each in replies[1:]] == [b"aiopatterns; hit"] * 2
        head = await ask(app, "HEAD")
        assert (head.status, head.body, head.headers[b"content-length"]) == (200, b"", b"4")
        assert len(transport.sent) == 1


async def test_a_limit_is_told_beside_a_kept_answer_and_not_kept_with_it():
    policy = RoutePolicy(retry=None, cache=HttpCache(), rate_limit=Rate(5, per=60))
    async with gateway(
        Route("/", to=SHOP, policy=policy), transport=MemoryTransport(answering(page()))
    ) as app:
        for left in (b"4", b"3", b"2"):
            reply = await ask(app)
            told = [value for name, value in reply.pairs if name == b"ratelimit-remaining"]
            assert told == [left]


@pytest.mark.promise("gateway-cache-personal")
async def test_a_route_with_auth_gives_nobody_what_is_somebody_elses():
    auth = APIKeyAuth({"ann": "key-a", "bob": "key-b"})

    async def service(outgoing: Outgoing) -> Incoming:
        said = b"s-maxage=60" if outgoing.target == b"/all" else b"max-age=60"
        return page(dict(outgoing.headers)[b"x-user-id"], said=said)

    transport = MemoryTransport(service)
    async with gateway(Route("/", to=SHOP, auth=auth, policy=CACHED), transport=transport) as app:

        async def get(path: str, key: bytes) -> bytes:
            return (await ask(app, path=path, headers=[(b"x-api-key", key)])).body

        assert [await get("/mine", key) for key in (b"key-a", b"key-b")] == [b"ann", b"bob"]
        assert [await get("/all", key) for key in (b"key-a", b"key-b")] == [b"ann", b"ann"]
        assert (await ask(app, path="/all")).status == 401, "kept answers are behind the same door"


@pytest.mark.promise("gateway-cache-poisoning")
@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-forwarded-host", b"evil.example")],
        [(b"x-forwarded-proto", b"https")],
        [(b"x-forwarded-port", b"81")],
        [(b"x-forwarded-prefix", b"/evil")],
        [(b"x-original-url", b"/admin")],
        [(b"x-rewrite-url", b"/admin")],
        [(b"forwarded", b"host=evil.example")],
        [(b"x-user-id", b"root")],
        [(b"host", b"shop:81")],
        [(b"host", b"evil.example")],
    ],
)
async def test_no_header_of_a_stranger_ends_up_in_the_answers_of_others(headers):
    """A service that writes all it is told into its pages, as links and as scripts."""

    async def service(outgoing: Outgoing) -> Incoming:
        told = [
            b"%b=%b" % each
            for each in sorted(outgoing.headers)
            if each[0].startswith((b"x-", b"forwarded"))
            and each[0] not in {b"x-request-id", b"x-forwarded-for"}
        ]
        return page(b"\n".join(told))

    async with gateway(
        Route("/", to=SHOP, policy=CACHED), transport=MemoryTransport(service)
    ) as app:
        poisoned = await ask(app, headers=headers)
        victim = await ask(app)
        clean = await ask(app, path="/?fresh")
    assert victim.body == clean.body
    assert b"evil" not in victim.body
    assert poisoned.status == 200


@pytest.mark.promise("gateway-cache-poisoning")
async def test_a_body_of_a_get_poisons_nothing():
    async def service(outgoing: Outgoing) -> Incoming:
        body = outgoing.body
        if body is None or isinstance(body, bytes):
            return page(body or b"clean")
        return page(b"".join([chunk async for chunk in body]))

    async with gateway(
        Route("/", to=SHOP, policy=CACHED), transport=MemoryTransport(service)
    ) as app:
        assert (await ask(app, body=[b"poison"])).body == b"poison"
        assert (await ask(app)).body == b"clean"


@pytest.mark.promise("gateway-cache-changes")
async def test_a_change_by_another_route_is_seen():
    versions = iter(range(100))

    async def service(outgoing: Outgoing) -> Incoming:
        return page(b"%d" % next(versions)) if outgoing.method == b"GET" else Answer(204)

    routes = [
        Route("/page", to=SHOP, methods=["GET"], policy=CACHED),
        Route("/page", to="http://writer.internal", methods=["PUT", "OPTIONS"]),
    ]
    async with gateway(*routes, transport=MemoryTransport(service)) as app:
        assert [(await ask(app, path="/page")).body for _ in range(2)] == [b"0", b"0"]
        await ask(app, "OPTIONS", "/page")
        assert (await ask(app, path="/page")).body == b"0"
        await ask(app, "PUT", "/page", body=[b"x"])
        assert (await ask(app, path="/page")).body == b"1"


@pytest.mark.promise("gateway-cache-stale")
def test_stale_answers_are_renewed_in_the_background_and_stand_in_for_errors():
    async def main() -> None:
        said = b"max-age=60, stale-while-revalidate=60, stale-if-error=600"
        state: dict[str, Any] = {"body": b"1", "down": False}

        async def service(_: Outgoing) -> Incoming:
            await sleep(1.0)
            if state["down"]:
                raise failing()
            return page(state["body"], said=said)

        async with gateway(
            Route("/", to=SHOP, policy=CACHED), transport=MemoryTransport(service)
        ) as app:
            await ask(app)
            state["body"] = b"2"
            await sleep(70)
            began = anyio.current_time()
            assert (await ask(app)).body == b"1"
            assert anyio.current_time() == began
            await sleep(2)
            assert (await ask(app)).body == b"2"
            state["down"] = True
            await sleep(200)
            reply = await ask(app)
            assert (reply.status, reply.body) == (200, b"2")
            await sleep(600)
            assert (await ask(app)).status == 502

    simulate(main)


def test_a_renewal_under_way_does_not_hold_up_the_end():
    async def main() -> None:
        async def service(_: Outgoing) -> Incoming:
            await sleep(delay[0])
            return page(said=b"max-age=60, stale-while-revalidate=60")

        delay = [0.0]
        async with gateway(
            Route("/", to=SHOP, policy=CACHED), transport=MemoryTransport(service)
        ) as app:
            await ask(app)
            await sleep(70)
            delay[0] = 50.0
            assert (await ask(app)).status == 200
            began = anyio.current_time()
        assert anyio.current_time() - began < 1

    simulate(main)


@pytest.mark.promise("gateway-cache-collapsed")
async def test_many_clients_cause_one_request_and_one_that_goes_away_harms_nobody():
    async def service(_: Outgoing) -> Incoming:
        if len(transport.sent) == 1:
            await anyio.sleep_forever()  # until its client has gone
        return page()

    transport = MemoryTransport(service)
    replies: list[Reply] = []
    async with gateway(Route("/", to=SHOP, policy=CACHED), transport=transport) as app:

        async def one(client: Client) -> None:
            replies.append(await client.ask(app))

        async with anyio.create_task_group() as tasks:
            clients = [Client() for _ in range(20)]
            tasks.start_soon(one, clients[0])
            while not transport.sent:
                await sleep(0.001)
            for client in clients[1:]:
                tasks.start_soon(one, client)
            await sleep(0.1)
            clients[0].gone.set()
    assert sum(each.body == b"page" for each in replies) == 19
    assert len(transport.sent) == 2, "the first had gone, so the second asked"


async def test_what_a_reload_does_not_change_stays_kept():
    transport = MemoryTransport(answering(page()))
    route = Route("/", to=SHOP, policy=CACHED)
    async with gateway(route, transport=transport) as app:
        await ask(app)
        await app.reload([route, Route("/new", to=SHOP)])
        await ask(app)
        assert len(transport.sent) == 1
        await app.reload([Route("/", to="http://other.internal", policy=CACHED)])
        await ask(app)
        assert len(transport.sent) == 2, "another service, other answers"


async def test_a_stage_of_ones_own_may_refuse():
    class Nobody:
        name = "Nobody"
        header = b"authorization"

        def recall(self, request: Request) -> None:
            return None

        async def verify(self, request: Request) -> Any:
            raise RequestRefusedError("members only", status=403)

    async with gateway(Route("/", to=SHOP, auth=Nobody())) as app:
        reply = await ask(app)
        assert (reply.status, json.loads(reply.body)["title"]) == (403, "members only")
