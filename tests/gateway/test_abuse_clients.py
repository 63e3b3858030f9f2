"""Clients that mean no good, over sockets: too much, too slow, elsewhere, somebody else, another's answer.

Every octet of the client stands here; between it and a service on a socket are uvicorn and a gateway.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from aiopatterns.core.rate import Rate
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.jwt import JWTAuth
from aiopatterns.gateway.policy import HttpCache, Limits, RoutePolicy, Timeouts
from aiopatterns.gateway.routing import Route
from tests.gateway.front import TRANSPORTS, Client, served, statuses
from tests.gateway.services import OK, Service, Visit, answering

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

HEAD = b"Host: a\r\nConnection: close\r\n"
SMALL = Limits(max_body=4096, max_headers=2048, max_target=1024)


def get(path: bytes = b"/", more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HEAD + more + b"\r\n"


def post(more: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HEAD + more + b"\r\n" + body


def to(service: Service, path: str = "/", **more) -> Route:
    return Route(path, to=f"http://127.0.0.1:{service.port}", **more)


# -- too much ----------------------------------------------------------------------------------

CHUNKS = b"400\r\n" + b"x" * 1024 + b"\r\n"


@pytest.mark.promise("gateway-sizes")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_too_large_is_refused(transport: str):
    vectors = [
        (413, post(b"Content-Length: 4097\r\n")),
        (413, post(b"Content-Length: 4097\r\n", b"x" * 4097)),
        (413, post(b"Content-Length: 999999999999999\r\nExpect: 100-continue\r\n")),
        (413, post(b"Transfer-Encoding: chunked\r\n", CHUNKS * 5)),
        (431, get(more=b"X: " + b"x" * 2048 + b"\r\n")),
        (431, get(more=b"X: y\r\n" * 400)),
        (431, get(more=b"X: " + b"x" * 100_000)),
        (414, get(b"/" + b"x" * 1024)),
        (414, get(b"/?" + b"x" * 1024)),
        (414, b"GET /" + b"x" * 100_000),
        (200, post(b"Content-Length: 4096\r\n", b"x" * 4096)),
        (200, get(b"/" + b"x" * 1023)),
    ]
    async with Service(answering(OK)) as service:
        gateway = Gateway([to(service)], transport=transport, limits=SMALL)
        async with served(gateway, limits=SMALL) as front:
            for status, octets in vectors:
                answer = await front.ask(octets)
                assert statuses(answer) == [status], octets[:60]
                assert b"connection: close" in answer
        assert len(service.bodies) == 2


# -- too slow ----------------------------------------------------------------------------------


async def drip(client: Client, drop: bytes) -> bytes:
    """Send one drop after the other until the other side has had enough."""
    rest = asyncio.ensure_future(client.rest())
    while not rest.done():
        await client.send(drop)
        await asyncio.sleep(0.03)
    return await rest


@pytest.mark.promise("gateway-slow-clients")
@pytest.mark.parametrize(
    ("begin", "drop", "status"),
    [
        (b"", b"G", 0),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", 408),
        (post(b"Content-Length: 4000\r\n"), b"x", 504),
        (post(b"Content-Length: 4000\r\n"), b"", 408),
        (post(b"Transfer-Encoding: chunked\r\n"), b"1\r\nx\r\n", 504),
        (post(b"Transfer-Encoding: chunked\r\n", b"1;"), b"x", 408),
        (post(b"Transfer-Encoding: chunked\r\n", b"0\r\nX: "), b"x", 408),
    ],
)
async def test_who_is_slow_is_cut_off_at_a_deadline(begin: bytes, drop: bytes, status: int):
    policy = RoutePolicy(timeouts=Timeouts(idle=0.25, total=0.5))
    async with Service(answering(OK)) as service:
        gateway = Gateway([to(service)], defaults=policy)
        async with served(gateway, patience=0.4) as front:
            began = time.monotonic()
            found = statuses(await drip(await front.connect(begin), drop))
            assert found in ([status] if status else [], [400], []), found
            assert found or begin  # an answer, unless the connection was reset by a late drop
            assert time.monotonic() - began < 4
        assert not service.bodies
        assert gateway.statistics().in_flight == 0


async def test_who_takes_nothing_is_cut_off_too():
    async def endless(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            await visit.send(b"x" * 65536)

    policy = RoutePolicy(timeouts=Timeouts(idle=0.3, total=None))
    async with Service(endless) as service:
        gateway = Gateway([to(service)], defaults=policy)
        async with served(gateway, patience=0.3) as front:
            await front.connect(get())
            await service.closed()
            while front.server.server_state.connections:
                await asyncio.sleep(0.02)


# -- elsewhere ---------------------------------------------------------------------------------

TRAVERSALS = [
    b"/open/../secret", b"/open/..", b"/open/./../secret", b"/..", b"/../secret", b"//secret",
    b"/open//secret", b"/open/%2e%2e/secret", b"/open/%2E%2E/secret", b"/open/.%2e/secret",
    b"/open/%2e./secret", b"/open/..%2fsecret", b"/open/..%2Fsecret", b"/open/%2e%2e%2fsecret",
    b"/open/%252e%252e/secret", b"/open/%252e%252e%252fsecret", b"/open/%25252e%25252e/secret",
    b"/open/..%5csecret", b"/open/..\\secret", b"/open/%5c..%5csecret", b"/open/%255csecret",
    b"/open/..%c0%afsecret", b"/open/%c0%ae%c0%ae/secret", b"/open/%e0%80%ae%e0%80%ae/secret",
    b"/open/..;/secret", b"/open/..;x=y/secret", b"/open/%2e%2e;/secret", b"/open/%2e%2e%3b/secret",
    b"/open/..%00/secret", b"/open/%00", b"/open/%2500", b"/open/%0d%0aX:y", b"/open/%0a",
    b"/open/..%20/secret", b"/open/.. /secret", b"/open/%09../secret", b"/open/%", b"/open/%2",
    b"/open/%zz", b"/open/%u002e%u002e/secret", b"/open/%ff", b"/open/..?x", b"/open/..#x",
    b"/open/%2f/secret", b"/open%2f%2fsecret", b"/open/\xff", b"/open/%7f", b"http://a/open/../secret",
    b"a/open/../secret", b"open/secret", b"*",
]  # fmt: skip


@pytest.mark.promise("gateway-traversal")
async def test_no_path_leads_elsewhere():
    async with Service(answering(OK)) as service, Service(answering(OK)) as secret:
        routes = [to(service, "/open"), to(service, "/"), to(secret, "/secret")]
        async with served(Gateway(routes)) as front:
            for path in TRAVERSALS:
                assert statuses(await front.ask(get(path))) == [400], path
            assert statuses(await front.ask(get(b"/open/a%2Fb/...;x/%25/..a"))) == [200]
        assert [head.split()[1] for head in service.heads] == [b"/open/a%2Fb/...;x/%25/..a"]
        assert not secret.heads


# -- somebody else -----------------------------------------------------------------------------

SPOOFED = b"".join(
    name + b": 6.6.6.6\r\n"
    for name in (
        b"X-Forwarded-For", b"X-Real-IP", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"Forwarded",
        b"X-Forwarded-Port", b"X-Forwarded-Prefix", b"X-User-Id", b"X_Forwarded_For", b"X_User_Id",
        b"X-Original-URL", b"X-Rewrite-URL", b"Proxy", b"Proxy-Authorization", b"X-Hop",
    )
)  # fmt: skip


@pytest.mark.promise("gateway-forwarded")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stranger_is_believed_nothing_about_itself(transport: str):
    policy = RoutePolicy(rate_limit=Rate(2))
    hop = b"Connection: x-hop, x-forwarded-for, x-user-id, authorization\r\nAuthorization: kept\r\n"
    async with Service(answering(OK)) as service:
        routes = [to(service), to(service, "/limited", policy=policy)]
        async with served(Gateway(routes, transport=transport)) as front:
            assert statuses(await front.ask(get(more=SPOOFED + hop))) == [200]
            for number, status in enumerate((200, 200, 429)):
                told = b"X-Forwarded-For: 6.6.6.%d\r\n" % number
                assert statuses(await front.ask(get(b"/limited", told))) == [status]
        head = service.heads[0].lower()
        assert b"6.6.6.6" not in head
        assert b"\r\nx-forwarded-for: 127.0.0.1\r\n" in head
        assert b"\r\nx-forwarded-proto: http\r\n" in head
        assert b"\r\nx-forwarded-host: a\r\n" in head
        assert b"\r\nauthorization: kept\r\n" in head
        assert len([head for head in service.heads if b"/limited" in head]) == 2


async def test_only_the_last_stranger_of_a_trusted_proxy_counts():
    limits = Limits(trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    policy = RoutePolicy(rate_limit=Rate(1))
    async with Service(answering(OK)) as service:
        async with served(Gateway([to(service, policy=policy)], limits=limits)) as front:
            for number, status in enumerate((200, 429, 429)):
                told = b"X-Forwarded-For: 6.6.6.%d, 7.7.7.7, 10.1.1.1\r\n" % number
                assert statuses(await front.ask(get(more=told))) == [status]


# -- another's token ---------------------------------------------------------------------------


def part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def attacks(key: RSAKey, other: RSAKey) -> dict[str, bytes]:
    """Tokens that nobody may get in with."""
    now = int(time.time())
    good = {"sub": "eve", "iss": "us", "aud": "shop", "exp": now + 600, "nbf": now - 5}
    head = {"alg": "RS256", "kid": "1"}

    def signed(claims: dict[str, object]) -> bytes:
        return jwt.encode(head, claims, key, algorithms=["RS256"]).encode()

    def without(name: str) -> dict[str, object]:
        return {each: value for each, value in good.items() if each != name}

    def forged(head: dict[str, object], by: bytes = b"") -> bytes:
        return part(head) + b"." + part(good) + b"." + by

    def by_secret(secret: bytes) -> bytes:
        start = part({"alg": "HS256", "kid": "1"}) + b"." + part(good)
        made = hmac.digest(secret, start, "sha256")
        return start + b"." + base64.urlsafe_b64encode(made).rstrip(b"=")

    genuine = signed(good)
    found = {
        "none": forged({"alg": "none"}),
        "None": forged({"alg": "None", "kid": "1"}),
        "no algorithm": forged({"kid": "1"}),
        "no signature": genuine.rpartition(b".")[0] + b".",
        "another's signature": genuine.rpartition(b".")[0] + b"." + genuine[::-1][:342],
        "another's key": jwt.encode(head, good, other, algorithms=["RS256"]).encode(),
        "the public key as a secret": by_secret(key.as_pem(private=False)),
        "a secret of its own": by_secret(b"x" * 32),
        "a wrong issuer": signed(good | {"iss": "them"}),
        "no issuer": signed(without("iss")),
        "a wrong audience": signed(good | {"aud": "bank"}),
        "no audience": signed(without("aud")),
        "expired": signed(good | {"exp": now - 600}),
        "never expiring": signed(without("exp")),
        "not yet": signed(good | {"nbf": now + 600}),
        "nobody": signed(without("sub")),
        "critical": forged({"alg": "RS256", "kid": "1", "crit": ["x"], "x": 1}, b"AAAA"),
        "no token": b"x",
        "nothing": b"",
    }
    for kid in ("../../dev/null", "1' OR '1'='1", "1\x00", "http://e/", "", 7, None, ["1"]):
        found[f"kid {kid!r}"] = forged({"alg": "RS256", "kid": kid}, b"AAAA")
    for name, value in (
        ("jwk", key.as_dict(private=False)),
        ("jku", "http://e/"),
        ("x5u", "http://e/"),
    ):
        found[name] = jwt.encode(
            {"alg": "RS256", "kid": "2", name: value}, good, other, algorithms=["RS256"]
        ).encode()
    return found


@pytest.mark.promise("gateway-jwt-attacks")
async def test_no_forged_token_gets_in():
    key = RSAKey.generate_key(2048, {"kid": "1", "alg": "RS256"})
    other = RSAKey.generate_key(2048, {"kid": "1"})
    keys = {"keys": [key.as_dict(private=False)]}
    auth = JWTAuth(keys, algorithms=["RS256"], issuer="us", audience="shop", leeway=1)
    claims = {"sub": "ann", "iss": "us", "aud": "shop", "exp": int(time.time()) + 600}
    good = jwt.encode({"alg": "RS256", "kid": "1"}, claims, key, algorithms=["RS256"]).encode()
    async with Service(answering(OK)) as service:
        async with served(Gateway([to(service, auth=auth)])) as front:
            for name, token in attacks(key, other).items():
                answer = await front.ask(get(more=b"Authorization: Bearer " + token + b"\r\n"))
                assert statuses(answer) == [401], name
                assert b"www-authenticate: bearer" in answer.lower(), name
            twice = b"Authorization: Bearer " + good + b"\r\n"
            assert statuses(await front.ask(get(more=twice * 2))) in ([400], [401])
            assert statuses(await front.ask(get(more=twice))) == [200]
        assert len(service.heads) == 1
        assert b"\r\nx-user-id: ann\r\n" in service.heads[0].lower()


# -- another's answer --------------------------------------------------------------------------


def telling(*headers: bytes):
    """A service that answers with what it was asked, and lets everybody keep that."""

    async def script(visit: Visit) -> None:
        while True:
            told = b"".join(await visit.request())
            more = b"".join(each + b"\r\n" for each in headers)
            start = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n" + more
            await visit.send(start + b"content-length: %d\r\n\r\n" % len(told) + told)

    return script


POISON = [
    b"X-Forwarded-Host: evil\r\n", b"X-Forwarded-Proto: evil\r\n", b"X-Original-URL: /evil\r\n",
    b"X-Forwarded-Prefix: /evil\r\n", b"Forwarded: host=evil\r\n", b"X-Rewrite-URL: /evil\r\n",
    b"Connection: x-evil\r\nX-Evil: 1\r\n", b"Content-Length: 4\r\n", b"X-Request-Id: evil\xff\r\n",
    b"Transfer-Encoding: chunked\r\n", b"X_Forwarded_Host: evil\r\n", b"X-Forwarded-For: evil\r\n",
]  # fmt: skip
BODIES = {
    b"Content-Length: 4\r\n": b"evil",
    b"Transfer-Encoding: chunked\r\n": b"4\r\nevil\r\n0\r\n\r\n",
}


@pytest.mark.promise("gateway-cache-poisoning")
async def test_nobody_gets_what_a_stranger_made_of_an_answer():
    policy = RoutePolicy(cache=HttpCache())
    async with Service(telling()) as service:
        async with served(Gateway([to(service, policy=policy)])) as front:
            for number, poison in enumerate(POISON):
                path = b"/%d" % number
                await front.ask(get(path, poison) + BODIES.get(poison, b""))
                victim = await front.ask(get(path))
                assert statuses(victim) == [200]
                assert b"evil" not in victim.lower(), poison


@pytest.mark.promise("gateway-cache-poisoning")
@pytest.mark.parametrize(
    ("headers", "one", "other"),
    [
        ((b"vary: accept-language",), b"Accept-Language: mine\r\n", b"Accept-Language: yours\r\n"),
        ((b"vary: *",), b"X: mine\r\n", b""),
        ((b"vary: cookie",), b"Cookie: mine\r\n", b""),
        ((b"set-cookie: mine",), b"", b""),
        ((), b"Authorization: mine\r\n", b""),
        ((), b"Authorization: mine\r\n", b"Authorization: yours\r\n"),
        ((b"cache-control: private",), b"X: mine\r\n", b""),
        ((b"cache-control: no-store",), b"X: mine\r\n", b""),
    ],
)
async def test_nobody_gets_the_answer_to_another(headers, one: bytes, other: bytes):
    policy = RoutePolicy(cache=HttpCache())
    async with Service(telling(*headers)) as service:
        async with served(Gateway([to(service, policy=policy)])) as front:
            first = await front.ask(get(more=one))
            assert b"mine" in first
            second = await front.ask(get(more=other))
            assert statuses(second) == [200]
            assert len(service.heads) == 2
            assert b"mine" not in service.heads[1]
