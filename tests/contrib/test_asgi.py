from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

import anyio
import pytest
from fastapi import Depends, FastAPI, WebSocket
from httpx import ASGITransport, AsyncClient
from starlette.responses import StreamingResponse

from aiopatterns.cluster.health import HealthChecker
from aiopatterns.contrib.asgi import (
    CorrelationMiddleware,
    RateLimitMiddleware,
    TracingMiddleware,
    health_routes,
    lifespan,
    provide,
)
from aiopatterns.core.context import correlation_id
from aiopatterns.core.rate import Rate
from aiopatterns.jobs import Context, JobQueue, Worker
from aiopatterns.resilience import TokenBucket
from tests.contrib.spans import attributes, seen


class Owner:
    def __init__(self, name, log, *, fails=False) -> None:
        self.name, self.log, self.fails = name, log, fails

    async def __aenter__(self):
        if self.fails:
            raise OSError(self.name)
        self.log.append(f"open {self.name}")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.log.append(f"close {self.name}")


async def test_owners_are_opened_in_order_and_closed_in_reverse():
    log: list[str] = []
    enter = lifespan(Owner("a", log), Owner("b", log))
    for _ in range(2):  # may be entered again
        async with enter(None) as state:
            assert state is None
            assert log == ["open a", "open b"]
        assert log == ["open a", "open b", "close b", "close a"]
        log.clear()


async def test_one_that_fails_closes_those_before_it():
    log: list[str] = []
    with pytest.raises(OSError, match="b"):
        async with lifespan(Owner("a", log), Owner("b", log, fails=True))(None):
            pytest.fail("entered")
    assert log == ["open a", "close a"]


def test_what_cannot_be_entered_is_refused():
    with pytest.raises(TypeError, match="owners must be async context managers"):
        lifespan(cast("Any", 5))


jobs = JobQueue("app")
get_jobs = provide(jobs)
app = FastAPI(lifespan=lifespan(jobs, Worker(jobs)))


@jobs.job
async def double(value: int) -> int:
    return 2 * value


@app.post("/double/{value}")
async def create(value: int, queue: Annotated[JobQueue, Depends(get_jobs)]) -> int:
    assert queue is jobs
    handle = await double.enqueue(value)
    return await handle.result(timeout=5)


@pytest.mark.real
async def test_a_fastapi_application_enqueues_and_its_worker_runs():
    for _ in range(2):  # two lifespans in one process
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app), base_url="http://app") as client,
        ):
            assert (await client.post("/double/21")).json() == 42


# ------------------------------------------------------------------------------------- raw ASGI


async def nothing() -> Any:
    pytest.fail("received")


class Sent(list[dict[str, Any]]):
    """What an application sends."""

    async def __call__(self, message: Any) -> None:
        self.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self[0]["headers"])


def http(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "headers": [], **more}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": (correlation_id() or "").encode()})


# ---------------------------------------------------------------------------------------- health


@pytest.mark.parametrize("root", ["", "/health"])
async def test_health_pages_stand_alone_and_under_a_mount(root):
    health = health_routes(HealthChecker({}))
    for page in ("/live", "/ready", "/startup"):
        sent = Sent()
        await health(http(root + page, root_path=root), nothing, sent)
        assert sent[0]["status"] == 200
        assert sent.headers[b"content-length"] == str(len(sent[1]["body"])).encode()
        assert sent.headers[b"cache-control"] == b"no-store"
        bare = Sent()
        await health(http(root + page, "HEAD", root_path=root), nothing, bare)
        assert (bare[0], bare[1]["body"]) == (sent[0], b"")
    sent = Sent()
    await health(http(root + "/else", root_path=root), nothing, sent)
    assert sent[0]["status"] == 404
    sent = Sent()
    await health(http(root + "/live", "POST", root_path=root), nothing, sent)
    assert (sent[0]["status"], sent.headers[b"allow"]) == (405, b"GET, HEAD")


async def test_health_is_no_websocket_and_has_no_lifespan():
    health = health_routes(HealthChecker({}))
    sent = Sent()
    await health({"type": "websocket", "path": "/live"}, nothing, sent)
    await health({"type": "lifespan"}, nothing, sent)
    assert sent == [{"type": "websocket.close"}]


async def test_health_mounted_in_fastapi_says_no_until_checks_say_yes():
    well = [False]

    async def database() -> bool:
        return well[0]

    checker = HealthChecker({"db": database}, rise=1)
    mounted = FastAPI(lifespan=lifespan(checker))
    mounted.mount("/health", health_routes(checker))
    async with (
        mounted.router.lifespan_context(mounted),
        AsyncClient(transport=ASGITransport(mounted), base_url="http://app") as client,
    ):
        await checker.check_now("db")
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["ok"]) == (503, False)
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/other")).status_code == 404


# ----------------------------------------------------------------------------------- correlation


async def test_a_request_id_goes_in_and_out():
    middleware = CorrelationMiddleware(hello)
    sent = Sent()
    await middleware(http(headers=[(b"x-request-id", b"abc-1")]), nothing, sent)
    assert sent.headers == {b"a": b"b", b"x-request-id": b"abc-1"}
    assert sent[1]["body"] == b"abc-1"
    assert correlation_id() is None


@pytest.mark.parametrize("wrong", [b"", b"a b", b"\xff", b"x" * 129])
async def test_a_harmful_request_id_is_replaced(wrong):
    sent = Sent()
    await CorrelationMiddleware(hello)(http(headers=[(b"x-request-id", wrong)]), nothing, sent)
    assert len(sent.headers[b"x-request-id"]) == 24
    assert sent[1]["body"] == sent.headers[b"x-request-id"]


async def test_websockets_have_one_and_a_lifespan_has_none():
    middleware = CorrelationMiddleware(hello)
    sent = Sent()
    scope = {"type": "websocket", "headers": [(b"x-request-id", b"abc")]}
    await middleware(scope, nothing, sent)
    assert sent == [{"type": "websocket.accept", "headers": [(b"x-request-id", b"abc")]}]
    sent = Sent()
    await middleware({"type": "lifespan"}, nothing, sent)
    assert sent == [{"type": "lifespan.startup.complete"}]


async def test_the_applications_own_header_gives_way():
    async def own(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-request-id", b"mine")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    sent = Sent()
    await CorrelationMiddleware(own)(http(headers=[(b"x-request-id", b"abc")]), nothing, sent)
    assert sent[0]["headers"] == [(b"x-request-id", b"abc")]


async def test_jobs_carry_the_request_id():
    shop = JobQueue("ids")
    seen: list[str | None] = []

    @shop.job
    async def note(context: Context) -> None:
        seen.append(context.correlation_id)

    service = FastAPI()

    @service.post("/note")
    async def create() -> None:
        await (await note.enqueue()).result(timeout=5)

    service.add_middleware(CorrelationMiddleware)
    async with (
        shop,
        Worker(shop),
        AsyncClient(transport=ASGITransport(service), base_url="http://app") as client,
    ):
        answer = await client.post("/note", headers={"X-Request-ID": "abc-7"})
        assert answer.headers["x-request-id"] == "abc-7"
    assert seen == ["abc-7"]


# ------------------------------------------------------------------------------------ rate limit


async def limited(middleware: RateLimitMiddleware, scope: dict[str, Any]) -> Sent:
    sent = Sent()
    await middleware(scope, nothing, sent)
    return sent


async def test_a_client_that_has_used_up_its_limit_is_refused():
    middleware = RateLimitMiddleware(hello, limiter=TokenBucket(Rate(2, per=60)))
    ann, bob = http(client=("10.0.0.1", 5)), http(client=("10.0.0.2", 5))
    first, second, third = [await limited(middleware, ann) for _ in range(3)]
    assert first.headers == {b"a": b"b", b"ratelimit-remaining": b"1", b"ratelimit-reset": b"30"}
    assert second.headers[b"ratelimit-remaining"] == b"0"
    assert third[0]["status"] == 429
    assert third.headers[b"retry-after"] == b"30"
    assert third.headers[b"content-type"] == b"application/problem+json"
    assert (await limited(middleware, bob))[0]["status"] == 200


async def test_clients_without_an_address_share_a_limit():
    middleware = RateLimitMiddleware(hello, limiter=TokenBucket(Rate(1, per=60)))
    assert (await limited(middleware, http(client=None)))[0]["status"] == 200
    assert (await limited(middleware, http()))[0]["status"] == 429


async def test_a_key_decides_and_none_is_not_counted():
    limiter = TokenBucket(Rate(1, per=60))
    middleware = RateLimitMiddleware(
        hello, limiter=limiter, key=lambda scope: scope["path"].removeprefix("/") or None
    )
    for _ in range(3):
        assert limited_by(await limited(middleware, http("/"))) is None
    assert limited_by(await limited(middleware, http("/ann"))) == b"0"
    assert (await limited(middleware, http("/ann")))[0]["status"] == 429
    assert limited_by(await limited(middleware, http("/bob"))) == b"0"


def limited_by(sent: Sent) -> bytes | None:
    return sent.headers.get(b"ratelimit-remaining")


async def test_a_websocket_is_refused_before_it_is_accepted():
    middleware = RateLimitMiddleware(hello, limiter=TokenBucket(Rate(1, per=60)))
    scope: dict[str, Any] = {"type": "websocket", "client": ("10.0.0.1", 5)}
    assert await limited(middleware, scope) == [{"type": "websocket.accept"}]
    assert await limited(middleware, scope) == [{"type": "websocket.close", "code": 1013}]
    scope["extensions"] = {"websocket.http.response": {}}
    start, body = await limited(middleware, scope)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert body["type"] == "websocket.http.response.body"
    assert await limited(middleware, {"type": "lifespan"}) == [
        {"type": "lifespan.startup.complete"}
    ]


async def test_an_answer_that_is_kept_does_not_grow():
    kept: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}

    async def same(scope: Any, receive: Any, send: Any) -> None:
        await send(kept)

    for middleware in (
        CorrelationMiddleware(same),
        RateLimitMiddleware(same, limiter=TokenBucket(Rate(100))),
    ):
        sent = Sent()
        await middleware(http(), nothing, sent)
        assert sent.headers
    assert kept["headers"] == []


def test_bad_input_is_refused_by_name():
    for wrong, text in (
        (lambda: CorrelationMiddleware(cast("Any", 5)), "app must be a function, not 5"),
        (lambda: RateLimitMiddleware(cast("Any", 5), limiter=TokenBucket(Rate(1))), "app must be"),
        (lambda: RateLimitMiddleware(hello, limiter=cast("Any", 5)), r"limiter\.acquire must be"),
        (
            lambda: RateLimitMiddleware(
                hello, limiter=TokenBucket(Rate(1)), key=cast("Any", "client")
            ),
            "key must be a function",
        ),
        (lambda: health_routes(cast("Any", 5)), "checker must be a HealthChecker"),
    ):
        with pytest.raises(TypeError, match=text):
            wrong()


async def test_streams_and_websockets_pass_both_middlewares():
    service = FastAPI()

    @service.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(3):
                await anyio.lowlevel.checkpoint()
                yield f"{number} {correlation_id()}\n".encode()

        return StreamingResponse(chunks())

    @service.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"{await socket.receive_text()} {correlation_id()}")

    service.add_middleware(RateLimitMiddleware, limiter=TokenBucket(Rate(100)))
    service.add_middleware(CorrelationMiddleware)
    async with AsyncClient(transport=ASGITransport(service), base_url="http://app") as client:
        answer = await client.get("/stream", headers={"X-Request-ID": "s1"})
    assert answer.text == "0 s1\n1 s1\n2 s1\n"
    assert answer.headers["ratelimit-remaining"] == "99"
    incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}])

    async def receive() -> Any:
        return next(incoming)

    sent = Sent()
    scope = {
        "type": "websocket", "path": "/echo", "headers": [(b"x-request-id", b"w1")],
        "client": ("10.0.0.1", 5), "query_string": b"", "subprotocols": [],
    }  # fmt: skip
    await service(scope, receive, sent)
    assert sent[1]["text"] == "hello w1"
    assert (b"x-request-id", b"w1") in sent[0]["headers"]


async def test_requests_are_traced_by_their_routes():
    app = FastAPI()
    app.add_middleware(TracingMiddleware)

    @app.get("/users/{number}")
    async def user(number: int) -> StreamingResponse:
        if number == 1:
            raise OSError("away")

        async def body() -> AsyncIterator[bytes]:
            yield b"x"

        return StreamingResponse(body(), status_code=503 if number == 2 else 200)

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None: ...

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    transport = ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://shop") as client:
        assert (await client.get("/users/9")).status_code == 200  # nobody traces
        with seen() as record:
            for path in ("/users/9", "/users/1", "/users/2", "/nowhere"):
                await client.get(path, headers={"traceparent": parent})
    assert [each.name for each in record.spans] == ["GET /users/{number}"] * 3 + ["GET"]
    facts = [
        (found.get("http.response.status_code"), found.get("error.type"))
        for found in map(attributes, record.spans)
    ]
    assert facts == [(200, None), (None, "OSError"), (503, "503"), (404, None)]
    for each in record.spans:
        assert each.parent is not None
        assert each.parent.span_id == 0xB7AD6B7169203331


async def test_what_is_no_request_is_not_traced():
    kinds: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kinds.append(scope["type"])

    nothing: Any = None
    with seen() as record:
        for kind in ("lifespan", "websocket"):
            await TracingMiddleware(app)({"type": kind}, nothing, nothing)
    assert kinds == ["lifespan", "websocket"]
    assert not record.spans
    with pytest.raises(TypeError, match="app must be a function"):
        TracingMiddleware(cast("Any", None))
