from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from aiopatterns.cluster.health import HealthChecker
from aiopatterns.contrib.aiohttp import (
    add_request_id,
    app_key,
    cleanup_ctx,
    correlation_middleware,
    health_routes,
    rate_limit_middleware,
    tracing_middleware,
)
from aiopatterns.core.context import correlation_id
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.rate import Rate
from aiopatterns.jobs import Context, JobQueue, Worker
from aiopatterns.resilience import TokenBucket
from tests.contrib.spans import attributes, seen

pytestmark = pytest.mark.real


class Home(Owner):
    """An owner that tells what happens to it, and fails when it is told to."""

    def __init__(self, name: str, log: list[str], *, at: str = "") -> None:
        super().__init__(name)
        self.log, self.at, self.bad = log, at, anyio.Event()

    def statistics(self) -> None:
        return None

    async def _start(self, tasks: Any) -> None:
        if self.at == "start":
            raise OSError(self.name)
        if self.at == "hang":
            await anyio.sleep_forever()
        self.bad = anyio.Event()
        tasks.start_soon(self._work)
        self.log.append(f"open {self.name}")

    async def _work(self) -> None:
        await self.bad.wait()
        raise OSError(self.name)

    async def _drain(self) -> None:
        self.log.append(f"drain {self.name}")
        if self.at == "drain":
            await anyio.sleep_forever()

    def _settle(self) -> None:
        self.log.append(f"close {self.name}")


def application(*owners: Any, **options: Any) -> web.Application:
    app = web.Application(**options)
    app.cleanup_ctx.append(cleanup_ctx(*owners))
    return app


@asynccontextmanager
async def serving(app: web.Application):
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_owners_open_in_order_and_close_in_reverse_twice():
    log: list[str] = []
    owners = Home("a", log), Home("b", log)
    for _ in range(2):
        async with serving(application(*owners)):
            assert log == ["open a", "open b"]
        assert log[2:] == ["drain b", "close b", "drain a", "close a"]
        log.clear()


async def test_another_task_may_clean_up():
    log: list[str] = []
    server = TestServer(application(Home("a", log)))
    await asyncio.create_task(server.start_server())
    await asyncio.create_task(server.close())
    assert log == ["open a", "drain a", "close a"]


async def test_one_that_does_not_open_closes_those_before_it():
    log: list[str] = []
    app = application(Home("a", log), Home("b", log, at="start"))
    runner = web.AppRunner(app)
    with pytest.raises(OSError, match="b"):
        await runner.setup()
    await runner.cleanup()
    assert log == ["open a", "close b", "close a"]


async def test_a_startup_that_is_cancelled_leaves_nothing():
    log: list[str] = []
    runner = web.AppRunner(application(Home("a", log), Home("b", log, at="hang")))
    starting = asyncio.create_task(runner.setup())
    while "open a" not in log:
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await runner.cleanup()
    assert log == ["open a", "close b", "close a"]


async def test_a_cleanup_that_is_cancelled_abandons():
    log: list[str] = []
    runner = web.AppRunner(application(Home("a", log), Home("b", log, at="drain")))
    await runner.setup()
    ending = asyncio.create_task(runner.cleanup())
    while "drain b" not in log:
        await asyncio.sleep(0)
    ending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ending
    assert log == ["open a", "open b", "drain b", "close b", "close a"]


async def test_an_owner_that_fails_ends_the_task_that_serves():
    log: list[str] = []
    home = Home("a", log)
    runner = web.AppRunner(application(home))

    async def serve() -> None:
        await runner.setup()
        try:
            home.bad.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    with pytest.raises(OSError, match="a") as raised:
        await asyncio.create_task(serve())
    assert raised.type is OSError
    assert log == ["open a", "close a"]


async def test_an_owner_that_fails_after_its_starter_is_gone_is_told_at_the_end():
    home = Home("a", [])
    runner = web.AppRunner(application(home))
    await asyncio.create_task(runner.setup())
    home.bad.set()
    await asyncio.sleep(0.01)
    with pytest.raises(OSError, match="a"):
        await runner.cleanup()


async def test_an_owner_that_fails_while_it_opens_others_is_told_at_once():
    class Quick(Home):
        async def _start(self, tasks: Any) -> None:
            await super()._start(tasks)
            self.bad.set()

    runner = web.AppRunner(application(Quick("a", [])))
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await asyncio.create_task(runner.setup())
    with contextlib.suppress(OSError):
        await runner.cleanup()


def test_what_cannot_be_entered_is_refused():
    with pytest.raises(TypeError, match="owners must be async context managers"):
        cleanup_ctx(cast("Any", 5))


# ----------------------------------------------------------------------------------------- queue

jobs = JobQueue("aiohttp-app")
JOBS = app_key(jobs)


@jobs.job
async def double(value: int) -> int:
    return 2 * value


async def create(request: web.Request) -> web.Response:
    assert request.app[JOBS] is jobs
    handle = await double.enqueue(int(request.match_info["value"]))
    return web.json_response(await handle.result(timeout=5))


async def test_an_application_enqueues_and_its_worker_runs():
    for _ in range(2):  # two lifespans in one process
        app = application(jobs, Worker(jobs))
        app[JOBS] = jobs
        app.router.add_post("/double/{value}", create)
        async with serving(app) as client:
            answer = await client.post("/double/21")
            assert await answer.json() == 42


def test_keys_are_named_after_their_owner():
    assert "aiohttp-app" in repr(JOBS)
    assert "TokenBucket" in repr(app_key(TokenBucket(Rate(1))))
    assert app_key(jobs) is not JOBS


# ---------------------------------------------------------------------------------------- health


async def test_health_pages():
    well = [False]

    async def database() -> bool:
        return well[0]

    checker = HealthChecker({"db": database}, rise=1)
    app = application(checker)
    app.add_routes(health_routes(checker, prefix="/health"))
    async with serving(app) as client:
        await checker.check_now("db")
        answer = await client.get("/health/ready")
        assert (answer.status, (await answer.json())["ok"]) == (503, False)
        assert answer.headers["Cache-Control"] == "no-store"
        for page in ("live", "startup"):
            assert (await client.get(f"/health/{page}")).status == 200
        assert (await client.head("/health/live")).status == 200
        assert (await client.post("/health/live")).status == 405
    with pytest.raises(TypeError, match="checker must be a HealthChecker"):
        health_routes(cast("Any", 5))


# --------------------------------------------------------------------- correlation and rate limit


async def show(request: web.Request) -> web.Response:
    return web.Response(text=correlation_id())


async def fail(request: web.Request) -> web.Response:
    raise web.HTTPNotFound


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write((correlation_id() or "").encode())
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"{message.data} {correlation_id()}")
    return socket


def wrapped(*middlewares: Any) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.on_response_prepare.append(add_request_id)
    for path, handler in {"/": show, "/fail": fail, "/stream": stream, "/echo": echo}.items():
        app.router.add_get(path, handler)
    return app


async def test_a_request_id_goes_in_and_out():
    async with serving(wrapped(correlation_middleware)) as client:
        sent = {"X-Request-ID": "abc-1"}
        for path, text in {"/": "abc-1", "/stream": "abc-1", "/fail": "404: Not Found"}.items():
            answer = await client.get(path, headers=sent)
            assert (await answer.text(), answer.headers["X-Request-ID"]) == (text, "abc-1")
        answer = await client.get("/", headers={"X-Request-ID": "a b"})
        assert len(answer.headers["X-Request-ID"]) == 24
        assert await answer.text() == answer.headers["X-Request-ID"]
        async with client.ws_connect("/echo", headers=sent) as socket:
            assert socket._response.headers["X-Request-ID"] == "abc-1"
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello abc-1"
    assert correlation_id() is None


async def test_without_the_middleware_there_is_no_id():
    async with serving(wrapped()) as client:
        assert "X-Request-ID" not in (await client.get("/")).headers


async def test_a_client_that_has_used_up_its_limit_is_refused():
    limit = rate_limit_middleware(TokenBucket(Rate(3, per=60)))
    async with serving(wrapped(limit)) as client:
        first = await client.get("/")
        assert first.headers["RateLimit-Remaining"] == "2"
        assert (await client.get("/stream")).status == 200
        assert (await client.get("/fail")).status == 404
        refused = await client.get("/")
        assert (refused.status, refused.content_type) == (429, "application/problem+json")
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
        assert (await refused.json())["status"] == 429


async def test_a_key_decides_and_none_is_not_counted():
    limit = rate_limit_middleware(
        TokenBucket(Rate(1, per=60)), key=lambda request: request.headers.get("X-User-Id")
    )
    async with serving(wrapped(limit)) as client:
        for user, status in [("", 200), ("ann", 200), ("ann", 429), ("bob", 200), (None, 200)]:
            headers = {} if user is None else {"X-User-Id": user}
            assert (await client.get("/", headers=headers)).status == status


def test_a_limiter_and_a_key_of_another_type_are_refused():
    with pytest.raises(TypeError, match=r"limiter\.acquire must be a function"):
        rate_limit_middleware(cast("Any", 5))
    with pytest.raises(TypeError, match="key must be a function"):
        rate_limit_middleware(TokenBucket(Rate(1)), key=cast("Any", "client"))


async def test_a_client_without_an_address_counts_as_one(tmp_path):
    runner = web.AppRunner(wrapped(rate_limit_middleware(TokenBucket(Rate(1, per=60)))))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "socket")).start()
    from aiohttp import UnixConnector

    async with ClientSession(connector=UnixConnector(str(tmp_path / "socket"))) as session:
        assert [(await session.get("http://x/")).status for _ in range(2)] == [200, 429]
    await runner.cleanup()


async def test_jobs_carry_the_request_id():
    shop = JobQueue("aiohttp-ids")
    seen: list[str | None] = []

    @shop.job
    async def note(context: Context) -> None:
        seen.append(context.correlation_id)

    async def post(request: web.Request) -> web.Response:
        await (await note.enqueue()).result(timeout=5)
        return web.Response()

    app = application(shop, Worker(shop), middlewares=[correlation_middleware])
    app.router.add_post("/note", post)
    async with serving(app) as client:
        await client.post("/note", headers={"X-Request-ID": "abc-7"})
    assert seen == ["abc-7"]


async def test_a_websocket_that_closes_is_over():
    async with serving(wrapped(correlation_middleware)) as client:
        socket = await client.ws_connect("/echo")
        await socket.close()
        assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED}


def test_a_missing_aiohttp_is_one_line_with_the_command(monkeypatch):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "aiopatterns.contrib.aiohttp")
    with pytest.raises(ImportError, match=r"pip install 'aiopatterns\[aiohttp\]'") as raised:
        importlib.import_module("aiopatterns.contrib.aiohttp")
    assert "\n" not in str(raised.value)


async def test_requests_are_traced_by_their_routes():
    async def user(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number == 0:
            raise web.HTTPNotFound
        if number == 1:
            raise OSError("away")
        return web.Response(status=503 if number == 2 else 200)

    app = web.Application(middlewares=[tracing_middleware])
    app.router.add_get("/users/{number}", user)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/users/9")).status == 200  # nobody traces
        with seen() as record:
            for path in ("/users/9", "/users/0", "/users/1", "/users/2", "/nowhere"):
                await client.get(path, headers={"traceparent": parent})
    assert [each.name for each in record.spans] == ["GET /users/{number}"] * 4 + ["GET"]
    facts = [
        (found.get("http.response.status_code"), found.get("error.type"))
        for found in map(attributes, record.spans)
    ]
    assert facts == [(200, None), (404, None), (None, "OSError"), (503, "503"), (404, None)]
    for each in record.spans:
        assert each.parent is not None
        assert each.parent.span_id == 0xB7AD6B7169203331
