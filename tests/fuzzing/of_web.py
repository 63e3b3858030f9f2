"""What the gateway and the dashboard read: requests, answers, tokens, keys, files, figures."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvicorn
from joserfc.jwk import ECKey, OctKey
from joserfc.jws import serialize_compact
from uvicorn.server import ServerState

from aiopatterns.backends import open_backend
from aiopatterns.backends.publishing import DIRECTORY, Published
from aiopatterns.contrib.web import request_id
from aiopatterns.core.clock import Alarms, Home
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import CodecError, ConfigError, RequestRefusedError, UpstreamError
from aiopatterns.dashboard.fleet import Fleet
from aiopatterns.dashboard.guard import Guard
from aiopatterns.dashboard.live import Watch
from aiopatterns.dashboard.queues import Queues
from aiopatterns.dashboard.routes import _order_of
from aiopatterns.gateway.auth import APIKeyAuth
from aiopatterns.gateway.cacheanswer import related
from aiopatterns.gateway.cachecontrol import fields_of
from aiopatterns.gateway.cacherules import (
    bridges,
    conditions,
    freshen,
    terms,
    unchanged,
    variant,
    verdict,
)
from aiopatterns.gateway.config import load_config
from aiopatterns.gateway.connection import Connection
from aiopatterns.gateway.door import door
from aiopatterns.gateway.framing import framed
from aiopatterns.gateway.headers import continued_trace, to_client, to_service
from aiopatterns.gateway.intake import Intake
from aiopatterns.gateway.jwt import JWTAuth
from aiopatterns.gateway.paths import check_query, checked_path
from aiopatterns.gateway.policy import Limits
from aiopatterns.gateway.proxies import TrustedProxies
from aiopatterns.gateway.request import Request, Response
from aiopatterns.gateway.routing import Route
from aiopatterns.gateway.signatures import SigningKeys
from aiopatterns.gateway.transport import Outgoing
from tests.fuzzing.mutation import Shape
from tests.fuzzing.target import Target, driven

__all__ = ["TARGETS"]

ROUTE = Route("/a", to="http://service:80", strip_prefix=True)
LIMITS = Limits(trusted_proxies=("10.0.0.0/8",))
INTAKE = Intake(LIMITS)
SECRET = base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()
KEY = OctKey.import_key({"kty": "oct", "k": SECRET, "kid": "1"})
AUTH = JWTAuth(
    {"kty": "oct", "k": SECRET, "kid": "1"}, algorithms=["HS256"], issuer="i", audience="a"
)
CLAIMS = {"sub": "ann", "iss": "i", "aud": "a", "exp": 4_000_000_000, "nbf": 1, "scope": ["x"]}
GET = b"GET /a/b?c=d HTTP/1.1\r\nHost: a.example\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.2\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Control: max-age=60\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"
PUBLIC = ECKey.generate_key("P-256", {"kid": "e", "use": "sig"}, private=False).as_dict()
PAGE = [b"max-age=60, stale-while-revalidate=5", b'"tag"', b"accept, cookie",
        b"Sun, 06 Nov 1994 08:49:37 GMT", b"17"]  # fmt: skip


# ------------------------------------------------------------------------- requests and answers


def parsed(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Method, target and headers, by a server that lets everything through."""
    head = data.partition(b"\r\n\r\n")[0]
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    found = (line.partition(b":") for line in lines)
    return method, rest.rpartition(b" ")[0], [(n.lower(), v.strip()) for n, _, v in found]


def taken(data: bytes) -> None:
    """A request from a server to a service behind the gateway."""
    method, target, headers = parsed(data)
    raw, _, query = target.partition(b"?")
    scope = {
        "type": "http", "method": method.decode("latin-1"), "raw_path": raw, "path": raw.decode("latin-1"),
        "query_string": query, "headers": headers, "scheme": "http", "client": ("10.0.0.1", 5),
        "http_version": "1.1",
    }  # fmt: skip
    request = INTAKE.take(scope)
    request.route = ROUTE
    INTAKE.body(request, scope, nothing)
    onward = to_service(request, b"service", b"/a")
    sent = framed(Outgoing(method, "service", 80, False, target, onward))
    assert sent.partition(b"\r\n\r\n")[0].count(b"\n") in {len(onward), len(onward) + 1}
    list(related(request, Response(201, [(b"location", target), (b"content-location", query)])))
    variant((b"accept", b"cookie"), request.header_list)


async def nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def path(data: bytes) -> None:
    found = checked_path(data)
    assert ".." not in found.split("/")
    assert "\\" not in found
    check_query(data)


def kept(data: bytes) -> None:
    """What a cache makes of an answer, and of the next one."""
    values = [*data.split(b"\n"), *PAGE][:5]
    names = (b"cache-control", b"etag", b"vary", b"expires", b"age")
    fields = fields_of(zip(names, values, strict=True))
    fields[b"date"] = fields[b"last-modified"] = values[3]
    asked = {b"max-stale": 5}
    found = terms(200, fields, asked=asked, personal=False, now=1e9, delay=0.1)
    request = Request(
        "GET", b"/", b"", [(b"if-none-match", values[1]), (b"if-modified-since", values[3])]
    )
    freshen(fields, {b"etag": values[1]})
    if found is not None:
        verdict(found, 1.0, asked)
        bridges(found, 1.0, asked)
        conditions(found)
        unchanged(found, request.header_list)
        variant(found.names, request.header_list)
    to_client([*zip(names, values, strict=True), (b"connection", data)], "r-1")
    continued_trace(data)


class Wire:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.closing = False

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_protocol(self, protocol: object) -> None: ...
    def set_write_buffer_limits(self, **limits: int) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    close = abort

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.1", 5) if name in {"peername", "sockname"} else None


class Keeper:
    """A pool that nobody asks."""

    name = "service:80"

    def give_back(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...


LOOP: list[asyncio.AbstractEventLoop] = []


def looped(work: Callable[[bytes], Coroutine[Any, Any, None]]) -> Callable[[bytes], None]:
    """Run ``work`` on one loop, made on first use."""

    def run(data: bytes) -> None:
        if not LOOP:
            LOOP.append(asyncio.new_event_loop())
        LOOP[0].run_until_complete(work(data))

    return run


async def answered(data: bytes) -> None:
    """An answer of a service, in pieces."""
    alarms = Alarms(60.0)
    connection = Connection(Home(), Keeper())
    connection.connection_made(Wire())
    answer = connection.begin(b"GET", b"request", alarms, alarms)
    connection.sent()
    for at in range(0, len(data), 40_000):
        connection.data_received(data[at : at + 40_000])
    connection.connection_lost(None)
    if answer.error is not None:
        raise answer.error


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def knocked(data: bytes) -> None:
    """What a client says at the door."""
    if not CONFIG.loaded:
        CONFIG.load()
    client = door(LIMITS)(config=CONFIG, server_state=ServerState(), app_state={})
    client.connection_made(Wire())
    for at in range(0, len(data), 40_000):
        client.data_received(data[at : at + 40_000])
    for _ in range(4):
        await asyncio.sleep(0)
    client.connection_lost(None)
    for _ in range(4):
        await asyncio.sleep(0)


CONFIG = uvicorn.Config(
    application, log_config=None, access_log=False, proxy_headers=False, lifespan="off", ws="none"
)


CONFIG_FILE = b"""
transport = "fast"
[limits]
trusted_proxies = ["10.0.0.0/8"]
[defaults]
timeouts = { total = 30 }
[[routes]]
path = "/a"
to = "http://u:80"
policy = { retry = true }
"""


# -------------------------------------------------------------------------- who is it, and what may he


def token(value: bytes) -> None:
    driven(AUTH.verify(Request("GET", b"/", b"", [(b"authorization", b"Bearer " + value)])))


def signed(payload: bytes) -> bytes:
    return serialize_compact({"alg": "HS256", "kid": "1"}, payload, KEY).encode()


def headed(header: bytes) -> bytes:
    """A token with any header; its signature is that of another."""
    return b".".join(
        [base64.urlsafe_b64encode(header).rstrip(b"="), *signed(b"{}").split(b".")[1:]]
    )


def keyed(value: bytes) -> None:
    driven(
        APIKeyAuth({"acme": "k" * 32}).verify(Request("GET", b"/", b"", [(b"x-api-key", value)]))
    )


def configured(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gateway.toml"
        file.write_bytes(data)
        load_config(file)


def guarded(data: bytes) -> None:
    method, target, headers = parsed(data)
    place, _, query = target.partition(b"?")
    scope = {
        "type": "http", "method": method.decode("latin-1"), "path": place.decode("latin-1"),
        "query_string": query, "headers": headers, "scheme": "http", "root_path": "",
    }  # fmt: skip
    driven(GUARD(scope, nothing, sent))


async def sent(message: Any) -> None: ...


async def inside(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("it was let in")


GUARD = Guard(inside, token="t" * 32)
FIGURES = Published(
    kind="worker", name="mails", host="h", pid=7, number="1", started_at=1e9,
    figures={"queues": {"mails": {"processed": 3}}, "p50": 0.1, "p99": 0.2},
)  # fmt: skip
FLOWS = {
    "flows": [{"name": "p", "stages": []}],
    "services": ["users"],
    "partitions": 2,
    "in_hand": 1,
}


async def looked(data: bytes) -> None:
    """A page of what processes have published."""
    async with open_backend("memory://") as backend:
        await backend.directory(DIRECTORY).put("worker/1", data, ttl=60)
        await backend.directory(DIRECTORY).put("worker/2", MSGPACK.encode(FIGURES), ttl=60)
        found = await Fleet(backend, Queues(backend), actions=False).look()
        assert [each.name for each in found.queues if each.name == "mails"]
        JSON.encode(found)


def noticed(data: bytes) -> None:
    backend = open_backend("memory://")
    watch = Watch(Fleet(backend, Queues(backend), actions=False), backend.pubsub)
    watch._take(data)
    assert all(line.count(b"\n\n") == 1 for _, line in watch._lines)


TARGETS = (
    Target(
        "gateway.intake+gateway.headers+gateway.framing+gateway.cacheanswer+gateway.body",
        taken,
        (GET, POST.partition(b"5\r\n")[0]),
        hostile=(
            b"CONNECT / HTTP/1.1\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
        ),
        errors=(RequestRefusedError,),
    ),
    Target("gateway.door", looped(knocked), (GET, POST, GET + GET), errors=()),
    Target(
        "gateway.connection",
        looped(answered),
        (OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
        errors=(UpstreamError,),
    ),
    Target(
        "gateway.paths",
        path,
        (b"/a/b%20c/%C3%A9",),
        hostile=(b"/a/..%2fb", b"/a/%252e%252e/b"),
        errors=(RequestRefusedError,),
    ),
    Target("gateway.cacherules+gateway.cachecontrol", kept, (b"\n".join(PAGE),), errors=()),
    Target(
        "gateway.proxies",
        lambda data: TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1", data),
        (b"1.2.3.4, [::1]:80, 10.0.0.2:5",),
        errors=(),
    ),
    Target(
        "gateway.jwt+gateway.signatures+gateway.tokens",
        token,
        shapes=(Shape(CLAIMS, signed, "json"),),
        hostile=(
            headed(b'{"alg":"none"}'),
            headed(b'{"alg":"HS256","crit":["x"]}'),
            signed(b"null"),
        ),
        errors=(RequestRefusedError,),
    ),
    Target(
        "gateway.signatures",
        SigningKeys.published,
        shapes=(
            Shape(
                {"keys": [PUBLIC, {**PUBLIC, "kid": "s"}, {"kty": "oct", "k": SECRET}]},
                codec="json",
            ),
            Shape({"keys": [PUBLIC]}, codec="json"),
        ),
        hostile=(b'{"keys":[]}', b'{"keys":7}'),
        errors=(CodecError, ValueError),
    ),
    Target("gateway.auth", keyed, (b"k" * 32,), errors=(RequestRefusedError,)),
    Target(
        "gateway.config+gateway.tables+gateway.routing+gateway.placeholders+gateway.policies",
        configured,
        (
            CONFIG_FILE,
            b'[auth.x]\nkeys = { acme = "'
            + b"k" * 32
            + b'" }\n[[routes]]\npath = "/"\nto = "http://u"\nauth = "x"\n',
        ),
        hostile=(
            b'name = "${file:\\u0000}"\n',
            b"a = " + b"[" * 500,
            b"a." * 700 + b"a = 1\n",
            b"a = 1979-05-27T07:32:00Z\n",
            b"a = nan\n",
            b'[[routes]]\npath = "/"\nto = "http://[::1"\n',
            b'[[routes]]\npath = "/"\nto = "http://u:99999"\n',
        ),
        errors=(ConfigError,),
    ),
    Target(
        "dashboard.guard",
        guarded,
        (
            b"GET / HTTP/1.1\r\nHost: localhost:80\r\nCookie: aiopatterns-0=1\r\nOrigin: http://localhost\r\n\r\n",
            b"GET /?token=x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            b"POST /api/actions/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        errors=(),
    ),
    Target(
        "dashboard.routes",
        _order_of,
        shapes=(Shape({"queue": "q", "ids": ["a"], "all": False}, codec="json"),),
    ),
    Target(
        "dashboard.live",
        noticed,
        shapes=(
            Shape(
                {"at": 1e9, "level": "info", "event": "e", "text": "t", "source": "s"}, codec="json"
            ),
        ),
        errors=(),
    ),
    Target(
        "dashboard.fleet",
        looped(looked),
        shapes=(
            Shape(JSON.decode(JSON.encode(FIGURES))),
            Shape({**JSON.decode(JSON.encode(FIGURES)), "kind": "registry", "figures": FLOWS}),
            Shape({**JSON.decode(JSON.encode(FIGURES)), "kind": "queue", "figures": FLOWS}),
            Shape(
                {
                    **JSON.decode(JSON.encode(FIGURES)),
                    "kind": "consumer",
                    "name": "s/g",
                    "figures": FLOWS,
                }
            ),
        ),
        errors=(),
    ),
    Target("contrib.web", lambda data: request_id(data.decode("latin-1")), (b"r-1",), errors=()),
)
